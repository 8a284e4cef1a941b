"""The server's answers carry what their media gave cause to say, and videos take `sampling` and `tone_map`."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from helpers_media import crowded_clip
from helpers_serve import Server
from smolvlm.media.sandbox.wire import WireError, read_reply


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    data = crowded_clip(tmp_path_factory.mktemp("warnings") / "crowded.mp4").read_bytes()
    return f"data:video/mp4;base64,{base64.b64encode(data).decode()}"


def _body(url: str, **video: Any) -> dict[str, Any]:
    part = {"type": "video_url", "video_url": {"url": url}, "max_frames": 8, **video}
    return {"model": "nano", "max_tokens": 4, "messages": [{"role": "user", "content": [part, {"type": "text", "text": "What happens?"}]}]}


def _rate(reply: dict[str, Any]) -> list[str]:
    """Its warnings about the frame rate: nano has a word of its own for pictures outside its world."""
    return [sentence for sentence in reply.get("warnings", []) if "frame rate" in sentence]


def test_chat_completions(server: Server, url: str) -> None:
    chat = f"{server.url}/v1/chat/completions"
    for _ in range(2):  # the second time the tiles are known and nothing is decoded
        whole = httpx.post(chat, json=_body(url), timeout=60).json()
        assert len(_rate(whole)) == 1
    assert _rate(httpx.post(chat, json=_body(url, sampling="time"), timeout=60).json()) == []
    streamed = httpx.post(chat, json={**_body(url), "stream": True}, timeout=60).text
    chunks = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    assert [i for i, chunk in enumerate(chunks) if _rate(chunk)] == [0]
    assert _rate(chunks[0]) == _rate(whole)
    wrong = httpx.post(chat, json=_body(url, sampling="even"), timeout=60)
    assert wrong.status_code in (400, 422)
    assert "sampling" in wrong.text


def test_responses(server: Server, url: str) -> None:
    content = [{"type": "input_video", "video_url": url, "max_frames": 8}, {"type": "input_text", "text": "What happens?"}]
    body = {"model": "nano", "max_output_tokens": 16, "input": [{"role": "user", "content": content}]}
    assert len(_rate(httpx.post(f"{server.url}/v1/responses", json=body, timeout=60).json())) == 1
    content[0]["sampling"] = "time"
    assert _rate(httpx.post(f"{server.url}/v1/responses", json=body, timeout=60).json()) == []


@pytest.mark.parametrize("warnings", [["x"] * 9, ["x" * 401]])
def test_a_worker_says_only_so_much(warnings: list[str], tmp_path: Path) -> None:
    reply = {"kind": "image", "size": 48, "tile_count": 1, "warnings": warnings}
    with pytest.raises(WireError):
        read_reply(json.dumps(reply).encode(), 4, 10)
    assert read_reply(json.dumps(reply | {"warnings": ["x" * 400] * 8}).encode(), 4, 10).tile_count == 1
