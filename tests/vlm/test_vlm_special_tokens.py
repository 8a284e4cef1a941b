"""`special_tokens="keep"`: the text is the tokenizer's own of all tokens, at every door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import smolvlm
from helpers_serve import serving
from smolvlm import SmolVLM

PICTURE = Path(__file__).parents[2] / "examples" / "media" / "nano" / "sign.png"
QUESTION = "What does the sign say?"
# After its end nano goes on to write ends, which are special tokens.
OPTIONS: dict[str, Any] = {"ignore_eos": True, "loop_guard": False, "max_new_tokens": 8}


@pytest.fixture(scope="module", params=["native", pytest.param("torch", marks=pytest.mark.slow)])
def nano(request: pytest.FixtureRequest) -> SmolVLM:
    return smolvlm.load("nano", engine=request.param, dtype="q8" if request.param == "native" else "float32")


def test_verbs_keep_them(nano: SmolVLM) -> None:
    plain = nano.ask(PICTURE, QUESTION, **OPTIONS)
    kept = nano.ask(PICTURE, QUESTION, special_tokens="keep", **OPTIONS)
    tokenizer = nano.processor.tokenizer
    assert kept.token_ids == plain.token_ids
    assert kept.text == tokenizer.decode(kept.token_ids, skip_special_tokens=False).removeprefix(" ")
    assert plain.text == tokenizer.decode(kept.token_ids).removeprefix(" ")
    assert "<end_of_utterance>" in kept.text
    assert "<" not in plain.text
    stream = nano.stream(PICTURE, QUESTION, special_tokens="keep", **OPTIONS)
    assert "".join(stream) == stream.answer.text == kept.text
    assert nano.ask_many([(PICTURE, QUESTION)] * 2, special_tokens="keep", **OPTIONS)[1].text == kept.text
    with nano.session(PICTURE, special_tokens="keep", **OPTIONS) as session:
        assert session.ask(QUESTION).text == kept.text
    stopped = nano.ask(PICTURE, QUESTION, special_tokens="keep", stop="<end_of", **OPTIONS)  # stop strings see them
    assert stopped.text == kept.text[: kept.text.index("<end_of")]
    assert nano.ask(PICTURE, QUESTION, special_tokens="keep").text == nano.ask(PICTURE, QUESTION).text  # the stop token is no text


def test_the_server_keeps_them(tmp_path: Path) -> None:
    wanted = smolvlm.load("nano").ask(None, "Hello", special_tokens="keep", **OPTIONS).text
    assert "<" in wanted
    ours = {"ignore_eos": True, "loop_guard": False, "special_tokens": "keep"}
    with serving(tmp_path / "log") as server:
        client = server.client()
        asked: dict[str, Any] = {"model": "nano", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "temperature": 0}
        plain = client.chat.completions.create(**asked, extra_body=ours)
        assert plain.choices[0].message.content == wanted
        pieces = client.chat.completions.create(**asked, stream=True, extra_body=ours)
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == wanted
        answered = client.responses.create(model="nano", input="Hello", max_output_tokens=8, temperature=0, extra_body=ours)
        assert answered.output_text == wanted
