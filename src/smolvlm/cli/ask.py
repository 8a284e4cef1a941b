"""`smolvlm ask` and `smolvlm describe`: one answer about pictures, videos or text alone."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from smolvlm.answers import Answer
from smolvlm.cli.arguments import opened, split_prompt
from smolvlm.cli.console import Bars, note, write, write_json
from smolvlm.cli.flags import GenerationFlags, MediaFlags, ModelFlags, OutputFlags, SystemOption, with_flags
from smolvlm.cli.loading import announce, find_model, open_model


@with_flags
def ask(
    arguments: Annotated[
        list[str], typer.Argument(metavar="[MEDIA]... PROMPT", help="Pictures and videos (files or URLs), then the question.")
    ],
    model: ModelFlags,
    media: MediaFlags,
    generation: GenerationFlags,
    output: OutputFlags,
    system: SystemOption = None,
) -> None:
    """Answer a question about pictures or videos.

    With the question alone, the model answers from the text. `-` is standard input: a picture or video, or the question.

    \b
    Examples:
      smolvlm ask scene.png "Where is the butterfly?"
      smolvlm ask clip.mp4 "What happens in this video?" --fps 2 --max-frames 32
      smolvlm ask film.mkv "What happens?" --start 0:12:30 --end 0:13:00 --model 500m
      smolvlm ask before.png after.png "What has changed?" --detail fit
      smolvlm ask sign.png "What does the sign say?" --json > answer.json
      cat scene.png | smolvlm ask - "What colour is the ring?"
      echo "Is there a dog?" | smolvlm ask scene.png -
    """
    sources, prompt = split_prompt(arguments)
    _answer(sources, prompt, system, model, media, generation, output)


@with_flags
def describe(
    sources: Annotated[list[str], typer.Argument(metavar="MEDIA...", help="Pictures and videos: files or URLs.")],
    model: ModelFlags,
    media: MediaFlags,
    generation: GenerationFlags,
    output: OutputFlags,
    system: SystemOption = None,
) -> None:
    """Say what pictures or videos show. Several are described together, in one text.

    \b
    Examples:
      smolvlm describe scene.png
      smolvlm describe clip.mp4 --max-new-tokens 512
      smolvlm describe https://example.com/photo.jpg --detail low
    """
    from smolvlm.vlm import DESCRIBE_PROMPT

    _answer(sources, DESCRIBE_PROMPT, system, model, media, generation, output)


def _answer(
    sources: list[str],
    prompt: str,
    system: str | None,
    model_flags: ModelFlags,
    media_flags: MediaFlags,
    generation_flags: GenerationFlags,
    output: OutputFlags,
) -> None:
    """Everything cheap is checked before weights are loaded, and nothing is printed before the prompt is accepted."""
    streamed, options, params = output.streamed, media_flags.options(), generation_flags.params(as_json=output.json)
    with Bars() as bars:
        name, folder = find_model(model_flags, bars)
        parts = opened(sources, options)
        model = open_model(name, model_flags, bars)
        stream = model.stream(parts, prompt, system=system, on_progress=bars, **vars(options), **vars(params))
    announce(model, folder)
    if streamed:
        for piece in stream:
            write(piece, flush=True)
        write("\n")
    answer = stream.answer
    if output.json:
        write_json(answer.to_dict() | {"media": [asdict(info) for info in stream.media]})
    elif not streamed:
        write(f"{answer.text}\n")
    explain_ending(answer)


def explain_ending(answer: Answer) -> None:
    """Say on stderr why an answer ended, unless the model ended it itself."""
    if answer.finish_reason == "length":
        note(
            f"the answer was cut after {answer.usage.completion_tokens} tokens; --max-new-tokens allows more, as far "
            "as the model's context reaches."
        )
    elif answer.finish_reason == "repetition":
        note("the answer was ended where it began to repeat itself (--no-loop-guard lets it go on).")
    elif answer.finish_reason == "cancelled":
        note("the answer was stopped.")
