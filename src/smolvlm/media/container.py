"""A container file, opened by libav under our limits: no playlists, no other files, no other hosts."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import Any

import av

from smolvlm.errors import VideoError
from smolvlm.media.labels import one_line
from smolvlm.media.limits import Limits
from smolvlm.media.sources import Source
from smolvlm.media.strangers import what_instead
from smolvlm.media.video_stream import stated_duration_s

# Containers that hold their own data. Playlists (hls, dash, concat, sdp) are not here: they open other files and hosts.
_FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,gif,h264,hevc,m4v,ivf,obu,mxf,nut,rm,wtv,dv,yuv4mpegpipe"
# A file whose tags are not UTF-8 is still a video. PyAV 19 replaces bad bytes by itself and no longer takes the argument.
_TOLERANT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
_MOST_TAG_CHARS = 200


@dataclass(frozen=True)
class StreamInfo:
    """One stream of a file. `index` is libav's; `kind` is "video", "audio", "subtitle", "data" or "attachment".

    `language` and `title` are the file's own words, None where it has none; `sample_rate` and `channels` are 0 for what is no
    sound.
    """

    index: int
    kind: str
    codec: str
    default: bool
    language: str | None = None
    title: str | None = None
    duration_s: float | None = None
    sample_rate: int = 0
    channels: int = 0


def open_container(source: Source, limits: Limits) -> Any:
    """An `av.container.InputContainer`; the caller closes it. Raises VideoError."""
    label = source.label
    # "file:" keeps libav from reading a name such as `concat:a|b` or `http:x` as a protocol.
    target = "file:" + os.path.abspath(source.path) if source.path is not None else io.BytesIO(source.data or b"")
    bound = {"max_pixels": str(limits.max_video_pixels)}
    try:
        return av.open(
            target, mode="r", options=bound, **_TOLERANT, container_options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
        )
    except Exception as error:  # libav's many errors, and PyAV's own, mean one thing here
        other = what_instead(source.head(400))
        if other and "as a video" not in other:
            raise VideoError(f"{label} cannot be read as a video{other}.") from None
        raise VideoError(
            f"{label} cannot be read as a video ({one_line(error)}): it is damaged, cut off before "
            "its index (moov), or not a video; copy or download it again."
        ) from None


def stream_infos(container: Any) -> tuple[StreamInfo, ...]:
    """All streams of an open container, in its order."""
    return tuple(_stream_info(container, stream) for stream in container.streams)


def _stream_info(container: Any, stream: Any) -> StreamInfo:
    context = stream.codec_context
    sound = stream.type == "audio"
    return StreamInfo(
        index=stream.index,
        kind=stream.type,
        codec="" if context is None else str(context.name),
        default=bool(int(stream.disposition) & int(av.stream.Disposition.default)),
        language=_tag(stream, "language"),
        title=_tag(stream, "title"),
        duration_s=stated_duration_s(container, stream),
        sample_rate=int(context.sample_rate) if sound else 0,
        channels=int(context.channels) if sound else 0,
    )


def _tag(stream: Any, name: str) -> str | None:
    value = next((value for key, value in stream.metadata.items() if key.lower() == name), "").strip()
    return None if value in ("", "und") else value[:_MOST_TAG_CHARS]
