"""How a video is indexed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from smolvlm.errors import ParamsError
from smolvlm.options.declare import check, option

MOST_CHARS = 300  # of a question, and of what is looked for
PROMPT = "What happens in this video?"


def check_text(what: str, text: str) -> None:
    """Raises ParamsError for a text that says nothing, or too much for a prompt about a few frames."""
    if not text.strip() or len(text) > MOST_CHARS:
        raise ParamsError(f"{what} has {len(text.strip())} characters; expected 1 to {MOST_CHARS}.")


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """What is looked at, and what is kept. Other settings make another index of the same video.

    Raises ParamsError for a value out of its range.
    """

    every: float = option(2.0, "Seconds between two frames that the model sees.", least=0.04, most=3600.0)
    frames: int = option(4, "Frames of one window.", least=2, most=32)
    prompt: str = option(PROMPT, "The question that each window answers; its answer is the window's caption.")
    max_caption_tokens: int = option(48, "The longest caption, in tokens.", least=1, most=1024)
    features: bool = option(True, "Keep each window's features (9 kB a frame in int8, more in larger models): a search needs no decoding.")

    def __post_init__(self) -> None:
        check(self)
        check_text("the prompt", self.prompt)

    def row(self) -> dict[str, Any]:
        """What makes one index differ from another; whether features are kept does not."""
        made = asdict(self)
        del made["prompt"], made["features"]
        return made
