"""What callers hand to `ask(media, ...)` -> parts of a message, each known to be a picture or a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from smolvlm.encoded import Encoded
from smolvlm.errors import SourceError
from smolvlm.media import SourcePolicy, Video, WantedKind, media_kind, open_source


def media_parts(media: Any, policy: SourcePolicy, kind: WantedKind = "auto") -> list[dict[str, Any]]:
    """One part for each of `media`: None, one item, or a list of items.

    An item is a path, URL, data URL, bytes, file object, Pillow picture or array, a `Video`, an `Encoded` (told apart by
    content: a 4-D array and a list of frames inside the list are videos; so are animated pictures), or already a part such as
    `{"type": "video", "path": ..., "fps": 2}`. `kind` is `MediaOptions.media_kind`: what files are looked at as.
    """
    if media is None:
        return []
    items = list(media) if isinstance(media, list | tuple) else [media]
    return [_part(item, policy, kind) for item in items]


def _part(item: Any, policy: SourcePolicy, wanted: WantedKind) -> dict[str, Any]:
    if isinstance(item, Mapping):
        return dict(item)
    if isinstance(item, Encoded):
        return {"type": item.info.kind, item.info.kind: item}
    if isinstance(item, Video):
        return {"type": "video", "video": item}
    if isinstance(item, Sequence) and not isinstance(item, str | bytes | bytearray | memoryview):
        if not item:
            raise SourceError("an empty list of frames is not a video; pass at least one frame.")
        return {"type": "video", "video": list(item)}
    if hasattr(item, "__array__") and not hasattr(item, "convert"):  # arrays and tensors; Pillow pictures convert
        return {"type": "video", "video": item} if len(item.shape) == 4 else {"type": "image", "image": item}
    if hasattr(item, "convert"):
        return {"type": "image", "image": item}
    source = open_source(item, policy)  # downloaded once: the opened source travels on
    kind = media_kind(source, policy.limits, wanted)
    return {"type": kind, kind: source}
