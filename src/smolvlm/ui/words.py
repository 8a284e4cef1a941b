"""Components that know their words, so that one switch changes the language of the whole page."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr

from smolvlm.ui.config import PageConfig
from smolvlm.ui.texts import text
from smolvlm.vlm import SmolVLM


class Words:
    """Remembers which property of which component holds which text; `updates` is in the order of `components`."""

    def __init__(self) -> None:
        self._known: list[tuple[Any, dict[str, Any]]] = []

    def add(self, component: Any, **properties: Any) -> Any:
        """`properties` name the property and its text: a key of `texts`, or a function of the language."""
        self._known.append((component, properties))
        return component

    @property
    def components(self) -> list[Any]:
        return [component for component, _ in self._known]

    def updates(self, lang: str) -> list[Any]:
        """What to send to `components`, for one language."""
        return [gr.update(**_words(properties, lang)) for _, properties in self._known]


def _words(properties: dict[str, Any], lang: str) -> dict[str, Any]:
    return {name: key(lang) if callable(key) else text(key, lang) for name, key in properties.items()}


def heading(lang: str) -> str:
    """The title of the page, as HTML."""
    return f"<h1>smolvlm</h1><p>{text('tagline', lang)}</p>"


def model_note(model: SmolVLM, config: PageConfig, lang: str) -> str:
    """Which model answers and what to expect of it, as HTML."""
    engine = model.engine
    facts = html.escape(f"{engine.name}, {engine.device}, {engine.dtype}")
    kind = "random" if config.random_weights else "nano" if model.name.lower().startswith("nano") else "small"
    return f"<p>{text('answers', lang, model=html.escape(shown_name(model)), engine=facts)} {text(kind, lang)}</p>"


def shown_name(model: SmolVLM) -> str:
    """The model's name; of folders the last part, because where they lie on this machine is nobody's business."""
    return " + ".join(Path(part).name if Path(part).is_dir() else part for part in model.name.split(" + "))
