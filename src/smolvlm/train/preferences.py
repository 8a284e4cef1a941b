"""Preference pairs: a JSONL with a preferred and a rejected answer a line -> pairs of examples, in a repeatable order.

Forms: `{"prompt" | "question": ..., "chosen": ..., "rejected": ..., "image" | "images" | "video": ...}`, with
`conversations` (LLaVA) or `messages` in place of the prompt; `chosen` and `rejected` are text, one turn, or whole
conversations that end with the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolvlm.errors import ImageError, MixtureError, PromptError, SmolVLMError, SourceError, VideoError
from smolvlm.prompt.messages import Message, TextPart
from smolvlm.train.batching import Drawn, Example
from smolvlm.train.conversation import ConversationEncoder, Encoded, Skipped
from smolvlm.train.dpo_objective import PairBatch, PairExample, collate_pairs
from smolvlm.train.finetune_data import from_messages, media_files, read_rows, to_record
from smolvlm.train.mixture import Mixture
from smolvlm.train.mixture_batches import MixtureBatches
from smolvlm.train.reading import Reading
from smolvlm.train.record import Record, to_messages

_PROMPTS = ("prompt", "question", "query", "instruction")


def read_preferences(path: Path) -> list[Record]:
    """The pairs of a file, media relative to it. `raw["conversations"]` ends with the preferred answer, and
    `raw["rejected"]` is the other. Raises MixtureError, naming file and line, for what is no pair."""
    try:
        records = [_pair(row, path.parent, where) for where, row in read_rows(path)]
    except (OSError, UnicodeDecodeError) as error:
        raise MixtureError(f"{path}: cannot be read ({error}).") from None
    if not records:
        raise MixtureError(f"{path}: holds no pairs.")
    return records


def _pair(row: Any, root: Path, where: str) -> Record:
    if not isinstance(row, Mapping) or "chosen" not in row or "rejected" not in row:
        raise MixtureError(f"{where}: expected an object with prompt, chosen and rejected.")
    chosen, rejected = (_answer(row[key], key, where) for key in ("chosen", "rejected"))
    turns = _prompt(row, where)
    if chosen == rejected:
        raise MixtureError(f"{where}: chosen and rejected are the same answer, which prefers nothing.")
    record = to_record(media_files(row, root, where), [*turns, {"from": "gpt", "value": chosen}], where)
    return Record({**record, "rejected": rejected}, where, Path())


def _prompt(row: Mapping[str, Any], where: str) -> list[dict[str, str]]:
    """The turns before the answer."""
    if isinstance(row.get("conversations"), list):
        turns = list(row["conversations"])
    elif (said := row.get("messages")) is not None:
        turns = from_messages(said, where)
    elif (asked := next((row[key] for key in _PROMPTS if row.get(key)), None)) is not None:
        turns = [{"from": "human", "value": asked}] if isinstance(asked, str) else from_messages(asked, where)
    elif isinstance(row["chosen"], list):
        turns = from_messages(row["chosen"], where)
    else:
        raise MixtureError(f"{where}: no prompt; expected one of {', '.join(_PROMPTS)}, conversations or messages.")
    if turns and isinstance(turns[-1], Mapping) and turns[-1].get("from") in ("gpt", "assistant"):
        turns = turns[:-1]
    return turns


def _answer(value: Any, key: str, where: str) -> str:
    if isinstance(value, list) and value:
        value = value[-1]
    if isinstance(value, Mapping):
        value = value.get("value", value.get("content"))
    if not isinstance(value, str) or not value.strip():
        raise MixtureError(f"{where}: {key} is no answer; expected text, or turns that end with it.")
    return value.strip()


@dataclass(frozen=True, eq=False)
class EncodedPair(Encoded):
    """`example` is the preferred answer's, `rejected` the other's."""

    rejected: Example | None = None


class PairEncoder(ConversationEncoder):
    """Turns pairs into two examples over the same media, which are opened once."""

    def __call__(self, record: Record) -> Encoded | Skipped:
        messages = to_messages(record)
        other = [*messages[:-1], Message("assistant", (TextPart(record.raw["rejected"]),))]
        try:
            prepared = self.processor.prepare_media(messages, options=self.options)
        except (ImageError, VideoError, SourceError) as error:
            return Skipped("unreadable", f"{record.where}: {error}")
        try:
            chosen, rejected = self.encode(messages, prepared), self.encode(other, prepared)
        except (PromptError, SmolVLMError) as error:
            raise MixtureError(f"{record.where}: {error}") from None
        if chosen is None or rejected is None or chosen.cut or rejected.cut:
            return Skipped("too long", f"{record.where}: an answer ends beyond {self.seq_len} tokens")
        return EncodedPair(chosen.example, rejected=rejected.example)


class PairBatches(MixtureBatches):
    """The `BatchSource` of preference pairs: `batch_size` pairs a batch, one answer a row."""

    def draw(self, state: Mapping[str, Any] | None, rank: int, world: int) -> Iterator[Drawn[PairBatch]]:  # type: ignore[override]
        """See `BatchSource`. State: the next place, and the counts."""
        reading = Reading(self.reader, state, rank, world)
        while not reading.ended:
            pairs: list[PairExample] = []
            while len(pairs) < self.batch_size and (found := reading.next_example()) is not None:
                pair = found[1]
                assert isinstance(pair, EncodedPair), "a PairEncoder gives pairs"
                assert pair.rejected is not None, "a PairEncoder gives both answers"
                pairs.append(PairExample(pair.example, pair.rejected))
            if pairs:
                batch = collate_pairs(pairs, self.config, self.encoder.processor.model.text.pad_token_id)
                yield Drawn(batch, reading.state(), reading.progress())


def pair_mixture(path: Path, *, seed: int) -> Mixture:
    """The pairs of a file as a mixture, every one of them checked."""
    return Mixture.from_records(read_preferences(path), seed=seed)
