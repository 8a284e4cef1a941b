"""The reader: a process of its own that decodes the source, so that a stream that hangs or kills the decoder ends nothing else.

Child to parent, bytes only: `F`, a header and the pixels; `N` and a note; `E`, the end; `X` and why it cannot go on.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import struct
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from smolvlm.apps.camera.address import Address, without_secrets
from smolvlm.apps.camera.frames import Frame
from smolvlm.apps.camera.motion import HEIGHT, WIDTH
from smolvlm.errors import SourceError

FRAMES_PER_S = 4.0
_SIDE = 512  # pixels of the longer side
_MAX_SIDE = 16_384
_HEAD = struct.Struct("<dII")
_OPEN_S, _READ_S = 10.0, 10.0


def frames_of(address: Address, begin_s: float, notes: Any, *, silence_s: float = 30.0, wait_s: float = 1.0) -> Iterator[Frame]:
    """The frames of a source, four a second. A file ends, and one that cannot be read raises SourceError; a stream is opened again
    after `wait_s`, then twice as long, up to a minute. A reader that says nothing for `silence_s` is killed.

    `notes` is called with each sentence about the source. A file's time begins at `begin_s`, in Unix time.
    """
    wait = wait_s
    while True:
        why = ""
        with _process(address, begin_s) as (connection, process):
            while True:
                if not connection.poll(silence_s):
                    process.kill()
                    why = f"nothing came for {silence_s:g} s"
                    break
                try:
                    message = connection.recv_bytes(_HEAD.size + 1 + WIDTH * HEIGHT + 3 * _SIDE * _SIDE)
                except (EOFError, OSError):
                    why = "the reader ended"
                    break
                if message[:1] == b"F":
                    wait = wait_s
                    yield _frame(message)
                elif message[:1] == b"E":
                    why = "the stream ended"
                    break
                else:
                    why = message[1:].decode(errors="replace")
                    break
        if not address.live:
            if why == "the stream ended":
                return
            raise SourceError(f"{address.shown}: cannot be read ({why}); give a video that plays.")
        notes(f"{address.shown}: {why}; tried again in {wait:g} s")
        time.sleep(wait)
        wait = min(2 * wait, 60.0)


@contextlib.contextmanager
def _process(address: Address, begin_s: float) -> Iterator[tuple[Connection, Any]]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_read, args=(there, address, begin_s), daemon=True)
    process.start()
    there.close()
    try:
        yield here, process
    finally:
        here.close()
        process.kill()
        process.join()


def _frame(message: bytes) -> Frame:
    time_s, width, height = _HEAD.unpack_from(message, 1)
    grey = np.frombuffer(message, np.uint8, WIDTH * HEIGHT, 1 + _HEAD.size).reshape(HEIGHT, WIDTH)
    pixels = np.frombuffer(message, np.uint8, offset=1 + _HEAD.size + WIDTH * HEIGHT).reshape(height, width, 3)
    return Frame(time_s, pixels, grey)


def _read(out: Connection, address: Address, begin_s: float) -> None:
    """The child: TCP first, then UDP, for RTSP."""
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        why = ""
        for transport in ("tcp", "udp") if address.kind == "rtsp" else ("",):
            sent = False
            try:
                for message in _messages(address, begin_s, transport):
                    out.send_bytes(message)
                    sent = True
                out.send_bytes(b"E")
                return
            except BrokenPipeError:
                return
            except Exception as error:  # whatever a decoder raises is the source's fault
                why = without_secrets(str(error) or type(error).__name__, address)
                if sent:
                    break
        out.send_bytes(b"X" + why.encode()[:2000])


def _messages(address: Address, begin_s: float, transport: str) -> Iterator[bytes]:
    import av

    options = {"rtsp_transport": transport} if transport else {}
    fmt = "v4l2" if address.kind == "device" else None
    timeout = (_OPEN_S, _READ_S) if address.kind in ("rtsp", "http") else None
    with av.open(address.url, format=fmt, options=options, timeout=timeout) as container:
        if not container.streams.video:
            raise ValueError("it has no pictures")
        next_s = float("-inf")
        first: float | None = None
        for frame in container.decode(container.streams.video[0]):
            if address.live:
                now = time.time()
            else:
                stamp: Any = frame.time  # None in files without times, whatever PyAV's types say
                if stamp is None:
                    continue
                first = stamp if first is None else first
                now = begin_s + stamp - first
            if now < next_s:
                continue
            next_s = max(next_s + 1 / FRAMES_PER_S, now) if next_s > 0 else now + 1 / FRAMES_PER_S
            yield _packed(frame, now)


def _packed(frame: Any, time_s: float) -> bytes:
    longer = max(frame.width, frame.height)
    if longer > _MAX_SIDE:
        raise ValueError(f"pictures of {frame.width}x{frame.height}")
    scale = min(1.0, _SIDE / longer)
    width, height = max(2, int(frame.width * scale) // 2 * 2), max(2, int(frame.height * scale) // 2 * 2)
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
    grey = frame.to_ndarray(format="gray", width=WIDTH, height=HEIGHT)
    return b"".join((b"F", _HEAD.pack(time_s, width, height), grey.tobytes(), pixels.tobytes()))
