"""`choose`: how likely the model finds each of several answers, without generating any.

The options of a question are a trie of tokens: what they share is read once, and what can be decoded together is. Questions
about the same media share what comes before their words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smolvlm.answers import Choice
from smolvlm.engines.base import Engine, FloatArray, SeqHandle
from smolvlm.errors import ParamsError, PromptError
from smolvlm.inference.cached_sequence import CachedSequence
from smolvlm.inference.prompt import Medium
from smolvlm.inference.runtime import Progress, Runtime
from smolvlm.inference.timing import Clock
from smolvlm.media import MediaOptions
from smolvlm.prompt.messages import Message, ParsedMessages, TextPart

_TOGETHER = 32  # branches that are decoded in one step


def choose_options(
    runtime: Runtime,
    questions: Sequence[tuple[ParsedMessages, Sequence[str]]],
    media_options: MediaOptions,
    on_progress: Progress | None = None,
) -> list[Choice]:
    """Score each option as the assistant's complete answer: the sum of its tokens' log probabilities, the end included.

    Several conversations about the same media, which are read and encoded once. Probabilities are the softmax of the sums.
    Raises ParamsError for no options, an empty one or a repeated one.
    """
    for _, options in questions:
        check_options(options)
    if not questions:
        return []
    media = runtime.read_media(questions[0][0], media_options, on_progress)
    candidates = [Candidates(runtime, messages, options, media) for messages, options in questions]
    sequence = runtime.open_sequence(max(each.room for each in candidates))
    try:
        return [each.score(sequence, on_progress) for each in candidates]
    finally:
        sequence.close()


def check_options(options: Sequence[str]) -> None:
    """Raise ParamsError unless `options` are one or more different answers."""
    if isinstance(options, str) or not isinstance(options, Sequence) or not all(isinstance(option, str) for option in options):
        raise ParamsError("options must be a list of strings, such as ['yes', 'no'].")
    if not options:
        raise ParamsError("options is empty; give at least one answer to choose from.")
    if blank := [i for i, option in enumerate(options) if not option.strip()]:
        raise ParamsError(f"option {blank[0]} is empty; an answer to choose needs some text.")
    if len(set(options)) != len(options):
        raise ParamsError("options holds the same answer twice; each may stand once.")


class Candidates:
    """The options of one question in tokens, as the chat template writes them after the prompt."""

    def __init__(self, runtime: Runtime, messages: ParsedMessages, options: Sequence[str], media: Sequence[Medium]) -> None:
        """Raises ContextLengthError when the longest does not fit, PromptError for a template without an end token."""
        self._runtime, self._options = runtime, options
        self.prompt = runtime.word(messages, media)
        runtime.tell(self.prompt)
        replies = [ParsedMessages([*messages, Message("assistant", (TextPart(option),))]) for option in options]
        whole = [runtime.word(reply, media, add_generation_prompt=False) for reply in replies]
        self.room = max(runtime.check_room(each, 1) for each in whole)
        self._answers = [_up_to_end(runtime, each.input_ids) for each in whole]

    def score(self, sequence: CachedSequence, on_progress: Progress | None = None) -> Choice:
        """The likeliest. `sequence` holds what the options share of the prompt afterwards."""
        runtime, options = self._runtime, self._options
        shared = min(_common_prefix(self.prompt.input_ids, ids) for ids in self._answers)
        prefilled = runtime.prefill(self.prompt.first(shared), sequence, Clock(), on_progress)
        sums = log_probabilities(runtime.engine, sequence.seq, prefilled.logits, [ids[shared:] for ids in self._answers])
        scores = np.array(sums)
        weights = np.exp(scores - scores.max())
        probabilities = weights / weights.sum()
        best = int(scores.argmax())
        return Choice(
            options[best],
            best,
            dict(zip(options, probabilities.tolist(), strict=True)),
            dict(zip(options, sums, strict=True)),
            self.prompt.warnings,
        )


@dataclass(eq=False)
class _Branch:
    """Tokens that some continuations share from position `start` on, after those that `parent` holds."""

    parent: _Parent
    start: int
    tokens: list[int]
    members: list[int]


@dataclass(eq=False)
class _Parent:
    """A sequence that `unread` branches still have to be forked from."""

    seq: SeqHandle
    unread: int


def log_probabilities(engine: Engine, seq: SeqHandle, logits: FloatArray, tails: Sequence[Sequence[int]]) -> list[float]:
    """The summed log probability of each of `tails` (token ids, not empty) after what `seq` holds; `logits` (vocab,) are
    those of its last token. `seq` stays as it is. The last token of a tail is never run through the model."""
    sums = [0.0] * len(tails)
    root = _Parent(seq, 0)
    open_seqs: set[SeqHandle] = set()
    waiting: list[_Branch] = []

    def branch_off(parent: _Parent, row: FloatArray, position: int, members: Iterable[int]) -> None:
        """Count the token at `position` of each member, and note the branches that go on."""
        log_p = _log_softmax(row[None])[0]
        groups: dict[int, list[int]] = {}
        for i in members:
            sums[i] += float(log_p[tails[i][position]])
            if len(tails[i]) > position + 1:
                groups.setdefault(tails[i][position], []).append(i)
        for group in groups.values():
            end = position + 1  # exclusive: of what all share, and is not the last of any
            while all(len(tails[i]) > end + 1 and tails[i][end] == tails[group[0]][end] for i in group):
                end += 1
            waiting.append(_Branch(parent, position, list(tails[group[0]][position:end]), group))
        parent.unread = len(groups)

    def enter(branch: _Branch) -> SeqHandle:
        """The sequence in which a branch is read: its parent's own for the last one, else a fork."""
        parent = branch.parent
        parent.unread -= 1
        if parent.unread == 0 and parent is not root:
            return parent.seq
        fork = engine.fork(parent.seq)
        open_seqs.add(fork)
        return fork

    def read(branch: _Branch, seq: SeqHandle, rows: FloatArray) -> None:
        """`rows` are the logits after each token of a branch."""
        middle = _log_softmax(rows[:-1])
        for offset, token in enumerate(branch.tokens[1:]):
            for i in branch.members:
                sums[i] += float(middle[offset, token])
        ended = _Parent(seq, 0)
        branch_off(ended, rows[-1], branch.start + len(branch.tokens), branch.members)
        if not ended.unread:
            engine.close(seq)
            open_seqs.discard(seq)

    try:
        branch_off(root, logits, 0, range(len(tails)))
        while waiting:
            batch = [waiting.pop() for _ in range(min(_TOGETHER, len(waiting)))]
            short = [(branch, enter(branch)) for branch in batch if len(branch.tokens) == 1]
            long = [(branch, enter(branch)) for branch in batch if len(branch.tokens) > 1]
            if short:
                rows = engine.decode([seq for _, seq in short], [branch.tokens[0] for branch, _ in short])
                for (branch, seq), row in zip(short, rows, strict=True):
                    read(branch, seq, row[None])
            for branch, seq in long:
                read(branch, seq, engine.prefill(seq, branch.tokens, logits_to_keep=0))
    finally:
        for seq in open_seqs:
            engine.close(seq)
    return sums


def _up_to_end(runtime: Runtime, ids: Sequence[int]) -> Sequence[int]:
    """Cut what the template writes after the answer's end token (a line break)."""
    ends = [i for i, token in enumerate(ids) if token in runtime.engine.config.eos_token_ids]
    if not ends:
        raise PromptError("the chat template writes no end token after an answer, so answers cannot be scored.")
    return ids[: ends[-1] + 1]


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _log_softmax(logits: FloatArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(rows, vocab) in float64: a sum over a long option must not lose digits."""
    if not len(logits):
        return np.empty(logits.shape)
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))
