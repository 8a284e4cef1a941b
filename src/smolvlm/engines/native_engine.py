"""The native engine: C++ kernels on a CPU, without torch. See `native/`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

from smolvlm.checkpoint.adapter import Adapter
from smolvlm.checkpoint.native_file import NativeFile, has_native_file
from smolvlm.checkpoint.reader import CheckpointReader
from smolvlm.config import ModelConfig
from smolvlm.engines import arguments
from smolvlm.engines.base import FloatArray, ImageEmbeds, SeqHandle
from smolvlm.engines.embeds import ArrayEmbeds
from smolvlm.engines.native_weights import attach_weights, load_weights
from smolvlm.errors import AdapterError, EngineError, PromptError

if TYPE_CHECKING:
    from smolvlm.engines import _native

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

INSTRUCTIONS_VARIABLE = "SMOLVLM_INSTRUCTIONS"  # forces an instruction set: scalar, avx2, ...
THREADS_VARIABLE = "SMOLVLM_THREADS"
QUANTIZED = ("q8", "q4")
DTYPES = ("auto", "bfloat16", *QUANTIZED)
_PARTS = ("vision", "text", "head", "kv")
_FORMATS = {"bf16": "bf16", "bfloat16": "bf16", "q8": "q8", "q4": "q4"}  # as users write it -> as the kernels know it
_FAST_BF16 = ("amx", "avx512_bf16", "neon_bf16")  # these multiply bf16 in hardware: the encoder need not be quantized


@dataclass(frozen=True)
class Formats:
    """How the weights are kept: the encoder with the connector, the decoder's layers, its output layer; and the KV cache."""

    vision: str
    text: str
    head: str
    kv: str = "bf16"

    @classmethod
    def of(cls, dtype: str, instructions: str) -> Formats:
        """A name for all (`auto`, `bfloat16`, `q8`, `q4`), part by part (`vision=q8,text=q4,head=q8,kv=q8`), or both (`q4,kv=q8`).

        What is left open: q8 for the decoder; bf16 for the encoder where the machine multiplies bf16, else q8. Under `q4` the
        output layer stays q8: it decides between words, and is a fraction of the layers. The KV cache is bf16. Raises
        EngineError.
        """
        open_parts = {"vision": "bf16" if instructions in _FAST_BF16 else "q8", "text": "q8", "head": "q8"}
        return cls(**open_parts | cls.asked(dtype))

    @staticmethod
    def asked(dtype: str) -> dict[str, str]:
        """The parts that `dtype` itself decides: part -> format. Raises EngineError for what it cannot mean."""
        whole, *items = dtype.split(",")
        found: dict[str, str] = {}
        if whole.strip() in DTYPES:
            parts = {"auto": (), "bfloat16": ("vision", "text", "head")}.get(whole.strip(), ("text",))
            found = dict.fromkeys(parts, _FORMATS.get(whole.strip(), "auto"))
        elif "=" in whole:
            items = [whole, *items]
        else:
            raise EngineError(
                f"dtype={dtype[:80]!r} is unknown to the native engine; use {', '.join(DTYPES)}, or say it "
                "part by part: vision=bf16,text=q4,head=q8."
            )
        named: dict[str, str] = {}
        for item in items:
            part, _, name = (text.strip() for text in item.partition("="))
            if part not in _PARTS or part in named or name not in ("auto", *_FORMATS) or (part, name) == ("kv", "q4"):
                raise EngineError(
                    f"dtype={dtype[:80]!r}: {item.strip()[:40]!r} is not understood; write each of "
                    f"{', '.join(_PARTS)} at most once, as in vision=bf16,text=q4,head=q8,kv=q8 "
                    f"({', '.join(_FORMATS)}; kv: not q4)."
                )
            named[part] = name
        return {part: _FORMATS[name] for part, name in (found | named).items() if name != "auto"}

    def __str__(self) -> str:
        """The shortest dtype that says the same; how the encoder is kept follows from the machine and is left out."""
        if (self.vision, self.text, self.head) == ("bf16",) * 3:
            weights = "bfloat16"
        elif self.text in QUANTIZED and self.vision != "q4" and self.head == "q8":
            weights = self.text
        else:
            weights = f"vision={self.vision},text={self.text},head={self.head}"
        return weights if self.kv == "bf16" else f"{weights},kv={self.kv}"


class NativeImageEmbeds(ArrayEmbeds[FloatArray]):
    """Encoded tiles in memory of NumPy."""

    def numpy(self) -> FloatArray:
        return self.embeds.copy()


class NativeEngine:
    """Runs a checkpoint on C++ kernels. Safe to call from several threads: calls take turns."""

    name = "native"
    device = "cpu"
    kv_page_tokens = 64  # kPage of native/simd/kernels.h

    def __init__(
        self,
        folder: Path,
        config: ModelConfig,
        *,
        dtype: str = "auto",
        formats: Formats | None = None,
        threads: int | None = None,
        instructions: str | None = None,
        adapter: Adapter | None = None,
        on_tensor: Callable[[int, int], None] | None = None,
    ) -> None:
        """`dtype`: as `Formats.of` reads it; `formats` is the same, read already. `threads`: all that the process may use.

        A folder that `smolvlm quantize` made is mapped as it is: `dtype` can then only agree with it.

        `instructions` forces an instruction set, as the environment variable SMOLVLM_INSTRUCTIONS does. Raises EngineError
        for what this machine or build cannot run, CheckpointError for the faults of the files.
        """
        native = native_module()
        if native is None:
            raise EngineError(
                "the native engine is not part of this installation (no C++ compiler was found when it was "
                "installed); use engine='torch', or install a compiler and smolvlm again."
            )
        self.config = config
        wanted = instructions or os.environ.get(INSTRUCTIONS_VARIABLE, "")
        self.formats = formats or Formats.of(dtype, wanted or native.instruction_sets()[0])
        packed = NativeFile(folder) if has_native_file(folder) else None
        if packed is not None:
            self.formats = _formats_of(packed, asdict(formats) if formats else Formats.asked(dtype), adapter)
        self.dtype = str(self.formats)
        try:
            self._engine: _native.Engine = native.Engine(
                asdict(config.vision),
                asdict(config.text),
                config.scale_factor,
                config.image_token_id,
                self.formats.vision,
                self.formats.text,
                self.formats.head,
                self.formats.kv,
                threads or _threads_from_environment(),
                wanted,
            )
        except ValueError as error:
            raise EngineError(f"{error}.") from None
        if packed is not None:
            attach_weights(self._engine, packed, config, on_tensor)
        else:
            self.config = load_weights(self._engine, CheckpointReader(folder), config, adapter, on_tensor)
        self.instructions, self.threads = self._engine.instructions, self._engine.threads
        logger.info("native engine: %s on %s, %d threads", self.formats, self.instructions, self.threads)

    def encode_images(self, pixel_values: FloatArray) -> NativeImageEmbeds:
        pixels = arguments.tiles(pixel_values, self.config)
        embeds = np.empty((len(pixels), self.config.image_seq_len, self.config.text.hidden_size), np.float32)
        if len(pixels):
            self._call(self._engine.encode, pixels, embeds)
        return NativeImageEmbeds(embeds)

    def stored_embeds(self, features: FloatArray) -> NativeImageEmbeds:
        return NativeImageEmbeds(arguments.features(features, self.config).copy())

    def open(self, max_tokens: int) -> SeqHandle:
        return self._call(self._engine.open, arguments.capacity(max_tokens, self.config))

    def length(self, seq: SeqHandle) -> int:
        return self._call(self._engine.length, arguments.integer("seq", seq))

    def prefill(
        self, seq: SeqHandle, input_ids: Sequence[int], image_embeds: Sequence[ImageEmbeds] = (), *, logits_to_keep: int = 1
    ) -> FloatArray:
        handle, ids = arguments.integer("seq", seq), arguments.token_ids(input_ids, self.config)
        if not len(ids):
            raise EngineError("prefill was called without a token; pass at least one.")
        images = self._image_rows(image_embeds)
        tokens = int((ids == self.config.image_token_id).sum())
        if tokens != len(images):
            raise PromptError(f"the prompt has {tokens} image tokens, but {len(images)} rows of image embeddings were given.")
        keep = arguments.logits_to_keep(logits_to_keep, len(ids))
        logits = self._logits(keep)
        self._call(self._engine.prefill, handle, ids, images, keep, logits)
        return logits

    def hidden(
        self,
        seqs: Sequence[SeqHandle],
        prompts: Sequence[Sequence[int]],
        image_embeds: Sequence[Sequence[ImageEmbeds]] | None = None,
        *,
        rows_to_keep: int = 1,
    ) -> list[FloatArray]:
        batch = arguments.prompts(seqs, prompts, image_embeds, rows_to_keep, NativeImageEmbeds, self.config)
        if not batch:
            return []
        images = self._image_rows([embeds for prompt in batch for embeds in prompt.embeds])
        kept = np.array([prompt.keep for prompt in batch], np.int32)
        out = self._call(np.empty, (int(kept.sum()), self.config.text.hidden_size), np.float32)
        image_rows = [sum(len(embeds) for embeds in prompt.embeds) * self.config.image_seq_len for prompt in batch]
        self._call(
            self._engine.hidden,
            np.array([prompt.seq for prompt in batch], np.int32),
            np.concatenate([prompt.ids for prompt in batch]),
            np.array([len(prompt.ids) for prompt in batch], np.int32),
            images,
            np.array(image_rows, np.int32),
            kept,
            out,
        )
        return np.split(out, np.cumsum(kept)[:-1])

    def decode(self, seqs: Sequence[SeqHandle], token_ids: Sequence[int]) -> FloatArray:
        handles, ids = arguments.decode_step(seqs, token_ids, self.config)
        logits = self._logits(len(handles))
        self._call(self._engine.decode, np.asarray(handles, np.int32), ids, logits)
        return logits

    def fork(self, seq: SeqHandle) -> SeqHandle:
        return self._call(self._engine.fork, arguments.integer("seq", seq))

    def rewind(self, seq: SeqHandle, length: int) -> None:
        self._call(self._engine.rewind, arguments.integer("seq", seq), arguments.integer("length", length))

    def close(self, seq: SeqHandle) -> None:
        self._call(self._engine.close, arguments.integer("seq", seq))

    def cancel(self) -> None:
        """End the call that another thread is in, at the next layer; it raises EngineError and changes no sequence.

        Calls that wait for their turn go on, and where none runs nothing happens.
        """
        self._engine.cancel()

    @property
    def packed(self) -> _native.Engine:
        """The compiled engine, whose parts `native_quantize` writes down."""
        return self._engine

    @property
    def kv_pages(self) -> int:
        """Pages of KV cache in use, shared ones once."""
        return self._engine.pages_in_use

    @property
    def nbytes(self) -> int:
        """Bytes of weights, KV cache and working memory."""
        return self._call(lambda: self._engine.bytes)

    def _image_rows(self, image_embeds: Sequence[ImageEmbeds]) -> FloatArray:
        """(rows, hidden): the rows of all tiles."""
        hidden = self.config.text.hidden_size
        embeds = arguments.embeds_of(image_embeds, NativeImageEmbeds)
        if not embeds:
            return np.empty((0, hidden), np.float32)
        try:
            return np.ascontiguousarray(np.concatenate([each.embeds.reshape(-1, hidden) for each in embeds]), np.float32)
        except ValueError:
            raise EngineError(f"image_embeds are not rows of {hidden} values.") from None

    def _logits(self, rows: int) -> FloatArray:
        return self._call(np.empty, (rows, self.config.text.vocab_size), np.float32)

    @staticmethod
    def _call(function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """Errors of the C++ side as ours."""
        try:
            return function(*arguments, **named)
        except (ValueError, RuntimeError) as error:
            raise EngineError(f"{str(error).rstrip('.')}.") from None
        except MemoryError:
            raise EngineError("there is not enough memory for this call; close sequences, or use a smaller model.") from None


def _formats_of(packed: NativeFile, asked: Mapping[str, str], adapter: Adapter | None) -> Formats:
    """How a quantized checkpoint is kept. EngineError or AdapterError for what can only be had from the original."""
    header = packed.header
    formats = Formats(header.vision, header.text, header.head, asked.get("kv", "bf16"))
    if other := [f"{part}={name}" for part, name in asked.items() if name != asdict(formats)[part]]:
        raise EngineError(
            f"{packed.path.parent} is quantized as vision={formats.vision},text={formats.text},"
            f"head={formats.head} and cannot be loaded as {','.join(other)}; leave dtype out, or use the "
            "original checkpoint."
        )
    if adapter is not None:
        raise AdapterError(
            f"{packed.path.parent} is quantized, and an adapter is added to weights before they are; use the "
            "original checkpoint, or merge the adapter into it and quantize the result."
        )
    return formats


def native_module() -> ModuleType | None:
    """The compiled module, or None where it was not built."""
    try:
        from smolvlm.engines import _native
    except ImportError as error:
        logger.debug("no native engine: %s", error)
        return None
    return _native


def _threads_from_environment() -> int:
    text = os.environ.get(THREADS_VARIABLE, "")
    if not text:
        return 0
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise EngineError(f"{THREADS_VARIABLE}={text[:20]!r} is not a number of threads between 1 and 1024.")
    return int(text)
