"""`tokenizer.json` as the family has it, checked before the `tokenizers` library sees a byte of it.

That library runs whatever a file describes: a regular expression without end, a normalizer whose data ends the process
(precompiled character maps), parts that panic. SmolVLM's tokenizers are one kind: BPE over bytes, digits apart, nothing
before and nothing after. What is passed on is built here from checked values; anything else is refused by its name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smolvlm.errors import CheckpointError, ConfigError
from smolvlm.families import FAMILIES
from smolvlm.json_file import Fields, parse_json, read_text, short

MAX_FILE_BYTES = 64 << 20  # the official file has 3.5 MB
_MAX_IDS = 1 << 20
_MAX_ADDED = 4096  # the official file has 145
_MAX_TOKEN_CHARS = 1024
_REMEDY = "take the file of the published checkpoint"
_BYTE_LEVEL = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_SPLIT_PATTERNS = frozenset(pattern for family in FAMILIES for pattern in family.split_patterns)
# They change ids only where special tokens are asked for, which we never do: read past, and not passed on.
_POST_PROCESSORS = ("ByteLevel", "TemplateProcessing")


def read_tokenizer_text(path: Path) -> str:
    """The text of a tokenizer's file. Raises CheckpointError naming it."""
    try:
        return read_text(path, MAX_FILE_BYTES)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; a checkpoint folder holds it beside its weights.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({short(str(error))}).") from None


def checked_tokenizer(json_text: str, label: str) -> dict[str, Any]:
    """The file's content, of checked parts only and in the library's form. Raises CheckpointError naming `label`."""
    try:
        raw = parse_json(json_text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{label}: not a tokenizer that can be read ({short(str(error))}); {_REMEDY}.") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{label}: not a tokenizer that can be read (no JSON object); {_REMEDY}.")
    try:
        read = Fields(raw, f"{label}: ")
        if raw.get("normalizer") is not None:
            raise read.wrong("normalizer", _kind(raw["normalizer"]), "null: SmolVLM's tokenizers have none")
        _check_post_processor(raw.get("post_processor"), read)
        model = _model(read.inner("model"))
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "normalizer": None,
            "post_processor": None,
            "added_tokens": _added_tokens(raw.get("added_tokens"), read),
            "pre_tokenizer": _pre_tokenizer(read),
            "decoder": _decoder(read),
            "model": model,
        }
    except ConfigError as error:
        raise CheckpointError(f"{str(error).rstrip('.')}; {_REMEDY}.") from None


def _model(read: Fields) -> dict[str, Any]:
    if (kind := read.text("type")) != "BPE":
        raise read.wrong("type", kind, '"BPE"')
    for key in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        value = read.raw.get(key)
        is_token = key == "unk_token" and isinstance(value, str) and len(value) <= _MAX_TOKEN_CHARS
        if value is not None and value != "" and not is_token and not (key == "dropout" and value == 0):
            raise read.wrong(key, value, "null")
    if read.flag("byte_fallback"):
        raise read.wrong("byte_fallback", True, "false")
    vocab = _vocab(read)
    unknown = read.text("unk_token", max_chars=_MAX_TOKEN_CHARS) or None
    if unknown is not None and unknown not in vocab:
        raise read.wrong("unk_token", unknown, "a token of the vocabulary")
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": read.flag("fuse_unk", False),
        "byte_fallback": False,
        "ignore_merges": read.flag("ignore_merges", False),
        "vocab": vocab,
        "merges": _merges(read, vocab),
    }


def _vocab(read: Fields) -> Mapping[str, int]:
    vocab = read.inner("vocab").raw
    if not 1 <= len(vocab) <= _MAX_IDS:
        raise read.wrong("vocab", f"{len(vocab):,} tokens", f"1 to {_MAX_IDS:,}")
    for token, number in vocab.items():
        if type(number) is not int or not 0 <= number < _MAX_IDS or len(token) > _MAX_TOKEN_CHARS:
            expected = f"a token of at most {_MAX_TOKEN_CHARS} characters with an id from 0 to {_MAX_IDS - 1:,}"
            raise Fields(vocab, f"{read.where}vocab.").wrong(short(token), number, expected, kind=type(number) is not int)
    if len(set(vocab.values())) != len(vocab):
        raise read.wrong("vocab", "two tokens with one id", "an id of its own for each token")
    return vocab


def _merges(read: Fields, vocab: Mapping[str, int]) -> list[list[str]]:
    """Pairs of tokens, each written "a b" or ["a", "b"]: both in the vocabulary, and what they become too."""
    raw = read.raw.get("merges")
    if not isinstance(raw, list) or len(raw) > _MAX_IDS:
        raise read.wrong("merges", type(raw).__name__, f"a list of at most {_MAX_IDS:,} pairs", kind=True)
    pairs = []
    for i, merge in enumerate(raw):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        good = isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
        if not good or not (pair[0] in vocab and pair[1] in vocab and pair[0] + pair[1] in vocab):
            raise read.wrong(f"merges[{i}]", merge, "two tokens of the vocabulary that make a third")
        pairs.append(pair)
    return pairs


def _added_tokens(raw: Any, read: Fields) -> list[dict[str, Any]]:
    if not isinstance(raw, list) or len(raw) > _MAX_ADDED:
        shown = f"{len(raw):,} tokens" if isinstance(raw, list) else type(raw).__name__
        raise read.wrong("added_tokens", shown, f"a list of at most {_MAX_ADDED:,}", kind=not isinstance(raw, list))
    tokens = []
    for i, entry in enumerate(raw):
        if not isinstance(entry, dict):
            raise read.wrong(f"added_tokens[{i}]", entry, "a JSON object", kind=True)
        token = Fields(entry, f"{read.where}added_tokens[{i}].")
        number, content = token.whole("id", 0, _MAX_IDS - 1), token.text("content", max_chars=_MAX_TOKEN_CHARS)
        if number is None or not content:
            raise token.wrong("id" if number is None else "content", entry.get("content"), "an id and a text")
        flags = {key: token.flag(key, False) for key in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        tokens.append({"id": number, "content": content, **flags})
    for key in ("id", "content"):
        if len({token[key] for token in tokens}) != len(tokens):
            raise read.wrong("added_tokens", f"two tokens with one {key}", f"a {key} of its own for each token")
    return tokens


def _pre_tokenizer(read: Fields) -> dict[str, Any]:
    top = read.inner("pre_tokenizer")
    parts = top.raw.get("pretokenizers") if top.raw.get("type") == "Sequence" else [top.raw]
    if not isinstance(parts, list) or not 1 <= len(parts) <= 4 or not all(isinstance(part, dict) for part in parts):
        raise top.wrong("pretokenizers", type(parts).__name__, "a list of one to four objects", kind=True)
    result = []
    for part in (Fields(part, top.where) for part in parts):
        kind = part.raw.get("type")
        if kind == "Digits":
            result.append({"type": "Digits", "individual_digits": part.flag("individual_digits", False)})
        elif kind == "ByteLevel":
            result.append(_byte_level(part))
        elif kind == "Split" and (pattern := part.inner("pattern").raw.get("Regex")) in _SPLIT_PATTERNS:
            if part.text("behavior") != "Isolated" or part.flag("invert"):
                raise part.wrong("behavior", part.raw.get("behavior"), "'Isolated', not inverted")
            result.append({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False})
        else:
            raise part.wrong("type", kind, "Digits, ByteLevel, or Split by a pattern that a family of models has")
    if sum(part["type"] == "ByteLevel" for part in result) != 1:
        raise read.wrong("pre_tokenizer", [part["type"] for part in result], "one ByteLevel, with Digits or Split before it or not")
    return {"type": "Sequence", "pretokenizers": result}


def _decoder(read: Fields) -> dict[str, Any]:
    decoder = read.inner("decoder")
    if decoder.raw.get("type") != "ByteLevel":
        raise read.wrong("decoder", _kind(decoder.raw), "ByteLevel")
    return _byte_level(decoder)


def _byte_level(read: Fields) -> dict[str, Any]:
    return {"type": "ByteLevel", **{key: read.flag(key, default) for key, default in _BYTE_LEVEL.items()}}


def _check_post_processor(raw: Any, read: Fields) -> None:
    if raw is None:
        return
    parts = raw.get("processors") if isinstance(raw, dict) and raw.get("type") == "Sequence" else [raw]
    if not isinstance(parts, list) or any(_kind(part) not in _POST_PROCESSORS for part in parts):
        raise read.wrong("post_processor", _kind(raw), f"null or one of {', '.join(_POST_PROCESSORS)}")


def _kind(part: Any) -> object:
    """What a part calls itself, for a message."""
    return part.get("type") if isinstance(part, dict) else part


def as_text(tokenizer: Mapping[str, Any]) -> str:
    """The checked content as the library reads it."""
    return json.dumps(tokenizer, ensure_ascii=False)
