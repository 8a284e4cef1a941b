"""Addresses of media as clients write them -> a data URL in the one form that is opened, or an address as it was sent.

Taken where only one thing can be meant: base64 without `data:` or `;base64` before it, in the alphabet for URLs, with the
beginning of a data URL before it twice, or as Python prints bytes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re

from smolvlm.media.kinds import MediaKind, signature_kind

_SNIFFED_CHARS = 512  # 384 bytes: more than two packets of an MPEG transport stream
_IN_THE_LOOP_CHARS = 1 << 16
_LONGEST_HEAD = 128  # of a data URL, to its comma
_URL_SAFE = str.maketrans("-_", "+/")
_UPLOAD_ID = re.compile(r"file[-_][A-Za-z0-9_-]{1,80}")
_UNNAMED = re.compile(r"(?:[a-z]+/[a-z0-9.+-]+)?;?base64,", re.IGNORECASE | re.ASCII)  # `image/png;base64,`
_AGAIN = re.compile(r"\s*data:[^,]{0,100},", re.IGNORECASE)
_PRINTED = re.compile(r"\s*b?(['\"])")


def is_upload_id(address: str) -> bool:
    """Whether it is what `POST /v1/files` gives, in place of an address."""
    return _UPLOAD_ID.fullmatch(address) is not None


def holds_picture(source: object) -> bool:
    """Whether it is a data URL with a picture's first bytes."""
    return isinstance(source, str) and source[:5].lower() == "data:" and _kind(_divided(source)[1]) == "image"


async def canonical(address: str) -> tuple[str, MediaKind | None]:
    """The address, and the kind that the first bytes of its data tell; long ones are looked through in a thread."""
    if len(address) > _IN_THE_LOOP_CHARS:
        return await asyncio.to_thread(_canonical, address)
    return _canonical(address)


def _canonical(address: str) -> tuple[str, MediaKind | None]:
    head, payload = _divided(address)
    kind = _kind(payload)
    if kind is None:
        return address, None
    if (printed := _PRINTED.match(payload)) is not None:
        payload = payload[printed.end() :].rstrip().removesuffix(printed[1])
    if "-" in payload or "_" in payload:
        payload = payload.translate(_URL_SAFE)
    if not head:
        return f"data:{kind}/unknown;base64,{''.join(payload.split())}", kind
    if not head.lower().rstrip().endswith(";base64"):
        head += ";base64"
    return f"{head},{payload}", kind


def _divided(address: str) -> tuple[str, str]:
    """What stands before the comma of a data URL, "" without one, and what comes after it."""
    if _UNNAMED.match(address) is not None:
        address = f"data:{address}"
    if address[:5].lower() != "data:":
        return "", address
    comma = address.find(",", 0, _LONGEST_HEAD)
    if comma < 0:
        return "", address
    head, start = address[:comma], comma + 1
    while (again := _AGAIN.match(address, start)) is not None:
        start = again.end()
    return head, address[start:]


def _kind(payload: str) -> MediaKind | None:
    """The kind of medium whose base64 this is."""
    text = payload[:_SNIFFED_CHARS]
    if (printed := _PRINTED.match(text)) is not None:
        text = text[printed.end() :].rstrip().removesuffix(printed[1])
    text = "".join(text.split()).translate(_URL_SAFE)
    try:
        start = base64.b64decode(text[: len(text) // 4 * 4], validate=True)
    except (binascii.Error, ValueError):
        return None
    return signature_kind(start)
