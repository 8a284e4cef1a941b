"""JSON files that came with a checkpoint: read within bounds, and each value taken out by its type and range.

Whoever wrote such a file is a stranger. `read_json` opens regular files only and refuses what two readers could read
differently: NaN, infinities, numbers beyond float64, a key that stands twice. `Fields` hands out one value at a time.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smolvlm.errors import ConfigError

MAX_JSON_BYTES = 16 << 20  # the largest that is published, the index of the 2.2B model's shards, has 60 kB


class Fields:
    """One JSON object. Every method takes one key and returns its checked value, or `default` where the key is absent or
    null. A value of the wrong kind or out of its range is a ConfigError that names `where`, the key, and what was expected.
    """

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self.raw, self.where = raw, where

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> Any:
        """A whole number from `low` to `high`; true and 3.0 are none."""
        value = self.raw.get(key)
        if value is None:
            return default
        expected = f"a whole number from {low:,} to {high:,}"
        if type(value) is not int:
            raise self.wrong(key, value, expected, kind=True)
        if not low <= value <= high:
            raise self.wrong(key, value, expected)
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None) -> Any:
        """A finite number from `low` to `high`, as a float."""
        value = self.raw.get(key)
        return default if value is None else self._number(key, value, low, high)

    def numbers(self, key: str, count: int, low: float, high: float) -> tuple[float, ...] | None:
        """A list of exactly `count` numbers from `low` to `high`."""
        value = self.raw.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != count:
            raise self.wrong(key, value, f"a list of {count} numbers", kind=not isinstance(value, list))
        return tuple(self._number(key, item, low, high) for item in value)

    def flag(self, key: str, default: bool | None = None) -> Any:
        """true or false."""
        value = self.raw.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(key, value, "true or false", kind=True)
        return default if value is None else value

    def text(self, key: str, default: str | None = None, max_chars: int = 1000) -> Any:
        """A string of at most `max_chars` characters."""
        value = self.raw.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or len(value) > max_chars:
            raise self.wrong(key, value, f"a string of at most {max_chars:,} characters", kind=not isinstance(value, str))
        return value

    def inner(self, key: str) -> Fields:
        """The object under `key`; an empty one where it is absent or null."""
        value = self.raw.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(key, value, "a JSON object", kind=True)
        return Fields(value or {}, f"{self.where}{key}.")

    def ids(self, key: str, vocab_size: int) -> tuple[int, ...] | None:
        """A token id, or a list of them: each one inside the vocabulary, a repeated one kept once."""
        value = self.raw.get(key)
        if value is None:
            return None
        items = value if isinstance(value, list) else [value]
        expected = f"a token id from 0 to {vocab_size - 1:,}, or a list of up to 256"
        if not 1 <= len(items) <= 256 or any(type(item) is not int for item in items):
            raise self.wrong(key, value, expected, kind=True)
        for item in items:
            if not 0 <= item < vocab_size:
                raise ConfigError(
                    f"{self.where}{key}={short(item)} is outside the vocabulary of {vocab_size}; expected the id of a token that exists."
                )
        return tuple(dict.fromkeys(items))

    def wrong(self, key: str, value: object, expected: str, *, kind: bool = False) -> ConfigError:
        """The error for a value: of the wrong kind, or out of its range."""
        shown = f"'{short(value)}'" if isinstance(value, str) else short(value)
        fault = " (a value of the wrong kind)" if kind else ""
        return ConfigError(f"{self.where}{key}={shown}; expected {expected}{fault}.")

    def _number(self, key: str, value: object, low: float, high: float) -> float:
        expected = f"a number from {low:g} to {high:g}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, value, expected, kind=True)
        if not low <= value <= high:  # NaN fails it too; a whole number of any length is compared exactly
            raise self.wrong(key, value, expected)
        return float(value)


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """One JSON object from a checkpoint's file, or a ConfigError that names the file."""
    try:
        raw = parse_json(read_text(path, max_bytes))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; a checkpoint folder holds it beside its weights.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({short(str(error))}).") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a JSON object.")
    return raw


def read_text(path: Path, max_bytes: int) -> str:
    """A regular file's UTF-8 text. Raises OSError, or ValueError for one that is too large, or no text, or no file.

    A pipe would keep the reader waiting for ever, and a device may have no end.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it is over {max_bytes >> 20} MiB")
    return content.decode("utf-8")


def parse_json(text: str) -> Any:
    """`json.loads` without what is no JSON, and without keys that stand twice. Raises ValueError or RecursionError."""
    return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_no_duplicates)


def short(value: object) -> str:
    """A hostile name or number may be megabytes long: a message shows its beginning, on one line."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 400:
        return f"a number of {value.bit_length():,} bits"  # Python refuses to write out thousands of digits
    text = value if isinstance(value, str) else f"{value:,}" if type(value) is int else repr(value)
    text = text[:400].encode("unicode_escape").decode()
    return text if len(text) <= 120 else text[:117] + "..."


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is beyond any float")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a key stands twice")  # two readers could take different ones
    return entries
