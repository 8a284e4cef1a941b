"""A small real tokenizer and small real engines for the generation room: quick, deterministic, no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from smolvlm.config import ModelConfig

TRAINING_TEXT = [
    "The picture shows a man who is standing in front of a house. He wears a red coat and a hat.",
    "In the video, a rabbit wakes up in a green meadow; it looks around, smells a flower and laughs.",
    '{"name":"cup","colour":"red","count":3,"tags":["a","b"],"nested":{"x":1.5,"y":null,"ok":true,"no":false}}',
    "A list: 1. one apple, 2. two pears, 3. three plums. | a | b | c |\n| --- | --- | --- |\n",
    "图片中有一只猫坐在窗台上,旁边有一盆花。 Überraschung! Ça va? Привет, мир. 😀 👨‍👩‍👧 🇩🇪",
    "def area(width, height):\n    return width * height\n",
] * 3
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ADDED = ["<global-img>", "<fake_token_around_image>", "<image>", "<end_of_utterance>"]


@lru_cache(maxsize=1)
def small_tokenizer() -> Tokenizer:
    """Byte-level BPE with the official pre-tokenizer: all 256 bytes, some merges, control tokens at both ends."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False, min_frequency=2)
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ADDED])
    return tokenizer


def eos_id() -> int:
    return int(small_tokenizer().token_to_id("<end_of_utterance>"))


def vocab_size() -> int:
    """Wider than the tokenizer, as the official logits are."""
    return int(small_tokenizer().get_vocab_size()) + 9


def decode(ids: Sequence[int], special_tokens: str = "strip") -> str:
    return str(small_tokenizer().decode(list(ids), skip_special_tokens=special_tokens == "strip"))


def encode(text: str) -> list[int]:
    return list(small_tokenizer().encode(text, add_special_tokens=False).ids)


class SmallEngine:
    """The `Engine` protocol over plain lists: the next logits are a function of the tokens so far.

    Counts what it is asked, and refuses what the contract forbids: a closed sequence, more tokens than there is room for.
    """

    config: ModelConfig
    name = "small"
    device = "cpu"
    dtype = "float32"
    kv_page_tokens = 1

    def __init__(self, next_logits: Callable[[Sequence[int]], np.ndarray]) -> None:
        self.next_logits = next_logits
        self.sequences: dict[int, list[int]] = {}
        self.rooms: dict[int, int] = {}
        self.decode_calls: list[tuple[int, ...]] = []
        self.prefill_calls: list[tuple[int, int]] = []
        self._last = 0

    def encode_images(self, pixel_values):
        raise NotImplementedError

    def stored_embeds(self, features):
        raise NotImplementedError

    def hidden(self, seqs, prompts, image_embeds=None, *, rows_to_keep=1):
        raise NotImplementedError

    def open(self, max_tokens: int) -> int:
        self._last += 1
        self.sequences[self._last], self.rooms[self._last] = [], max_tokens
        return self._last

    @property
    def kv_pages(self) -> int:
        return sum(len(ids) for ids in self.sequences.values())

    def length(self, seq: int) -> int:
        return len(self.sequences[seq])

    def _append(self, seq: int, ids: Sequence[int]) -> None:
        self.sequences[seq].extend(int(i) for i in ids)
        assert len(self.sequences[seq]) <= self.rooms[seq], "no room"

    def prefill(self, seq, input_ids, image_embeds=(), *, logits_to_keep=1):  # noqa: ARG002 - the protocol has it
        self.prefill_calls.append((seq, len(input_ids)))
        rows = []
        for token in input_ids:
            self._append(seq, [token])
            rows.append(self.next_logits(self.sequences[seq]))
        return np.stack(rows[-logits_to_keep:])

    def decode(self, seqs, token_ids):
        self.decode_calls.append(tuple(seqs))
        for seq, token in zip(seqs, token_ids, strict=True):
            self._append(seq, [token])
        return np.stack([self.next_logits(self.sequences[seq]) for seq in seqs])

    def fork(self, seq: int) -> int:
        other = self.open(self.rooms[seq])
        self.sequences[other] = list(self.sequences[seq])
        return other

    def rewind(self, seq: int, length: int) -> None:
        del self.sequences[seq][length:]

    def close(self, seq: int) -> None:
        self.sequences.pop(seq, None)


def random_engine(seed: int = 0, width: int | None = None, spread: float = 3.0) -> SmallEngine:
    """A random bigram model: the logits after a token are always the same row of normal numbers."""
    width = width or vocab_size()

    def next_logits(ids: Sequence[int]) -> np.ndarray:
        rng = np.random.default_rng([seed, ids[-1], ids[-2] if len(ids) > 1 else 0])
        return (rng.standard_normal(width) * spread).astype(np.float32)

    return SmallEngine(next_logits)


def scripted_engine(answers: dict[int, Sequence[int]], prompt_tokens: int = 3) -> SmallEngine:
    """Says `answers[first prompt token]`, token by token, then the stop token for ever."""

    def next_logits(ids: Sequence[int]) -> np.ndarray:
        script, place = answers[ids[0]], len(ids) - prompt_tokens
        logits = np.zeros(vocab_size(), dtype=np.float32)
        logits[script[place] if 0 <= place < len(script) else eos_id()] = 20.0
        return logits

    return SmallEngine(next_logits)
