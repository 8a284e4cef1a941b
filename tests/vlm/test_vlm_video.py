"""An opened `Video` at every verb: the same answers as its file gives, and one reading of its index for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import smolvlm
from smolvlm import SmolVLM, Video
from smolvlm.media.video_reader import VideoReader

QUESTION = "What happens in this video?"


@pytest.fixture(scope="module")
def nano() -> SmolVLM:
    return smolvlm.load("nano")


def test_an_opened_video_is_asked_like_its_file(nano: SmolVLM, examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = examples / "nano" / "clip.mp4"
    spans: list[dict[str, Any]] = [{}, {"start": 0.0, "end": 1.0}, {"start": 0.5}, {"end": 1.0, "max_frames": 2}]
    wanted = [nano.ask(path, QUESTION, **span) for span in spans]
    picked = nano.choose(path, QUESTION, ["yes", "no"], end=1.0)
    with nano.session(path) as session:
        followed = [session.ask(QUESTION).token_ids, session.ask("What is it?").token_ids]

    indexes = []
    build_index = VideoReader.build_index
    monkeypatch.setattr(VideoReader, "build_index", lambda self: indexes.append(1) or build_index(self))
    with Video(path) as video:
        for span, answer in zip(spans, wanted, strict=True):
            got = nano.ask(video, QUESTION, **span)
            assert (got.token_ids, got.usage) == (answer.token_ids, answer.usage)
        part = {"type": "video", "video": video, "end": 1.0}
        assert nano.chat([{"role": "user", "content": [part, {"type": "text", "text": QUESTION}]}]).token_ids == wanted[1].token_ids
        assert [a.token_ids for a in nano.ask_many([(video, QUESTION), (part, QUESTION)])] == [wanted[0].token_ids, wanted[1].token_ids]
        assert nano.choose(video, QUESTION, ["yes", "no"], end=1.0).logprobs == picked.logprobs
        with nano.session(video) as session:
            assert [session.ask(QUESTION).token_ids, session.ask("What is it?").token_ids] == followed
        with nano.session(part) as session:
            session.add([{"type": "video", "video": video, "start": 1.0}])
            assert session.ask(QUESTION).usage.image_tokens > wanted[1].usage.image_tokens
    assert len(indexes) == 1
