"""Writing: `transformers` loads it whole and with equal values; it is written entirely or not at all."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import transformers

from smolvlm.checkpoint import CheckpointReader, RawTensor, write_checkpoint, write_random_checkpoint
from smolvlm.checkpoint.random import CHAT_TEMPLATE, TINY, random_tensors
from smolvlm.config import load_configs, processor_preset
from smolvlm.errors import CheckpointError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BIAS = "model.vision_model.post_layernorm.bias"


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return dict(random_tensors(TINY, seed=3))


def write(folder: Path, tensors: Any, tiny_folder: Path, **options: Any) -> Path:
    config = options.pop("config", TINY)
    tokenizer = tiny_folder / "tokenizer.json"
    return write_checkpoint(folder, tensors, config, processor_preset(config), tokenizer, CHAT_TEMPLATE, **options)


def load_reference(folder: Path) -> torch.nn.Module:
    kind = transformers.AutoModelForImageTextToText
    model, info = kind.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not any(info.values()), info
    return model


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_shard_bytes", [5_000_000_000, 3_000_000])
def test_transformers_reads_it(tmp_path: Path, tensors: dict[str, np.ndarray], tiny_folder: Path, dtype: str, max_shard_bytes: int) -> None:
    folder = write(tmp_path / "out", tensors, tiny_folder, dtype=dtype, max_shard_bytes=max_shard_bytes)
    assert (folder / "model.safetensors").exists() == (max_shard_bytes > 1e9)
    state = load_reference(folder).state_dict()
    assert state.keys() == tensors.keys()
    reader = CheckpointReader(folder)
    reader.verify(load_configs(folder)[0])
    for name, values in tensors.items():
        assert state[name].dtype == DTYPES[dtype]
        expected = torch.from_numpy(values).to(DTYPES[dtype])
        assert torch.equal(state[name], expected), name
        np.testing.assert_array_equal(reader.float32(name), expected.float().numpy())


@pytest.mark.parametrize("max_shard", [None, "3MB"])
def test_the_bytes_are_those_that_transformers_writes(tmp_path: Path, tiny_folder: Path, max_shard: str | None) -> None:
    """Twelve layers, because layer 10 must come after layer 2 when shards are filled."""
    config = replace(TINY, text=replace(TINY.text, num_hidden_layers=12))
    sizes = {} if max_shard is None else {"max_shard_bytes": 3_000_000}
    ours = write(tmp_path / "ours", random_tensors(config), tiny_folder, config=config, **sizes)
    theirs = tmp_path / "theirs"
    load_reference(ours).save_pretrained(theirs, **({} if max_shard is None else {"max_shard_size": max_shard}))
    names = sorted(path.name for path in theirs.glob("*.safetensors*"))
    assert names == sorted(path.name for path in ours.glob("*.safetensors*"))
    for name in names:
        if name.endswith(".json"):
            assert json.loads((ours / name).read_text()) == json.loads((theirs / name).read_text())
        else:
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def test_configurations_and_processor(tmp_path: Path, tensors: dict[str, np.ndarray], tiny_folder: Path) -> None:
    folder = write(tmp_path / "out", tensors, tiny_folder)
    assert load_configs(folder) == (TINY, processor_preset(TINY))
    processor = transformers.AutoProcessor.from_pretrained(folder)
    assert type(processor).__name__ == "SmolVLMProcessor"
    assert processor.image_seq_len == TINY.image_seq_len
    tokenizer = processor.tokenizer
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 49279, 2)
    assert processor.image_token_id == 49190
    question = [{"role": "user", "content": [{"type": "text", "text": "What is 12?"}]}]
    ids = processor.apply_chat_template(question, add_generation_prompt=True, tokenize=True)[0]
    assert ids[0] == 1
    assert 49279 in ids
    assert processor.decode(ids) == "<|im_start|>User: What is 12?<end_of_utterance>\nAssistant:"
    alone = transformers.AutoTokenizer.from_pretrained(folder)  # for those who load the tokenizer without a processor
    assert alone.apply_chat_template([{"role": "user", "content": [{"type": "text", "text": "a"}]}], tokenize=False)


def test_raw_tensors(tmp_path: Path, tensors: dict[str, np.ndarray], tiny_folder: Path) -> None:
    def raw(values: np.ndarray) -> RawTensor:
        bf16 = torch.from_numpy(values).bfloat16().contiguous()
        return RawTensor("BF16", tuple(values.shape), bf16.view(torch.uint8).numpy().tobytes())

    expected = {name: torch.from_numpy(values).bfloat16() for name, values in tensors.items()}
    for dtype in ("bfloat16", "float32"):  # bf16 -> float32 is exact
        given = {name: raw(values) for name, values in tensors.items()}
        folder = write(tmp_path / dtype, given, tiny_folder, dtype=dtype)
        reader = CheckpointReader(folder)
        for name, tensor in expected.items():
            np.testing.assert_array_equal(reader.float32(name), tensor.float().numpy())


def test_any_order_and_layout_of_arrays(tmp_path: Path, tensors: dict[str, np.ndarray], tiny_folder: Path) -> None:
    """Pairs come reversed, from a generator; arrays are column-major, strided, float64 or big-endian."""

    def pairs() -> Iterator[tuple[str, np.ndarray]]:
        for i, (name, values) in enumerate(reversed(tensors.items())):
            yield (
                name,
                [np.asfortranarray(values), values.astype(np.float64), values.astype(">f4"), np.repeat(values, 2, axis=0)[::2]][i % 4],
            )

    folder = write(tmp_path / "out", pairs(), tiny_folder, max_shard_bytes=10_000_000)
    reader = CheckpointReader(folder)
    for name, values in tensors.items():
        np.testing.assert_array_equal(reader.float32(name), values)


def test_tied_embeddings(tmp_path: Path, tensors: dict[str, np.ndarray], tiny_folder: Path) -> None:
    folder = write(tmp_path / "out", tensors, tiny_folder, config=replace(TINY, tie_word_embeddings=True))
    assert "lm_head.weight" not in CheckpointReader(folder).infos
    state = load_reference(folder).state_dict()
    assert torch.equal(state["lm_head.weight"], torch.from_numpy(tensors["model.text_model.embed_tokens.weight"]))


def bad_tensors(tensors: dict[str, np.ndarray]) -> dict[str, tuple[Any, str]]:
    other = {k: v for k, v in tensors.items() if k != BIAS}
    return {
        "missing": (other, f"1 tensors of this configuration were not given: {BIAS}"),
        "unexpected": (tensors | {"extra.weight": np.zeros(1, np.float32)}, "'extra.weight' is not a tensor"),
        "misshapen": (other | {BIAS: np.zeros(65, np.float32)}, rf"{BIAS} has shape \(65,\)"),
        "integer": (other | {BIAS: np.zeros(64, np.int32)}, f"{BIAS}: NumPy int32 is not float"),
        "twice": ([*tensors.items(), (BIAS, tensors[BIAS])], f"{BIAS} came twice"),
        "raw short": (other | {BIAS: RawTensor("BF16", (64,), b"\0" * 127)}, f"{BIAS}: 127 bytes"),
        "raw integer": (other | {BIAS: RawTensor("I8", (64,), b"\0" * 64)}, f"{BIAS}: I8"),
        "out of range": (other | {BIAS: np.full(64, 1e6, np.float32)}, f"{BIAS}: 64 values .* range of F16"),
    }


@pytest.mark.parametrize("case", ["missing", "unexpected", "misshapen", "integer", "twice", "raw short", "raw integer", "out of range"])
def test_bad_tensors_leave_nothing(tmp_path: Path, tensors: dict[str, np.ndarray], tiny_folder: Path, case: str) -> None:
    given, message = bad_tensors(tensors)[case]
    with pytest.raises(CheckpointError, match=message):
        write(tmp_path / "out", given, tiny_folder, dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments(tmp_path: Path, tensors: dict[str, np.ndarray], tiny_folder: Path) -> None:
    out = tmp_path / "out"
    for options, message in [
        ({"dtype": "int8"}, "dtype='int8'"),
        ({"max_shard_bytes": 0}, "max_shard_bytes=0"),
        ({"extra_files": {"../x.txt": ""}}, "plain name"),
        ({"extra_files": {"model.safetensors": ""}}, "plain name"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            write(out, tensors, tiny_folder, **options)
    for tokenizer, message in [("{}", "tokenizer cannot be read"), (tmp_path / "no.json", "no.json: cannot be read")]:
        with pytest.raises(CheckpointError, match=message):
            write_checkpoint(out, tensors, TINY, processor_preset(TINY), tokenizer, None)
    with pytest.raises(CheckpointError, match="at image_token_id=5; expected '<image>'"):
        write(out, tensors, tiny_folder, config=replace(TINY, image_token_id=5))
    assert list(tmp_path.iterdir()) == []


def test_existing_targets(tmp_path: Path, tensors: dict[str, np.ndarray], tiny_folder: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write(out, tensors, tiny_folder)  # an empty folder is filled
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="not empty"):
        write(out, random_tensors(TINY, 4), tiny_folder)
    with pytest.raises(CheckpointError, match="came twice"):  # fails half way: the old one stays
        write(out, [*tensors.items(), (BIAS, tensors[BIAS])], tiny_folder, overwrite=True)
    assert (out / "model.safetensors").read_bytes() == before
    (out / "leftover.txt").write_text("old")
    write(out, random_tensors(TINY, 4), tiny_folder, overwrite=True)
    assert (out / "model.safetensors").read_bytes() != before
    assert not (out / "leftover.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "novel.txt").write_text("irreplaceable")
    with pytest.raises(CheckpointError, match="other than a checkpoint"):
        write(documents, tensors, tiny_folder, overwrite=True)
    with pytest.raises(CheckpointError, match="is a file"):
        write(documents / "novel.txt", tensors, tiny_folder, overwrite=True)
    with pytest.raises(CheckpointError, match="cannot be written"):
        write(documents / "novel.txt" / "below", tensors, tiny_folder)
    assert (documents / "novel.txt").read_text() == "irreplaceable"


def test_a_checkpoint_rewritten_from_itself(tiny_copy: Path, tiny_folder: Path) -> None:
    """The tensors are views of the map of the folder that is being replaced."""
    reader = CheckpointReader(tiny_copy)
    write(tiny_copy, {name: reader.float32(name) for name in reader.infos}, tiny_folder, overwrite=True)
    assert (tiny_copy / "model.safetensors").read_bytes() == (tiny_folder / "model.safetensors").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
@pytest.mark.slow
def test_a_disk_that_refuses_half_way(tmp_path: Path) -> None:
    """A real failing write: the process may not make files above 20 MB, and the weights are 52 MB."""
    out = write_random_checkpoint(tmp_path / "out", seed=1)
    before = (out / "model.safetensors").read_bytes()
    script = textwrap.dedent("""
        import resource, signal, sys
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))
        from smolvlm.checkpoint import write_random_checkpoint
        from smolvlm.errors import CheckpointError
        try:
            write_random_checkpoint(sys.argv[1], seed=2, overwrite=True)
        except CheckpointError as error:
            print(error)
    """)
    result = subprocess.run(
        [sys.executable, "-c", script, str(out)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert os.strerror(errno.EFBIG) in result.stdout
    assert "nothing was changed" in result.stdout
    assert (out / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_too_little_room_is_said_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10_000_000})
    monkeypatch.setattr("smolvlm.checkpoint.folder.shutil.disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match=r"needs 0\.05 GB, but the disk has 0\.01 GB"):
        write_random_checkpoint(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_random_checkpoint(locked / "out")
