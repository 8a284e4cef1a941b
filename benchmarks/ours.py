"""This package, as the benchmark calls it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import smolvlm


class Ours:
    """`smolvlm` with the torch engine."""

    name = "smolvlm"

    def __init__(self, folder: Path, dtype: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.model = smolvlm.load(folder, engine="torch", device="cpu", dtype=dtype)
        self.engine = self.model.engine

    def vision(self, pixel_values: npt.NDArray[np.float32]) -> float:
        """Seconds to encode (tiles, 3, side, side)."""
        started = time.perf_counter()
        self.engine.encode_images(pixel_values)
        return time.perf_counter() - started

    def prefill(self, input_ids: Sequence[int]) -> tuple[float, int]:
        """Seconds from token ids to the last logits, and the greedy next token."""
        seq = self.engine.open(len(input_ids) + 1)
        started = time.perf_counter()
        logits = self.engine.prefill(seq, input_ids)
        seconds = time.perf_counter() - started
        self.engine.close(seq)
        return seconds, int(logits[-1].argmax())

    def decode(self, input_ids: Sequence[int], new_tokens: int) -> tuple[float, list[int]]:
        """Seconds for `new_tokens` greedy steps after the prompt (prefill not counted), and the tokens."""
        seq = self.engine.open(len(input_ids) + new_tokens)
        token = int(self.engine.prefill(seq, input_ids)[-1].argmax())
        tokens = []
        started = time.perf_counter()
        for _ in range(new_tokens):
            token = int(self.engine.decode([seq], [token])[0].argmax())
            tokens.append(token)
        seconds = time.perf_counter() - started
        self.engine.close(seq)
        return seconds, tokens

    def ask(self, kind: str, path: str, prompt: str, new_tokens: int, max_frames: int) -> dict[str, Any]:
        """End to end: a file and a question in, text out."""
        options = {"max_frames": max_frames} if kind == "video" else {}
        started = time.perf_counter()
        answer = self.model.ask(path, prompt, max_new_tokens=new_tokens, ignore_eos=True, loop_guard=False, **options)
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "first_token_s": answer.timings.first_token_s, "tokens": list(answer.token_ids),
                "prompt_tokens": answer.usage.prompt_tokens}  # fmt: skip
