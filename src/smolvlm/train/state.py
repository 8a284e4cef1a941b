"""Saves of a run: `out/step-000100/`, each complete or absent. Tensors as safetensors, the rest as JSON; no pickle."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smolvlm.checkpoint.folder import FolderInMaking, sync
from smolvlm.checkpoint.header import build_header, read_header
from smolvlm.errors import CheckpointError, TrainingError

logger = logging.getLogger(__name__)

STATE_FILE = "state.json"
TENSORS_FILE = "trainer.safetensors"
_FOLDER = re.compile(r"step-(\d{6,12})", re.ASCII)
_CODES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
_DTYPES = {code: dtype for dtype, code in _CODES.items()}


@dataclass(frozen=True)
class TrainerState:
    """step: optimizer steps done. progress: share of the run, 0..1. sources: each process's place in the data."""

    step: int
    progress: float
    sources: list[dict[str, Any]]


@dataclass(frozen=True)
class SavedState:
    """A complete save on disk."""

    folder: Path
    state: TrainerState


def save_state(out: Path, state: TrainerState, tensors: Mapping[str, Tensor]) -> Path:
    """Write one save and return its folder. Raises TrainingError when the disk refuses; earlier saves stay as they are."""
    folder = out / f"step-{state.step:06d}"
    header, offsets = build_header({name: (_CODES[t.dtype], tuple(t.shape)) for name, t in tensors.items()})
    size = len(header) + sum(t.numel() * t.element_size() for t in tensors.values())
    try:
        with FolderInMaking(folder, needed_bytes=size) as making:
            with (making.path / TENSORS_FILE).open("wb", buffering=1 << 20) as file:
                file.write(header)
                for name, tensor in tensors.items():
                    assert file.tell() == offsets[name], "the header lays tensors out in order, without holes"
                    file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
                sync(file)
            making.write_text(STATE_FILE, json.dumps(asdict(state)) + "\n")
            making.finish()
    except CheckpointError as error:
        before = latest_state(out)
        kept = f"{before.folder} is the last complete save" if before else "there is no earlier save"
        raise TrainingError(f"step {state.step} could not be saved: {error} {kept}; the same command goes on from there.") from None
    return folder


def latest_state(out: Path) -> SavedState | None:
    """The complete save with the highest step, or None. One that cannot be read is passed over with a warning."""
    for folder in reversed(_folders(out)):
        try:
            raw = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
            state = TrainerState(int(raw["step"]), float(raw["progress"]), list(raw["sources"]))
            read_header(folder / TENSORS_FILE)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:  # CheckpointError is a ValueError
            logger.warning("%s is no complete save and is passed over (%s)", folder, error)
            continue
        return SavedState(folder, state)
    return None


def load_tensors(saved: SavedState) -> dict[str, Tensor]:
    """The tensors of a save, by name, on the CPU. Raises TrainingError for a file that cannot be read."""
    path = saved.folder / TENSORS_FILE
    found: dict[str, Tensor] = {}
    try:
        infos = read_header(path)
        with path.open("rb") as file:
            for name, info in infos.items():
                tensor = torch.empty(info.shape, dtype=_DTYPES[info.dtype])
                file.seek(info.offset)
                read = file.readinto(tensor.view(-1).view(torch.uint8).numpy().data)
                assert read == info.nbytes, "read_header checked the file's length"
                found[name] = tensor
    except (OSError, CheckpointError, KeyError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); remove {saved.folder} to go on from the save before it.") from None
    return found


def prune(out: Path, keep: int) -> None:
    """Remove all but the last `keep` saves."""
    for folder in _folders(out)[:-keep]:
        shutil.rmtree(folder, ignore_errors=True)


def _folders(out: Path) -> list[Path]:
    if not out.is_dir():
        return []
    found = [(int(match.group(1)), path) for path in out.iterdir() if (match := _FOLDER.fullmatch(path.name))]
    return [path for _, path in sorted(found)]
