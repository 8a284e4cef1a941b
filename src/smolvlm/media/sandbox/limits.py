"""How much of the media of strangers is read.

The numbers of one source live in `media.limits`; these are of a request and of the decoding processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from smolvlm.media.limits import STRANGERS, Limits
from smolvlm.options.declare import check, option


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
    max_media: int = option(16, "Media of one request.", least=1)
    max_frames: int = option(64, "Frames of one video.", least=1)
    max_video_s: float = option(3600.0, "Seconds of a whole video.", above=0)
    decode_s: float = option(30.0, "Processor time of one medium.", above=0)
    stalled_s: float = option(120.0, "Time on the clock of one medium.", above=0)
    worker_mb: int = option(2048, "Address space of a decoding process.", least=1)
    workers: int = option(2, "Decoding processes.", least=1)
    queue_s: float = option(60.0, "The wait for a free process.", above=0)
    # Seven requests of the largest kind.
    owner_waiting: int = option(112, "Media of one owner that wait for a process.", least=1)
    max_downloads: int = option(8, "Downloads at the same time.", least=1)

    def __post_init__(self) -> None:
        check(self)
