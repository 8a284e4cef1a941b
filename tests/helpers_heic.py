"""A HEIC file made by hand: one HEVC key frame in the boxes of ISO/IEC 23008-12, with an optional `irot` turn."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from typing import Any

import av
import numpy as np


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def _full(kind: bytes, body: bytes, version: int = 0, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags) + body)


def _hevc(pixels: np.ndarray[Any, Any]) -> tuple[bytes, bytes]:
    """(hvcC box, length-prefixed sample) of one key frame."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("libx265", rate=1, options={"x265-params": "log-level=none:crf=8:bframes=0"})
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.codec_tag = "hvc1"
        frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
        frame.pts, frame.time_base = 0, Fraction(1, 1)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    data = buffer.getvalue()
    at = data.index(b"hvcC") - 4
    box = data[at : at + struct.unpack(">I", data[at : at + 4])[0]]
    with av.open(io.BytesIO(data)) as container:
        sample = bytes(next(container.demux(container.streams.video[0])))
    return box, sample


def make_heic(pixels: np.ndarray[Any, Any], quarter_turns: int = 0, claimed: tuple[int, int] | None = None) -> bytes:
    """`pixels` uint8 (height, width, 3) as a HEIC; `irot` turns counter-clockwise; `claimed` is the (w, h) of `ispe`."""
    height, width = pixels.shape[:2]
    claimed = claimed or (width, height)
    hvcc, sample = _hevc(pixels)
    ftyp = _box(b"ftyp", b"heic\0\0\0\0mif1heic")
    properties = [hvcc, _full(b"ispe", struct.pack(">II", *claimed))]
    if quarter_turns:
        properties.append(_box(b"irot", bytes([quarter_turns])))
    ipma = struct.pack(">IHB", 1, 1, len(properties)) + bytes([0x81, 0x02, 0x83][: len(properties)])
    iprp = _box(b"iprp", _box(b"ipco", b"".join(properties)) + _full(b"ipma", ipma))
    hdlr = _full(b"hdlr", b"\0\0\0\0pict" + bytes(12) + b"\0")
    infe = _full(b"infe", struct.pack(">HH", 1, 0) + b"hvc1\0", version=2)
    iinf = _full(b"iinf", struct.pack(">H", 1) + infe)
    pitm = _full(b"pitm", struct.pack(">H", 1))

    def meta(offset: int) -> bytes:
        iloc = struct.pack(">BBHHHHII", 0x44, 0, 1, 1, 0, 1, offset, len(sample))
        return _full(b"meta", hdlr + pitm + _full(b"iloc", iloc) + iinf + iprp)

    offset = len(ftyp) + len(meta(0)) + 8
    return ftyp + meta(offset) + _box(b"mdat", sample)
