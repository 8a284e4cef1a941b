"""How often a model gives the expected answer to records it was not trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from smolvlm.inference.scoring import choose_options
from smolvlm.options.media import MediaOptions
from smolvlm.prompt.messages import parse_messages
from smolvlm.train.record import Record, to_messages
from smolvlm.vlm import SmolVLM

MAX_OPTIONS = 20
_SHOWN = 50


@dataclass(frozen=True)
class Accuracy:
    """right of total; commonest: how many a model that always gives the commonest answer would have right.

    wrong: the first misses, each (question, expected, answer).
    """

    right: int
    total: int
    commonest: int
    wrong: tuple[tuple[str, str, str], ...] = ()

    @property
    def share(self) -> float:
        return self.right / max(self.total, 1)

    def __str__(self) -> str:
        return (
            f"{self.right} of {self.total} right ({self.share:.1%}; always the commonest answer: {self.commonest / max(self.total, 1):.1%})"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self) | {"wrong": [list(item) for item in self.wrong]}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Accuracy:
        """What `to_dict` gave. Raises TypeError, ValueError or KeyError for anything else."""
        wrong = tuple((str(q), str(e), str(a)) for q, e, a in raw["wrong"])
        return cls(int(raw["right"]), int(raw["total"]), int(raw["commonest"]), wrong)


def closed_options(records: Sequence[Record]) -> tuple[str, ...]:
    """The answers to choose among, where all records ask the same question and few answers come again and again."""
    last = [_last(record) for record in records]
    counts = Counter(answer for _, answer in last)
    closed = len({question for question, _ in last}) == 1 and 2 <= len(counts) <= MAX_OPTIONS
    return tuple(sorted(counts)) if closed and min(counts.values()) >= 2 else ()


def measure(
    model: SmolVLM,
    records: Sequence[Record],
    options: tuple[str, ...] = (),
    media: MediaOptions | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Accuracy:
    """Ask for each record's last answer: the likeliest of `options` where there are any, else greedily.

    Right means equal but for case, white space and a final full stop.
    """
    media = media or MediaOptions()
    expected = [_last(record)[1] for record in records]
    longest = max((len(model.processor.tokenizer.encode_text(answer)) for answer in expected), default=0)
    wrong: list[tuple[str, str, str]] = []
    for done, record in enumerate(records):
        messages: Any = to_messages(record)[:-1]
        if options:
            answer = choose_options(model.runtime, [(parse_messages(messages), options)], media)[0].option
        else:
            answer = model.chat(
                messages, max_new_tokens=longest + 8, temperature=0.0, detail=media.detail, fps=media.fps, max_frames=media.max_frames
            ).text
        if _plain(answer) != _plain(expected[done]):
            wrong.append((_last(record)[0], expected[done], answer))
        if on_progress is not None:
            on_progress(done + 1, len(records))
    commonest = max(Counter(map(_plain, expected)).values(), default=0)
    return Accuracy(len(records) - len(wrong), len(records), commonest, tuple(wrong[:_SHOWN]))


def _last(record: Record) -> tuple[str, str]:
    """The words of the last question and its answer."""
    turns = record.raw["conversations"]
    question = turns[-2]["value"] if len(turns) > 1 else ""
    return question.replace("<image>", "").replace("<video>", "").strip(), turns[-1]["value"].strip()


def _plain(answer: str) -> str:
    return " ".join(answer.casefold().split()).removesuffix(".").strip()
