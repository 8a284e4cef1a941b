"""One call of `generate`: padded rows in, each prefilled into its own sequence, decoded together, padded ids out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from smolvlm.compat.arguments import logger
from smolvlm.compat.generation_arguments import GenerateArguments
from smolvlm.config import ModelConfig
from smolvlm.engines.base import Engine, FloatArray
from smolvlm.errors import PromptError
from smolvlm.generation import Decode, Request, TokenEvent, collect, generate
from smolvlm.inference.cached_sequence import CachedSequence
from smolvlm.inference.prefill_task import PrefillTask
from smolvlm.inference.tiles import tiles_of
from smolvlm.prompt.context import check_context

IntArray = npt.NDArray[np.int64]


class Streamer(Protocol):
    """What `streamer=` must have; `TextStreamer` and `TextIteratorStreamer` of transformers do."""

    def put(self, value: Any) -> Any: ...

    def end(self) -> Any: ...


@dataclass(frozen=True, eq=False)
class Prompts:
    """A batch of prompts: the ids as they came, int64 (batch, width), and without padding, with the tiles of each."""

    padded: IntArray
    rows: tuple[tuple[int, ...], ...]
    tiles: tuple[FloatArray, ...]  # (tiles, 3, side, side) each

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        pad_token_id: int,
        eos_token_ids: Sequence[int],
        *,
        input_ids: Any,
        attention_mask: Any = None,
        pixel_values: Any = None,
        pixel_attention_mask: Any = None,
    ) -> Prompts:
        """Check and take apart what a processor made. Raises PromptError, naming the argument that is at fault."""
        ids = _integers(input_ids, "input_ids")
        if ids.ndim != 2 or not ids.size:
            raise PromptError(f"input_ids has shape {ids.shape}; expected (batch, tokens), as the processor returns.")
        if attention_mask is not None:
            mask = _integers(attention_mask, "attention_mask") != 0
        elif pad_token_id not in eos_token_ids:  # the reference too takes padding for what it looks like
            mask = ids != pad_token_id
        else:
            mask = np.ones(ids.shape, bool)
        if mask.shape != ids.shape:
            raise PromptError(f"attention_mask has shape {mask.shape}, input_ids {ids.shape}; pass both from one call.")
        if not mask.any(axis=1).all():
            raise PromptError("a row of attention_mask is all zero; each prompt needs at least one token.")
        if not mask[:, -1].all():
            logger.warning(
                "generate: the prompts are padded on the right: each is continued from its last real token, "
                "the new ones stand after the padding. padding_side='left' avoids the gap."
            )
        rows = tuple(tuple(row[keep].tolist()) for row, keep in zip(ids, mask, strict=True))
        needed = [row.count(config.image_token_id) for row in rows]
        tiles = _real_tiles(pixel_values, pixel_attention_mask, sum(needed), config)
        return cls(ids, rows, _shared_out(tiles, needed, config.image_seq_len))


def generate_batch(
    engine: Engine,
    prompts: Prompts,
    arguments: GenerateArguments,
    decode: Decode,
    seeds: Sequence[int] | None,
    streamer: Streamer | None,
    tensor: Any,
) -> IntArray:
    """(batch, width + new tokens): the padded prompts, each followed by its answer, short answers padded.

    `decode` turns ids into text and is asked only where there are stop strings; `tensor` turns an array into what a
    streamer expects. Raises ContextLengthError when a prompt fills the model's context.
    """
    width, context = prompts.padded.shape[1], engine.config.text.max_position_embeddings
    wanted = arguments.new_tokens(width)
    sequences: list[CachedSequence] = []
    requests: list[Request] = []
    try:
        for i, (row, tiles) in enumerate(zip(prompts.rows, prompts.tiles, strict=True)):
            check_context(len(row), context - 1, what=f"prompt {i}")
            budget = min(context - len(row), wanted)
            if budget < wanted:
                logger.warning("generate: prompt %d leaves room for %d new tokens, not %d", i, budget, wanted)
            sequences.append(CachedSequence.open(engine, len(row) + budget))
            logits = PrefillTask(sequences[-1], row, tiles_of(tiles), np.stack).run()
            params = dataclasses.replace(arguments.params, max_new_tokens=budget, seed=seeds[i] if seeds else None)
            # Padding counts among the tokens that penalties look at: so it does in the reference.
            requests.append(Request(sequences[-1].seq, logits, prompts.padded[i].tolist(), params))
        if streamer is not None:
            streamer.put(tensor(prompts.padded))
        events = generate(engine, requests, decode, arguments.eos_token_ids)
        streamed = _streamed(events, len(requests), arguments.pad_token_id, streamer, tensor)
        answers = [answer.sampled_ids for answer in collect(streamed, len(requests))]
    finally:
        for sequence in sequences:
            sequence.close()
    result = np.full((len(answers), width + max(map(len, answers))), arguments.pad_token_id, np.int64)
    result[:, :width] = prompts.padded
    for out, answer in zip(result, answers, strict=True):
        out[width : width + len(answer)] = answer
    return result


def _streamed(events: Iterable[TokenEvent], count: int, pad_token_id: int, streamer: Streamer | None, tensor: Any) -> Iterator[TokenEvent]:
    """Pass events on; after each step hand the streamer one token a row, (batch,), padding for rows that have ended."""
    live, step = set(range(count)), np.full(count, pad_token_id, np.int64)
    waiting = set(live)
    for event in events:
        yield event
        step[event.request_index] = event.token_id
        waiting.discard(event.request_index)
        if event.finish_reason is not None:
            live.discard(event.request_index)
        if not waiting:
            if streamer is not None:
                streamer.put(tensor(step))
            step, waiting = np.full(count, pad_token_id, np.int64), set(live)


def _real_tiles(pixel_values: Any, pixel_attention_mask: Any, image_tokens: int, config: ModelConfig) -> FloatArray:
    """All tiles of the batch in order, (tiles, 3, side, side), without those that are padding (all zero)."""
    side, per_tile = config.vision.image_size, config.image_seq_len
    if pixel_values is None:
        tiles = np.empty((0, 3, side, side), np.float32)
    else:
        tiles = _array(pixel_values, "pixel_values").astype(np.float32, copy=False)
        if tiles.ndim not in (4, 5) or tiles.shape[-3:] != (3, side, side):
            raise PromptError(
                f"pixel_values has shape {tiles.shape}; expected (batch, tiles, 3, {side}, {side}), as this checkpoint's processor returns."
            )
        tiles = tiles.reshape(-1, 3, side, side)
    real = np.ones(len(tiles), bool)
    if len(tiles) * per_tile != image_tokens:  # a black tile is -1 everywhere: only padding is zero
        real = np.array([bool(tile.any()) for tile in tiles], bool)
    if int(real.sum()) * per_tile != image_tokens:
        raise PromptError(
            f"input_ids hold {image_tokens} image tokens and pixel_values {int(real.sum())} tiles of "
            f"{per_tile} tokens; pass both from one call of the processor."
        )
    if pixel_attention_mask is not None:
        mask = _array(pixel_attention_mask, "pixel_attention_mask")
        if mask.size != len(tiles) * side * side:
            raise PromptError(
                f"pixel_attention_mask has shape {mask.shape} and does not fit pixel_values; pass both from one call of the processor."
            )
        if not mask.reshape(-1, side, side)[real].all():
            raise PromptError(
                "pixel_attention_mask hides a part of a tile, which is not supported: this checkpoint's processor makes whole tiles only."
            )
    return tiles if real.all() else tiles[real]


def _shared_out(tiles: FloatArray, needed: Sequence[int], per_tile: int) -> tuple[FloatArray, ...]:
    """The tiles of each row, by the number of its image tokens."""
    shares, start = [], 0
    for i, image_tokens in enumerate(needed):
        if image_tokens % per_tile:
            raise PromptError(
                f"row {i} of input_ids holds {image_tokens} image tokens, not a multiple of {per_tile}; pass what the processor returned."
            )
        shares.append(tiles[start : start + image_tokens // per_tile])
        start += image_tokens // per_tile
    return tuple(shares)


def _array(value: Any, name: str) -> npt.NDArray[Any]:
    """A NumPy array from a tensor on any device, an array or nested lists."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = (value.float() if value.is_floating_point() else value).numpy()  # NumPy has no bfloat16
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise PromptError(
            f"{name} cannot be read as an array ({error}); pass return_tensors='pt' and padding=True to the processor."
        ) from None
    if array.dtype.kind not in "biuf":
        raise PromptError(f"{name} holds {array.dtype}; expected numbers. Pass return_tensors='pt' to the processor.")
    return array


def _integers(value: Any, name: str) -> IntArray:
    array = _array(value, name)
    if array.dtype.kind == "f":
        raise PromptError(f"{name} holds {array.dtype}; expected whole numbers.")
    return array.astype(np.int64, copy=False)
