"""`smolvlm vlc`: a search box inside VLC; and the local server that answers it and the search page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smolvlm.cli.console import Bars, note, write
from smolvlm.cli.flags import ModelFlags, with_flags
from smolvlm.cli.help import Command
from smolvlm.cli.index import LibraryOption
from smolvlm.cli.loading import announce, find_model, open_model

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
PortOption = Annotated[int | None, typer.Option(metavar="PORT", min=1, max=65535, help="On 127.0.0.1; 8790 by default.")]


@app.callback()
def _vlc() -> None:
    """Search inside videos from VLC.

    \b
    Examples:
      smolvlm vlc install
      smolvlm vlc serve
    """


def install(port: PortOption = None) -> None:
    """Put the extension into VLC's folder."""
    from smolvlm.apps.videos.vlc import install as put

    write(f"{put(port)}\n")
    note("start `smolvlm vlc serve`, then choose 'smolvlm: search inside videos' in VLC's View menu.")


def uninstall() -> None:
    """Take the extension away."""
    from smolvlm.apps.videos.vlc import uninstall as take

    gone = take()
    note("there was no extension." if gone is None else f"deleted {gone}")


@with_flags
def serve(model: ModelFlags, library: LibraryOption = None, port: PortOption = None) -> None:
    """Answer VLC's searches."""
    from smolvlm.apps.videos.vlc import link

    agreed = link(port)
    run_server(model, library, agreed.port, agreed.token)


def run_server(model: ModelFlags, library: Path | None, port: int, token: str | None) -> None:
    """The page, and the answers for VLC, until Ctrl-C; the address with its token goes to stdout."""
    from smolvlm.apps.library import Library
    from smolvlm.apps.local_server import LocalServer
    from smolvlm.apps.videos.serving import VideoPages
    from smolvlm.apps.videos.stored import runs_in
    from smolvlm.apps.videos.tables import VIDEOS

    with Library.open(library, [VIDEOS]) as opened:
        with Bars() as bars:
            name, folder = find_model(model, bars)
            loaded = open_model(name, model, bars)
            announce(loaded, folder)
        runs_in(opened, loaded.fingerprint)  # an empty library is said now
        with LocalServer(VideoPages(loaded, opened).routes(), port=port, token=token) as server:
            write(f"{server.url}\n", flush=True)
            note("the address holds a token: who has it may search these videos. Ctrl-C ends it.")
            server.serve_forever()


app.command("install", cls=Command)(install)
app.command("uninstall", cls=Command)(uninstall)
app.command("serve", cls=Command)(serve)
