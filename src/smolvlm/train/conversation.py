"""Messages -> token ids and labels: the answers are learned, nothing else.

What is learned is exactly what the model will have to write: a turn's labels are the tokens that follow the prompt
which would ask for that turn, up to and including the stop token. The published notebook learns the prompt too, and
models made with it answer "Frame from 00:00:".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smolvlm.errors import ImageError, MixtureError, PromptError, SmolVLMError, SourceError, VideoError
from smolvlm.options.media import MediaOptions
from smolvlm.processor import PreparedMedia, Processor
from smolvlm.prompt.messages import ImagePart, Message, VideoPart
from smolvlm.prompt.segments import Segment, TextSegment
from smolvlm.prompt.style import apply_style
from smolvlm.train.batching import IGNORE, Example
from smolvlm.train.record import Record, to_messages


@dataclass(frozen=True)
class Skipped:
    """A record that gives no example. kind: "unreadable" (its media) or "too long" (even its first turn)."""

    kind: str
    reason: str


@dataclass(frozen=True, eq=False)
class Encoded:
    """An example, and whether turns at its end were left out to fit."""

    example: Example
    cut: bool = False


class ConversationEncoder:
    """Turns records into examples of at most `seq_len` tokens. Holds no state between calls: threads may share it."""

    def __init__(self, processor: Processor, seq_len: int, options: MediaOptions | None = None) -> None:
        self.processor, self.seq_len, self.options = processor, seq_len, options or MediaOptions()

    def __call__(self, record: Record) -> Encoded | Skipped:
        """One record. Unreadable media skip it; a malformed record raises MixtureError."""
        messages = to_messages(record)
        try:
            prepared = self.processor.prepare_media(messages, options=self.options)
        except (ImageError, VideoError, SourceError) as error:
            return Skipped("unreadable", f"{record.where}: {error}")
        except SmolVLMError as error:
            raise MixtureError(f"{record.where}: {error}") from None
        try:
            encoded = self.encode(messages, prepared)
        except PromptError as error:
            raise MixtureError(f"{record.where}: {error}") from None
        if encoded is None:
            return Skipped("too long", f"{record.where}: its first answer ends beyond {self.seq_len} tokens")
        return encoded

    def encode(self, messages: Sequence[Message], prepared: Sequence[PreparedMedia]) -> Encoded | None:
        """Ids and labels, cut after the last answer that fits; None when not even the first one does."""
        answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
        spans: list[tuple[int, int]] = []
        ids: list[int] = []
        for index in answers:
            prompt = self._ids(messages[:index], prepared, asking=True) if index else []
            whole = self._ids(messages[: index + 1], prepared, asking=False)
            if whole[: len(prompt)] != prompt:
                raise PromptError(
                    "the chat template words an answer otherwise than its own generation prompt, so what "
                    "is to be learned cannot be told; use the published template."
                )
            stop = _last_stop(whole, len(prompt), self.processor.model.eos_token_ids)
            if stop > self.seq_len:
                break
            spans.append((len(prompt), stop))
            ids = whole[:stop]
        if not spans:
            return None
        input_ids = np.array(ids, np.int64)
        labels = np.full(len(ids), IGNORE, np.int64)
        for start, stop in spans:
            labels[start:stop] = input_ids[start:stop]
        labels[0] = IGNORE
        tiles = self.processor.stack_tiles(prepared)
        used = int((input_ids == self.processor.model.image_token_id).sum()) // self.processor.config.image_seq_len
        return Encoded(Example(input_ids, labels, tiles[:used]), cut=len(spans) < len(answers))

    def _ids(self, messages: Sequence[Message], prepared: Sequence[PreparedMedia], *, asking: bool) -> list[int]:
        """The ids of the first turns; `asking` adds what asks for the next one. As `Processor.build`, but for tiles."""
        rendered = self.processor.template.render(apply_style(messages, self.processor.prompt_style), add_generation_prompt=asking)
        following = iter(prepared)
        segments: list[Segment] = [
            TextSegment(self.processor.placeholder(next(following).info), trusted=True)
            if isinstance(piece, ImagePart | VideoPart)
            else piece
            for piece in rendered
        ]
        return self.processor.tokenizer.encode_segments(segments)


def _last_stop(ids: Sequence[int], start: int, eos_token_ids: Sequence[int]) -> int:
    """One past the last stop token from `start` on."""
    for at in range(len(ids) - 1, start - 1, -1):
        if ids[at] in eos_token_ids:
            return at + 1
    raise PromptError("the chat template ends an answer without the stop token of generation_config.json; use the published template.")
