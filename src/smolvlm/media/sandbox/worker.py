"""A process that decodes media for the server and may die of them: `python -m smolvlm.media.sandbox.worker`.

It reads jobs from its standard input and writes replies to its standard output, as `media_wire` says, until the input
ends. Before the first job it gives up what it does not need (confinement.py). A file comes as an open descriptor over a
socket that the server holds the other end of: it never opens one, and knows no name of any.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import math
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from pydantic import TypeAdapter

from smolvlm.config import ProcessorConfig
from smolvlm.errors import ImageError, MissingExtraError, SmolVLMError, VideoError
from smolvlm.media import Limits, MediaOptions, Source, SourcePolicy, Video, load_image, media_kind, split_image
from smolvlm.media.labels import short
from smolvlm.media.sandbox.confinement import confine
from smolvlm.media.sandbox.wire import MAX_WARNING_CHARS, MAX_WARNINGS, Job, Reply, header_length, pack


class Decoder:
    """The work itself: `media/` with the server's limits. `max_video_s` is the longest video in seconds."""

    def __init__(self, config: ProcessorConfig, limits: Limits, max_video_s: float, memory_mb: int) -> None:
        self._config = config
        self._limits = limits
        self._policy = SourcePolicy(allow_urls=False, limits=limits)
        self._max_video_s = max_video_s
        self._memory_mb = memory_mb

    def answer(self, job: Job, data: bytes) -> tuple[Reply, bytes]:
        """The reply and its tiles' bytes; whatever goes wrong with the medium is a reply too."""
        source = Source(job.label, data=data)
        try:
            if job.want == "kind":
                return Reply(kind=media_kind(source, self._limits)), b""
            options = MediaOptions(**job.options)
            return self._image(source, options) if job.want == "image" else self._video(source, options)
        except Exception as error:
            if _ran_out_of_memory(error):
                kind = VideoError if job.want == "video" else ImageError
                return Reply(
                    error=kind.__name__,
                    out_of_memory=True,
                    message=(
                        f"{job.label}: reading it takes more than the {self._memory_mb} MB that one picture or video may take; "
                        "send a smaller one."
                    ),
                ), b""
            if isinstance(error, MissingExtraError):
                return Reply(
                    error="ImageError", message=f"{job.label}: HEIC and HEIF pictures are not read here; send it as JPEG or PNG."
                ), b""
            if isinstance(error, SmolVLMError):
                return Reply(error=type(error).__name__, message=str(error)), b""
            name = "VideoError" if job.want == "video" else "ImageError"  # a gap in ours: its place is worth a log line
            return Reply(error=name, message=f"{job.label} cannot be decoded; save it again in a common format.", detail=_place(error)), b""

    def _image(self, source: Source, options: MediaOptions) -> tuple[Reply, bytes]:
        found: list[str] = []
        picture = split_image(load_image(source, self._policy, options=options, on_warning=found.append), self._config, options)
        tiles = picture.tiles.tobytes()
        return Reply(
            kind="image", size=len(tiles), tile_count=len(picture.tiles), rows=picture.rows, cols=picture.cols, warnings=_told(found)
        ), tiles

    def _video(self, source: Source, options: MediaOptions) -> tuple[Reply, bytes]:
        with Video(source, self._policy) as opened:  # reads packets, decodes no frame
            if opened.duration_s > self._max_video_s:
                raise VideoError(
                    f"{source.label}: it lasts {opened.duration_s:.0f} s, longer than the limit of {self._max_video_s:g} s; cut it first."
                )
            video = opened.sample(options, config=self._config)
        tiles = video.frames.tobytes()
        return Reply(
            kind="video",
            size=len(tiles),
            tile_count=len(video.frames),
            timestamps_s=list(video.timestamps_s),
            duration_s=video.duration_s,
            decoded_frames=video.decoded_frames,
            warnings=_told(video.warnings),
        ), tiles


def _told(sentences: Sequence[str]) -> list[str]:
    return [short(sentence, MAX_WARNING_CHARS) for sentence in sentences[:MAX_WARNINGS]]


def allow_seconds(seconds: float) -> None:
    """From now on this much processor time; the system ends the process when it is spent."""
    try:
        resource: Any = importlib.import_module("resource")
    except ImportError:
        return
    # The system counts from the start of the process; children and the hard limit are left alone.
    soft = math.ceil(time.process_time() + seconds)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def serve(jobs: BinaryIO, replies: BinaryIO, files: int | None) -> None:
    """Answer jobs until they end. The first message is the setup: configuration and limits.

    files: the descriptor of the socket over which open files come; None where the system cannot hand them on.
    """
    setup = json.loads(_header(jobs) or b"{}")
    if not setup:
        return
    config = TypeAdapter(ProcessorConfig).validate_python(setup["config"])
    decoder = Decoder(config, Limits(**setup["limits"]), setup["max_video_s"], setup["memory_mb"])
    channel = None if files is None else socket.socket(fileno=files)
    with open(os.devnull, "wb") as nothing:  # libtiff and others write what they think of a file to stderr
        os.dup2(nothing.fileno(), 2)
        os.dup2(nothing.fileno(), 1)
    _warm_up(decoder)
    replies.write(pack({"ready": True, "missing": confine(setup["memory_mb"])}))
    replies.flush()
    while header := _header(jobs):
        job = Job.model_validate_json(header)
        with _medium(job, jobs, channel) as stream:
            data = stream.read(job.size)
            if len(data) < job.size and stream is jobs:
                return
            allow_seconds(setup["decode_s"])
            reply, tiles = decoder.answer(job, data)
            del data
        replies.write(pack(reply))
        replies.write(tiles)
        replies.flush()


def _warm_up(decoder: Decoder) -> None:
    """Load what the first picture would load: after a crash, that one is somebody else's."""
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    decoder.answer(Job(want="image", label="warm-up", size=len(png.getvalue())), png.getvalue())


@contextlib.contextmanager
def _medium(job: Job, jobs: BinaryIO, channel: socket.socket | None) -> Iterator[BinaryIO]:
    """Where the job's bytes are to be read: an open file that the server passed on, else what follows the header."""
    if not job.passed or channel is None:
        yield jobs
        return
    _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    with os.fdopen(descriptors[0], "rb") as file:
        yield file


def _header(jobs: BinaryIO) -> bytes:
    """The next header, empty at the end of the input."""
    prefix = jobs.read(4)
    return jobs.read(header_length(prefix)) if len(prefix) == 4 else b""


def _place(error: BaseException) -> str:
    """The class of an error and the line that raised it: nothing of the medium itself."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace is not None else ""
    return type(error).__name__ + where


def _ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether a MemoryError (Python's, or libav's ENOMEM) stands anywhere behind `error`: our sentences replace it."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def main() -> None:
    """Take the standard streams for the protocol, so that nothing that a library prints gets between."""
    logging.disable()
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with contextlib.suppress(BrokenPipeError):  # the server is gone
        serve(sys.stdin.buffer, replies, int(sys.argv[1]) if len(sys.argv) > 1 else None)


if __name__ == "__main__":
    main()
