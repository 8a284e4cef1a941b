"""Messages of the library name Python arguments; the command line shows the flags that its user can type.

`end=5.0 is before start=9.0` becomes `--end 5 is before --start 9`. Only names of the running command's own parameters
are replaced, and nothing inside a path or text that the user gave.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

_VALUE = r"""'[^'\n]*'|"[^"\n]*"|\.\.\.|[^\s,;:()\[\]{}'"]*[^\s,;:()\[\]{}'".?!]"""
_ARGUMENT = re.compile(rf"(?<![\w?&./=:'\"\\-])`?([A-Za-z]\w*)(?:=({_VALUE}))?`?(?![\w=])")
_COMMAND = re.compile(r"`[^`]* [^`]*`")  # a quoted command, or a list of names, stays as it is
_FLOAT = re.compile(r"-?\d+\.0")
_PLAIN = re.compile(r"[\w.+:/=,-]+")


@dataclass(frozen=True)
class Flag:
    """How a parameter is given on the command line; `off` is the flag that says no, of a switch that has one."""

    name: str
    off: str | None = None
    is_switch: bool = False
    metavar: str = "VALUE"

    def with_value(self, value: str) -> str:
        """`value` is a Python literal as a message spells it, or `...`."""
        if value == "...":
            return self.name if self.is_switch else f"{self.name} {self.metavar}"
        bare = value[1:-1] if value[:1] in "'\"" else value
        if self.is_switch and bare == "True":
            return self.name
        if self.is_switch and bare == "False":
            return self.off or f"no {self.name}"
        if bare == "None":
            return f"no {self.name}"
        if _FLOAT.fullmatch(bare):
            bare = bare[:-2]
        return f"{self.name} {bare if _PLAIN.fullmatch(bare) else repr(bare)}"


def flags_of(parameters: Iterable[Any]) -> dict[str, Flag]:
    """The options among a command's click parameters, by the name of their Python argument."""
    found: dict[str, Flag] = {}
    for parameter in parameters:
        names = [name for name in getattr(parameter, "opts", ()) if name.startswith("--")]
        if parameter.param_type_name != "option" or not names:
            continue
        off = [name for name in parameter.secondary_opts if name.startswith("--")]
        switch = bool(getattr(parameter, "is_flag", False))
        found[parameter.name] = Flag(names[0], off[0] if off else None, switch, str(parameter.metavar or "VALUE"))
        if switch and parameter.name.startswith("no_"):  # `--no-loop-guard` is loop_guard=False
            found.setdefault(parameter.name[3:], Flag(f"no {names[0]}", names[0], True))
    return found


_running: ContextVar[tuple[Mapping[str, Flag], tuple[str, ...]] | None] = ContextVar("running command", default=None)


def enter(parameters: Iterable[Any], values: Any) -> None:
    """From now on `worded` speaks about this command's flags; `values` is what was typed."""
    _running.set((flags_of(parameters), tuple(typed_texts(values))))


def worded(message: str) -> str:
    """A sentence of the library as the running command's user should read it."""
    running = _running.get()
    return message if running is None else as_flags(message, *running)


def as_flags(message: str, flags: Mapping[str, Flag], typed: Iterable[str] = ()) -> str:
    """`message` with `name=value`, and names that only an argument can have (`max_new_tokens`), written as flags.

    `typed`: what the user gave; where a message repeats it, it stays as it is.
    """
    kept = [*_spans(message, typed), *(match.span() for match in _COMMAND.finditer(message))]

    def word(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        flag = flags.get(name)
        if flag is None or any(start <= match.start() < end for start, end in kept):
            return match[0]
        if value is not None:
            return flag.with_value(value)
        return flag.name if "_" in name else match[0]

    return _ARGUMENT.sub(word, message)


def typed_texts(values: Any) -> Iterator[str]:
    """The texts among a command line's values, in lists too."""
    if isinstance(values, Mapping):
        values = values.values()
    elif not isinstance(values, list | tuple):
        values = (values,)
    for value in values:
        if isinstance(value, list | tuple):
            yield from typed_texts(value)
        elif value is not None and not isinstance(value, bool | int | float):
            yield str(value)


def _spans(message: str, typed: Iterable[str]) -> list[tuple[int, int]]:
    spans = []
    for text in typed:
        if "=" not in text and "_" not in text:
            continue
        start = message.find(text)
        while start >= 0:
            spans.append((start, start + len(text)))
            start = message.find(text, start + len(text))
    return spans
