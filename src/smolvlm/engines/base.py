"""The one seam that everything above an engine stands on. Its callers need no torch and never see a device.

Laws that every engine keeps, each a test: cached logits equal uncached ones; a prefill in chunks equals one at once; a
batch equals its members alone; a forked or rewound sequence equals a fresh one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from smolvlm.config import ModelConfig

FloatArray: TypeAlias = npt.NDArray[np.float32]
SeqHandle: TypeAlias = int


@runtime_checkable
class ImageEmbeds(Protocol):
    """Encoded tiles that stay where the engine keeps them: (tiles, image_seq_len, hidden)."""

    def __len__(self) -> int:
        """The number of tiles."""

    def tiles(self, start: int, stop: int) -> ImageEmbeds:
        """The tiles `start:stop` as a handle of their own, without a copy."""

    def numpy(self) -> FloatArray:
        """A float32 copy (tiles, image_seq_len, hidden) for those who must look."""


@runtime_checkable
class Engine(Protocol):
    """Runs one checkpoint. Sequences are handles that own their KV cache until `close`: pages of `kv_page_tokens` tokens,
    taken as tokens come, the whole ones of a prefix shared by forks."""

    kv_page_tokens: int

    config: ModelConfig
    name: str  # "torch", "native", "mlx"
    device: str  # "cpu", "cuda:0", "mps"
    dtype: str  # "float32", "bfloat16", "float16"

    def encode_images(self, pixel_values: FloatArray) -> ImageEmbeds:
        """(tiles, 3, image_size, image_size), normalized, -> a handle of (tiles, image_seq_len, hidden)."""

    def stored_embeds(self, features: FloatArray) -> ImageEmbeds:
        """The handle of tiles that were encoded before, (tiles, image_seq_len, hidden), as `ImageEmbeds.numpy` gave them.

        Raises EngineError for another shape, or values that are not finite.
        """

    def open(self, max_tokens: int) -> SeqHandle:
        """A new, empty sequence with room for `max_tokens`. Raises ContextLengthError beyond the model's context."""

    @property
    def kv_pages(self) -> int:
        """Pages of KV cache that hold tokens of some sequence; one that several share counts once."""

    def length(self, seq: SeqHandle) -> int:
        """Tokens that the sequence holds in its KV cache."""

    def prefill(
        self, seq: SeqHandle, input_ids: Sequence[int], image_embeds: Sequence[ImageEmbeds] = (), *, logits_to_keep: int = 1
    ) -> FloatArray:
        """Append `input_ids`; each image token takes the next row of `image_embeds`, in order.

        Returns the logits of the last `logits_to_keep` positions, (logits_to_keep, vocab); 0 means every position.
        Raises PromptError when image tokens and embedding rows disagree, EngineError when the sequence has no room.
        """

    def hidden(
        self,
        seqs: Sequence[SeqHandle],
        prompts: Sequence[Sequence[int]],
        image_embeds: Sequence[Sequence[ImageEmbeds]] | None = None,
        *,
        rows_to_keep: int = 1,
    ) -> list[FloatArray]:
        """Append a prompt to each of several distinct sequences, as `prefill` does to one, all computed together.

        Returns the decoder's last hidden states, after its final norm, of the last `rows_to_keep` positions of each prompt:
        float32 (rows, hidden); 0 means every position. Raises what `prefill` raises; then no sequence has changed.
        """

    def decode(self, seqs: Sequence[SeqHandle], token_ids: Sequence[int]) -> FloatArray:
        """Append one token to each sequence; the next logits, (batch, vocab), in the order given."""

    def fork(self, seq: SeqHandle) -> SeqHandle:
        """A second sequence with the same prefix; either may go on without the other noticing."""

    def rewind(self, seq: SeqHandle, length: int) -> None:
        """Forget all tokens after the first `length`."""

    def close(self, seq: SeqHandle) -> None:
        """Free the sequence; closing it twice is harmless."""
