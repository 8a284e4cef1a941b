"""NAL units of H.264 and HEVC: parameter sets, their ids, and the one header of a file whose parts were coded apart.

Sources: ITU-T H.264 and H.265, chapter 7.3; ISO/IEC 14496-15 for `avcC` and `hvcC`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

H264_IDR, H264_SPS, H264_PPS = 5, 7, 8
HEVC_SAFE_KEYS = (16, 17, 18, 19, 20)  # BLA and IDR; a CRA (21) may have leading pictures that need what was before it
HEVC_CRA = 21
HEVC_SETS = (32, 33, 34)  # VPS, SPS, PPS


def nal_type(unit: bytes, codec: str) -> int:
    return unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63


def length_size(extradata: bytes | None, codec: str) -> int:
    """Bytes of the length before each NAL unit; 0 where start codes part them (Annex B)."""
    at = 4 if codec == "h264" else 21
    if not extradata or extradata[0] != 1 or len(extradata) <= at:
        return 0
    return (extradata[at] & 3) + 1


def units(data: bytes, size: int) -> Iterator[bytes]:
    """The NAL units of a packet; `size` as `length_size` gives it. What is cut off ends them."""
    if size:
        at = 0
        while at + size < len(data):
            length = int.from_bytes(data[at : at + size], "big")
            unit = data[at + size : at + size + length]
            if unit:
                yield unit
            at += size + length
        return
    at = data.find(b"\0\0\1")
    while at >= 0:
        after = data.find(b"\0\0\1", at + 3)
        unit = data[at + 3 : None if after < 0 else after].rstrip(b"\0")
        if unit:
            yield unit
        at = after


def packed(found: Sequence[bytes], size: int) -> bytes:
    """The opposite of `units`."""
    return b"".join((len(unit).to_bytes(size, "big") if size else b"\0\0\0\1") + unit for unit in found)


def stands_alone(data: bytes, size: int, codec: str) -> bool:
    """Whether decoding can begin with this key packet and nothing after it needs what was before."""
    kinds = {nal_type(unit, codec) for unit in units(data, size)}
    if codec == "h264":
        return H264_IDR in kinds
    return bool(kinds & {*HEVC_SAFE_KEYS, HEVC_CRA})  # that nothing leads a CRA, the order of the packets tells


def parameter_sets(extradata: bytes | None, codec: str) -> list[bytes]:
    """SPS and PPS (HEVC: VPS too) of a stream's header, in its order; [] where it has none."""
    if not extradata:
        return []
    if not length_size(extradata, codec):
        wanted = (H264_SPS, H264_PPS) if codec == "h264" else HEVC_SETS
        return [unit for unit in units(extradata, 0) if nal_type(unit, codec) in wanted]
    return _avcc_sets(extradata)[0] if codec == "h264" else _hvcc_sets(extradata)


def _avcc_sets(header: bytes) -> tuple[list[bytes], bytes]:
    """The sets of an `avcC`, and what follows them."""
    found: list[bytes] = []
    at = 5
    for mask in (31, 255):
        count = header[at] & mask if at < len(header) else 0
        at += 1
        for _ in range(count):
            length = int.from_bytes(header[at : at + 2], "big")
            found.append(header[at + 2 : at + 2 + length])
            at += 2 + length
    return found, header[at:]


def _hvcc_sets(header: bytes) -> list[bytes]:
    found: list[bytes] = []
    at = 23
    for _ in range(header[22] if len(header) > 22 else 0):
        count = int.from_bytes(header[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            length = int.from_bytes(header[at : at + 2], "big")
            found.append(header[at + 2 : at + 2 + length])
            at += 2 + length
    return [unit for unit in found if unit and nal_type(unit, "hevc") in HEVC_SETS]


def joined_header(header: bytes, more: Sequence[bytes]) -> bytes:
    """An H.264 stream's header with the parameter sets `more` beside its own."""
    if not length_size(header, "h264"):
        return packed([*parameter_sets(header, "h264"), *more], 0)
    own, rest = _avcc_sets(header)
    every = [*own, *more]
    groups = [[unit for unit in every if nal_type(unit, "h264") == kind] for kind in (H264_SPS, H264_PPS)]
    level = max(unit[3] for unit in groups[0])
    sets = [b"".join(len(unit).to_bytes(2, "big") + unit for unit in group) for group in groups]
    begin = header[:3] + bytes([level, header[4], 0xE0 | len(groups[0])])
    return begin + sets[0] + bytes([len(groups[1])]) + sets[1] + rest


def h264_ids(sets: Sequence[bytes]) -> set[int]:
    """The ids that the SPS and PPS among `sets` have."""
    found = set()
    for unit in sets:
        kind = nal_type(unit, "h264")
        if kind == H264_SPS:
            found.add(_first_number(unit[4:]))  # after profile, constraints and level
        elif kind == H264_PPS:
            found.add(_first_number(unit[1:]))
    return found


def _first_number(data: bytes) -> int:
    """The Exp-Golomb number that `data` begins with."""
    bits = "".join(f"{byte:08b}" for byte in data[:8])
    zeros = len(bits) - len(bits.lstrip("0"))
    return int(bits[zeros : 2 * zeros + 1] or "1", 2) - 1
