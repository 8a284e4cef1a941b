"""What the server and its decoding processes say to each other: JSON headers and raw bytes, never objects.

A message is four bytes of length (big-endian), a JSON header of that length, and `size` bytes of payload. The server
believes a worker no more than the file that it has just decoded: `read_reply` checks everything that comes back.
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_HEADER_BYTES = 1 << 20
MAX_WARNINGS, MAX_WARNING_CHARS = 8, 400


class Job(BaseModel):
    """One medium of `size` bytes: they follow, or are `passed` as an open file. `options` are those of MediaOptions."""

    model_config = ConfigDict(strict=True, extra="forbid")

    want: Literal["image", "video", "kind"]
    label: str
    passed: bool = False
    size: int = 0
    options: dict[str, Any] = Field(default_factory=dict)


class Reply(BaseModel):
    """What became of a job: the facts of `MediaInfo` with `size` bytes of uint8 tiles after them, a kind, or an error."""

    model_config = ConfigDict(strict=True, extra="forbid")

    kind: Literal["image", "video"] | None = None
    error: str | None = None
    message: str = ""
    detail: str = ""  # for the server's log: an error that nobody foresaw
    out_of_memory: bool = False
    size: int = Field(default=0, ge=0)
    tile_count: int = Field(default=0, ge=0)
    rows: int = Field(default=0, ge=0)
    cols: int = Field(default=0, ge=0)
    timestamps_s: list[float] = Field(default_factory=list)
    duration_s: float | None = None
    decoded_frames: int = Field(default=0, ge=0)
    warnings: list[str] = Field(default_factory=list)


class WireError(Exception):
    """A message that breaks the protocol. A signal inside this room: the process that sent it is ended."""


def pack(header: BaseModel | dict[str, Any]) -> bytes:
    """A header with its length; its payload, if it has one, is written after it."""
    text = header.model_dump_json() if isinstance(header, BaseModel) else json.dumps(header)
    data = text.encode("utf-8")
    return len(data).to_bytes(4, "big") + data


def header_length(prefix: bytes) -> int:
    """The length that a message begins with. Raises WireError for one beyond `MAX_HEADER_BYTES`."""
    length = int.from_bytes(prefix, "big")
    if length > MAX_HEADER_BYTES:
        raise WireError(f"a header of {length} bytes")
    return length


def read_reply(data: bytes, tile_size: int, max_tiles: int) -> Reply:
    """A worker's header, checked. Raises WireError for whatever an honest worker does not say."""
    try:
        reply = Reply.model_validate_json(data)
    except ValidationError as error:
        raise WireError(f"{error.error_count()} errors in a reply") from None
    times = reply.timestamps_s + ([] if reply.duration_s is None else [reply.duration_s])
    if (
        reply.tile_count > max_tiles
        or reply.size != reply.tile_count * tile_size * tile_size * 3
        or len(reply.timestamps_s) not in (0, reply.tile_count)
        or reply.rows * reply.cols not in (0, reply.tile_count - 1)
        or not all(math.isfinite(t) and t >= 0 for t in times)
        or len(reply.warnings) > MAX_WARNINGS
        or any(len(text) > MAX_WARNING_CHARS for text in reply.warnings)
        or (reply.kind is None) == (reply.error is None)
    ):
        raise WireError("a reply whose numbers disagree")
    return reply


def tiles_of(reply: Reply, payload: bytes, tile_size: int) -> npt.NDArray[np.uint8]:
    """The payload as (tile_count, side, side, 3), read-only."""
    return np.frombuffer(payload, np.uint8).reshape(reply.tile_count, tile_size, tile_size, 3)
