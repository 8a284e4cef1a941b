"""The published mixture files: YAML that names LLaVA-style JSON or JSONL datasets, and how much to take of each.

    datasets:
      - name: cats
        path: pictures            # where the records' media lie; without it, beside the JSON
        json_path: cats.jsonl     # relative to the mixture file
        modality: image           # text | image | multi-image | video
        sampling_strategy: first:50%   # all | first:N% | random:N%, or a count without the sign

Source: the authors' launch files (`sft` of the SmolVLM2 repository). Records are read when they are needed.
"""

from __future__ import annotations

import json
import logging
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smolvlm.errors import MissingExtraError, MixtureError
from smolvlm.train.record import Record, check_record

logger = logging.getLogger(__name__)

MODALITIES = ("text", "image", "multi-image", "video")
MAX_MIXTURE_BYTES = 1 << 20
_KEYS = ("name", "path", "json_path", "modality", "sampling_strategy")
_SAMPLING = re.compile(r"(?:all|(?P<how>first|random):(?P<amount>\d{1,12}(?:\.\d{1,6})?)(?P<percent>%?))", re.ASCII)


@dataclass(frozen=True)
class DatasetEntry:
    """One entry of a mixture file, with its paths resolved."""

    name: str
    json_path: Path
    media_root: Path
    modality: str
    sampling_strategy: str = "all"


class Records:
    """The chosen records of one dataset, in file order. A JSONL stays on disk; only the places of its lines are kept."""

    def __init__(self, entry: DatasetEntry, where: str, seed: int) -> None:
        self.entry = entry
        self._offsets: npt.NDArray[np.int64] | None = None
        self._items: list[Any] = []
        try:
            with entry.json_path.open("rb") as file:
                head = file.read(64).lstrip()
                file.seek(0)
                if head[:1] == b"[":
                    self._items = json.load(file)
                else:
                    self._offsets = _line_starts(file)
        except FileNotFoundError:
            raise MixtureError(f"{where}: no file {entry.json_path}; correct its json_path.") from None
        except (OSError, ValueError, RecursionError) as error:
            raise MixtureError(f"{where}: {entry.json_path} cannot be read as JSON ({error}).") from None
        total = len(self._items) if self._offsets is None else len(self._offsets)
        self.chosen = choose(total, entry.sampling_strategy, seed=(seed, zlib.crc32(entry.name.encode())))
        if not len(self.chosen):
            raise MixtureError(f"{where}: {entry.sampling_strategy!r} takes none of the {total} records of {entry.json_path}.")

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Record:
        number = int(self.chosen[index])
        where = f"{self.entry.name}, record {number + 1} of {self.entry.json_path.name}"
        raw = self._items[number] if self._offsets is None else self._line(int(self._offsets[number]), where)
        if not isinstance(raw, Mapping):
            raise MixtureError(f"{where} is a {type(raw).__name__}; expected an object with `conversations`.")
        return Record(raw, where, self.entry.media_root, self.entry.modality)

    def _line(self, offset: int, where: str) -> Any:
        try:
            with self.entry.json_path.open("rb") as file:
                file.seek(offset)
                return json.loads(file.readline())
        except (OSError, ValueError, RecursionError) as error:
            raise MixtureError(f"{where} cannot be read as JSON ({error}).") from None


class Mixture:
    """All chosen records of all datasets, by number, and a shuffled order for each epoch.

    `check` reads every record once and raises for the first malformed one: hours before it would have been met.
    """

    def __init__(self, datasets: Sequence[Records | Sequence[Record]], *, seed: int = 0, check: bool = True) -> None:
        self.datasets, self.seed = datasets, seed
        self._ends = np.cumsum([len(records) for records in datasets])
        if not len(self):
            raise MixtureError("the mixture has no records; name at least one dataset.")
        if check:
            for number in range(len(self)):
                check_record(self.record(number))

    @classmethod
    def from_file(cls, path: Path, *, seed: int = 0, check: bool = True) -> Mixture:
        """Read a mixture file. Raises MixtureError naming mixture and dataset for a missing or malformed file."""
        return cls([Records(entry, f"{path}, dataset {entry.name}", seed) for entry in read_mixture(path)], seed=seed, check=check)

    @classmethod
    def from_records(cls, records: Sequence[Record], *, seed: int = 0) -> Mixture:
        """A mixture of records in memory."""
        return cls([records], seed=seed)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def record(self, number: int) -> Record:
        """Record `number` of all, datasets one after the other."""
        at = int(np.searchsorted(self._ends, number, side="right"))
        return self.datasets[at][number - (int(self._ends[at - 1]) if at else 0)]

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The numbers of all records in the order of one epoch; the same for the same seed on every machine."""
        return np.random.default_rng((self.seed, epoch)).permutation(len(self)).astype(np.int64)


def read_mixture(path: Path) -> list[DatasetEntry]:
    """The entries of a mixture file. Raises MixtureError, naming file and dataset, for what does not fit the schema."""
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("reading a mixture file", "train") from error
    try:
        if path.stat().st_size > MAX_MIXTURE_BYTES:
            raise MixtureError(f"{path}: over {MAX_MIXTURE_BYTES >> 20} MiB; a mixture file names datasets and holds none.")
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MixtureError(f"{path}: no such mixture file.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise MixtureError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())}).") from None
    entries = raw.get("datasets") if isinstance(raw, dict) else None
    if not isinstance(entries, list) or not entries:
        raise MixtureError(f"{path}: expected a list under `datasets`, each with name, json_path and modality.")
    return [_entry(path, number, entry) for number, entry in enumerate(entries, start=1)]


def choose(total: int, strategy: str, seed: tuple[int, int]) -> npt.NDArray[np.int64]:
    """The numbers of the records that a sampling strategy takes of `total`, ascending. MixtureError for another word."""
    match = _SAMPLING.fullmatch(strategy)
    if match is None:
        raise MixtureError(f"sampling_strategy {strategy!r}: expected all, first:N%, random:N%, first:N or random:N.")
    if match["how"] is None:
        return np.arange(total)
    amount = float(match["amount"])
    if match["percent"] and amount > 100:
        raise MixtureError(f"sampling_strategy {strategy!r}: expected at most 100%.")
    # ceil as in the authors' code: one per cent of fifty records is one
    count = min(total, int(np.ceil(total * amount / 100)) if match["percent"] else int(amount))
    if match["how"] == "first":
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(total)[:count])


def _entry(path: Path, number: int, raw: Any) -> DatasetEntry:
    where = f"{path}, dataset {number}"
    if not isinstance(raw, dict):
        raise MixtureError(f"{where}: expected name, json_path and modality, not a {type(raw).__name__}.")
    if unknown := sorted(str(key) for key in raw if key not in _KEYS):
        raise MixtureError(f"{where}: unknown keys {', '.join(unknown)}; expected {', '.join(_KEYS)}.")
    for key in raw:
        if not isinstance(raw[key], str) or "\0" in raw[key]:
            raise MixtureError(f"{where}: {key} is {raw[key]!r}; expected text.")
    for key in ("json_path", "modality"):
        if key not in raw:
            raise MixtureError(f"{where}: {key} is missing.")
    if raw["modality"] not in MODALITIES:
        raise MixtureError(f"{where}: modality {raw['modality']!r}: expected one of {', '.join(MODALITIES)}.")
    json_path = path.parent / raw["json_path"]
    strategy = raw.get("sampling_strategy", "all").replace(" ", "")
    try:
        choose(1, strategy, (0, 0))
    except MixtureError as error:
        raise MixtureError(f"{where}: {error}") from None
    root = path.parent / raw["path"] if "path" in raw else json_path.parent
    return DatasetEntry(raw.get("name", json_path.stem), json_path, root, raw["modality"], strategy)


def _line_starts(file: Any) -> npt.NDArray[np.int64]:
    starts, at = [], 0
    for line in file:
        if line.strip():
            starts.append(at)
        at += len(line)
    return np.array(starts, np.int64)
