"""`smolvlm`: the application, its exit codes, and how errors are shown.

Exit codes: 0 done; 1 a defect of ours, or a reader that went away (broken pipe); 2 bad input or usage, or no room to write;
3 nothing matches (`smolvlm search`); 130 Ctrl-C.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from smolvlm import __version__
from smolvlm.cli.ask import ask, describe
from smolvlm.cli.batch import BatchCommand, batch
from smolvlm.cli.chat import chat
from smolvlm.cli.choose import choose
from smolvlm.cli.console import note, one_line
from smolvlm.cli.download import download
from smolvlm.cli.eval import app as eval_app
from smolvlm.cli.extract import extract
from smolvlm.cli.finetune import FinetuneCommand, finetune
from smolvlm.cli.help import Command
from smolvlm.cli.highlights import highlights
from smolvlm.cli.index import index
from smolvlm.cli.info import info
from smolvlm.cli.merge import merge
from smolvlm.cli.models import models
from smolvlm.cli.quantize import quantize
from smolvlm.cli.random_checkpoint import random_checkpoint
from smolvlm.cli.search import search
from smolvlm.cli.serve import ServeCommand, serve
from smolvlm.cli.synth import SynthCommand, synth
from smolvlm.cli.train import train_app
from smolvlm.cli.ui import ui
from smolvlm.cli.vlc import app as vlc_app
from smolvlm.cli.watch import watch
from smolvlm.cli.wording import enter, worded
from smolvlm.errors import SmolVLMError

# Typer brings its own copy of click in newer versions and uses the real one in older: the class is found, not imported.
_CLICK_ERROR: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_BROKEN_PIPE, _BAD_INPUT, _INTERRUPTED = 1, 2, 130

# Plain help: it keeps the examples' lines as they are written, and starts twice as fast as the boxed one.
app = typer.Typer(name="smolvlm", rich_markup_mode=None, add_completion=False)
for _function, _name in (
    (ask, "ask"),
    (describe, "describe"),
    (chat, "chat"),
    (choose, "choose"),
    (extract, "extract"),
    (index, "index"),
    (search, "search"),
    (watch, "watch"),
    (highlights, "highlights"),
    (info, "info"),
    (models, "models"),
    (download, "download"),
    (merge, "merge"),
    (quantize, "quantize"),
    (random_checkpoint, "random-checkpoint"),
):
    app.command(_name, cls=Command)(_function)
app.command("finetune", cls=FinetuneCommand)(finetune)
app.add_typer(train_app, name="train")
app.add_typer(eval_app, name="eval")
app.add_typer(vlc_app, name="vlc")
app.command("batch", cls=BatchCommand)(batch)
app.command("serve", cls=ServeCommand)(serve)
app.command("ui", cls=Command)(ui)
app.command("synth", cls=SynthCommand)(synth)


@dataclass
class _State:
    debug: bool


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"smolvlm {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _smolvlm(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and leave.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and the library's log (also: SMOLVLM_DEBUG=1).")] = False,
) -> None:
    """Ask small vision-language models about your photos and videos, on your own machine.

    \b
    Examples:
      smolvlm ask clip.mp4 "What happens in this video?"
      smolvlm ask before.png after.png "What has changed?"
      smolvlm describe scene.png
      smolvlm chat clip.mp4
      smolvlm choose room.png "Is the door open or closed?" --option open --option closed
      smolvlm extract room.png "Is the door open or closed?" --schema room.schema.json
      smolvlm search holiday/ "a dog runs"
      smolvlm highlights match.mp4 --duration 90 --about "somebody falls" -o best.mp4
      smolvlm download 256m
      smolvlm finetune nano my-pictures/ --out runs/mine
      smolvlm eval synth
      smolvlm serve --model 256m
      smolvlm ui --model 256m

    `smolvlm COMMAND --help` shows a command's options and examples.
    """
    context.obj.debug |= debug
    if context.obj.debug:
        logging.getLogger("smolvlm").setLevel(logging.DEBUG)
        warnings.simplefilter("default")
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(args: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv` by default) and return its exit code. Never raises."""
    state = _State(debug=os.environ.get("SMOLVLM_DEBUG", "") not in ("", "0"))
    _open_closed_streams()
    _tolerate_any_text()
    enter((), {})
    with _log_on_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries' remarks to programmers
        try:
            command = typer.main.get_command(app)
            code = command.main(args=None if args is None else list(args), prog_name="smolvlm", standalone_mode=False, obj=state)
            sys.stdout.flush()
            return code if isinstance(code, int) else 0
        except (KeyboardInterrupt, typer.Abort):
            return _INTERRUPTED
        except BrokenPipeError:
            _drop_stdout()
            return _BROKEN_PIPE
        except SystemExit as end:  # Typer's own answer to a broken pipe
            return end.code if isinstance(end.code, int) else _BROKEN_PIPE
        except Exception as error:
            return _show(error, state.debug, sys.argv[1:] if args is None else args)


def _show(error: Exception, debug: bool, args: Sequence[str]) -> int:
    """One line on stderr; before it the traceback where it was asked for."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, SmolVLMError):
        note(f"error: {worded(one_line(str(error)))}")
        return _BAD_INPUT
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        if error.filename is None:
            _drop_stdout()  # its last flush would fail once more
        where = "standard output" if error.filename is None else one_line(str(error.filename))
        note(f"error: {where}: cannot be written ({error.strerror}); make room, or write somewhere else.")
        return _BAD_INPUT
    if isinstance(error, _CLICK_ERROR):
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "smolvlm"
        problem = one_line(error.format_message()).rstrip(".")  # type: ignore[attr-defined]
        dashed = [arg for arg in args if arg.startswith("-") and arg != "-" and os.path.isfile(arg)]
        if dashed and hasattr(error, "option_name"):
            problem += f"; a file whose name begins with a dash is passed as {one_line('./' + dashed[0])}"
        note(f"error: {problem} (see `{path} --help`).")
        return _BAD_INPUT
    note(
        f"unexpected error: {type(error).__name__}: {one_line(str(error))} - this is a defect: please report it with "
        "what `smolvlm --debug ...` prints."
    )
    return 1


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return worded(super().format(record))


@contextlib.contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Warnings of the library, such as unknown keys in a checkpoint's files, reach the user as plain lines."""
    logger, handler = logging.getLogger("smolvlm"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("smolvlm: %(message)s"))
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _open_closed_streams() -> None:
    """Started with stdout or stderr closed (`>&-`), the program runs and shows nothing there.

    An open descriptor also keeps the next file from becoming number 1 or 2.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (as long as the process)


def _tolerate_any_text() -> None:
    """A terminal or a pipe that cannot write or spell a character shows an escape instead of ending the program."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if stream is sys.stdin else "backslashreplace")


def _drop_stdout() -> None:
    """Nobody reads any more: let the interpreter's last flush go nowhere instead of complaining."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
