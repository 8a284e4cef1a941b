"""`images=` and `videos=` in every nesting that the reference takes, handed out to the markers of the texts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from smolvlm.compat.arguments import logger
from smolvlm.errors import PromptError
from smolvlm.families.grammar import IMAGE_TOKEN, VIDEO_MARKER
from smolvlm.media.arrays import is_array_like
from smolvlm.prompt.messages import ImagePart, VideoPart

_MARKER = re.compile(f"({re.escape(IMAGE_TOKEN)}|{re.escape(VIDEO_MARKER)})")


def split_texts(texts: Sequence[str], images: Any, videos: Any) -> list[list[str | ImagePart | VideoPart]]:
    """Each text in order: its own stretches, and the picture or video that stands at each marker.

    `images` is one picture, a list of them, or a list of lists with one for each text; `videos` likewise, where a list
    of pictures is one video's frames. Raises PromptError when markers and media disagree in number.
    """
    pictures = picture_lists(images, len(texts))
    clips = list(_clips(videos))
    texts = _with_markers(texts, pictures, clips)
    counts = {marker: [text.count(marker) for text in texts] for marker in (IMAGE_TOKEN, VIDEO_MARKER)}
    flat_pictures = [picture for sample in pictures for picture in sample]
    for name, marker, given in (("images", IMAGE_TOKEN, flat_pictures), ("videos", VIDEO_MARKER, clips)):
        if sum(counts[marker]) != len(given):
            raise PromptError(f"the text has {sum(counts[marker])} {marker} and {name}=[...] holds {len(given)}; pass one for each marker.")
    if len(pictures) == len(texts) > 1 and list(map(len, pictures)) != counts[IMAGE_TOKEN]:
        raise PromptError(
            f"the texts have {counts[IMAGE_TOKEN]} {IMAGE_TOKEN} and images=[...] holds "
            f"{list(map(len, pictures))}; pass one for each marker."
        )
    next_picture, next_clip = iter(flat_pictures), iter(clips)
    result: list[list[str | ImagePart | VideoPart]] = []
    for text in texts:
        pieces: list[str | ImagePart | VideoPart] = []
        for piece in _MARKER.split(text):
            if piece == IMAGE_TOKEN:
                pieces.append(ImagePart(next(next_picture)))
            elif piece == VIDEO_MARKER:
                pieces.append(VideoPart(next(next_clip)))
            elif piece:
                pieces.append(piece)
        result.append(pieces)
    return result


def picture_lists(images: Any, texts: int | None = None) -> list[list[Any]]:
    """One list of pictures for each text, or one for all of them. Raises PromptError for a mixed or unequal nesting."""
    if images is None:
        return []
    if not isinstance(images, list | tuple):
        return [[images]]
    nested = [isinstance(item, list | tuple) for item in images]
    if not any(nested):
        return [list(images)]
    if not all(nested):
        raise PromptError("images=[...] mixes pictures and lists of pictures; pass one list for each text.")
    if texts is not None and len(images) != texts:
        raise PromptError(f"images=[...] holds {len(images)} lists for {texts} texts; pass one list for each text.")
    return [list(sample) for sample in images]


def _with_markers(texts: Sequence[str], pictures: list[list[Any]], clips: list[Any]) -> Sequence[str]:
    """Prompts without a single marker get one in front for each of their media, and the log says so."""
    if any(_MARKER.search(text) for text in texts) or not (pictures or clips):
        return texts
    shares = [len(sample) for sample in pictures] or [0]
    if len(shares) == 1 and len(texts) > 1:  # one list for all texts: one picture each, or nobody knows whose they are
        shares = [1] * len(texts) if shares[0] == len(texts) else [0] * len(texts)
    films = [1] * len(texts) if len(clips) == len(texts) else [len(clips)] if len(texts) == 1 else [0] * len(texts)
    logger.warning(
        "the prompt has no %s: the media go before it. Prompts that apply_chat_template writes are answered better: "
        "the model learned those",
        VIDEO_MARKER if clips and not pictures else IMAGE_TOKEN,
    )
    return [IMAGE_TOKEN * share + VIDEO_MARKER * film + text for text, share, film in zip(texts, shares, films, strict=True)]


def _clips(videos: Any) -> Iterator[Any]:
    """Every video in order: a path, bytes, an array of four dimensions, or a list of frames."""
    if videos is None:
        return
    if not isinstance(videos, list | tuple) or (videos and all(_is_frame(item) for item in videos)):
        yield videos
        return
    for item in videos:
        if isinstance(item, list | tuple):
            yield from _clips(item)
        else:
            yield item


def _is_frame(item: Any) -> bool:
    return isinstance(item, Image.Image) or (is_array_like(item) and getattr(item, "ndim", 3) == 3)
