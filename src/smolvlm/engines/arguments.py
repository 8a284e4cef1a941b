"""What callers hand to an engine, checked the same way whichever engine it is: numbers of any kind, or our own error."""

from __future__ import annotations

import operator
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from smolvlm.config import ModelConfig
from smolvlm.engines.base import FloatArray
from smolvlm.errors import ContextLengthError, EngineError, PromptError

E = TypeVar("E", bound=Sized)  # a handle of encoded tiles

_MOST = 2**31 - 1  # handles and lengths beyond it exist in no engine


def integer(name: str, value: Any) -> int:
    """`value` as an int, cut off where no engine counts that far. Raises EngineError for what is no integer."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return max(-_MOST, min(operator.index(value), _MOST))
    except TypeError:
        raise EngineError(f"{name}={_shown(value)}: expected an integer.") from None


def capacity(max_tokens: Any, config: ModelConfig) -> int:
    """The room of a new sequence. Raises ContextLengthError beyond the model's context."""
    limit, wanted = config.text.max_position_embeddings, integer("max_tokens", max_tokens)
    if not 1 <= wanted <= limit:
        raise ContextLengthError(f"a sequence of {_shown(max_tokens)} tokens was asked for; this model's context is {limit}.")
    return wanted


def token_ids(given: Sequence[int], config: ModelConfig) -> npt.NDArray[np.int32]:
    """(tokens,) ids inside the vocabulary. Raises EngineError."""
    ids = _integers("token ids", given)
    if ids.size > config.text.max_position_embeddings:
        raise EngineError(f"{ids.size} tokens were given, more than the model's context of {config.text.max_position_embeddings}.")
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= config.text.vocab_size):
        raise EngineError(f"a token id is outside the vocabulary of {config.text.vocab_size}.")
    return ids.astype(np.int32)


def decode_step(seqs: Sequence[int], ids: Sequence[int], config: ModelConfig) -> tuple[list[int], npt.NDArray[np.int32]]:
    """The handles and the tokens of one decode step. Raises EngineError unless each distinct handle has one token."""
    handles, tokens = [int(seq) for seq in _integers("sequences", seqs)], _integers("token ids", ids)
    if len(handles) != len(tokens) or len(set(handles)) != len(handles) or not handles:
        raise EngineError(
            f"decode takes one token for each of at least one distinct sequence, not {len(tokens)} tokens for {len(handles)} sequences."
        )
    if unknown := [handle for handle in handles if not 0 < handle <= _MOST]:
        raise EngineError(f"sequence {unknown[0]} is not open.")
    return handles, token_ids(tokens, config)  # type: ignore[arg-type]


def logits_to_keep(given: Any, tokens: int) -> int:
    """Of how many last positions logits are wanted: 0 means of all. Raises EngineError."""
    keep = integer("logits_to_keep", given)
    if keep < 0:
        raise EngineError(f"logits_to_keep={keep}: expected 0, for every position, or more.")
    return min(keep or tokens, tokens)


def features(given: Any, config: ModelConfig) -> FloatArray:
    """(tiles, image_seq_len, hidden) in float32. Raises EngineError for another shape, or values that are not finite."""
    row = (config.image_seq_len, config.text.hidden_size)
    array = _array("features", given)
    if array.ndim != 3 or array.shape[1:] != row or array.dtype.kind != "f":
        raise EngineError(f"features are {array.dtype} of shape {array.shape}; expected floats (tiles, {row[0]}, {row[1]}).")
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise EngineError("features hold values that are not finite.")
    return rows


@dataclass(frozen=True)
class Prompt(Generic[E]):
    """What one sequence gets in a call for several."""

    seq: int
    ids: npt.NDArray[np.int32]
    embeds: list[E]
    keep: int


def prompts(seqs: Any, prompts: Any, image_embeds: Any, rows_to_keep: Any, kind: type[E], config: ModelConfig) -> list[Prompt[E]]:
    """A prompt for each of several distinct sequences. Raises EngineError, or PromptError where images and tokens disagree."""
    handles = [int(seq) for seq in _integers("sequences", seqs)]
    all_ids = [token_ids(ids, config) for ids in prompts]
    all_embeds = [embeds_of(each, kind) for each in image_embeds] if image_embeds is not None else [[] for _ in handles]
    if not len(handles) == len(all_ids) == len(all_embeds) or len(set(handles)) != len(handles):
        raise EngineError(
            f"expected one prompt for each distinct sequence, not {len(all_ids)} prompts and {len(all_embeds)} lists of "
            f"image_embeds for {len(handles)} sequences."
        )
    found = []
    for handle, ids, embeds in zip(handles, all_ids, all_embeds, strict=True):
        if not len(ids):
            raise EngineError("a prompt has no token; pass at least one.")
        tokens = int((ids == config.image_token_id).sum())
        rows = sum(len(each) for each in embeds) * config.image_seq_len
        if tokens != rows:
            raise PromptError(f"the prompt has {tokens} image tokens, but {rows} rows of image embeddings were given.")
        found.append(Prompt(handle, ids, embeds, logits_to_keep(rows_to_keep, len(ids))))
    return found


def embeds_of(image_embeds: Any, kind: type[E]) -> list[E]:
    """Encoded tiles of this engine. Raises EngineError for those of another one."""
    try:
        embeds = list(image_embeds)
    except TypeError:
        raise EngineError("image_embeds: expected a list of what encode_images gave.") from None
    if not all(isinstance(each, kind) for each in embeds):
        raise EngineError("image_embeds came from another engine; encode the images with the engine that reads them.")
    return embeds


def tiles(pixel_values: Any, config: ModelConfig) -> FloatArray:
    """(tiles, 3, side, side) in float32, in one piece. Raises EngineError for another shape, or values that are not finite."""
    side = config.vision.image_size
    array = _array("pixel_values", pixel_values)
    if array.ndim != 4 or array.shape[1:] != (3, side, side):
        raise EngineError(f"pixel_values has shape {array.shape}; expected (tiles, 3, {side}, {side}).")
    if array.dtype.kind not in "fiu":
        raise EngineError(f"pixel_values holds {array.dtype}; expected numbers, normalized to about -1 to 1.")
    with np.errstate(over="ignore"):
        pixels = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(pixels).all():
        raise EngineError("pixel_values holds values that are not finite; expected numbers, normalized to about -1 to 1.")
    return pixels


def _integers(name: str, given: Any) -> npt.NDArray[Any]:
    """(n,) integers of any width; what numpy would round, wrap or flatten is refused."""
    array = _array(name, given)
    if array.ndim == 1 and not array.size:
        return array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise EngineError(f"{name}: expected a list of integers, not {_shown(given)}.")
    return array


def _array(name: str, given: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(given)
    except (ValueError, TypeError, OverflowError, RuntimeError):  # ragged lists, tensors elsewhere or with a gradient
        raise EngineError(f"{name}: {_shown(given)} is no array of numbers.") from None


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
