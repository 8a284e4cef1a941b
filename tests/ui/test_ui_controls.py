"""The controls of the page have the ranges and defaults of the options that they set."""

from __future__ import annotations

import pytest

import smolvlm
from smolvlm.options.declare import at_door
from smolvlm.options.generation import GenerationParams
from smolvlm.options.media import MediaOptions

gr = pytest.importorskip("gradio", reason="the page needs the `ui` extra")


def test_ranges_and_defaults() -> None:
    from smolvlm.ui.controls import controls, settings_of
    from smolvlm.ui.words import Words

    model = smolvlm.load("nano")
    context, frames = model.config.text.max_position_embeddings, model.processor.config.max_frames
    with gr.Blocks():
        _, temperature, top_p, tokens, most_frames, detail = controls(model, Words())
    sliders = {"temperature": temperature, "top_p": top_p, "max_new_tokens": tokens, "max_frames": most_frames}
    declared = {**at_door(MediaOptions, "page"), **at_door(GenerationParams, "page")}
    assert set(declared) == {*sliders, "detail"}
    for name, slider in sliders.items():
        made = declared[name]
        bounds = made.at("page")
        high = {"max_new_tokens": min(4096, context), "max_frames": frames}.get(name, bounds.high)
        assert (slider.minimum, slider.maximum) == (bounds.low, high), name
        assert slider.value == (frames if made.default is None else made.default), name
    assert [choice for _, choice in detail.choices] == list(declared["detail"].choices)
    assert detail.value == declared["detail"].default
    ends = [settings_of("", t.minimum, p.minimum, n.minimum, f.minimum, "low") for t, p, n, f in [tuple(sliders.values())]]
    ends += [settings_of("", t.maximum, p.maximum, n.maximum, f.maximum, "fit") for t, p, n, f in [tuple(sliders.values())]]
    assert [(end.params.max_new_tokens, end.media.max_frames) for end in ends] == [(1, 1), (min(4096, context), frames)]
