"""`smolvlm chat`: a conversation that encodes its media once. It reads a terminal or a pipe, one question a line."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from smolvlm.cli.arguments import STDIN, opened
from smolvlm.cli.ask import explain_ending
from smolvlm.cli.chat_commands import HELP, LEAVE, Talk, obey
from smolvlm.cli.console import Bars, note, write
from smolvlm.cli.flags import GenerationFlags, MediaFlags, ModelFlags, SystemOption, with_flags
from smolvlm.cli.loading import announce, find_model, open_model
from smolvlm.cli.wording import worded
from smolvlm.errors import SmolVLMError

if TYPE_CHECKING:
    from smolvlm.inference.decoding import AnswerStream


@with_flags
def chat(
    model: ModelFlags,
    media: MediaFlags,
    generation: GenerationFlags,
    sources: Annotated[list[str] | None, typer.Argument(metavar="[MEDIA]...", help="Pictures and videos to talk about.")] = None,
    system: SystemOption = None,
) -> None:
    """Talk about pictures or videos, turn by turn.

    Media are encoded once; each further question costs only its own tokens. Inside, /help lists the commands: /image PATH
    and /video PATH add media, /system TEXT, /save PATH, /reset, /exit. Ctrl-C stops an answer, Ctrl-D leaves.

    \b
    Examples:
      smolvlm chat clip.mp4
      smolvlm chat --model 500m --temperature 0.7 --system "Answer in one sentence."
      printf 'Describe this picture.\\nWhere is the butterfly?\\n' | smolvlm chat scene.png
    """
    options, params = media.options(), generation.params()
    if STDIN in (sources or []):
        raise typer.BadParameter(
            "'-' is standard input, where chat reads its questions; pass media as files, or add them with /image PATH."
        )
    if sys.stdin is None:
        raise typer.BadParameter("chat reads its questions from standard input, which is closed.")
    interactive = sys.stdin.isatty()
    with Bars() as bars:
        name, folder = find_model(model, bars)
        parts = opened(sources or [], options, more_may_come=True)
        loaded = open_model(name, model, bars)
    with loaded.session(parts, system=system, **vars(options), **vars(params)) as session:
        announce(loaded, folder)
        if interactive:
            note(HELP, dim=True)
        talk = Talk(session, loaded.name, list(sources or []))
        for line in _questions(interactive):
            if line.split()[0].rstrip(",.;:!").lower() in LEAVE:
                return
            if line.startswith("/"):
                obey(line, talk)
                continue
            try:
                _turn(talk, line)
            except SmolVLMError as error:
                if not interactive:  # a script should not go on as if it had an answer
                    raise
                note(f"error: {worded(str(error))}")
                talk.refused()


def _questions(interactive: bool) -> Iterator[str]:
    """The lines typed or piped in, without the empty ones, up to the end of input."""
    if not interactive:
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    with contextlib.suppress(ImportError):  # arrows and history, where the platform has them
        import readline  # noqa: F401
    while True:
        try:
            if not sys.stdout.isatty():  # `input` would put its prompt among the answers
                sys.stderr.write("> ")
                sys.stderr.flush()
            line = input("> " if sys.stdout.isatty() else "").strip()
        except EOFError:
            sys.stderr.write("\n")
            return
        except KeyboardInterrupt:
            sys.stderr.write("\n")
            note("/exit or Ctrl-D leaves.", dim=True)
            continue
        if line:
            yield line


def _turn(talk: Talk, question: str) -> None:
    """Ask and show the answer as it comes. Ctrl-C ends the answer only."""
    try:
        with Bars() as bars:
            stream = talk.session.stream(question, on_progress=bars)
    except KeyboardInterrupt:
        talk.session.close()  # a prefill cut in half leaves a cache that must not be trusted; media stay encoded
        note("stopped before the answer.")
        return
    with _ctrl_c_cancels(stream):
        for piece in stream:
            write(piece, flush=True)
        write("\n", flush=True)
        talk.answered(question, stream.answer.text)
        explain_ending(stream.answer)


@contextlib.contextmanager
def _ctrl_c_cancels(stream: AnswerStream) -> Iterator[None]:
    """An exception in the middle of a step would lose the session; a request to cancel ends it between two tokens."""
    before = signal.signal(signal.SIGINT, lambda *_: stream.cancel())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
