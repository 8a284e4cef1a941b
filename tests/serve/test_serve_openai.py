"""The official `openai` client against a real server; answers are compared with those of the library in this process."""

from __future__ import annotations

import base64
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import openai
import pytest
from openai import OpenAI

import smolvlm
from helpers_serve import MEDIA, Server, about, data_url, serving, text
from smolvlm import SmolVLM

DESCRIBE = "Describe this picture."
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "green", "blue"]}, "count": {"type": "integer"}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}


def ask(client: OpenAI, messages: list[Any], **options: Any) -> Any:
    return client.chat.completions.create(model="nano", messages=messages, **options)


def test_plain(client: OpenAI, nano: SmolVLM) -> None:
    made, answer = (ask(client, text("What is a ring?"), max_tokens=12), nano.ask(None, "What is a ring?", max_new_tokens=12))
    assert made.choices[0].message.content == answer.text
    assert made.choices[0].finish_reason == answer.finish_reason
    assert made.usage.prompt_tokens == answer.usage.prompt_tokens
    assert made.usage.completion_tokens == answer.usage.completion_tokens
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens
    assert (made.object, made.model, made.choices[0].message.role) == ("chat.completion", "nano", "assistant")
    assert re.fullmatch(r"req-[0-9a-f]{24}", made._request_id)


def test_system_developer_and_earlier_turns(client: OpenAI, nano: SmolVLM) -> None:
    turns = [
        {"role": "user", "content": "What is a ring?"},
        {"role": "assistant", "content": "A shape."},
        {"role": "user", "content": [{"type": "text", "text": "Which "}, {"type": "text", "text": "colour?"}]},
    ]
    expected = nano.chat([{"role": "system", "content": "Be brief."}, *turns], max_new_tokens=16).text
    for role in ("system", "developer"):
        assert ask(client, [{"role": role, "content": "Be brief."}, *turns], max_tokens=16).choices[0].message.content == expected


def test_an_image_by_data_url_equals_ask(client: OpenAI, nano: SmolVLM) -> None:
    for name, question in (("scene.png", DESCRIBE), ("sign.png", "What does the sign say?")):
        assert ask(client, about(name, question)).choices[0].message.content == nano.ask(MEDIA / name, question).text


def test_detail_reaches_the_processor(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """On a checkpoint that splits pictures; nano does not."""
    photo, question = MEDIA.parent / "chelsea.png", "What is this?"
    url = f"data:image/png;base64,{base64.b64encode(photo.read_bytes()).decode()}"
    tiny = smolvlm.load(tiny_checkpoint)
    sizes = {}
    with serving(tmp_path / "log", "--model", str(tiny_checkpoint), "--served-name", "tiny") as server:
        for detail, ours in (("low", "low"), ("high", "official"), ("fit", "fit")):
            parts = [{"type": "image_url", "image_url": {"url": url, "detail": detail}}, {"type": "text", "text": question}]
            messages: Any = [{"role": "user", "content": parts}]
            made = server.client().chat.completions.create(model="tiny", messages=messages, max_tokens=8)
            expected = tiny.ask(photo, question, detail=ours, max_new_tokens=8)
            assert made.choices[0].message.content == expected.text
            assert made.usage.prompt_tokens == expected.usage.prompt_tokens
            sizes[detail] = made.usage.prompt_tokens
    assert sizes["low"] < sizes["high"]


def test_several_media_in_a_message(client: OpenAI, nano: SmolVLM) -> None:
    parts = [{"type": "image_url", "image_url": {"url": data_url(name)}} for name in ("scene.png", "sign.png")]
    parts.append({"type": "video_url", "video_url": {"url": data_url("clip.mp4")}, "max_frames": 2})
    made = ask(client, [{"role": "user", "content": [*parts, {"type": "text", "text": "What is different?"}]}], max_tokens=24)
    media = [str(MEDIA / "scene.png"), str(MEDIA / "sign.png"), {"type": "video", "path": str(MEDIA / "clip.mp4"), "max_frames": 2}]
    assert made.choices[0].message.content == nano.ask(media, "What is different?", max_new_tokens=24).text


def test_streamed_pieces_join_to_the_answer_and_usage_comes_last(client: OpenAI, nano: SmolVLM) -> None:
    expected = nano.ask(MEDIA / "scene.png", DESCRIBE)
    chunks = list(ask(client, about("scene.png", DESCRIBE), stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == expected.text
    assert sum(bool(piece) for piece in pieces) > 5
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == expected.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])
    without = list(ask(client, about("scene.png", DESCRIBE), stream=True))
    assert all(chunk.usage is None for chunk in without)


def test_video_by_upload(client: OpenAI, nano: SmolVLM) -> None:
    with (MEDIA / "clip.mp4").open("rb") as stream:
        uploaded = client.files.create(file=stream, purpose="vision")
    assert (uploaded.bytes, uploaded.filename) == ((MEDIA / "clip.mp4").stat().st_size, "clip.mp4")
    for question in ("What happens in this video?", "When does the butterfly fall?"):
        parts = [{"type": "file", "file": {"file_id": uploaded.id}}, {"type": "text", "text": question}]
        made = ask(client, [{"role": "user", "content": parts}])
        assert made.choices[0].message.content == nano.ask(MEDIA / "clip.mp4", question).text
    assert uploaded.id in [item.id for item in client.files.list()]
    assert client.files.retrieve(uploaded.id) == uploaded
    assert client.files.delete(uploaded.id).deleted
    with pytest.raises(openai.NotFoundError, match="No such file"):
        client.files.retrieve(uploaded.id)
    with pytest.raises(openai.NotFoundError, match="No such file"):
        ask(client, [{"role": "user", "content": parts}])


def test_json_schema_and_json_object(client: OpenAI) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "strict": True}}
    made = ask(client, about("scene.png", "Fill it in."), response_format=wanted, max_tokens=64)
    jsonschema.validate(json.loads(made.choices[0].message.content), SCHEMA)
    made = ask(client, text("Say something."), response_format={"type": "json_object"}, max_tokens=48)
    assert isinstance(json.loads(made.choices[0].message.content), dict)
    assert made.choices[0].finish_reason == "stop"


def test_logprobs(client: OpenAI, nano: SmolVLM) -> None:
    expected = nano.ask(MEDIA / "scene.png", DESCRIBE, logprobs=2)
    made = ask(client, about("scene.png", DESCRIBE), logprobs=True, top_logprobs=2).choices[0]
    assert expected.logprobs is not None
    # The server prefilled behind a cached prefix, in chunks: sums in another order.
    assert [(e.token, pytest.approx(e.logprob, abs=1e-3)) for e in made.logprobs.content] == [
        (e.text, e.logprob) for e in expected.logprobs
    ]
    assert [t.token for t in made.logprobs.content[0].top_logprobs] == [t for _, t, _ in expected.logprobs[0].top]
    # Tokens are told whole; the blank that the template asks for before an answer is no part of its text.
    assert bytes(b for e in made.logprobs.content for b in e.bytes).decode() == f" {made.message.content}"


def test_streamed_logprobs_are_those_of_the_text(client: OpenAI) -> None:
    """Tokens that a stop string cuts off leave no entries behind."""
    options = {"logprobs": True, "stop": [" on the left"]}
    whole = ask(client, about("scene.png", DESCRIBE), **options).choices[0]
    entries = [
        e
        for c in ask(client, about("scene.png", DESCRIBE), stream=True, **options)
        if c.choices[0].logprobs
        for e in c.choices[0].logprobs.content
    ]
    assert [e.token for e in entries] == [e.token for e in whole.logprobs.content]
    assert "".join(e.token for e in entries) == f" {whole.message.content}"


def test_stop(client: OpenAI, nano: SmolVLM) -> None:
    expected = nano.ask(MEDIA / "scene.png", DESCRIBE).text
    made = ask(client, about("scene.png", DESCRIBE), stop=" heart").choices[0]
    assert (made.message.content, made.finish_reason) == (expected[: expected.index(" heart")], "stop")
    streamed = ask(client, about("scene.png", DESCRIBE), stop=["left", " heart"], stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == expected[: expected.index(" heart")]


def test_length(client: OpenAI) -> None:
    made = ask(client, about("scene.png", DESCRIBE), max_completion_tokens=3)
    assert (made.choices[0].finish_reason, made.usage.completion_tokens) == ("length", 3)


def test_n_and_seed(client: OpenAI, nano: SmolVLM) -> None:
    options = {"temperature": 2.0, "top_p": 0.99, "max_tokens": 12, "extra_body": {"ignore_eos": True}}
    made = ask(client, text("Say something."), n=3, seed=5, **options)
    said = [choice.message.content for choice in made.choices]
    assert [choice.index for choice in made.choices] == [0, 1, 2]
    ours = {"temperature": 2.0, "top_p": 0.99, "max_new_tokens": 12, "ignore_eos": True}
    assert said == [nano.ask(None, "Say something.", seed=5 + i, **ours).text for i in range(3)]
    assert len(set(said)) > 1
    streamed = {0: "", 1: "", 2: ""}
    for chunk in ask(client, text("Say something."), n=3, seed=5, stream=True, **options):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert list(streamed.values()) == said
    greedy = ask(client, about("scene.png", DESCRIBE), n=2)
    assert greedy.choices[0].message.content == greedy.choices[1].message.content


def test_penalties(client: OpenAI, nano: SmolVLM) -> None:
    made = ask(client, about("scene.png", DESCRIBE), presence_penalty=2.0, frequency_penalty=2.0, max_tokens=24)
    plain = nano.ask(MEDIA / "scene.png", DESCRIBE, max_new_tokens=24).text
    expected = nano.ask(MEDIA / "scene.png", DESCRIBE, presence_penalty=2.0, frequency_penalty=2.0, max_new_tokens=24).text
    assert made.choices[0].message.content == expected != plain


def test_a_second_question_pays_neither_encoding_nor_prefill(server: Server, client: OpenAI) -> None:
    picture = about("sign.png", "What does the sign say? Read it slowly.")
    first = ask(client, picture)
    encoded = server.metric("smolvlm_tiles_encoded_total")
    prefix = server.metric("smolvlm_cached_prompt_tokens_total")
    follow_up = [*picture, {"role": "assistant", "content": first.choices[0].message.content}, *text("Which colour is it?")]
    second = ask(client, follow_up)
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached >= first.usage.prompt_tokens - 1
    assert server.metric("smolvlm_tiles_encoded_total") == encoded
    assert server.metric("smolvlm_cached_prompt_tokens_total") == prefix + cached


def test_text_that_spells_control_tokens_stays_text(client: OpenAI, nano: SmolVLM) -> None:
    for typed in ("<end_of_utterance>", "<image>", "<fake_token_around_image><row_1_col_1>", "{{ 7 * 7 }}{% raw %}"):
        made = ask(client, text(typed), max_tokens=8)
        expected = nano.ask(None, typed, max_new_tokens=8)
        assert made.choices[0].message.content == expected.text
        assert made.usage.prompt_tokens == expected.usage.prompt_tokens


def test_eight_clients_get_what_they_get_alone(server: Server, nano: SmolVLM) -> None:
    questions: list[tuple[str | None, str]] = [
        ("scene.png", DESCRIBE),
        ("sign.png", "What does the sign say?"),
        ("clip.mp4", "What happens in this video?"),
        (None, "Say something."),
        ("scene.png", "Is there a ring?"),
        ("sign.png", DESCRIBE),
        ("clip.mp4", "What is this?"),
        ("scene.png", "How many things are there?"),
    ]
    expected = [nano.ask(name and MEDIA / name, question, max_new_tokens=40).text for name, question in questions]

    def one(item: tuple[str | None, str]) -> list[str]:
        name, question = item
        kind = "video_url" if name == "clip.mp4" else "image_url"
        parts: list[Any] = [] if name is None else [{"type": kind, kind: {"url": data_url(name)}}]
        messages = [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]
        client = server.client()
        return [ask(client, messages, max_tokens=40).choices[0].message.content for _ in range(4)]

    before = server.metric("smolvlm_decode_batch_count") - server.metric("smolvlm_decode_batch_bucket", le="1.0")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, questions))
    assert answers == [[text] * 4 for text in expected]
    together = server.metric("smolvlm_decode_batch_count") - server.metric("smolvlm_decode_batch_bucket", le="1.0")
    assert together > before, "no step decoded two answers at once"


def test_closing_a_stream_frees_the_sequence(server: Server, client: OpenAI) -> None:
    cancelled = server.metric("smolvlm_jobs_total", outcome="cancelled")
    endless = {"max_tokens": 2000, "extra_body": {"ignore_eos": True, "loop_guard": False}}
    with ask(client, text("Say something."), stream=True, **endless) as stream:
        next(iter(stream))
        server.wait_for_metric("smolvlm_running_sequences", 1)
    server.wait_for_metric("smolvlm_jobs_total", cancelled + 1, outcome="cancelled")
    server.wait_for_metric("smolvlm_running_sequences", 0)
    with pytest.raises(openai.APITimeoutError):  # the same for an answer that is not streamed
        ask(client.with_options(timeout=0.2), text("Say something else."), **endless)
    server.wait_for_metric("smolvlm_jobs_total", cancelled + 2, outcome="cancelled")


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["nano"]
    assert client.models.retrieve("nano").id == "nano"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4")
    assert caught.value.code == "model_not_found"


def test_the_document_of_the_api(server: Server) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    assert {"/v1/chat/completions", "/v1/responses", "/v1/models", "/v1/files", "/health", "/ready", "/metrics"} <= set(document["paths"])
    body = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["$ref"].endswith("/ChatRequest")
    assert httpx.get(f"{server.url}/docs").status_code == 200
