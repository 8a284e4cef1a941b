"""YAML with its places: each value knows the line and the key where it stands, and says so in its errors."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from smolvlm.errors import MissingExtraError, RulesError

MAX_BYTES = 1 << 20
_MAX_ITEMS = 1000


class Place:
    """One value of a YAML file."""

    def __init__(self, file: str, path: str, node: Any, line: int | None = None) -> None:
        self._file, self._path, self._node = file, path, node
        self._line = (node.start_mark.line if line is None else line) + 1
        self._fields: dict[str, Place] | None = None

    def wrong(self, problem: str, remedy: str) -> RulesError:
        """The error of this value."""
        end = "" if remedy.endswith("?") else "."
        return RulesError(f"{self._file}, line {self._line}: {self._path or 'the file'} {problem}; {remedy}{end}")

    def unknown(self, problem: str, name: str, known: Iterable[str]) -> RulesError:
        """The error of a name that is none of `known`: it says the nearest."""
        names = list(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        return self.wrong(problem, f"did you mean {near[0]}?" if near else f"there are {', '.join(names) or 'none'}")

    @property
    def is_text(self) -> bool:
        return bool(self._node.id == "scalar" and self._node.tag == "tag:yaml.org,2002:str")

    def fields(self) -> dict[str, Place]:
        """The values of a mapping by their keys."""
        if self._fields is None:
            if self._node.id != "mapping":
                raise self.wrong(f"is {self._kind()}", "write `key: value` lines")
            found: dict[str, Place] = {}
            for key, value in self._node.value:
                line = key.start_mark.line
                if key.id != "scalar":
                    raise Place(self._file, self._path, key).wrong("has a key that is no text", "write `key: value` lines")
                name = str(key.value)
                path = f"{self._path}.{name[:80]}" if self._path else name[:80]
                if name in found:
                    raise Place(self._file, path, value, line).wrong("stands there twice", "leave one of the two out")
                found[name] = Place(self._file, path, value, line)
            self._fields = found
        return self._fields

    def __contains__(self, key: str) -> bool:
        return key in self.fields()

    def items(self) -> Iterable[tuple[str, Place]]:
        return self.fields().items()

    def get(self, key: str) -> Place:
        return self.fields()[key]

    def need(self, key: str) -> Place:
        """The value of a key that has to be there."""
        if key not in self.fields():
            raise self.wrong(f"has no key {key}", f"add `{key}: ...`")
        return self.fields()[key]

    def only(self, known: Iterable[str]) -> None:
        """Raises RulesError for a key that is none of `known`."""
        names = tuple(known)
        for key, place in self.fields().items():
            if key not in names:
                raise place.unknown("is no key that is known here", key, names)

    def listed(self, least: int) -> list[Place]:
        """The items of a list of at least `least`."""
        if self._node.id != "sequence":
            raise self.wrong(f"is {self._kind()}", "write a list: [...], or lines that begin with -")
        if not least <= len(self._node.value) <= _MAX_ITEMS:
            raise self.wrong(f"has {len(self._node.value)} items", f"give {least} to {_MAX_ITEMS}")
        return [Place(self._file, f"{self._path}[{i}]", node) for i, node in enumerate(self._node.value)]

    def text(self, pattern: str = r"(?s:.{1,2000})", expected: str = "text of 1 to 2000 characters", quoted: str = "") -> str:
        """The text; a number is taken as it is written."""
        if self._node.id != "scalar" or self._node.tag.endswith(":null"):
            raise self.wrong(f"is {self._kind()}", f"expected {expected}")
        if quoted and not self.is_text:
            raise self.wrong(f"is {self._node.value!r} without quotes", quoted)
        value = str(self._node.value).strip()
        if re.fullmatch(pattern, value) is None:
            raise self.wrong(f"is {value[:80]!r}", f"expected {expected}")
        return value

    def real(self, low: float, high: float, whole: bool = False) -> float:
        """The number."""
        try:
            value = float(self._node.value) if self._node.id == "scalar" and not self.is_text else math.nan
        except ValueError:
            value = math.nan
        if not low <= value <= high or (whole and value != int(value)):
            shown = repr(self._node.value[:80]) if self._node.id == "scalar" else self._kind()
            raise self.wrong(f"is {shown}", f"expected a {'whole ' if whole else ''}number from {low:g} to {high:g}")
        return value

    def number(self, key: str, default: float, low: float, high: float, whole: bool = False) -> float:
        """The number of a key that may be left out."""
        return self.get(key).real(low, high, whole) if key in self else default

    def flag(self, key: str) -> bool:
        """true or false; false where the key is left out."""
        if key not in self:
            return False
        place = self.get(key)
        if place._node.id != "scalar" or not place._node.tag.endswith(":bool"):
            raise place.wrong(f"is {place._kind()}", "write true or false")
        return str(place._node.value).lower() in ("true", "yes", "on")

    def _kind(self) -> str:
        names = {"mapping": "a mapping", "sequence": "a list"}
        if self._node.id in names:
            return names[self._node.id]
        return "empty" if self._node.tag.endswith(":null") else f"the value {str(self._node.value)[:80]!r}"


def read_yaml(path: Path) -> Place:
    """The outermost value. Raises RulesError, MissingExtraError without PyYAML."""
    try:
        import yaml
    except ImportError:
        raise MissingExtraError("smolvlm watch", "camera") from None
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RulesError(f"{path}: the rules cannot be read ({error.strerror}); give the path of a YAML file.") from None
    if len(data) > MAX_BYTES:
        raise RulesError(f"{path}: more than {MAX_BYTES} bytes are no rules; give the path of a YAML file.")
    try:
        node = yaml.compose(data, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise RulesError(f"{path}{line}: this is no YAML ({error.problem or error.context}); mend the line.") from None
    except (yaml.YAMLError, UnicodeError, RecursionError, ValueError) as error:
        raise RulesError(f"{path}: this is no YAML ({str(error).splitlines()[0] if str(error) else type(error).__name__}).") from None
    if node is None:
        raise RulesError(f"{path}: the file is empty; it needs `camera:` and `rules:`.")
    return Place(str(path), "", node)
