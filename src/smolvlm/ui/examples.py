"""The examples of the page: media of nano's world, which are files of this package, and questions that fit them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

MEDIA = Path(__file__).parent / "media"


@dataclass(frozen=True)
class Example:
    """A question about one file."""

    file: Path
    question: str


# In English in both languages of the page: it is the language that the models were trained in.
EXAMPLES = (
    Example(MEDIA / "clip.mp4", "What happens in this video?"),
    Example(MEDIA / "scene.png", "Describe this picture."),
    Example(MEDIA / "sign.png", "What does the sign say?"),
)


def copied(folder: Path) -> tuple[Example, ...]:
    """The examples with their files copied to `folder`, from where the page may show them."""
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(Example(Path(shutil.copy2(e.file, folder / e.file.name)), e.question) for e in EXAMPLES)
