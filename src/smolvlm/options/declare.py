"""How an option is declared: once, in its dataclass field, with help, range and the doors that take it.

`check` is the one validation of such a dataclass. Flags, request fields, page controls and the tables of the docs read the
same declarations (`declared`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import typing
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeAlias, Union

from smolvlm.errors import ParamsError, SmolVLMError

# Where an option may be given: a command line, a request, the page, a training run. Python and `smolvlm batch` take all.
Door: TypeAlias = Literal["cli", "http", "page", "train"]
_KEY = "option"
_SHOWN_CHARS = 60
_WORDS: dict[type, str] = {str: "text", bool: "True or False"}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; `above` and `below` leave the bound itself out. None: no bound."""

    low: float | None = None
    high: float | None = None
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """False for what is not finite."""
        return (
            math.isfinite(value)
            and (self.low is None or value > self.low or (value == self.low and not self.above))
            and (self.high is None or value < self.high or (value == self.high and not self.below))
        )

    def words(self) -> str:
        """As it follows "a number": `of at least 1`, `above 0 and below 1`, `from 0 to 2`."""
        if self.low is not None and self.high is not None and not self.above and not self.below:
            return f"from {_number(self.low)} to {_number(self.high)}"
        parts = []
        if self.low is not None:
            parts.append(f"{'above' if self.above else 'of at least'} {_number(self.low)}")
        if self.high is not None:
            parts.append(f"{'below' if self.below else 'at most'} {_number(self.high)}")
        return " and ".join(parts)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


@dataclass(frozen=True)
class Option:
    """One declaration. `name`, `kind`, `optional` and `default` are filled in from its field by `declared`."""

    help: str
    range: Range = Range()
    choices: tuple[str, ...] = ()
    hint: str = ""  # what a value does that looks like a number and is a switch: "0 turns it off"
    doors: frozenset[Door] = frozenset()
    ranges: Mapping[Door, Range] = dataclasses.field(default_factory=dict)  # where a door's range is another
    media: frozenset[str] = frozenset()  # "image", "video": which media it changes
    flag: str = ""  # on the command line, where it is not the name
    metavar: str = ""
    # For what is neither number nor choice: the name, what came -> the value. Raises ParamsError.
    convert: Callable[[str, Any], Any] | None = None
    name: str = ""
    kind: type = str
    optional: bool = False
    default: Any = None

    def at(self, door: Door) -> Range:
        """The range at a door."""
        return self.ranges.get(door, self.range)

    def legal(self) -> str:
        """What is expected, as it stands after "expected"."""
        if self.choices:
            words = f"one of {', '.join(self.choices)}"
        elif self.kind in (int, float):
            what = "a whole number" if self.kind is int else "a number" if self.range.high is not None else "a finite number"
            words = f"{what} {self.range.words()}".rstrip()
        else:
            words = _WORDS.get(self.kind, self.kind.__name__)
        return f"{words} ({self.hint})" if self.hint else words


def option(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
    hint: str = "",
    doors: tuple[Door, ...] = (),
    ranges: Mapping[Door, Range] | None = None,
    media: tuple[str, ...] = (),
    flag: str = "",
    metavar: str = "",
    convert: Callable[[str, Any], Any] | None = None,
) -> Any:
    """A dataclass field that `check` validates; `dataclasses.MISSING` as `default`: it must be given."""
    bounds = Range(least if above is None else above, most if below is None else below, above is not None, below is not None)
    made = Option(help, bounds, choices, hint, frozenset(doors), dict(ranges or {}), frozenset(media), flag, metavar, convert)
    return dataclasses.field(default=default, metadata={_KEY: made})


def same(kind: type, name: str, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that is another dataclass's option, with its help, range and default."""
    made = declared(kind)[name]
    return dataclasses.field(default=made.default if default is dataclasses.MISSING else default, metadata={_KEY: made})


def declared(kind: type) -> Mapping[str, Option]:
    """The options of a dataclass by name, in order."""
    return _declared(kind)


@functools.cache
def _declared(kind: Hashable) -> Mapping[str, Option]:
    assert isinstance(kind, type), "a dataclass"
    hints = typing.get_type_hints(kind)
    found = {}
    for field in dataclasses.fields(kind):
        made: Option | None = field.metadata.get(_KEY)
        if made is not None:
            plain, optional = _plain(hints[field.name])
            found[field.name] = dataclasses.replace(made, name=field.name, kind=plain, optional=optional, default=field.default)
    return MappingProxyType(found)


def at_door(kind: type, door: Door) -> dict[str, Option]:
    """The options that a door takes."""
    return {name: made for name, made in declared(kind).items() if door in made.doors}


def check(given: Any, error: type[SmolVLMError] = ParamsError, *, keep: bool = False) -> None:
    """Check every declared field of a dataclass instance, for its `__post_init__`; raise `error` that names the first bad one.

    Numbers of other libraries become Python's, whole ones floats where a float is declared, unless they are to be kept.
    """
    for name, made in declared(type(given)).items():
        value = getattr(given, name)
        good = checked(made, value, error)
        if not keep:
            object.__setattr__(given, name, good)  # the way a frozen dataclass normalizes its own fields


def checked(made: Option, value: Any, error: type[SmolVLMError] = ParamsError) -> Any:
    """`value` in the type of an option. Raises `error`: the name, what came, what is expected."""
    if value is None and made.optional:
        return None
    if made.convert is not None:
        return made.convert(made.name, value)
    good = _converted(made, value)
    if good is None:
        raise error(f"{made.name}={shown(value)}: expected {made.legal()}.")
    return good


def shown(value: object) -> str:
    """A value as messages show it."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 3]}..."


def _converted(made: Option, value: Any) -> Any:
    """None for what is not legal."""
    if made.kind is bool:
        return value if isinstance(value, bool) else None
    if made.choices or made.kind is str:
        return value if isinstance(value, str) and (not made.choices or value in made.choices) else None
    if isinstance(value, bool | str | bytes):
        return None
    try:
        number = operator.index(value) if made.kind is int else float(value)
        return number if made.range.holds(number) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _plain(hint: Any) -> tuple[type, bool]:
    """The type of a field without None, and whether None was in it; a Literal of strings is a str."""
    optional = False
    if typing.get_origin(hint) in (Union, UnionType):
        inner = [each for each in typing.get_args(hint) if each is not NoneType]
        optional, hint = len(inner) < len(typing.get_args(hint)), inner[0]
    if typing.get_origin(hint) is Literal:
        return str, optional
    return typing.get_origin(hint) or hint, optional
