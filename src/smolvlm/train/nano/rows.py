"""Training rows: one picture or clip, many questions.

In most rows all questions share the media's tokens and see nothing of each other (the mask), and each continues at the
position where the media ended: the loss is that of one row a question, at the cost of one row. In the others they are
the turns of one conversation, as a session asks them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from smolvlm.config import ModelConfig
from smolvlm.families import SMOLVLM
from smolvlm.families.grammar import ASSISTANT, NEXT_USER, USER_WITH_MEDIA
from smolvlm.prompt.segments import TextSegment
from smolvlm.prompt.tokenizer import PromptTokenizer
from smolvlm.synth.sample import Pixels, Question, Sample
from smolvlm.train.nano.attention_targets import AttentionTarget, TargetFinder
from smolvlm.train.nano.dense import Labels, dense_labels, unknown_labels

PAD_SEGMENT = -1


@dataclass(frozen=True, eq=False)
class Row:
    """Token ids and, a token: the segment (0 media, 1.. questions, -1 padding), the position, the weight of its loss as
    a target. `frames` uint8 (tiles, side, side, 3); `labels` (tiles, image_seq_len, fields)."""

    input_ids: npt.NDArray[np.int64]
    segments: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    frames: npt.NDArray[np.uint8]
    labels: Labels
    attn_targets: tuple[AttentionTarget, ...]
    conversation: bool


class RowMaker:
    """Samples -> rows of a fixed length, with the ids that `Processor` would make (a test compares them)."""

    def __init__(self, config: ModelConfig, tokenizer: PromptTokenizer) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.target_finder = TargetFinder(config, tokenizer)
        self._prefixes: dict[object, list[int]] = {}

    def prefix(self, sample: Sample) -> list[int]:
        """The user's turn up to the last token of its media."""
        key = (sample.kind, len(sample.frames), sample.timestamps_s, sample.duration_s)
        if key not in self._prefixes:
            tokens = self.config.image_seq_len
            if sample.kind == "video":
                media = " " + SMOLVLM.prompt.video_text(sample.timestamps_s, sample.duration_s, tokens, outro="")
            else:
                media = SMOLVLM.prompt.image_text(0, 0, tokens) * len(sample.frames)
            text = USER_WITH_MEDIA + media
            self._prefixes[key] = self.tokenizer.encode_segments([TextSegment(text, trusted=True)])
        return self._prefixes[key]

    def branch(self, question: Question, before: str) -> tuple[list[int], int]:
        """The ids of a question with its answer, and how many of them, at the end, are the answer. `before` is what the
        template writes between the media, or the last turn, and the question: a tokenizer may join it with what follows."""
        asked = self.tokenizer.encode_segments(
            [TextSegment(before, trusted=True), TextSegment(question.text), TextSegment(ASSISTANT, trusted=True)]
        )
        answer = [*self.tokenizer.encode_text(f" {question.answer}"), self.config.text.eos_token_id]
        return asked + answer, len(answer)

    def row(self, sample: Sample, questions: Sequence[Question], length: int, *, conversation: bool = False) -> Row:
        """As many of `questions` as fit into `length` tokens behind the media; as turns of one `conversation`, or apart."""
        prefix = self.prefix(sample)
        ids, segments, positions = list(prefix), [0] * len(prefix), list(range(len(prefix)))
        weights = [0.0] * len(prefix)
        image_tokens = [i for i, token in enumerate(prefix) if token == self.config.image_token_id]
        attn_targets = list(self.target_finder.frames(sample, image_tokens))
        for number, question in enumerate(questions, start=1):
            first = len(ids) == len(prefix) or not conversation
            outro = SMOLVLM.prompt.video_wording().outro if sample.kind == "video" else ""
            branch, answer = self.branch(question, outro if first else NEXT_USER)
            if len(ids) + len(branch) > length:
                continue
            attn_targets += self.target_finder.find(sample, question, branch, answer, len(ids), image_tokens)
            ids += branch
            segments += [number] * len(branch)
            begin = len(ids) - len(branch) if conversation else len(prefix)
            positions += range(begin, begin + len(branch))
            # A caption has ten times the tokens of a colour, most of them easy: the root keeps it from drowning the rest.
            weights += [0.0] * (len(branch) - answer) + [answer**-0.5] * answer
        fill = length - len(ids)
        assert fill >= 0, f"a row of {length} tokens cannot hold {len(prefix)} of media"
        tokens = self.config.image_seq_len
        labels = [dense_labels(truth, tokens) for truth in sample.truths]
        return Row(
            np.array(ids + [self.config.text.pad_token_id] * fill),
            np.array(segments + [PAD_SEGMENT] * fill),
            np.array(positions + [0] * fill),
            np.array(weights + [0.0] * fill, np.float32),
            np.stack([_squashed(frame, self.config.vision.image_size) for frame in sample.frames]),
            np.stack(labels or [unknown_labels(tokens)] * len(sample.frames)),
            tuple(attn_targets),
            conversation,
        )


def _squashed(frame: Pixels, side: int) -> Pixels:
    """A frame as one square tile, as the processor makes it of a picture that is not split."""
    if frame.shape[:2] == (side, side):
        return frame
    return np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.LANCZOS))


def row_mask(segments: npt.NDArray[np.int64], conversation: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(batch, seq) segments -> (batch, 1, seq, seq), true where a query may look: causal, the media and its own question;
    in rows that are a conversation (batch,) also the turns before. Padding sees itself: no row of the softmax is empty."""
    query, key = segments[:, :, None], segments[:, None, :]
    causal = np.tri(segments.shape[1], dtype=bool)
    seen = (key == 0) | conversation[:, None, None] & (key >= 0)
    mask: npt.NDArray[np.bool_] = ((seen & (query >= 0) | (key == query)) & causal)[:, None]
    return mask
