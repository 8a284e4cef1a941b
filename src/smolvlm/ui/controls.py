"""The controls of both pages: from sliders to `Settings`. Defaults and ranges are those of the library."""

from __future__ import annotations

import math
from typing import Any

import gradio as gr

from smolvlm.errors import ParamsError
from smolvlm.generation import GenerationParams
from smolvlm.media import DETAILS, MediaOptions
from smolvlm.options.declare import declared
from smolvlm.ui.texts import text
from smolvlm.ui.turn import Settings
from smolvlm.ui.words import Words
from smolvlm.vlm import SmolVLM


def controls(model: SmolVLM, words: Words) -> list[Any]:
    """System prompt, temperature, top-p, longest answer, frames, detail: in the order that `settings_of` takes."""
    params, media = GenerationParams(), MediaOptions()
    context = model.config.text.max_position_embeddings
    most_frames = model.processor.config.max_frames

    def details(lang: str) -> list[tuple[str, str]]:
        return [(text(f"detail_{level}", lang), level) for level in DETAILS]

    return [
        words.add(gr.Textbox(lines=2, max_lines=6, elem_id="system"), label="system", info="system_info"),
        words.add(
            gr.Slider(*_span(GenerationParams, "temperature"), params.temperature, step=0.05, elem_id="temperature"),
            label="temperature",
            info="temperature_info",
        ),
        words.add(gr.Slider(*_span(GenerationParams, "top_p"), params.top_p, step=0.05, elem_id="top-p"), label="top_p", info="top_p_info"),
        words.add(
            gr.Slider(*_span(GenerationParams, "max_new_tokens", context), params.max_new_tokens, step=1, elem_id="max-tokens"),
            label="max_tokens",
        ),
        words.add(gr.Slider(*_span(MediaOptions, "max_frames", most_frames), most_frames, step=1, elem_id="max-frames"), label="frames"),
        words.add(gr.Dropdown(list(DETAILS), value=media.detail, elem_id="detail"), label="detail", info="media_info", choices=details),
    ]


def _span(kind: type, name: str, most: float = math.inf) -> tuple[float, float]:
    """The ends of an option's slider."""
    made = declared(kind)[name].at("page")
    assert made.low is not None, "every slider begins somewhere"
    return made.low, min(most, math.inf if made.high is None else made.high)


def settings_of(system: Any, temperature: Any, top_p: Any, max_tokens: Any, frames: Any, detail: Any) -> Settings:
    """What the controls hold, checked by the library's own rules: raises ParamsError."""
    if system is not None and not isinstance(system, str):
        raise ParamsError(f"system is a {type(system).__name__}; expected text.")
    return Settings(
        (system or "").strip() or None,
        MediaOptions(max_frames=_whole(frames), detail=detail),
        GenerationParams(temperature=temperature, top_p=top_p, max_new_tokens=_whole(max_tokens)),
    )


def _whole(value: Any) -> Any:
    """Sliders send 64 as 64.0; anything else is left to the library to refuse."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
