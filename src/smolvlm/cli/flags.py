"""The options that several commands share, as dataclasses, and how a command takes them.

Defaults of generation and media options are not repeated here: an option left out is left to `GenerationParams` and
`MediaOptions`, and `help.py` reads the numbers from there.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

if TYPE_CHECKING:
    from smolvlm.generation import GenerationParams
    from smolvlm.media import MediaOptions

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
class MediaFlags:
    """What is read of pictures and videos: `MediaOptions`."""

    fps: Annotated[float | None, typer.Option(metavar="X", help="Frames sampled a second of video.")] = None
    max_frames: Annotated[int | None, typer.Option(metavar="N", help="At most this many frames of a video.")] = None
    start: Annotated[float | None, typer.Option(parser=seconds, metavar="TIME", help="Begin here: seconds or H:MM:SS.")] = None
    end: Annotated[float | None, typer.Option(parser=seconds, metavar="TIME", help="End here: seconds or H:MM:SS.")] = None
    detail: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help="official (every picture scaled up and split), fit (never enlarged, much "
            "faster for small pictures) or low (one tile a picture, fastest).",
        ),
    ] = None
    sampling: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="official (evenly by the frames' numbers) or time (evenly in time; differs where a video's frame rate varies).",
        ),
    ] = None
    tone_map: Annotated[
        str | None,
        typer.Option(
            metavar="MODE",
            help="off (values as stored, as the published processor) or auto (HDR and "
            "wide-gamut media are brought to the colors of a common screen).",
        ),
    ] = None
    media_kind: Annotated[
        str | None,
        typer.Option("--as", metavar="KIND", help="auto (animated pictures are videos), image (of an animation the first frame) or video."),
    ] = None
    background: Annotated[
        str | None,
        typer.Option(
            metavar="COLOR",
            help="Behind transparent parts: white, black or #rrggbb; without it a file's hidden "
            "colors are shown, as the published processor does.",
        ),
    ] = None
    max_pixels: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="The largest picture that is decoded whole. Larger JPEGs are decoded at a half or a "
            "quarter of their size, other formats are refused.",
        ),
    ] = None

    def options(self) -> MediaOptions:
        """Raises ParamsError for a value out of its range."""
        from smolvlm.media import MediaOptions

        return MediaOptions(**_given(self))

    @staticmethod
    def defaults() -> object:
        from smolvlm.media import MediaOptions

        return MediaOptions()


@dataclass(frozen=True)
class GenerationFlags:
    """How the answer is written: `GenerationParams`."""

    max_new_tokens: Annotated[int | None, typer.Option(metavar="N", help="The longest answer, in tokens.")] = None
    temperature: Annotated[float | None, typer.Option(metavar="X", help="0: the likeliest token each time.")] = None
    top_p: Annotated[float | None, typer.Option(metavar="X", help="Sample among likely tokens of this mass.")] = None
    top_k: Annotated[int | None, typer.Option(metavar="N", help="Sample among the N likeliest; 0: all.")] = None
    min_p: Annotated[float | None, typer.Option(metavar="X", help="Drop tokens below this share of the likeliest one's.")] = None
    repetition_penalty: Annotated[float | None, typer.Option(metavar="X", help="Over 1 discourages repetition.")] = None
    no_repeat_ngram_size: Annotated[int | None, typer.Option(metavar="N", help="Never write the same N tokens twice; 0: allowed.")] = None
    seed: Annotated[int | None, typer.Option(metavar="N", help="Makes sampling repeatable.")] = None
    stop: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End the answer before this text; may be given again.")] = None
    special_tokens: Annotated[str | None, typer.Option(metavar="MODE", help="strip, or keep: show the answer's special tokens.")] = None
    no_loop_guard: Annotated[bool, typer.Option("--no-loop-guard", help="Let an answer go on that only repeats itself.")] = False

    def params(self) -> GenerationParams:
        """Raises ParamsError for a value out of its range."""
        from smolvlm.generation import GenerationParams

        given = _given(self)
        return GenerationParams(loop_guard=not given.pop("no_loop_guard"), **given)

    @staticmethod
    def defaults() -> object:
        from smolvlm.generation import GenerationParams

        return GenerationParams()


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


def _given(flags: Any) -> dict[str, Any]:
    return {f.name: getattr(flags, f.name) for f in fields(flags) if getattr(flags, f.name) is not None}


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
        types = get_type_hints(kind, include_extras=True)
        for f in fields(kind):
            default = inspect.Parameter.empty if f.default is MISSING else f.default
            spread.append(inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[f.name]))

    @functools.wraps(function)
    def command(**values: Any) -> Result:
        made = {name: kind(**{f.name: values.pop(f.name) for f in fields(kind)}) for name, kind in groups.items()}
        return function(**values, **made)

    command.__signature__ = inspect.Signature(spread)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in spread}
    return command
