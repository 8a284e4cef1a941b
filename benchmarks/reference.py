"""`transformers`, called as its documentation does; only the benchmark and the tests import it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from benchmarks.machine import ROOT

sys.path.insert(0, str(ROOT / "tests"))  # `oracle` imports transformers beside a CPU-only torch
from oracle import fetch_videos_by_pyav, transformers


class FirstToken(transformers.generation.streamers.BaseStreamer):  # type: ignore[misc]
    """Notes when the first new token came: `generate` hands over the prompt first, then each token."""

    def __init__(self) -> None:
        self.calls, self.at = 0, 0.0

    def put(self, value: Any) -> None:  # noqa: ARG002 - the base class's signature
        self.calls += 1
        if self.calls == 2:
            self.at = time.perf_counter()

    def end(self) -> None:
        pass


DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def make(folder: Path, variant: str, threads: int) -> Reference:
    return Reference(folder, variant, threads)


class Reference:
    """`AutoModelForImageTextToText` with its default attention (SDPA) and cache."""

    tasks = ("vision", "prefill", "decode-256", "decode-2048", "image", "video")

    def __init__(self, folder: Path, variant: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.dtype = DTYPES[variant]
        kind = transformers.AutoModelForImageTextToText
        self.model = kind.from_pretrained(folder, dtype=self.dtype).eval()
        self.processor = transformers.AutoProcessor.from_pretrained(folder)
        self.processor.video_processor.fetch_videos = fetch_videos_by_pyav
        self.about = f"transformers {transformers.__version__}, torch {torch.__version__}"

    @torch.inference_mode()
    def vision(self, pixel_values: npt.NDArray[np.float32]) -> tuple[float, npt.NDArray[np.float32]]:
        started = time.perf_counter()
        out = self.model.model.get_image_features(torch.from_numpy(pixel_values)[None].to(self.dtype))
        seconds = time.perf_counter() - started
        first = out.pooler_output[0].float()  # of one picture: all tiles, one after the other
        return seconds, first.reshape(len(pixel_values), -1, first.shape[-1])[0].numpy()

    @torch.inference_mode()
    def prefill(self, input_ids: Sequence[int]) -> tuple[float, npt.NDArray[np.float32]]:
        started = time.perf_counter()
        logits = self.model(input_ids=torch.tensor([input_ids]), use_cache=True, logits_to_keep=1).logits
        seconds = time.perf_counter() - started
        return seconds, logits[0, -1].float().numpy()

    @torch.inference_mode()
    def decode(self, input_ids: Sequence[int], new_tokens: int) -> tuple[float, list[int]]:
        """The bare forward loop: `generate` would add its own cost for each token."""
        out = self.model(input_ids=torch.tensor([input_ids]), use_cache=True, logits_to_keep=1)
        token, tokens = int(out.logits[0, -1].argmax()), []
        started = time.perf_counter()
        for _ in range(new_tokens):
            out = self.model(input_ids=torch.tensor([[token]]), past_key_values=out.past_key_values, use_cache=True)
            token = int(out.logits[0, -1].argmax())
            tokens.append(token)
        return time.perf_counter() - started, tokens

    @torch.inference_mode()
    def ask(self, kind: str, path: str, prompt: str, new_tokens: int, max_frames: int) -> dict[str, Any]:
        extra = {"processor_kwargs": {"num_frames": max_frames, "fps": 1}} if kind == "video" else {}
        started = time.perf_counter()
        # A picture is opened by Pillow: the reference's own loader needs torchvision's compiled part, which a CPU-only
        # torch lacks. Everything after it is the reference's default.
        media = {"type": "image", "image": Image.open(path)} if kind == "image" else {"type": "video", "path": path}
        content = [media, {"type": "text", "text": prompt}]
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **extra,
        ).to(self.dtype)
        first = FirstToken()
        out = self.model.generate(**inputs, do_sample=False, min_new_tokens=new_tokens, max_new_tokens=new_tokens, streamer=first)
        new = out[0, inputs["input_ids"].shape[1] :]
        self.processor.batch_decode(new[None], skip_special_tokens=True)
        seconds = time.perf_counter() - started
        return {
            "seconds": seconds,
            "first_token_s": first.at - started,
            "tokens": new.tolist(),
            "prompt_tokens": inputs["input_ids"].shape[1],
        }
