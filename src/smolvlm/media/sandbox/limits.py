"""How much of the media of strangers is read.

The numbers of one source live in `media.limits`; these are of a request and of the decoding processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path

from smolvlm.errors import ParamsError
from smolvlm.media.limits import STRANGERS, Limits


@dataclass(frozen=True)
class StoredFile:
    """An upload that the server itself put at `path`. `label` is what messages call it; the path is never shown."""

    path: Path
    label: str = "the uploaded file"


@dataclass(frozen=True, kw_only=True)
class MediaLimits:
    """Bounds on what requests may cost. Times in seconds; `source`: bounds on each medium. Raises ParamsError for bad ones.

    max_frames caps what is sampled of a video; a request that asks for more is refused. max_video_s is the length of the
    whole video, also when only a span is asked for. decode_s is the processor time of one medium; stalled_s, on the
    clock, ends what uses none, and what a busy machine does not get done. worker_mb is the address space of one decoding
    process, about 250 MB of which it needs for itself. queue_s is how long a request waits for a free worker.
    """

    source: Limits = STRANGERS
    max_media: int = 16  # in one request
    max_frames: int = 64
    max_video_s: float = 3600.0
    decode_s: float = 30.0
    stalled_s: float = 120.0
    worker_mb: int = 2048
    workers: int = 2
    queue_s: float = 60.0
    owner_waiting: int = 112  # media of one owner that wait for a decoding process: seven requests of the largest kind
    max_downloads: int = 8  # at the same time

    def __post_init__(self) -> None:
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            kinds = int if field.type == "int" else int | float
            if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value) or value <= 0:
                expected = "a whole number of at least 1" if kinds is int else "a number above 0"
                raise ParamsError(f"{field.name}={value!r}: expected {expected}.")
