"""Options of the library as fields of a request: help and range from their declarations, left out where a client says nothing."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from smolvlm.options.declare import declared
from smolvlm.options.generation import GenerationParams
from smolvlm.options.media import MediaOptions, of_medium


def field_of(kind: type, name: str, ours: str = "Ours: ") -> Any:
    """The field `name` of MediaOptions or GenerationParams in a request. `ours`: stands before the help of what OpenAI's API
    does not have."""
    made = declared(kind)[name]
    bounds = made.at("http")
    return Field(
        None,
        ge=None if bounds.above else bounds.low,
        gt=bounds.low if bounds.above else None,
        le=None if bounds.below else bounds.high,
        lt=bounds.high if bounds.below else None,
        description=f"{ours}{made.help}",
    )


def media(name: str) -> Any:
    """A field of `MediaOptions`."""
    return field_of(MediaOptions, name, "")


def ours(name: str) -> Any:
    """A field of `GenerationParams` that OpenAI's API does not have."""
    return field_of(GenerationParams, name)


def theirs(name: str) -> Any:
    """A field of `GenerationParams` that both have."""
    return field_of(GenerationParams, name, "")


def what_has(name: str) -> str:
    """The medium that an option belongs to, in words."""
    kinds = [kind for kind in ("picture", "video") if name in of_medium({"picture": "image"}.get(kind, kind))]
    return " or ".join(f"a {kind}" for kind in kinds) or "an upload"
