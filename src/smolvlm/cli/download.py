"""`smolvlm download`: fetch a checkpoint into the Hub's cache."""

from __future__ import annotations

from typing import Annotated

import typer

from smolvlm.cli.console import Bars, write


def download(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="256m, 500m, 2.2b, or an id on the Hub.")],
    revision: Annotated[str | None, typer.Option(metavar="NAME", help="A branch, tag or commit instead of the newest files.")] = None,
) -> None:
    """Fetch a checkpoint, and print its folder.

    It is then used without the network. The files go to the cache that other
    Hugging Face programs use (HF_HOME). Pickled weights are never fetched.

    \b
    Examples:
      smolvlm download 256m
      smolvlm download HuggingFaceTB/SmolVLM2-2.2B-Instruct
    """
    from smolvlm import hub

    with Bars() as bars:
        folder = hub.download(model, revision=revision, on_progress=bars.download)
    write(f"{folder}\n")
