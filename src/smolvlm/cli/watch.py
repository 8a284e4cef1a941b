"""`smolvlm watch`: what rules.yaml names, seen by a camera or in a file."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Annotated

import typer

from smolvlm.cli.console import Bars, note, one_line, write, write_json
from smolvlm.cli.flags import JsonOption, ModelFlags, with_flags
from smolvlm.cli.index import LibraryOption
from smolvlm.cli.loading import announce, find_model, open_model


@with_flags
def watch(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A video file, or a stream: rtsp://, rtsps://, http(s)://, /dev/video0.")],
    model: ModelFlags,
    rules: Annotated[Path, typer.Option(metavar="FILE", help="What to watch for: a YAML file.")],
    library: LibraryOption = None,
    events: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where pictures and clips are kept; beside the library by default.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Watch a camera or a video file, and tell what happens.

    smolvlm watch is no medical or safety device: it misses events and raises false alarms. Never rely on it alone where
    somebody's health or safety depends on it.

    \b
    Examples:
      smolvlm watch hall.mp4 --rules rules.yaml
      smolvlm watch rtsp://camera.local/stream --rules rules.yaml --json
    """
    from smolvlm.apps.camera.address import address_of
    from smolvlm.apps.camera.keeping import Keeper, check_lines
    from smolvlm.apps.camera.reader import frames_of
    from smolvlm.apps.camera.rules import NOT_A_SAFETY_DEVICE
    from smolvlm.apps.camera.rules_file import read_rules
    from smolvlm.apps.camera.tables import APP, CAMERA
    from smolvlm.apps.camera.watching import Watcher
    from smolvlm.apps.library import Library
    from smolvlm.errors import RulesError

    note(NOT_A_SAFETY_DEVICE)
    wanted, address = read_rules(rules), address_of(source)
    with Library.open(library, [CAMERA]) as opened, opened.run_lock(f"camera-{wanted.camera}"), contextlib.ExitStack() as stack:
        with Bars() as bars:
            name, folder = find_model(model, bars)
            loaded = open_model(name, model, bars)
            announce(loaded, folder)
        maker = opened.maker(app=APP, model=loaded.name, fingerprint=loaded.fingerprint, options={"camera": wanted.camera})
        if wanted.jsonl:
            check_lines(Path(wanted.jsonl))
        try:
            lines = stack.enter_context(open(wanted.jsonl, "a", encoding="utf-8")) if wanted.jsonl else None
        except OSError as error:
            raise RulesError(f"{rules}: jsonl: {wanted.jsonl!r} cannot be written ({error.strerror}); name another file.") from None
        place = (events or opened.path.parent / "camera" / wanted.camera).resolve()
        watcher = Watcher(loaded, wanted, Keeper(opened, maker.id, place, wanted.retention, lines))
        for frame in frames_of(address, time.time(), lambda text: note(one_line(text))):
            for message in watcher.take(frame):
                _show(message, json)
        for message in watcher.finish():
            _show(message, json)


def _show(message: dict[str, object], json: bool) -> None:
    if json:
        write_json(message)
    else:
        where = message["picture"] if message["type"] == "new" else message["clip"]
        write(f"{message['type']}  {message['id']}  {message['rule']}: {message['event']} ({message['score']})  {where}\n", flush=True)
