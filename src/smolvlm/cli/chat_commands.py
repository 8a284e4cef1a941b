"""What `smolvlm chat` understands beside questions: `/image photo.jpg`, `/system TEXT`, `/save PATH` and their like."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smolvlm.cli.console import Bars, note
from smolvlm.cli.wording import worded
from smolvlm.errors import SmolVLMError, SourceError

if TYPE_CHECKING:
    from smolvlm.session import Session

HELP = (
    "/image PATH and /video PATH add media to the next question; /system TEXT says how to answer (alone: as before the first "
    "question); /reset forgets questions and answers (media stay); /save PATH writes the conversation (.json, else text); "
    "/exit or Ctrl-D leaves; Ctrl-C stops an answer."
)

LEAVE = ("/exit", "/quit", "/bye")


@dataclass
class Talk:
    """The conversation so far: the session, and what `/save` writes. `added` media wait for the next question."""

    session: Session
    model: str
    media: list[str]
    turns: list[dict[str, Any]] = field(default_factory=list)
    added: int = 0

    def answered(self, question: str, answer: str) -> None:
        self.turns.append({"media": self.media, "question": question, "answer": answer})
        self.media, self.added = [], 0

    def refused(self) -> None:
        """The question failed: media that were added for it would make the next one fail as well."""
        if self.added:
            self.session.take_back(self.added)
            note(f"the media that were added before it ({', '.join(self.media[-self.added :])}) are left out again.")
            self.media, self.added = self.media[: -self.added], 0


def obey(line: str, talk: Talk) -> None:
    """Do what a line that begins with `/` says; whatever is wrong with it is one line on stderr."""
    name, _, rest = line.partition(" ")
    command = _COMMANDS.get(name.lower())
    if command is None:
        note(f"{name} is no command. {HELP}")
        return
    try:
        command(rest.strip(), talk)
    except SmolVLMError as error:
        note(f"error: {worded(str(error))}")
    except KeyboardInterrupt:
        note("stopped.")


def _reset(_: str, talk: Talk) -> None:
    talk.session.reset()
    talk.media = [name for turn in talk.turns for name in turn["media"]] + talk.media
    talk.turns = []
    note("the conversation starts again; media are kept.")


def _system(text: str, talk: Talk) -> None:
    talk.session.system = _unquoted(text) or None
    note("from now on the model is told how to answer." if text else "the system message is gone.")


def _add(kind: str) -> Callable[[str, Talk], None]:
    def add(rest: str, talk: Talk) -> None:
        from smolvlm.media import media_kind, open_source
        from smolvlm.media.animation import animated_format

        paths = _paths(rest)
        if not paths:
            raise SourceError(f"/{kind} needs the path of a {'picture' if kind == 'image' else 'video'}: /{kind} PATH.")
        parts: list[dict[str, Any]] = []
        moving: list[str] = []
        for path in paths:
            source = open_source(path)
            found, animated = media_kind(source), animated_format(source)
            if kind == "video" and found == "image":
                raise SourceError(f"{source.label} is a picture; add it with /image.")
            if kind == "image" and found == "video" and not animated:
                raise SourceError(f"{source.label} is a video; add it with /video.")
            if kind == "image" and animated:
                moving.append(path)
            parts.append({"type": kind, kind: source})
        with Bars() as bars:
            talk.session.add(parts, on_progress=bars)
        talk.media += paths
        talk.added += len(paths)
        note(f"the next question is also about {', '.join(paths)}.")
        if moving:
            note(f"/video adds all of {', '.join(moving)}.")

    return add


def _save(rest: str, talk: Talk) -> None:
    text = _unquoted(rest)
    if not text:
        raise SourceError("/save needs the path of a new file: /save PATH.")
    path = Path(text).expanduser()
    if path.suffix.lower() == ".json":
        content = json.dumps({"model": talk.model, "system": talk.session.system, "turns": talk.turns}, indent=2, ensure_ascii=False)
    else:
        content = "\n\n".join(
            "\n".join([*(f"[{name}]" for name in turn["media"]), f"User: {turn['question']}", f"Assistant: {turn['answer']}"])
            for turn in talk.turns
        )
    _write_new(path, content + "\n")
    note(f"wrote {path}: questions with their answers: {len(talk.turns)}.")


def _write_new(path: Path, text: str) -> None:
    """A file that is there whole or not at all, and never in place of another. Raises SourceError."""
    try:
        if os.path.lexists(path):
            raise FileExistsError
        handle, temporary = tempfile.mkstemp(prefix=".smolvlm-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.link(temporary, path)  # unlike a rename it never replaces what came meanwhile
        finally:
            os.unlink(temporary)
    except FileExistsError:
        raise SourceError(f"{path} exists already and is not replaced; name a new file.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"{path}: cannot be written ({reason}); name a file in a folder that can be written to.") from None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _paths(rest: str) -> list[str]:
    """The paths that a line names: as a shell reads it, or all of it where that is a file with spaces in its name."""
    whole = os.path.expanduser(rest)
    try:
        if not rest or os.path.exists(whole):
            return [whole] if rest else []
        words = [os.path.expanduser(word) for word in shlex.split(rest)]
        if len(words) > 1 and not any(os.path.exists(word) for word in words) and rest[0] not in "'\"":
            return [whole]  # a name with spaces, misspelt
    except ValueError:  # a quote without its partner, a null character
        return [whole]
    return words


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


_COMMANDS: dict[str, Callable[[str, Talk], None]] = {
    "/help": lambda _rest, _talk: note(HELP),
    "/reset": _reset,
    "/system": _system,
    "/image": _add("image"),
    "/video": _add("video"),
    "/save": _save,
}
