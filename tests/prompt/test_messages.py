"""Every shape of a conversation that users bring, and one sentence for each that is none."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from smolvlm.errors import PromptError
from smolvlm.prompt import ImagePart, Message, TextPart, TokenPart, VideoPart, parse_messages


def one(content: Any, role: str = "user", **media: Any) -> tuple[Any, ...]:
    (message,) = parse_messages([{"role": role, "content": content}], **media)
    return message.parts


def test_a_plain_string_is_one_text_not_its_characters() -> None:
    """Elsewhere the template iterated over its characters and silently lost it."""
    assert parse_messages([{"role": "user", "content": "Hi there"}]) == [Message("user", (TextPart("Hi there"),))]


@pytest.mark.parametrize("key", ["image", "url", "path"])
def test_the_keys_of_a_picture_are_alike(key: str) -> None:
    assert one([{"type": "image", key: "cat.png"}]) == (ImagePart("cat.png"),)


@pytest.mark.parametrize("key", ["video", "url", "path"])
def test_the_keys_of_a_video_are_alike(key: str) -> None:
    assert one([{"type": "video", key: "clip.mp4"}]) == (VideoPart("clip.mp4"),)


def test_objects_bytes_and_frames_pass_through_untouched() -> None:
    frames = [object(), object()]
    assert one([{"type": "video", "video": frames}])[0].source is frames
    assert one([{"type": "image", "bytes": b"\x89PNG"}]) == (ImagePart(b"\x89PNG"),)
    assert one([{"type": "image", "path": Path("a.png")}]) == (ImagePart(Path("a.png")),)


def test_base64_is_decoded_and_a_data_url_is_left_to_the_media_room() -> None:
    data = bytes(range(256))
    assert one([{"type": "image", "base64": base64.b64encode(data).decode()}]) == (ImagePart(data),)
    assert one([{"type": "image", "base64": "data:image/png;base64,AAAA"}])[0].source.startswith("data:")
    with pytest.raises(PromptError, match=r"message 0, part 0.*not base64"):
        one([{"type": "image", "base64": "no*base64"}])


def test_the_web_form_of_media() -> None:
    assert one([{"type": "image_url", "image_url": {"url": "https://a/b.png"}}]) == (ImagePart("https://a/b.png"),)
    assert one([{"type": "image_url", "image_url": "https://a/b.png"}]) == (ImagePart("https://a/b.png"),)
    assert one([{"type": "video_url", "video_url": {"url": "https://a/b.mp4"}}]) == (VideoPart("https://a/b.mp4"),)
    low = one([{"type": "image_url", "image_url": {"url": "x", "detail": "low"}}])
    assert low == (ImagePart("x", {"detail": "low"}),)
    assert one([{"type": "image_url", "image_url": {"url": "x", "detail": "auto"}}]) == (ImagePart("x"),)
    high = one([{"type": "image_url", "image_url": {"url": "x", "detail": "high"}}])
    assert high == (ImagePart("x", {"detail": "official"}),)


def test_none_values_are_dropped_as_the_reference_does() -> None:
    parts = [{"type": "text", "text": "Hi", "image": None}, {"type": "image", "url": "a.png", "text": None}]
    assert one(parts) == (TextPart("Hi"), ImagePart("a.png"))


def test_separate_media_fill_the_bare_placeholders_in_order() -> None:
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "image", "url": "inline"}, {"type": "video"}]},
        {"role": "user", "content": [{"type": "image", "detail": "low"}]},
    ]
    first, second = parse_messages(messages, images=["a", "b"], videos=["v"])
    assert first.parts == (ImagePart("a"), ImagePart("inline"), VideoPart("v"))
    assert second.parts == (ImagePart("b", {"detail": "low"}),)


def test_normalising_twice_changes_nothing() -> None:
    once = parse_messages(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "image", "url": "a"}]},
            Message("assistant", (TokenPart((5, 6)),)),
        ]
    )
    assert parse_messages(once) == once


def test_an_assistant_may_have_answered_nothing() -> None:
    assert one("", role="assistant") == (TextPart(""),)


def test_options_stand_beside_the_source() -> None:
    video = {"type": "video", "path": "v", "fps": 2, "max_frames": 8, "start": 1.5, "end": 3}
    assert one([video])[0].options == {"fps": 2, "max_frames": 8, "start": 1.5, "end": 3}
    image = {"type": "image", "path": "i", "detail": "fit", "image_splitting": False, "longest_edge": 1024}
    assert one([image])[0].options == {"detail": "fit", "image_splitting": False, "longest_edge": 1024}


BAD: list[tuple[Any, str]] = [
    ([], r"messages is empty"),
    ("What is this?", r"messages is a str"),
    ({"role": "user", "content": "x"}, r"messages is a dict"),
    (None, r"messages is a NoneType"),
    ([["nested"]], r"message 0 is a list; pass one conversation at a time"),
    (["x"], r"message 0 is a str"),
    ([{"role": "user", "content": "x"}, {"role": "bot", "content": "x"}], r"message 1 has the role 'bot'.*assistant"),
    ([{"content": "x"}], r"message 0 has the role None"),
    ([{"role": ["user"], "content": "x"}], r"message 0 has the role"),
    ([{"role": "user"}], r"message 0 has NoneType as content"),
    ([{"role": "user", "content": 5}], r"message 0 has int as content"),
    ([{"role": "user", "content": b"x"}], r"message 0 has bytes as content"),
    ([{"role": "user", "content": ""}], r"message 0 \(user\) has empty content"),
    ([{"role": "system", "content": []}], r"message 0 \(system\) has empty content"),
    ([{"role": "user", "content": [{"type": "text", "text": ""}]}], r"empty content"),
    ([{"role": "user", "content": "x", "tool_calls": [1]}], r"message 0 has unknown keys \('tool_calls'\)"),
    ([{"role": "user", "content": ["x"]}], r"message 0, part 0 is a str"),
    ([{"role": "user", "content": [{"type": "audio", "url": "x"}]}], r"message 0, part 0 has the type 'audio'"),
    ([{"role": "user", "content": [{"text": "x"}]}], r"message 0, part 0 has the type None"),
    ([{"role": "user", "content": [{"type": {}, "text": "x"}]}], r"message 0, part 0 has the type {}"),
    ([{"role": "user", "content": [{"type": "text", "text": 5}]}], r"part 0 is a text part whose 'text' is a int"),
    ([{"role": "user", "content": [{"type": "text", "text": "x", "bold": 1}]}], r"unknown keys \('bold'\)"),
    ([{"role": "user", "content": [{"type": "image", "url": "a", "path": "b"}]}], r"more than once \('url', 'path'\)"),
    ([{"role": "user", "content": [{"type": "image", "url": "a", "fps": 1}]}], r"unknown keys \('fps'\).*longest_edge"),
    ([{"role": "user", "content": [{"type": "video", "url": "a", "detail": "fit"}]}], r"unknown keys \('detail'\).*f"),
    ([{"role": "user", "content": [{"type": "image", "url": ""}]}], r"empty 'url'"),
    ([{"role": "user", "content": [{"type": "image"}]}], r"part 0 is an image placeholder without an image; give it"),
    ([{"role": "user", "content": [{"type": "video"}]}], r"part 0 is a video placeholder without a video; give it"),
    ([{"role": "user", "content": [{"type": "image_url", "url": "x"}]}], r"part 0 is a image_url part"),
    ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 5}}]}], r"is a int; expected a string"),
    ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x", "q": 1}}]}], r"unknown keys"),
    ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x", "detail": 1}}]}], r"detail=1"),
    ([{"role": "user", "content": [{1: 2}]}], r"part 0 has a key that is not a string"),
    ([{"role": "user", "content": "half \ud83d a smile"}], r"message 0 holds half a character"),
]


@pytest.mark.parametrize(("messages", "sentence"), BAD)
def test_bad_messages_end_in_one_sentence(messages: Any, sentence: str) -> None:
    with pytest.raises(PromptError, match=sentence) as caught:
        parse_messages(messages)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_media_left_over_are_not_dropped() -> None:
    with pytest.raises(PromptError, match=r"images=\[\.\.\.\] holds 2 more"):
        parse_messages([{"role": "user", "content": "x"}], images=["a", "b"])
    with pytest.raises(PromptError, match="images is a str; expected a list"):
        parse_messages([{"role": "user", "content": "x"}], images="a")
