"""`smolvlm synth`: a data set of synthetic pictures and clips with exact answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from smolvlm.cli.console import Bars, note, write
from smolvlm.cli.help import Command

# Written out: reading them from `GENERATORS` would import what draws, and every start of the program would wait for it.
_NAMES = "scene, writing, clip, pair, invoice, receipt, note, chart, part, room and room_clip"


class SynthCommand(Command):
    """Shows the defaults of `ExportOptions` on the help page."""

    def more_defaults(self) -> dict[str, Any]:
        from smolvlm.synth.export import ExportOptions

        defaults = ExportOptions()
        return {"count": defaults.count, "first": defaults.first, "split": defaults.split, "world": defaults.world.name, "generator": "all"}


def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make; it must be new or empty.")],
    generator: Annotated[list[str] | None, typer.Option(metavar="NAME", help=f"One of {_NAMES}; may be given again.")] = None,
    count: Annotated[int | None, typer.Option(metavar="N", help="Samples of each generator.")] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="train, validation or test: they share no seed, font or background.")
    ] = None,
    world: Annotated[str | None, typer.Option(metavar="NAME", help="small (30 objects) or wide (over 100).")] = None,
    first: Annotated[
        int | None, typer.Option(metavar="INDEX", help="The first sample's number. It is the seed: the same one, the same picture.")
    ] = None,
    sheet: Annotated[bool, typer.Option("--sheet", help="Also write sheet.png, a page with some samples.")] = False,
) -> None:
    """Draw pictures and clips with exact answers.

    Writes PNG pictures, lossless clips, one JSONL of conversations for each generator, and mixture.yaml, which names them
    for `smolvlm train sft`. No model is needed.

    \b
    Examples:
      smolvlm synth data
      smolvlm synth data --generator scene --generator clip --count 1000
      smolvlm synth held-out --split test --world wide --sheet
      smolvlm train sft --model 256m --mixture data/mixture.yaml --out runs/mine
    """
    from smolvlm.media.suffixes import named_like_media
    from smolvlm.synth.export import ExportOptions, export
    from smolvlm.synth.world import WORLDS

    if named_like_media(out.name) and not out.exists():
        raise typer.BadParameter(f"{str(out)!r} is named like a single picture or video; OUT is the folder to make: name it {out.stem!r}.")

    if world is not None and world not in WORLDS:
        raise typer.BadParameter(f"--world {world!r} is not one of {', '.join(WORLDS)}.")
    asked = {
        "generators": tuple(generator) if generator else None,
        "count": count,
        "first": first,
        "split": split,
        "world": None if world is None else WORLDS[world],
    }
    options: Any = {name: value for name, value in asked.items() if value is not None}
    settings = ExportOptions(sheet=sheet, **options)
    note(f"drawing {settings.count * len(settings.generators):,} samples ...", dim=True)
    with Bars() as bars:
        done = export(out, settings, on_progress=bars)
    note(f"{done.samples} samples with {done.questions} questions; train on them: smolvlm train sft --mixture {done.mixture} --out DIR")
    write(f"{out}\n")
