"""`smolvlm choose`: the likeliest of several answers, with probabilities."""

from __future__ import annotations

from typing import Annotated

import typer

from smolvlm.cli.arguments import opened, split_prompt
from smolvlm.cli.console import Bars, note, one_line, write, write_json
from smolvlm.cli.flags import JsonOption, MediaFlags, ModelFlags, SystemOption, with_flags
from smolvlm.cli.loading import announce, find_model, open_model
from smolvlm.errors import ParamsError

_BAR_WIDTH = 30


@with_flags
def choose(
    arguments: Annotated[list[str], typer.Argument(metavar="[MEDIA]... QUESTION", help="Pictures and videos, then the question.")],
    model: ModelFlags,
    media: MediaFlags,
    option: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="One possible answer; give at least one, mostly several.")
    ] = None,
    system: SystemOption = None,
    json: JsonOption = False,
) -> None:
    """Choose among given answers, with probabilities.

    Nothing is generated: each option is scored, and the probabilities sum to 1.

    \b
    Examples:
      smolvlm choose scene.png "Is there a dog?" --option yes --option no
      smolvlm choose scene.png "What colour is the ring?" --option red --option brown --option blue --json
    """
    sources, question = split_prompt(arguments, "question")
    options = media.options()
    if not option or not all(text.strip() for text in option):
        raise ParamsError("an option is empty or none is given; name the possible answers: --option yes --option no.")
    with Bars() as bars:
        name, folder = find_model(model, bars)
        parts = opened(sources, options)
        loaded = open_model(name, model, bars)
        choice = loaded.choose(parts, question, option, system=system, on_progress=bars, **vars(options))
    announce(loaded, folder)
    if len(option) == 1:
        note("a single --option always gets 100 %, whatever the media show; name the other answers, too.")
    if json:
        write_json(
            {
                "option": choice.option,
                "probabilities": dict(choice.probabilities),
                "logprobs": dict(choice.logprobs),
                "model": loaded.name,
                **({"warnings": list(choice.warnings)} if choice.warnings else {}),
            }
        )
        return
    width = max(len(one_line(text)) for text in option)
    for text, probability in sorted(choice.probabilities.items(), key=lambda item: -item[1]):
        bar = "#" * round(probability * _BAR_WIDTH)
        write(f"{one_line(text):{width}}  {probability:7.2%}  {bar}".rstrip() + "\n")
