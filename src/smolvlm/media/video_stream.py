"""Which stream of a file is the video, and what the container says of its length."""

from __future__ import annotations

import re
from typing import Any

from av.stream import Disposition

from smolvlm.errors import VideoError

_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)\d*")


def main_video_stream(container: Any, label: str) -> Any:
    """The video stream that is marked as the default one, else the largest, as `ffmpeg` chooses; of equals the first.

    Covers, thumbnails and previews are no videos. Raises VideoError where nothing else is there.
    """
    streams = [s for s in container.streams.video if not int(s.disposition) & int(_PICTURES)]
    if streams:
        return max(streams, key=_rank)
    if container.streams.audio and container.streams.video:
        raise VideoError(f"{label} is a sound file; the only picture in it is its cover. Pass a file with moving pictures.")
    kinds = sorted({s.type for s in container.streams})
    raise VideoError(f"{label} has no video stream (it holds {', '.join(kinds) or 'nothing'}); pass a file with moving pictures.")


def _rank(stream: Any) -> tuple[bool, bool, int]:
    disposition, context = int(stream.disposition), stream.codec_context
    return bool(disposition & int(Disposition.default)), stream.frames != 1, context.width * context.height


def stated_duration_s(container: Any, stream: Any) -> float | None:
    """Seconds by the stream's header, by the tag that Matroska's writers leave, or by the file's; None if none says."""
    if stream.duration is not None and stream.duration > 0:
        return float(stream.duration * stream.time_base)
    tag = _CLOCK.fullmatch(stream.metadata.get("DURATION", "").strip())
    if tag is not None:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    if len(container.streams) == 1 and container.duration is not None and container.duration > 0:
        return float(container.duration / 1_000_000)
    return None
