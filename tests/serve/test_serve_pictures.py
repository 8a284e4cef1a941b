"""Pictures over HTTP: an animation is what the part calls it, an upload is what its content is, and nothing is silent."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
from PIL import Image

from helpers_pictures import drawn, encoded
from helpers_serve import Server


def _gif() -> bytes:
    frames = [Image.fromarray(np.roll(drawn(), 4 * i, axis=1)).quantize(32) for i in range(6)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=500)


def _ask(server: Server, part: dict[str, Any]) -> httpx.Response:
    content = [part, {"type": "text", "text": "What happens?"}]
    body = {"model": "nano", "max_tokens": 4, "messages": [{"role": "user", "content": content}]}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=120)


def _url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def test_an_animation_is_what_the_part_calls_it(server: Server) -> None:
    url = _url(_gif(), "image/gif")
    image = _ask(server, {"type": "image_url", "image_url": {"url": url}})
    assert image.status_code == 200, image.text
    assert "only its first frame was read" in image.json()["warnings"][0]
    video = _ask(server, {"type": "video_url", "video_url": {"url": url}, "max_frames": 3})
    assert video.status_code == 200, video.text
    assert not any("first frame" in said for said in video.json().get("warnings", []))
    assert video.json()["usage"]["prompt_tokens"] != image.json()["usage"]["prompt_tokens"]


def test_an_uploaded_animation_is_a_video_or_what_the_part_says(server: Server) -> None:
    uploaded = httpx.post(f"{server.url}/v1/files", files={"file": ("moving.gif", _gif())}, data={"purpose": "vision"}, timeout=60)
    part = {"type": "file", "file": {"file_id": uploaded.json()["id"]}}
    assert _ask(server, part | {"max_frames": 3}).status_code == 200  # pictures have no such option
    image = _ask(server, part | {"media_kind": "image"})
    assert "only its first frame was read" in image.json()["warnings"][0]


def test_a_background_for_one_picture(server: Server) -> None:
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[10:30, 10:30, 3] = 255
    part = {"type": "image_url", "image_url": {"url": _url(encoded(Image.fromarray(pixels), "PNG"), "image/png")}}
    assert "transparent" in _ask(server, part).json()["warnings"][0]
    white = _ask(server, part | {"background": "white"}).json()
    assert not any("transparent" in said for said in white.get("warnings", []))
    wrong = _ask(server, part | {"background": "mauve"})
    assert wrong.status_code == 400
    assert "background='mauve'" in wrong.json()["error"]["message"]


def test_a_client_cannot_raise_the_pixel_limit(server: Server) -> None:
    part = {"type": "image_url", "image_url": {"url": _url(encoded(Image.fromarray(drawn()), "PNG"), "image/png")}}
    answer = _ask(server, part | {"max_pixels": 10**12})
    assert answer.status_code == 400 or any("max_pixels" in warning for warning in answer.json().get("warnings", []))
