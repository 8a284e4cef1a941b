"""Whether a prompt fits into the model's context: one rule and one sentence for every door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from smolvlm.errors import ContextLengthError


class ReadMedium(Protocol):
    """What the sentence looks at in a medium: `rows` is 0 for a picture that was not split."""

    @property
    def kind(self) -> str: ...

    @property
    def rows(self) -> int: ...


def check_context(
    prompt_tokens: int, context: int, max_new_tokens: int = 0, media: Sequence[ReadMedium] = (), what: str = "the prompt"
) -> None:
    """Raise ContextLengthError, with what would help, when prompt and answer do not fit in `context` tokens."""
    if prompt_tokens + max_new_tokens <= context:
        return
    remedies = []
    if any(medium.kind == "video" for medium in media):
        remedies.append("sample fewer frames (max_frames=...)")
    if any(medium.rows for medium in media):
        remedies.append('look less closely (detail="fit" or detail="low")')
    if len(media) > 1:
        remedies.append("pass fewer media")
    remedies.append("shorten the text or ask for fewer max_new_tokens" if max_new_tokens else "shorten the text")
    answer = f" and the answer up to {max_new_tokens} more" if max_new_tokens else ""
    raise ContextLengthError(
        f"{what} has {prompt_tokens} tokens{answer}, beyond the model's context of {context}; {', or '.join(remedies)}."
    )
