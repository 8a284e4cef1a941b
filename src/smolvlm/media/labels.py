"""Short printable phrases for error messages: names and texts that came from outside."""

from __future__ import annotations


def short(text: str, length: int = 80) -> str:
    """`text` cut to `length` characters, with what a terminal could obey replaced."""
    cut = text if len(text) <= length else text[: length - 3] + "..."
    return "".join(c if c.isprintable() else "?" for c in cut)


def short_path(name: str, length: int = 120) -> str:
    """Like `short`, but a long path loses its middle: the end names the file."""
    return short(name if len(name) <= length else f"{name[: length // 4]}...{name[-(length - length // 4 - 3) :]}", length)


def one_line(error: BaseException) -> str:
    """A foreign error's text as a short phrase, for use inside a sentence of ours."""
    # An OSError's own text repeats the file's name, which the sentence already holds.
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return short(" ".join(text.split()), 160) or type(error).__name__
