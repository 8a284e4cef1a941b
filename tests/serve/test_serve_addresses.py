"""Data URLs as clients misspell them: taken where one thing alone can be meant, else told what is wrong."""

from __future__ import annotations

import asyncio
import base64
import io

import httpx
import numpy as np
import pytest
from PIL import Image

from helpers_serve import MEDIA, Server
from smolvlm import SmolVLM
from smolvlm.serve.api.addresses import canonical, is_upload_id

QUESTION = "What does the sign say?"


def noise() -> bytes:
    """A JPEG whose base64 has every letter, those that the two alphabets write in different ways among them."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(7).integers(0, 255, (96, 96, 3), np.uint8)).save(out, "JPEG")
    return out.getvalue()


DATA = noise()
PLAIN = base64.b64encode(DATA).decode()
SAFE = base64.urlsafe_b64encode(DATA).decode()
WRAPPED = base64.encodebytes(DATA).decode()
SPELLINGS = {
    "as it should be": f"data:image/jpeg;base64,{PLAIN}",
    "another type": f"data:application/octet-stream;base64,{PLAIN}",
    "capitals": f"DATA:IMAGE/JPEG;BASE64,{PLAIN}",
    "a parameter": f"data:image/jpeg;charset=utf-8;base64,{PLAIN}",
    "no ;base64": f"data:image/jpeg,{PLAIN}",
    "no type": f"data:;base64,{PLAIN}",
    "nothing but data:": f"data:,{PLAIN}",
    "no data:": f"image/jpeg;base64,{PLAIN}",
    "base64 alone": f"base64,{PLAIN}",
    "bare": PLAIN,
    "bare and wrapped": WRAPPED,
    "wrapped": f"data:image/jpeg;base64,{WRAPPED}",
    "for URLs": f"data:image/jpeg;base64,{SAFE}",
    "for URLs, bare": SAFE,
    "for URLs, without padding": f"data:image/jpeg;base64,{SAFE.rstrip('=')}",
    "without padding": f"data:image/jpeg;base64,{PLAIN.rstrip('=')}",
    "twice": f"data:image/png;base64,data:image/jpeg;base64,{PLAIN}",
    "three times": f"data:image/png;base64,data:image/png;base64,data:image/jpeg;base64,{PLAIN}",
    "bytes as Python prints them": f"data:image/jpeg;base64,b'{PLAIN}'",
    "printed, bare": f"b'{PLAIN}'",
    "%-escapes": "data:image/jpeg;base64," + PLAIN.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
}


def test_the_example_has_what_tells_the_alphabets_apart() -> None:
    assert {"+", "/"} <= set(PLAIN)
    assert {"-", "_"} <= set(SAFE)


@pytest.mark.parametrize("case", SPELLINGS)
def test_a_spelling_of_a_picture(server: Server, case: str) -> None:
    """Two parts, of which the second is written as it should be: were the bytes others, the tiles would be too."""
    parts = [{"type": "image_url", "image_url": {"url": SPELLINGS[case]}}, {"type": "text", "text": QUESTION}]
    body = {"model": "nano", "max_tokens": 8, "messages": [{"role": "user", "content": parts}]}
    response = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    url = asyncio.run(canonical(SPELLINGS[case]))[0]
    if "%" not in url:
        text = "".join(url.partition(",")[2].split())
        assert base64.b64decode(text + "=" * (-len(text) % 4), validate=True) == DATA


def test_the_answer_is_the_same(server: Server, nano: SmolVLM) -> None:
    data = (MEDIA / "sign.png").read_bytes()
    expected = nano.ask(MEDIA / "sign.png", QUESTION).text
    for url in (
        f"data:image/png,{base64.urlsafe_b64encode(data).decode()}",
        f"data:image/png;base64,data:image/png;base64,b'{base64.b64encode(data).decode()}'",
    ):
        parts = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": QUESTION}]
        body = {"model": "nano", "input": [{"role": "user", "content": parts}]}
        made = httpx.post(f"{server.url}/v1/responses", json=body, timeout=60).json()
        assert made["output"][0]["content"][0]["text"] == expected


WRONG = {
    "letters of no alphabet": (f"data:image/jpeg;base64,{PLAIN[:400]}!{PLAIN[400:]}", "base64"),
    "cut inside a group": (f"data:image/jpeg;base64,{PLAIN[:401]}", "base64"),
    "no content": ("data:image/jpeg;base64,", "no content"),
    "no comma": ("data:image/jpeg;base64", "comma"),
    "text": ("data:text/plain,hello", "not a picture"),
    "a path": ("/home/me/photo.jpg", "paths"),
    "a file's address": ("file:///home/me/photo.jpg", "paths"),
    "nothing": ("", "empty"),
    "an address of the web": ("https://example.org/photo.jpg", "not fetched"),
    "an upload": ("file-0123456789abcdef0123456789abcdef", "id of an upload"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_picture_is_said_at_its_place(server: Server, case: str) -> None:
    url, words = WRONG[case]
    parts = [
        {"type": "text", "text": QUESTION},
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{PLAIN}"}},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    body = {"model": "nano", "max_tokens": 8, "messages": turns}
    response = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "messages[1].content[2]"), error
    assert words in error["message"], error


def test_a_place_in_input_counts_no_instructions(server: Server) -> None:
    for more in ({}, {"instructions": "Be brief."}):
        picture = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
        body = {"model": "nano", "input": [{"role": "user", "content": [picture]}]} | more
        response = httpx.post(f"{server.url}/v1/responses", json=body, timeout=60)
        assert response.json()["error"]["param"] == "input[0].content[0]"


def test_what_is_an_upload() -> None:
    assert is_upload_id("file-0123456789abcdef")
    assert is_upload_id("file_abc")
    assert not any(map(is_upload_id, ("file:///a", "file.png", "files-1", "file-a.png", "a/file-1", "")))
