"""Reading: equal to the safetensors library, and every bad folder ends in one sentence that names the file."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from smolvlm.checkpoint import CheckpointReader
from smolvlm.checkpoint.random import TINY
from smolvlm.errors import CheckpointError

INDEX = "model.safetensors.index.json"
GATE = "model.text_model.layers.1.mlp.gate_proj.weight"


def refused(folder: Path, *words: str) -> str:
    """Opening (and verifying) must fail with one sentence that has all these words."""
    with pytest.raises(CheckpointError) as caught:
        CheckpointReader(folder).verify(TINY)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    for word in words:
        assert word in message, f"{word!r} not in {message!r}"
    return message


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_values_equal_the_library(tmp_path: Path, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {f"t{i}": torch.randn(7, i, generator=generator).to(dtype) for i in range(4)}  # t0 is empty
    tensors["scalar"] = torch.tensor(1.5, dtype=dtype)
    save_file(tensors, tmp_path / "model.safetensors")
    with CheckpointReader(tmp_path) as reader:
        assert reader.infos.keys() == tensors.keys()
        for name, tensor in tensors.items():
            info = reader.infos[name]
            assert (info.shape, info.size, info.nbytes) == (tuple(tensor.shape), tensor.numel(), tensor.nbytes)
            np.testing.assert_array_equal(reader.raw(name), tensor.reshape(-1).view(torch.uint8).numpy())
            assert not reader.raw(name).flags.writeable or info.nbytes == 0
            values = reader.float32(name)
            assert values.dtype == np.float32
            np.testing.assert_array_equal(values, tensor.float().numpy())


def test_shards_read_as_one_file(tiny_folder: Path, tiny_sharded: Path) -> None:
    whole, shards = CheckpointReader(tiny_folder), CheckpointReader(tiny_sharded)
    assert len({info.file for info in shards.infos.values()}) >= 3
    assert whole.infos.keys() == shards.infos.keys()
    for name in whole.infos:
        np.testing.assert_array_equal(whole.raw(name), shards.raw(name))
    shards.verify(TINY)


def test_shards_behind_links_are_read(tiny_sharded: Path, tmp_path: Path) -> None:
    """The Hub cache keeps files elsewhere and links to them."""
    folder = tmp_path / "snapshot"
    folder.mkdir()
    for file in tiny_sharded.iterdir():
        (folder / file.name).symlink_to(file)
    CheckpointReader(folder).verify(TINY)


def test_no_weights(tmp_path: Path, tiny_folder: Path) -> None:
    refused(tmp_path / "absent", "absent", "no such folder")
    refused(tiny_folder / "config.json", "config.json", "is a file", "pass the folder")
    refused(tmp_path, str(tmp_path), "no weights", "model.safetensors")
    refused(Path("with\0null"), "with")
    (tmp_path / "model.safetensors").mkdir()
    refused(tmp_path, "no weights")


def test_pickle_is_never_read(tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    for name in ("pytorch_model.bin", "weights.pt", "old.PTH"):  # a pickle that would leave a mark
        (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR.")
    message = refused(tmp_path, "3 pickle weights only", "pytorch_model.bin", "never read", "model.safetensors")
    assert not canary.exists(), message


def test_truncated_at_every_kind_of_place(tiny_copy: Path) -> None:
    path = tiny_copy / "model.safetensors"
    whole = path.read_bytes()
    header_bytes = int.from_bytes(whole[:8], "little")
    for size, words in [
        (0, ["not a safetensors file"]),
        (7, ["not a safetensors file"]),
        (8, ["truncated inside its header"]),
        (8 + header_bytes // 2, ["truncated inside its header"]),
        (8 + header_bytes, ["truncated", f"{len(whole):,}"]),
        (len(whole) - 1, ["truncated", f"{len(whole) - 1:,}", "download"]),
    ]:
        path.write_bytes(whole[:size])
        refused(tiny_copy, str(path), *words)
    path.write_bytes(whole + b"x")
    refused(tiny_copy, str(path), "1 bytes follow")


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BAD_HEADERS = {
    "not json": (b"{nonsense!", "not JSON"),
    "not utf-8": (b'{"\xff": 1}', "not JSON"),
    "no object": ([1, 2], "not a JSON object"),
    "too deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON"),
    "endless number": (b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}', "not JSON"),
    "twice": (b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{}}', "stands twice"),
    "missing key": ({"a": {"dtype": "F32", "shape": [2]}}, "a is malformed"),
    "entry is text": ({"a": "F32"}, "a is malformed"),
    "unknown dtype": ({"a": F32 | {"dtype": "Q3"}}, "dtype Q3"),
    "dtype is a list": ({"a": F32 | {"dtype": ["F32"]}}, "dtype"),
    "negative shape": ({"a": F32 | {"shape": [-2]}}, "malformed shape"),
    "boolean shape": ({"a": F32 | {"shape": [True, 2]}}, "malformed shape"),
    "fraction": ({"a": F32 | {"shape": [2.0]}}, "malformed shape"),
    "shape beyond 64 bits": ({"a": F32 | {"shape": [2**64]}}, "malformed shape"),
    "product beyond 64 bits": ({"a": F32 | {"shape": [2**40, 2**40]}}, "needs"),
    "offsets backwards": ({"a": F32 | {"data_offsets": [8, 0]}}, "needs 8 bytes"),
    "wrong size": ({"a": F32 | {"shape": [3]}}, "needs 12 bytes"),
    "hole": ({"a": F32, "b": F32 | {"data_offsets": [12, 20]}}, "hole"),
    "overlap": ({"a": F32, "b": F32 | {"data_offsets": [4, 12]}}, "overlaps"),
    "beyond the end": ({"a": F32 | {"shape": [2**30], "data_offsets": [0, 2**32]}}, "truncated"),
    "line breaks in a name": ({"a\nb" * 1000: {}}, "malformed"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_corrupt_headers(tmp_path: Path, make_safetensors: Callable[..., Path], case: str) -> None:
    header, word = BAD_HEADERS[case]
    path = make_safetensors(tmp_path / "model.safetensors", header, b"\0" * 8)
    refused(tmp_path, str(path), word)


def test_header_length_beyond_reason(tmp_path: Path, make_safetensors: Callable[..., Path]) -> None:
    for length in (2**63, 2**64 - 1, 100_000_000):
        make_safetensors(tmp_path / "model.safetensors", {"a": F32}, b"\0" * 8, length=length)
        refused(tmp_path, "not a safetensors file")


def test_a_git_lfs_pointer_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.example/spec/v1\noid sha256:00\nsize 9\n")
    refused(tmp_path, "not a safetensors file", "download")


@pytest.mark.parametrize(
    "shard",
    [
        "../elsewhere.safetensors",
        "/etc/passwd",
        "sub/x.safetensors",
        "..",
        "",
        7,
        None,
        "C:\\x.safetensors",
        ".hidden.safetensors",
        "pytorch_model.bin",
    ],
)
def test_an_index_that_points_elsewhere(tiny_folder: Path, tmp_path: Path, shard: object) -> None:
    """The file exists, so only the rule can refuse it."""
    shutil.copy(tiny_folder / "model.safetensors", tmp_path / "elsewhere.safetensors")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / INDEX).write_text(json.dumps({"weight_map": {GATE: shard}}))
    refused(folder, INDEX, "not the plain name")


def test_bad_indexes(tiny_sharded: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_sharded, tmp_path / "copy"))
    index = json.loads((folder / INDEX).read_text())
    for text, word in [("{", "JSON"), ("[]", "JSON"), ("{}", "weight_map"), ('{"weight_map": {}}', "weight_map")]:
        (folder / INDEX).write_text(text)
        refused(folder, INDEX, word)
    first, last = index["weight_map"][GATE], index["weight_map"]["lm_head.weight"]
    (folder / INDEX).write_text(json.dumps({"weight_map": index["weight_map"] | {GATE: last}}))
    refused(folder, last, f"lacks {GATE}")
    (folder / INDEX).write_text(json.dumps(index))
    (folder / first).unlink()
    refused(folder, first, "no such file", "download")


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_verify_names_what_disagrees(tiny_copy: Path) -> None:
    def damage(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.text_model.norm.weight"]
        for i in range(5):
            tensors[f"adapter.{i}"] = torch.zeros(1)
        tensors[GATE] = torch.zeros(128, 256)

    refused(
        rewrite(tiny_copy, damage),
        str(tiny_copy),
        "1 missing: model.text_model.norm.weight",
        "5 unexpected: adapter.0",
        "and 2 more",
        f"1 misshapen: {GATE} (128, 256) instead of (256, 128)",
    )


def test_verify_allows_leftovers_and_a_tied_head(tiny_copy: Path) -> None:
    def leave(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.vision_model.embeddings.position_ids"] = torch.arange(16)[None]

    reader = CheckpointReader(rewrite(tiny_copy, leave))
    reader.verify(TINY)
    tied = replace(TINY, tie_word_embeddings=True)
    reader.verify(tied)
    rewrite(tiny_copy, lambda tensors: tensors.__delitem__("lm_head.weight"))
    CheckpointReader(tiny_copy).verify(tied)
    refused(tiny_copy, "1 missing: lm_head.weight")


def test_integer_weights_are_refused(tiny_copy: Path) -> None:
    def quantize(tensors: dict[str, torch.Tensor]) -> None:
        tensors[GATE] = tensors[GATE].to(torch.int8)

    reader = CheckpointReader(rewrite(tiny_copy, quantize))
    refused(tiny_copy, "not float", f"{GATE} (I8)", "float32")
    with pytest.raises(CheckpointError, match=re.escape(f"{GATE} (I8)")):
        reader.float32(GATE)
    with pytest.raises(CheckpointError, match="no tensor named 'absent'"):
        reader.float32("absent")


def test_find_nonfinite(tiny_copy: Path) -> None:
    assert CheckpointReader(tiny_copy).find_nonfinite() == {}

    def poison(tensors: dict[str, torch.Tensor]) -> None:
        tensors[GATE][3, 5] = torch.nan
        tensors[GATE][0, 0] = -torch.inf
        tensors["lm_head.weight"] = tensors["lm_head.weight"].bfloat16()
        tensors["lm_head.weight"][49279, 127] = torch.inf

    assert CheckpointReader(rewrite(tiny_copy, poison)).find_nonfinite() == {GATE: 2, "lm_head.weight": 1}


def test_opening_reads_no_weights(tmp_path: Path, make_safetensors: Callable[..., Path]) -> None:
    """A file of 64 GiB, mostly a hole on the disk, opens at once and a tensor at its end is read."""
    size = 1 << 36
    header = {
        "big": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]},
        "small": {"dtype": "F32", "shape": [2], "data_offsets": [size, size + 8]},
    }
    path = make_safetensors(tmp_path / "model.safetensors", header)
    start = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(start + size)
        file.write(np.array([1.5, -2.0], dtype="<f4").tobytes())
    np.testing.assert_array_equal(CheckpointReader(tmp_path).float32("small"), [1.5, -2.0])
