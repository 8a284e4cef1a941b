"""The reference engine: PyTorch on CPU, CUDA and MPS, in float32, bfloat16 and float16."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smolvlm.checkpoint.adapter import Adapter
from smolvlm.config import ModelConfig
from smolvlm.engines.base import FloatArray, ImageEmbeds, SeqHandle
from smolvlm.engines.embeds import KeyedEmbeds, tile_keys
from smolvlm.engines.torch_cache import AppendEach, AppendOne, SequenceCache, SequenceStore
from smolvlm.engines.torch_device import choose_device, choose_dtype
from smolvlm.engines.torch_pack import can_pack, pack_linears
from smolvlm.engines.torch_static import SlabStore, StaticDecoder
from smolvlm.errors import ContextLengthError, EngineError
from smolvlm.nn.model import SmolVLMForConditionalGeneration
from smolvlm.nn.weights import load_model

logger = logging.getLogger(__name__)

# Patches encoded in one go. A CPU gains nothing from more than one 512 x 512 tile and pays in memory; a GPU fills up.
_PATCHES_PER_BATCH = {"cpu": 1024, "mps": 4096, "cuda": 32768}


class TorchImageEmbeds(KeyedEmbeds[Tensor]):
    """Encoded tiles on the engine's device."""

    def numpy(self) -> FloatArray:
        return self.embeds.float().cpu().numpy()


class TorchEngine:
    """Runs a `SmolVLMForConditionalGeneration`. Safe to call from several threads: calls take turns."""

    name = "torch"

    def __init__(
        self, model: SmolVLMForConditionalGeneration, *, pack: bool = True, static_cache: bool | None = None
    ) -> None:
        """`pack`: use oneDNN's packed weights where this CPU has them; the model can then no longer be trained or saved.

        `static_cache`: decode from a static cache (under CUDA graphs on CUDA); None means on CUDA only.
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
        store = SlabStore if static else SequenceStore
        self._store: SlabStore | SequenceStore = store(self.config.text, self._device, self._dtype)
        self._static = StaticDecoder(model, self._store) if isinstance(self._store, SlabStore) else None
        self._sequences: dict[SeqHandle, SequenceCache] = {}
        self._handles = count(1)
        self._lock = threading.RLock()

    @classmethod
    def from_folder(cls, folder: Path, config: ModelConfig, *, device: str = "auto", dtype: str = "auto",
                    on_tensor: Callable[[int, int], None] | None = None,
                    adapter: Adapter | None = None) -> TorchEngine:  # fmt: skip
        """Load a checkpoint folder. Raises CheckpointError for its faults, EngineError for an unknown device or dtype."""
        torch_device = choose_device(device)
        torch_dtype = choose_dtype(dtype, torch_device)
        logger.info("torch engine: %s on %s", torch_dtype, torch_device)
        try:
            return cls(load_model(folder, config, device=torch_device, dtype=torch_dtype, on_tensor=on_tensor,
                                  adapter=adapter))  # fmt: skip
        except torch.OutOfMemoryError:
            raise EngineError(f"{folder}: the model does not fit on {torch_device} as {torch_dtype}; "
                              "pass device='cpu', or a smaller model.") from None  # fmt: skip

    @torch.inference_mode()
    def encode_images(self, pixel_values: FloatArray) -> TorchImageEmbeds:
        side = self.config.vision.image_size
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != (3, side, side):
            raise EngineError(f"pixel_values has shape {pixel_values.shape}; expected (tiles, 3, {side}, {side}).")
        keys = tile_keys(pixel_values)
        size = max(1, _PATCHES_PER_BATCH.get(self._device.type, 1024) // self.config.vision.num_patches)
        empty = torch.empty(0, self.config.image_seq_len, self.config.text.hidden_size, dtype=self._dtype)
        parts = [empty.to(self._device)]
        with self._lock:
            for start in range(0, len(pixel_values), size):
                batch = torch.from_numpy(np.ascontiguousarray(pixel_values[start : start + size], dtype=np.float32))
                parts.append(self.model.encode_images(batch.to(self._device, self._dtype)))
        return TorchImageEmbeds(torch.cat(parts), keys)

    def open(self, max_tokens: int) -> SeqHandle:
        limit = self.config.text.max_position_embeddings
        if not 1 <= max_tokens <= limit:
            raise ContextLengthError(
                f"a sequence of {max_tokens} tokens was asked for; this model's context is {limit}."
            )
        with self._lock, torch.inference_mode():
            handle = next(self._handles)
            self._sequences[handle] = self._store.open(max_tokens)
        return handle

    def length(self, seq: SeqHandle) -> int:
        return self._cache(seq).length

    @torch.inference_mode()
    def prefill(self, seq: SeqHandle, input_ids: Sequence[int], image_embeds: Sequence[ImageEmbeds] = (), *,
                logits_to_keep: int = 1) -> FloatArray:  # fmt: skip
        with self._lock:
            cache = self._cache(seq)
            self._require_room(cache, len(input_ids))
            if not len(input_ids):
                raise EngineError("prefill was called without a token; pass at least one.")
            ids = torch.tensor(input_ids, dtype=torch.int64, device=self._device)[None]
            if int(ids.min()) < 0 or int(ids.max()) >= self.config.text.vocab_size:
                raise EngineError(f"a token id is outside the vocabulary of {self.config.text.vocab_size}.")
            rows = [embeds.embeds for embeds in image_embeds if isinstance(embeds, TorchImageEmbeds)]
            if len(rows) != len(image_embeds):
                raise EngineError(
                    "image_embeds came from another engine; encode the images with the engine that reads them."
                )
            positions = torch.arange(cache.length, cache.length + ids.shape[1], device=self._device)[None]
            embeds = self.model.embed(ids, torch.cat(rows) if rows else None)
            hidden = self.model.model.text_model(embeds, positions, AppendOne(cache))
            logits = self.model.lm_head(hidden[0, -logits_to_keep:])
            cache.length += ids.shape[1]
            return _to_numpy(logits)

    @torch.inference_mode()
    def decode(self, seqs: Sequence[SeqHandle], token_ids: Sequence[int]) -> FloatArray:
        if len(seqs) != len(token_ids) or len(set(seqs)) != len(seqs) or not len(seqs):
            raise EngineError(f"decode takes one token for each of at least one distinct sequence, not {len(token_ids)} "
                              f"tokens for {len(seqs)} sequences.")  # fmt: skip
        with self._lock:
            caches = [self._cache(seq) for seq in seqs]
            for cache in caches:
                self._require_room(cache, 1)
            if self._static is not None:
                logits = self._static.decode(caches, token_ids)
            else:
                ids = torch.tensor(token_ids, device=self._device)[:, None]
                positions = torch.tensor([[cache.length] for cache in caches], device=self._device)
                embeds = self.model.model.text_model.embed_tokens(ids)
                hidden = self.model.model.text_model(embeds, positions, AppendEach(caches))
                logits = self.model.lm_head(hidden[:, 0])
            for cache in caches:
                cache.length += 1
            return _to_numpy(logits)

    @torch.inference_mode()
    def fork(self, seq: SeqHandle) -> SeqHandle:
        with self._lock:
            source = self._cache(seq)
            handle = self.open(source.capacity)
            self._sequences[handle].copy_from(source)
        return handle

    def rewind(self, seq: SeqHandle, length: int) -> None:
        cache = self._cache(seq)
        if not 0 <= length <= cache.length:
            raise EngineError(f"cannot rewind to {length} tokens; the sequence holds {cache.length}.")
        cache.length = length

    def close(self, seq: SeqHandle) -> None:
        with self._lock:
            cache = self._sequences.pop(seq, None)
            if cache is not None:
                self._store.close(cache)

    def _cache(self, seq: SeqHandle) -> SequenceCache:
        if seq not in self._sequences:
            raise EngineError(f"sequence {seq} is not open.")
        return self._sequences[seq]

    @staticmethod
    def _require_room(cache: SequenceCache, tokens: int) -> None:
        if cache.length + tokens > cache.capacity:
            raise EngineError(f"the sequence has room for {cache.capacity} tokens, holds {cache.length} and was given "
                              f"{tokens} more; open it with a larger max_tokens.")  # fmt: skip


def _to_numpy(logits: Tensor) -> FloatArray:
    return logits.float().cpu().numpy()
