"""What a picture file says about its colors, read without a color engine: an ICC profile's primaries, or CICP codes.

Sources: ICC.1:2022 (tags rXYZ, gXYZ, bXYZ, desc), ITU-T H.273 (code points), PNG 3 (cICP), ISO/IEC 14496-12 (colr).
"""

from __future__ import annotations

import struct

from smolvlm.media.labels import short
from smolvlm.media.tone_map import ColorTags

_SRGB_COLORANTS = (0.4360, 0.2225, 0.0139, 0.3851, 0.7169, 0.0971, 0.1431, 0.0606, 0.7141)  # X, Y, Z under D50


def color_tags(head: bytes) -> ColorTags:
    """The code points in the beginning of a PNG, AVIF or HEIC file; unspecified ones where it names none."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        at = 8
        while at + 12 <= len(head) and head[at + 4 : at + 8] not in (b"IDAT", b"IEND"):
            if head[at + 4 : at + 8] == b"cICP":
                return ColorTags(primaries=head[at + 8], transfer=head[at + 9])
            at += 12 + int.from_bytes(head[at : at + 4], "big")
        return ColorTags()
    at = head.find(b"colrnclx") if head[4:8] == b"ftyp" else -1
    if not 0 < at <= len(head) - 12:
        return ColorTags()
    primaries, transfer = struct.unpack(">HH", head[at + 8 : at + 12])
    return ColorTags(primaries=primaries, transfer=transfer)


def profile_name(profile: bytes) -> str | None:
    """The name of an ICC profile whose colors are not those of sRGB; None for sRGB, gray and what cannot be read."""
    tags = _tags(profile)
    space = profile[16:20]
    if not tags or space not in (b"RGB ", b"CMYK", b"Lab "):
        return None
    name = _description(tags.get(b"desc", b""))
    if space == b"RGB ":
        values = [value for tag in (b"rXYZ", b"gXYZ", b"bXYZ") for value in _xyz(tags.get(tag, b""))]
        if len(values) == 9:
            if all(abs(value - known) < 0.02 for value, known in zip(values, _SRGB_COLORANTS, strict=True)):
                return None
        elif "srgb" in name.lower():
            return None
    return name or f"unnamed {space.decode('ascii').strip()}"


def _tags(profile: bytes) -> dict[bytes, bytes]:
    if len(profile) < 132 or profile[36:40] != b"acsp":
        return {}
    tags = {}
    for i in range(min(int.from_bytes(profile[128:132], "big"), 200)):
        entry = profile[132 + 12 * i : 144 + 12 * i]
        if len(entry) < 12:
            break
        offset, size = struct.unpack(">II", entry[4:])
        tags[entry[:4]] = profile[offset : offset + size]
    return tags


def _xyz(tag: bytes) -> tuple[float, ...]:
    return tuple(v / 65536 for v in struct.unpack(">iii", tag[8:20])) if tag[:4] == b"XYZ " and len(tag) >= 20 else ()


def _description(tag: bytes) -> str:
    if tag[:4] == b"desc" and len(tag) > 12:  # version 2
        return short(tag[12 : 12 + int.from_bytes(tag[8:12], "big")].split(b"\0")[0].decode("latin-1"))
    if tag[:4] == b"mluc" and len(tag) >= 28:  # version 4: the first of the translations
        size, offset = struct.unpack(">II", tag[20:28])
        return short(tag[offset : offset + size].decode("utf-16-be", "replace"))
    return ""
