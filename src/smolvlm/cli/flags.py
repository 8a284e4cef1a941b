"""The options that several commands share, as dataclasses, and how a command takes them.

Options of media and generation are not repeated here: flags, help and types come from their declarations, and an option left
out is left to its default there.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, ClassVar, TypeVar, get_type_hints

import typer

from smolvlm.options.declare import Option, at_door
from smolvlm.options.generation import GenerationParams
from smolvlm.options.media import MediaOptions

Result = TypeVar("Result")


def seconds(text: str) -> float:
    """Seconds (`90`, `12.5`) or a time (`1:30`, `0:01:30.5`) as seconds. Raises typer.BadParameter."""
    parts = text.strip().split(":")
    try:
        numbers = [*(int(part) for part in parts[:-1]), float(parts[-1])]
    except ValueError:
        numbers = []
    in_range = all(number >= 0 for number in numbers) and all(number < 60 for number in numbers[1:])
    if not 1 <= len(numbers) <= 3 or not in_range or not math.isfinite(numbers[-1]):
        raise typer.BadParameter(f"{text!r} is no time; write seconds (12.5) or H:MM:SS (0:01:30).")
    return float(sum(number * 60**power for power, number in enumerate(reversed(numbers))))


@dataclass(frozen=True)
class ModelFlags:
    """Which model answers, and on what."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="A checkpoint's folder, a Hub id, or 256m, 500m, 2.2b or "
            "nano. Without it: the largest official checkpoint on this machine, else nano.",
        ),
    ] = None
    adapter: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="A LoRA or DoRA adapter of that model, as `smolvlm finetune` saves it.")
    ] = None
    engine: Annotated[str, typer.Option(metavar="NAME", help="auto, native or torch.")] = "auto"
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")] = "auto"
    dtype: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="auto, bfloat16, q8, q4, or by part: vision=q8,text=q4 (native engine); float32 or float16 (torch)."
        ),
    ] = "auto"
    prompt_style: Annotated[
        str, typer.Option(metavar="NAME", help="official (as transformers prompts) or training (as the authors trained).")
    ] = "official"


@dataclass(frozen=True)
class OptionFlags:
    """The options of `KIND` that a command line takes: `given` has what was typed, by the name in the library."""

    given: Mapping[str, Any]
    KIND: ClassVar[type]

    @classmethod
    def declared(cls) -> dict[str, Option]:
        return at_door(cls.KIND, "cli")


class MediaFlags(OptionFlags):
    """What is read of pictures and videos."""

    KIND = MediaOptions

    def options(self) -> MediaOptions:
        """Raises ParamsError for a value out of its range."""
        return MediaOptions(**self.given)


class GenerationFlags(OptionFlags):
    """How the answer is written."""

    KIND = GenerationParams

    def params(self, *, as_json: bool = False) -> GenerationParams:
        """Raises ParamsError for a value out of its range, typer.BadParameter for log-probabilities that would not be shown."""
        if "logprobs" in self.given and not as_json:
            raise typer.BadParameter("--logprobs: log-probabilities come with `smolvlm ask --json` alone.")
        return GenerationParams(**self.given)


def flag_of(made: Option) -> Any:
    """The parameter of a command, as Typer reads it, that gives an option; None where it is left out."""
    name = made.flag or f"--{made.name.replace('_', '-')}"
    if made.kind is bool:
        return Annotated[bool | None, typer.Option(f"{name}/--no-{name[2:]}", help=made.help)]
    if made.metavar == "TIME":
        return Annotated[float | None, typer.Option(name, metavar="TIME", parser=seconds, help=f"{made.help} Or H:MM:SS.")]
    kind: Any = list[str] if made.kind is tuple else made.kind
    return Annotated[kind | None, typer.Option(name, metavar=made.metavar or "TEXT", help=made.help)]


@dataclass(frozen=True)
class OutputFlags:
    """How the answer is shown."""

    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--no-stream",
            help="Show the answer while it is written, or when it is complete; without either: streamed on a terminal.",
        ),
    ] = None
    json: Annotated[bool, typer.Option("--json", help="One JSON object: text, finish_reason, model, usage, timings, media.")] = False

    @property
    def streamed(self) -> bool:
        """Raises typer.BadParameter when both a stream and one JSON object are asked for."""
        if self.json and self.stream:
            raise typer.BadParameter("--stream and --json exclude each other: JSON comes when the answer is complete.")
        return not self.json and (sys.stdout.isatty() if self.stream is None else self.stream)


SystemOption = Annotated[str | None, typer.Option(metavar="TEXT", help="A system message before the conversation.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def with_flags(function: Callable[..., Result]) -> Callable[..., Result]:
    """Spread parameters whose type is a dataclass of flags into single options, which is what Typer understands."""
    hints = get_type_hints(function, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)}
    spread: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in groups:
            spread.append(parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        kind = groups[parameter.name]
        if issubclass(kind, OptionFlags):
            for name, made in kind.declared().items():
                spread.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=flag_of(made)))
            continue
        types = get_type_hints(kind, include_extras=True)
        for f in fields(kind):
            default = inspect.Parameter.empty if f.default is MISSING else f.default
            spread.append(inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[f.name]))

    @functools.wraps(function)
    def command(**values: Any) -> Result:
        made = {name: _taken(kind, values) for name, kind in groups.items()}
        return function(**values, **made)

    command.__signature__ = inspect.Signature(spread)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in spread}
    return command


def _taken(kind: Any, values: dict[str, Any]) -> Any:
    """A group of flags, out of a command's values."""
    if issubclass(kind, OptionFlags):
        typed = {name: values.pop(name) for name in kind.declared()}
        return kind({name: value for name, value in typed.items() if value is not None and value != []})
    return kind(**{f.name: values.pop(f.name) for f in fields(kind)})
