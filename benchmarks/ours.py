"""This package, as the benchmark calls it: the native engine with any `dtype`, or the torch engine."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import smolvlm
from smolvlm.engines.native_engine import THREADS_VARIABLE, NativeEngine

TASKS = ("vision", "prefill", "decode-256", "decode-2048", "batch", "image", "video")


def make(folder: Path, variant: str, threads: int) -> Ours:
    return Ours(folder, variant, threads)


class Ours:
    """`smolvlm.load` and its verbs."""

    tasks = TASKS

    def __init__(self, folder: Path, variant: str, threads: int) -> None:
        os.environ[THREADS_VARIABLE] = str(threads)
        if variant == "torch":
            import torch  # here only: the native engine must be measured without it

            torch.set_num_threads(threads)
            self.model = smolvlm.load(folder, engine="torch", device="cpu", dtype="bfloat16")
        else:
            self.model = smolvlm.load(folder, engine="native", dtype="bfloat16" if variant == "bf16" else variant)
        self.engine = self.model.engine
        self.about = f"smolvlm {smolvlm.__version__}, {self.engine.name}"
        if isinstance(self.engine, NativeEngine):
            formats = self.engine.formats
            self.about += f", {self.engine.instructions}: vision {formats.vision}, text {formats.text}, head {formats.head}"

    def vision(self, pixel_values: npt.NDArray[np.float32]) -> tuple[float, npt.NDArray[np.float32]]:
        """Seconds to encode (tiles, 3, side, side), and the first tile's embeddings."""
        started = time.perf_counter()
        embeds = self.engine.encode_images(pixel_values)
        return time.perf_counter() - started, embeds.numpy()[0]

    def prefill(self, input_ids: Sequence[int]) -> tuple[float, npt.NDArray[np.float32]]:
        """Seconds from token ids to the last logits, and these."""
        seq = self.engine.open(len(input_ids) + 1)
        started = time.perf_counter()
        logits = self.engine.prefill(seq, input_ids)
        seconds = time.perf_counter() - started
        self.engine.close(seq)
        return seconds, logits[-1]

    def decode(self, input_ids: Sequence[int], new_tokens: int) -> tuple[float, list[int]]:
        """Seconds for `new_tokens` greedy steps after the prompt (prefill not counted), and the tokens."""
        return self.decode_batch([input_ids], new_tokens)

    def decode_batch(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> tuple[float, list[int]]:
        """The same for several sequences in one pass a step; the tokens step by step."""
        seqs = [self.engine.open(len(prompt) + new_tokens) for prompt in prompts]
        last = [int(self.engine.prefill(seq, prompt)[-1].argmax()) for seq, prompt in zip(seqs, prompts, strict=True)]
        tokens: list[int] = []
        started = time.perf_counter()
        for _ in range(new_tokens):
            last = [int(row.argmax()) for row in self.engine.decode(seqs, last)]
            tokens += last
        seconds = time.perf_counter() - started
        for seq in seqs:
            self.engine.close(seq)
        return seconds, tokens

    def ask(self, kind: str, path: str, prompt: str, new_tokens: int, max_frames: int) -> dict[str, Any]:
        """End to end: a file and a question in, text out."""
        options = {"max_frames": max_frames} if kind == "video" else {}
        started = time.perf_counter()
        answer = self.model.ask(path, prompt, max_new_tokens=new_tokens, ignore_eos=True, loop_guard=False, **options)
        seconds = time.perf_counter() - started
        return {
            "seconds": seconds,
            "first_token_s": answer.timings.first_token_s,
            "tokens": list(answer.token_ids),
            "prompt_tokens": answer.usage.prompt_tokens,
        }
