"""A processor's keyword arguments, in the reference's words or ours, sorted into the dataclasses that own them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from smolvlm.compat.arguments import refuse_unknown, report_unused
from smolvlm.compat.features import Padding, check_return_tensors
from smolvlm.compat.tokenizer import padding_of
from smolvlm.config import ProcessorConfig
from smolvlm.errors import ParamsError
from smolvlm.options.media import MediaOptions

# The reference lets callers sort arguments into these; each name means one thing, so they are laid flat.
_NESTED = ("processor_kwargs", "common_kwargs", "text_kwargs", "images_kwargs", "videos_kwargs")
# This tokenizer adds no special tokens, videos are read by PyAV alone, and typed control tokens are always plain text.
_HARMLESS = frozenset({"add_special_tokens", "video_load_backend", "sanitize_control_tokens"})
_REFERENCE_MEDIA = {"do_image_splitting": "image_splitting", "num_frames": "max_frames"}
_MEDIA = frozenset(field.name for field in fields(MediaOptions))
_KNOWN = (
    "padding, padding_side, max_length, pad_to_multiple_of, return_tensors, size, do_image_splitting, "
    "num_frames, fps, do_sample_frames and our own " + ", ".join(sorted(_MEDIA))
)


@dataclass(frozen=True)
class CallOptions:
    """One call's choices. `longest_edge_px` is the reference's `size`: it holds for pictures and frames alike."""

    media: MediaOptions
    padding: Padding
    return_tensors: str | None
    longest_edge_px: int | None = None
    every_frame: bool = False

    @classmethod
    def of(cls, arguments: Mapping[str, Any], where: str) -> CallOptions:
        """Sort keyword arguments. Raises ParamsError for an unknown one or a value out of its range."""
        left = _flat(arguments, where)
        report_unused(left, _HARMLESS, where)
        if left.pop("truncation", None):
            raise ParamsError(
                "truncation=True would cut image tokens away from their pictures and is not supported; "
                "pass fewer frames (num_frames=...) or a smaller size."
            )
        padding = padding_of(
            left.pop("padding", None), left.pop("max_length", None), left.pop("pad_to_multiple_of", None), left.pop("padding_side", None)
        )
        return_tensors = check_return_tensors(left.pop("return_tensors", None))
        size = left.pop("size", None)
        every_frame = left.pop("do_sample_frames", None) is False
        media = {}
        for name in list(left):
            ours = _REFERENCE_MEDIA.get(name, name)
            if ours in _MEDIA:
                if ours in media:
                    raise ParamsError(f"{where} was given {name} and {ours}, which are the same; pass one of them.")
                media[ours] = left.pop(name)
        refuse_unknown(left, where, _KNOWN)
        longest_edge = None if size is None else longest_edge_of(size)
        return cls(MediaOptions(**media), padding, return_tensors, longest_edge, every_frame)

    def sized(self, config: ProcessorConfig) -> ProcessorConfig:
        """The checkpoint's settings with this call's `size`."""
        return config if self.longest_edge_px is None else with_longest_edge(config, self.longest_edge_px)


def longest_edge_of(size: Any) -> int:
    """The pixels of `size={"longest_edge": pixels}`. Raises ParamsError for any other form."""
    edge = size.get("longest_edge") if isinstance(size, Mapping) and len(size) == 1 else None
    if isinstance(edge, bool) or not isinstance(edge, int) or edge < 1:
        raise ParamsError(f"size={size!r}: expected {{'longest_edge': pixels}}, a multiple of the tile size.")
    return edge


def with_longest_edge(config: ProcessorConfig, longest_edge_px: int) -> ProcessorConfig:
    """As the reference does, one `size` is that of pictures and of video frames."""
    return dataclasses.replace(config, longest_edge=longest_edge_px, video_longest_edge=longest_edge_px)


def _flat(arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in arguments.items():
        inner = {name: value}
        if name in _NESTED:
            if value is not None and not isinstance(value, Mapping):
                raise ParamsError(f"{where}: {name} is a {type(value).__name__}; expected a dict of arguments.")
            inner = _flat(value or {}, where)
        for key, item in inner.items():
            if item is None:  # the reference's word for "as the checkpoint says"
                continue
            if key in flat and flat[key] != item:
                raise ParamsError(f"{where} was given {key} twice, as {flat[key]!r} and {item!r}; pass it once.")
            flat[key] = item
    return flat
