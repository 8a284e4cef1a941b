"""A small set that other code drew: Matplotlib, scikit-image and OpenCV on photographs, in fonts nobody trained on.

What holds on `synth` alone may have learned how `synth` draws. The files lie in the package (tools/make_handmade_set.py).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from smolvlm.errors import EvalError
from smolvlm.evals.suite import Case, Suite, Task

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable  # elsewhere in Python 3.10

VERSION = 1  # raised whenever a file or a question changes

_DESCRIPTIONS = {
    "colour": "the colour of a shape",
    "object": "a shape with its colour, or a thing drawn by hand",
    "presence": "whether a thing is there",
    "position": "in which of nine places a shape is",
    "spatial": "left or right of, above or below another shape",
    "count": "how many shapes of a kind, one to five",
    "caption": "every shape with its colour, none invented",
    "reading_word": "a word of up to five capitals",
    "reading_number": "a number of up to three digits",
    "event": "what happens in a real H.264 clip",
    "motion": "in which direction a shape moves in a clip",
    "when": "at what time it happens in a clip",
}


@dataclass(frozen=True)
class _Line:
    file: str
    task: str
    question: str
    answer: str


def handmade_suite(folder: Traversable | None = None) -> Suite:
    """All questions of the set; `folder`: another set of the same form. Raises EvalError for a set that cannot be read."""
    root = folder if folder is not None else resources.files("smolvlm.evals") / "assets" / "handmade"
    lines: defaultdict[str, list[_Line]] = defaultdict(list)
    for line in _read(root):
        lines[line.task].append(line)
    tasks = {name: Task(name, text, is_caption=name == "caption") for name, text in _DESCRIPTIONS.items() if name in lines}

    def cases(task: str, count: int, first: int) -> Iterator[Case]:
        for number, line in enumerate(lines[task][:count]):
            if number >= first:
                kind = "video" if line.file.endswith(".mp4") else "image"
                part = {"type": kind, "bytes": _bytes(root / line.file)}
                yield Case(task, number, (part,), line.question, line.answer)

    return Suite("handmade", VERSION, tasks, cases, lambda task, count: min(count, len(lines[task])))


def _read(root: Traversable) -> Iterator[_Line]:
    path = root / "metadata.jsonl"
    for number, text in enumerate(_bytes(path).splitlines(), start=1):
        try:
            line = _Line(**json.loads(text))
            good = all(isinstance(value, str) for value in vars(line).values()) and line.task in _DESCRIPTIONS
        except (ValueError, TypeError):
            good = False
        if not good or "/" in line.file or "\\" in line.file:
            raise EvalError(
                f"{path}, line {number}: expected file, task, question and answer, the task one of "
                f"{', '.join(_DESCRIPTIONS)}; restore the file."
            )
        yield line


def _bytes(path: Traversable) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EvalError(f"{path}: cannot be read ({error.strerror}); the set is incomplete, install it again.") from None
