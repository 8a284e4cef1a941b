"""`smolvlm serve`: the OpenAI-compatible server."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from smolvlm.cli.console import Bars, note, write
from smolvlm.cli.flags import ModelFlags
from smolvlm.cli.help import Command
from smolvlm.cli.loading import announce, find_model, open_model, say_world
from smolvlm.errors import MissingExtraError
from smolvlm.listening import listen
from smolvlm.options.declare import declared
from smolvlm.serve.config import ServeConfig

_TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "str | None": str}


class ServeCommand(Command):
    """Shows the defaults of `ServeConfig`."""

    def more_defaults(self) -> dict[str, Any]:
        return {f.name: f.default for f in fields(ServeConfig)}


def _with_settings(function: Callable[..., None]) -> Callable[..., None]:
    """One flag for each setting: `--max-waiting` for `max_waiting`, in the order of the dataclass, with its help."""
    own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "settings"]
    made = []
    for f in fields(ServeConfig):
        several = str(f.type).startswith("tuple")
        kind = list[str] | None if several else _TYPES[str(f.type)] | None
        flag = f"--{f.name.replace('_', '-')}"
        names = (flag, "-m") if f.name == "model" else (flag,)
        metavar = "TEXT" if several or str(f.type).startswith("str") else "N" if str(f.type) == "int" else "X"
        text = declared(ServeConfig)[f.name].help + (" May be given again." if several else "")
        option = typer.Option(*names, metavar=metavar, help=text, show_default=False)
        made.append(inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]))

    def command(**values: Any) -> None:
        ours = {p.name: values.pop(p.name) for p in own}
        function(settings=values, **ours)

    command.__doc__, command.__name__ = function.__doc__, function.__name__
    signature = inspect.Signature([*(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *made])
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return command


@_with_settings
def serve(
    settings: dict[str, Any],
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="A TOML file with any of these settings, such as max_waiting = 64.")
    ] = None,
    new_key: Annotated[str | None, typer.Option(metavar="NAME", help="Add an API key to --keys-file, print it once, and leave.")] = None,
    workers: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve a model to clients of OpenAI's API.

    Every setting is a flag, a variable of the environment (SMOLVLM_SERVE_MAX_WAITING for --max-waiting) or a key of a
    TOML file (max_waiting); the flag is the strongest, the file the weakest.

    Point a client at http://127.0.0.1:8000/v1; /docs describes the API, /ready says when the model is warm, /metrics
    counts for Prometheus. SIGTERM and Ctrl-C let answers finish. Without --keys-file anybody who reaches the port may
    ask; with it, everything but /, /health and /ready needs a key. Requests must name localhost, an address, --host or one
    of --allowed-hosts; web pages of other origins may ask only by --cors-origin. Pictures are fetched from no address
    unless --remote-hosts allows it.

    \b
    Examples:
      smolvlm serve --model 256m
      smolvlm serve --model 256m --host 0.0.0.0 --keys-file keys.json
      smolvlm serve --new-key alice --keys-file keys.json
      smolvlm serve --config serve.toml --port 9000
      smolvlm serve --allowed-hosts api.example.org --cors-origin http://localhost:3000
      SMOLVLM_SERVE_MODEL=500m smolvlm serve --remote-hosts upload.wikimedia.org

    \b
    Ask it:
      curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' -d @- <<END
        {"model": "256m", "messages": [{"role": "user", "content": [{"type": "text", "text": "What does the sign say?"},
          {"type": "image_url", "image_url": {"url": "data:image/png;base64,$(base64 -w0 sign.png)"}}]}]}
        END
    """
    chosen = ServeConfig.gather(settings | {"workers": workers}, config)
    try:
        from smolvlm.serve.api.keys import KeyRing
        from smolvlm.serve.api.keys import new_key as make_key
        from smolvlm.serve.server import serve as run
    except ImportError as error:
        if error.name and error.name.startswith("smolvlm"):
            raise
        raise MissingExtraError("smolvlm serve", "serve") from None
    if new_key is not None:
        if chosen.keys_file is None:
            raise typer.BadParameter("--new-key needs --keys-file, the file to add the key to")
        write(make_key(Path(chosen.keys_file), new_key) + "\n")
        note("this is the only time that the key is shown; the file holds its hash.")
        return
    flags = ModelFlags(chosen.model, chosen.adapter, chosen.engine, chosen.device, chosen.dtype)
    # Before the model, which may take minutes to download and load: what is wrong with the address and the keys shows now.
    if chosen.keys_file is not None:
        KeyRing(Path(chosen.keys_file))
    listening = listen(chosen.host, chosen.port)
    with Bars() as bars:
        name, folder = find_model(flags, bars)
        model = open_model(name, flags, bars)
    announce(model, folder)
    say_world(folder, flags)
    if chosen.keys_file is None and "*" in chosen.cors_origin:
        note("any web page that a user of this machine looks at may ask: --cors-origin is * and there is no --keys-file.")
    if chosen.keys_file is None and chosen.host not in ("127.0.0.1", "::1", "localhost"):
        note(f"anybody who reaches {chosen.host} may ask: there is no --keys-file.")
    run(model, chosen, listening)
