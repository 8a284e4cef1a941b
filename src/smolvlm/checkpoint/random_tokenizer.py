"""A tokenizer of the official format for random checkpoints: official special ids, a vocabulary of no consequence.

The base is a byte-level BPE trained in about a second on text that every Python carries, filled up to the official
49,152 ids with made-up words. The same Python gives the same tokenizer; another version has other text in its library.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

BASE_VOCAB = 49_152

# 17 control tokens open the base vocabulary; the first three have roles (unk, bos, pad), the others only occupy ids.
_BASE_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|base_special_{i}|>" for i in range(3, 17))]
_IMAGE_SPECIALS = [
    "<global-img>",  # 49152 in the official vocabulary, where 88 reserved tokens and <end_of_utterance> 49279 follow
    *(f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)),
    "<fake_token_around_image>",  # 49189
    "<image>",  # 49190
]

# Prose first (the language reference that `help()` shows), then code. What a stripped Python lacks is left out.
_CORPUS = (
    "pydoc_data.topics",
    "argparse",
    "typing",
    "tarfile",
    "_pydecimal",
    "mailbox",
    "inspect",
    "unittest.mock",
    "turtle",
    "doctest",
    "pickletools",
    "optparse",
    "difflib",
    "textwrap",
    "subprocess",
    "statistics",
    "random",
    "threading",
)


def official_tokenizer_json(trained: int = BASE_VOCAB - 1000) -> str:
    """The text of a `tokenizer.json` with 49,280 ids: digits apart, byte-level BPE, nothing added around the text.

    trained: how many ids have merges that lead to them; with few of them it loads in about half the time.
    """
    state = json.loads(byte_level_bpe(_corpus_texts(_CORPUS if trained > 10_000 else _CORPUS[:2]), trained).to_str())
    _fill(state["model"]["vocab"])
    return with_added_specials(Tokenizer.from_str(json.dumps(state)), reserved=88)


def byte_level_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of the official kind trained on `texts`, at most `vocab_size` ids, the base control tokens first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=_BASE_SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def with_added_specials(tokenizer: Tokenizer, reserved: int) -> str:
    """The `tokenizer.json` of a base vocabulary and, after it, the official added tokens with so many reserved ones."""
    added = [*_IMAGE_SPECIALS, *(f"<|reserved_special_token_{i}|>" for i in range(reserved)), "<end_of_utterance>"]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    return str(tokenizer.to_str())


def _corpus_texts(names: Iterable[str]) -> list[str]:
    texts = []
    for name in names:
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:  # the parent package is absent
            continue
        if spec is not None and spec.origin is not None and Path(spec.origin).suffix == ".py":
            texts.append(Path(spec.origin).read_text(encoding="utf-8", errors="replace"))
    return texts


def _fill(vocab: dict[str, int]) -> None:
    """Words of three syllables for the ids that training left free. No merge leads there: no text encodes to one."""
    syllables = [consonant + vowel for consonant in "bcdfghjklmnpqrstvwxz" for vowel in "aeiou"]
    number = 0
    while len(vocab) < BASE_VOCAB:
        scattered = number * 618_033 % 1_000_000  # coprime to 10**6: each number once, neighbours unlike each other
        word = "".join(syllables[scattered // 100**i % 100] for i in range(3))
        vocab.setdefault(f"Ġ{word}", len(vocab))  # Ġ is the byte-level spelling of a space
        number += 1
