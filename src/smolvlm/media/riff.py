"""Whether an AVI is all there. Its header counts slots, and a slot without a frame looks like a frame that was cut off."""

from __future__ import annotations

from smolvlm.media.sources import Source

_MAX_CHUNKS = 1000  # an AVI of many gigabytes is a chain of RIFF chunks of one gigabyte each


def complete_avi_bytes(source: Source) -> int:
    """The file's size if every RIFF chunk of it ends inside it, else 0. Source: OpenDML AVI file format extensions 1.02."""
    with source.open() as stream:
        size_bytes, at = stream.seek(0, 2), 0
        for _ in range(_MAX_CHUNKS):
            stream.seek(at)
            head = stream.read(8)
            if len(head) < 8 or head[:4] != b"RIFF":
                return size_bytes if at else 0  # what follows the last chunk is none of ours
            at += 8 + int.from_bytes(head[4:], "little")
            at += at & 1
            if at > size_bytes + 1:
                return 0
    return size_bytes
