"""`smolvlm ui`: the chat page in a browser."""

from __future__ import annotations

import webbrowser
from dataclasses import replace
from typing import Annotated

import typer

from smolvlm.cli.console import Bars, note, write
from smolvlm.cli.flags import ModelFlags, with_flags
from smolvlm.cli.loading import announce, find_model, has_random_weights, open_model, say_world
from smolvlm.ui.config import PageConfig

_DEFAULTS = PageConfig()


@with_flags
def ui(
    model: ModelFlags,
    port: Annotated[int, typer.Option(metavar="N", help="The port; 0 takes a free one and prints it.")] = _DEFAULTS.port,
    host: Annotated[
        str, typer.Option(metavar="TEXT", help="The address to listen on; 0.0.0.0 is every network of this machine.")
    ] = _DEFAULTS.host,
    allowed_hosts: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="A host name that the page answers to, beside localhost, addresses and --host, such as "
            "chat.example.org; may be given again.",
        ),
    ] = None,
    simple: Annotated[bool, typer.Option("--simple", help="A form instead of a conversation: one picture or video, one question.")] = False,
    lang: Annotated[str, typer.Option(metavar="NAME", help="auto (what the browser asks for), en or zh.")] = _DEFAULTS.lang,
    max_upload_mb: Annotated[int, typer.Option(metavar="N", help="The largest file that is taken.")] = _DEFAULTS.max_upload_mb,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
) -> None:
    """Talk to a model in a browser.

    Several pictures and videos, answers as they are written.

    The page is served by this machine and loads nothing from elsewhere; uploads are deleted when the program ends.
    Ctrl-C ends it.

    \b
    Examples:
      smolvlm ui
      smolvlm ui --model 256m --port 8080
      smolvlm ui --simple --lang zh
      smolvlm ui --host 0.0.0.0 --allowed-hosts chat.example.org --no-browser
    """
    from smolvlm.ui.server import require_gradio, run_page

    require_gradio()
    names = tuple(name.strip() for given in allowed_hosts or () for name in given.split(",") if name.strip())
    config = PageConfig(host=host, allowed_hosts=names, port=port, simple=simple, lang=lang, max_upload_mb=max_upload_mb)
    with Bars() as bars:
        name, folder = find_model(model, bars)
        loaded = open_model(name, model, bars)
    config = replace(config, random_weights=has_random_weights(folder))
    announce(loaded, folder)
    say_world(folder, model)
    if host not in ("127.0.0.1", "::1", "localhost"):
        note(f"anybody who reaches {host} may ask, and upload files of up to {max_upload_mb} MB.")

    def ready(address: str) -> None:
        write(f"smolvlm: {loaded.name} on {address}\n", flush=True)
        if not no_browser:
            webbrowser.open(address)

    run_page(loaded, config, ready)
