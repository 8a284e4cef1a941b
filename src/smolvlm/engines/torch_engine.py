"""The reference engine: PyTorch on CPU, CUDA and MPS, in float32, bfloat16 and float16."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smolvlm.checkpoint.adapter import Adapter
from smolvlm.config import ModelConfig
from smolvlm.engines import arguments
from smolvlm.engines.base import FloatArray, ImageEmbeds, SeqHandle
from smolvlm.engines.embeds import ArrayEmbeds
from smolvlm.engines.torch_cache import PAGE_TOKENS, AppendEach, AppendOne, AppendPacked, PagePool, SequenceCache
from smolvlm.engines.torch_device import choose_device, choose_dtype
from smolvlm.engines.torch_pack import can_pack, pack_linears
from smolvlm.engines.torch_static import StaticDecoder
from smolvlm.engines.turns import Turns
from smolvlm.errors import EngineError
from smolvlm.nn.model import SmolVLMForConditionalGeneration
from smolvlm.nn.weights import load_model

logger = logging.getLogger(__name__)

# Patches encoded in one go. A CPU gains nothing from more than one 512 x 512 tile and pays in memory; a GPU fills up.
_PATCHES_PER_BATCH = {"cpu": 1024, "mps": 4096, "cuda": 32768}
_TOKENS_PER_PASS = 4096  # of several prompts; a longer one goes alone


class TorchImageEmbeds(ArrayEmbeds[Tensor]):
    """Encoded tiles on the engine's device."""

    def numpy(self) -> FloatArray:
        return self.embeds.float().cpu().numpy()


class TorchEngine:
    """Runs a `SmolVLMForConditionalGeneration`. Safe to call from several threads: calls take turns."""

    name = "torch"
    kv_page_tokens = PAGE_TOKENS

    def __init__(self, model: SmolVLMForConditionalGeneration, *, pack: bool = True, static_cache: bool | None = None) -> None:
        """`pack`: use oneDNN's packed weights where this CPU has them; the model can then no longer be trained or saved.

        `static_cache`: decode in steps of fixed shapes (under CUDA graphs on CUDA); None means on CUDA only.
        """
        self.config: ModelConfig = model.config
        self.model = model.eval()
        parameter = next(model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        self.device, self.dtype = str(self._device), str(self._dtype).removeprefix("torch.")
        if pack and self._device.type == "cpu" and can_pack(self._dtype):
            with torch.inference_mode():
                pack_linears(model)
        static = self._device.type == "cuda" if static_cache is None else static_cache
        self._pool = PagePool(self.config.text, self._device, self._dtype)
        self._static = StaticDecoder(model, self._pool) if static else None
        self._sequences: dict[SeqHandle, SequenceCache] = {}
        self._handles = count(1)
        self._turns = Turns()
        self._forked = ""  # why a forked child cannot use it
        _engines.add(self)

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        config: ModelConfig,
        *,
        device: str = "auto",
        dtype: str = "auto",
        on_tensor: Callable[[int, int], None] | None = None,
        adapter: Adapter | None = None,
    ) -> TorchEngine:
        """Load a checkpoint folder. Raises CheckpointError for its faults, EngineError for an unknown device or dtype."""
        torch_device = choose_device(device)
        torch_dtype = choose_dtype(dtype, torch_device)
        logger.info("torch engine: %s on %s", torch_dtype, torch_device)
        try:
            return cls(load_model(folder, config, device=torch_device, dtype=torch_dtype, on_tensor=on_tensor, adapter=adapter))
        except torch.OutOfMemoryError:
            raise EngineError(
                f"{folder}: the model does not fit on {torch_device} as {torch_dtype}; pass device='cpu', or a smaller model."
            ) from None

    def encode_images(self, pixel_values: FloatArray) -> TorchImageEmbeds:
        pixels = arguments.tiles(pixel_values, self.config)
        size = max(1, _PATCHES_PER_BATCH.get(self._device.type, 1024) // self.config.vision.num_patches)
        empty = torch.empty(0, self.config.image_seq_len, self.config.text.hidden_size, dtype=self._dtype)
        parts = [empty.to(self._device)]
        for start in range(0, len(pixels), size):
            with self._turn():  # a batch at a time, so that other threads need not wait for a whole video
                batch = torch.from_numpy(pixels[start : start + size])
                parts.append(self.model.encode_images(batch.to(self._device, self._dtype)))
        with self._turn():
            return TorchImageEmbeds(torch.cat(parts))

    def stored_embeds(self, features: FloatArray) -> TorchImageEmbeds:
        rows = torch.from_numpy(arguments.features(features, self.config).copy())
        with self._turn():
            return TorchImageEmbeds(rows.to(self._device, self._dtype))

    def open(self, max_tokens: int) -> SeqHandle:
        capacity = arguments.capacity(max_tokens, self.config)
        with self._turn():
            return self._hold(self._pool.open(capacity))

    @property
    def kv_pages(self) -> int:
        return self._pool.in_use

    def length(self, seq: SeqHandle) -> int:
        with self._turn():
            return self._cache(seq).length

    def prefill(
        self, seq: SeqHandle, input_ids: Sequence[int], image_embeds: Sequence[ImageEmbeds] = (), *, logits_to_keep: int = 1
    ) -> FloatArray:
        ids = arguments.token_ids(input_ids, self.config)
        if not len(ids):
            raise EngineError("prefill was called without a token; pass at least one.")
        keep = arguments.logits_to_keep(logits_to_keep, len(ids))
        rows = [embeds.embeds for embeds in arguments.embeds_of(image_embeds, TorchImageEmbeds)]
        with self._turn():
            cache = self._cache(seq)
            self._require_room(cache, len(ids))
            logits = self.model.lm_head(self._append([cache], [ids], rows)[-keep:])
            cache.length += len(ids)
            return _to_numpy(logits)

    def hidden(
        self,
        seqs: Sequence[SeqHandle],
        prompts: Sequence[Sequence[int]],
        image_embeds: Sequence[Sequence[ImageEmbeds]] | None = None,
        *,
        rows_to_keep: int = 1,
    ) -> list[FloatArray]:
        batch = arguments.prompts(seqs, prompts, image_embeds, rows_to_keep, TorchImageEmbeds, self.config)
        with self._turn():
            for prompt in batch:
                self._require_room(self._cache(prompt.seq), len(prompt.ids))
            found: list[FloatArray] = []
            for group in _groups(batch):
                caches = [self._cache(prompt.seq) for prompt in group]
                rows = [embeds.embeds for prompt in group for embeds in prompt.embeds]
                hidden = self._append(caches, [prompt.ids for prompt in group], rows)
                parts = hidden.split([len(prompt.ids) for prompt in group])
                found += [_to_numpy(part[-prompt.keep :]) for part, prompt in zip(parts, group, strict=True)]
            for prompt in batch:
                self._cache(prompt.seq).length += len(prompt.ids)
            return found

    def _append(self, caches: Sequence[SequenceCache], ids: Sequence[npt.NDArray[np.int32]], rows: Sequence[Tensor]) -> Tensor:
        """Tokens for each of the caches in one pass: hidden states (tokens, hidden). The lengths stay as they are."""
        tokens = torch.from_numpy(np.concatenate(ids).astype(np.int64)).to(self._device)[None]
        places = [torch.arange(cache.length, cache.length + len(each)) for cache, each in zip(caches, ids, strict=True)]
        embeds = self.model.embed(tokens, torch.cat(list(rows)) if rows else None)
        counts = [len(each) for each in ids]
        self._pool.reserve(caches, counts)
        attend = AppendOne(self._pool, caches[0], counts[0]) if len(caches) == 1 else AppendPacked(self._pool, caches, counts)
        hidden: Tensor = self.model.model.text_model(embeds, torch.cat(places).to(self._device)[None], attend)
        return hidden[0]

    def decode(self, seqs: Sequence[SeqHandle], token_ids: Sequence[int]) -> FloatArray:
        handles, ids = arguments.decode_step(seqs, token_ids, self.config)
        with self._turn():
            caches = [self._cache(handle) for handle in handles]
            for cache in caches:
                self._require_room(cache, 1)
            self._pool.reserve(caches, [1] * len(caches))
            if self._static is not None:
                logits = self._static.decode(caches, ids.tolist())
            else:
                tokens = torch.from_numpy(ids.astype(np.int64)).to(self._device)[:, None]
                positions = torch.tensor([[cache.length] for cache in caches], device=self._device)
                embeds = self.model.model.text_model.embed_tokens(tokens)
                hidden = self.model.model.text_model(embeds, positions, AppendEach(self._pool, caches))
                logits = self.model.lm_head(hidden[:, 0])
            for cache in caches:
                cache.length += 1
            return _to_numpy(logits)

    def fork(self, seq: SeqHandle) -> SeqHandle:
        with self._turn():
            return self._hold(self._pool.fork(self._cache(seq)))

    def rewind(self, seq: SeqHandle, length: int) -> None:
        wanted = arguments.integer("length", length)
        with self._turn():
            cache = self._cache(seq)
            if not 0 <= wanted <= cache.length:
                raise EngineError(f"cannot rewind to {wanted} tokens; the sequence holds {cache.length}.")
            self._pool.rewind(cache, wanted)

    def close(self, seq: SeqHandle) -> None:
        handle = arguments.integer("seq", seq)
        with self._turn(closing=True):
            cache = self._sequences.pop(handle, None)
            if cache is not None:
                self._pool.close(cache)

    @contextmanager
    def _turn(self, *, closing: bool = False) -> Iterator[None]:
        """The engine to itself, for one call. Raises EngineError in a forked child that cannot go on, or without memory."""
        with self._turns, torch.inference_mode():
            if self._forked and not closing:
                raise EngineError(self._forked)
            try:
                yield
            except (torch.OutOfMemoryError, MemoryError):
                raise EngineError("there is not enough memory for this call; close sequences, or use a smaller model.") from None

    def _after_fork(self) -> None:
        """In the child. The threads that torch computes with are not there, and OpenMP waits for them for ever: one is left."""
        interrupted, self._turns = self._turns.taken, Turns()
        if self._device.type != "cpu":
            self._forked = (
                f"this process was forked, and {self._device.type} does not work in a forked child: start "
                "processes by 'spawn', or load the model in the child."
            )
        elif interrupted:
            self._forked = (
                "this process was forked while another thread was in a call of the engine, which cannot go on "
                "here: load the model again in the child, or fork before the threads start."
            )
        else:
            torch.set_num_threads(1)
            logger.info("torch engine: in this forked process it computes with one thread")

    def _hold(self, cache: SequenceCache) -> SeqHandle:
        handle = next(self._handles)
        self._sequences[handle] = cache
        return handle

    def _cache(self, seq: SeqHandle) -> SequenceCache:
        handle = arguments.integer("seq", seq)
        if handle not in self._sequences:
            raise EngineError(f"sequence {handle} is not open.")
        return self._sequences[handle]

    @staticmethod
    def _require_room(cache: SequenceCache, tokens: int) -> None:
        if cache.length + tokens > cache.capacity:
            raise EngineError(
                f"the sequence has room for {cache.capacity} tokens, holds {cache.length} and was given "
                f"{tokens} more; open it with a larger max_tokens."
            )


def _groups(batch: Sequence[arguments.Prompt[TorchImageEmbeds]]) -> Iterator[list[arguments.Prompt[TorchImageEmbeds]]]:
    """Prompts that are computed in one pass."""
    group: list[arguments.Prompt[TorchImageEmbeds]] = []
    for prompt in batch:
        if group and sum(len(each.ids) for each in (*group, prompt)) > _TOKENS_PER_PASS:
            yield group
            group = []
        group.append(prompt)
    if group:
        yield group


def _to_numpy(logits: Tensor) -> FloatArray:
    return logits.float().cpu().numpy()


_engines: weakref.WeakSet[TorchEngine] = weakref.WeakSet()  # of this process


def _tell_engines() -> None:
    for engine in list(_engines):
        engine._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell_engines)
