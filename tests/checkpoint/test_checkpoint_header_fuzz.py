"""Damaged headers against the safetensors library: we accept nothing that it refuses, and raise only our own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from smolvlm.checkpoint.header import read_header
from smolvlm.errors import CheckpointError

RUNS = 3000


def damaged(rng: np.random.Generator, whole: bytes) -> bytes:
    """One to four edits, most of them in the header, where they matter."""
    data = bytearray(whole)
    header_end = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, header_end if rng.random() < 0.9 else len(data)))
        at = min(at, len(data) - 1)
        match rng.integers(0, 5):
            case 0:
                data[at] = rng.integers(0, 256)
            case 1:
                data[at] = rng.choice(list(b'0123456789[]{},:"F'))
            case 2:
                del data[at : at + int(rng.integers(1, 9))]
            case 3:
                data[at:at] = rng.choice([b"0", b"-", b"1e3", b"null", b'"', b"[", b"\x00"])
            case _:
                del data[int(rng.integers(max(at, 1), len(data) + 1)) :]
        if not data:
            break
    return bytes(data)


def test_damaged_headers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b.weight": np.zeros(4, np.float16), "c": np.ones((1, 1), np.int64)}
    whole = save(arrays, metadata={"format": "pt"})
    path = tmp_path / "model.safetensors"
    accepted = refused = 0
    for _ in range(RUNS):
        path.write_bytes(damaged(rng, whole))
        try:
            ours = read_header(path)
        except CheckpointError as error:
            refused += str(path) in str(error)
            continue
        accepted += 1
        with safe_open(path, framework="numpy") as file:  # a SafetensorError here: we accept what the library refuses
            theirs = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert {name: info.shape for name, info in ours.items()} == {name: a.shape for name, a in theirs.items()}
    assert refused + accepted == RUNS, "an error that does not name the file"
    assert refused > RUNS // 2
    assert accepted > 20, "the damage is so rough that agreement on good files was not tested"


def test_the_undamaged_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({"a": np.arange(6, dtype=np.float32)}))
    assert read_header(path)["a"].shape == (6,)
