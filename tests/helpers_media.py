"""Small real pictures and clips made on the spot, and the reference's processors built with explicit settings."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from smolvlm.config import ProcessorConfig

BIG = ProcessorConfig(longest_edge=1536, tile_size=384, image_seq_len=81, video_longest_edge=384)  # the 2.2B's
OFFICIAL = ProcessorConfig()
SMALL = ProcessorConfig(tile_size=128, video_longest_edge=256)  # the same path: for tests of which frame, not of its size


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth gradients with noise and hard edges: every frequency that a resize could get wrong."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    base = np.stack([x / max(width - 1, 1), y / max(height - 1, 1), ((x // 7 + y // 5) % 2)], axis=2) * 200
    return Image.fromarray((base + rng.integers(0, 56, (height, width, 3))).astype(np.uint8))


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def numbered_frame(i: int, width: int = 128, height: int = 96) -> np.ndarray[Any, Any]:
    """A frame that carries `i` in 16 blocks of black or white, on a background that moves."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([(x + 3 * i) % 256, (y * 2 + i) % 256, np.full_like(x, 96)], axis=2).astype(np.uint8)
    for bit in range(16):
        left = bit * (width // 16)
        pixels[: height // 3, left : left + width // 16] = 255 if i >> bit & 1 else 0
    return pixels


def read_number(pixels: np.ndarray[Any, Any]) -> int:
    """The number that `numbered_frame` wrote, from a frame of any size, upright."""
    height, width, _ = pixels.shape
    row = pixels[height // 8 : height // 5].mean(axis=(0, 2))
    step = width / 16
    return sum(1 << bit for bit in range(16) if row[int((bit + 0.5) * step)] > 128)


def make_clip(
    path: Path,
    count: int = 120,
    *,
    rate: int = 25,
    codec: str = "libx264",
    pts: Callable[[int], int] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    audio: str | None = None,
    rotation: int = 0,
    size: tuple[int, int] = (128, 96),
    format: str | None = None,
    pix_fmt: str = "yuv420p",
) -> Path:
    """Encode `count` numbered frames. `pts` gives frame i's ticks of `time_base` (variable rates); audio comes first."""
    with av.open(str(path), "w", format=format, options=container_options or {}) as out:
        sound = out.add_stream(audio, rate=48000) if audio else None
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        if time_base is not None:
            stream.codec_context.time_base = time_base
        if rotation:
            stream.set_display_rotation(rotation)
        if sound is not None:
            for block in range(count * 48000 // rate // 1024):
                samples = np.zeros((1, 2048), np.float32)
                frame = av.AudioFrame.from_ndarray(samples, "flt", layout="stereo")
                frame.sample_rate, frame.pts = 48000, block * 1024
                out.mux(_sound(sound, frame))
            out.mux(sound.encode(None))
        for i in range(count):
            picture = av.VideoFrame.from_ndarray(numbered_frame(i, *size), "rgb24")
            picture.pts = pts(i) if pts else i
            picture.time_base = time_base or Fraction(1, rate)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


def crowded_clip(path: Path) -> Path:
    """48 frames in 1.9 s, then one each 10 s up to a minute, as a screen recording where little happens has them."""
    ms = [*range(0, 1920, 40), *range(10_000, 60_001, 10_000)]
    return make_clip(path, len(ms), pts=ms.__getitem__, time_base=Fraction(1, 1000), options={"preset": "veryfast", "bf": "0"})


def _sound(stream: Any, frame: Any) -> Any:
    packets = []
    for part in av.AudioResampler(stream.format, stream.layout, stream.rate).resample(frame):
        packets += stream.encode(part)
    return packets


def decode_all(path: Path) -> tuple[list[np.ndarray[Any, Any]], list[float]]:
    """The slow, obvious reference: every frame in the order in which the decoder gives them, with its time."""
    with av.open(str(path)) as container:
        frames = list(container.decode(container.streams.video[0]))
        first = frames[0].pts or 0
        times = [float(((f.pts or 0) - first) * f.time_base) for f in frames]
        return [f.to_ndarray(format="rgb24") for f in frames], times


def reference_images(config: ProcessorConfig, splitting: bool) -> Any:
    """`transformers`' Pillow path with every setting spelled out."""
    from oracle import transformers
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    assert transformers
    return SmolVLMImageProcessorPil(
        size={"longest_edge": config.longest_edge},
        max_image_size={"longest_edge": config.tile_size},
        image_mean=list(config.image_mean),
        image_std=list(config.image_std),
        resample=config.resample,
        do_image_splitting=splitting,
        rescale_factor=config.rescale_factor,
        do_convert_rgb=True,
        do_pad=True,
    )


def reference_videos(config: ProcessorConfig) -> Any:
    """`transformers`' video processor with every setting spelled out."""
    from oracle import transformers
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

    assert transformers
    return SmolVLMVideoProcessor(
        size={"longest_edge": config.video_longest_edge},
        max_image_size={"longest_edge": config.tile_size},
        image_mean=list(config.image_mean),
        image_std=list(config.image_std),
        resample=config.resample,
        rescale_factor=config.rescale_factor,
        video_sampling={"fps": config.fps, "max_frames": config.max_frames, "video_size": {"longest_edge": config.video_longest_edge}},
    )


def reference_video_utils() -> Any:
    """`transformers.video_utils`, imported the safe way."""
    from oracle import transformers

    return transformers.video_utils
