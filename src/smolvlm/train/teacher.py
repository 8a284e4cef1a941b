"""Answers by a teacher behind an OpenAI-compatible server, one line of JSONL each; a killed run goes on where it was.

Only the standard call is used (`POST .../chat/completions`, pictures as data URLs), so vLLM, llama.cpp, LM Studio, our
own server and the hosted ones all serve.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from smolvlm.errors import ImageError, SourceError, TeacherError, VideoError
from smolvlm.media.images import load_image
from smolvlm.options.declare import check, option

logger = logging.getLogger(__name__)

_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)  # the server asks for patience, or may be starting
_MAX_REPLY_BYTES = 8 << 20
_LONGEST_EDGE_PX = 1536  # what common teachers look at; larger pictures cost upload and no detail


@dataclass(frozen=True)
class TeacherOptions:
    """Where the teacher is and how it answers. endpoint: the base address, such as `http://127.0.0.1:8000/v1`.

    parallel: requests under way at once. attempts: for one question, with a pause that doubles from `pause_s`.
    """

    endpoint: str
    model: str
    api_key: str | None = None
    max_tokens: int = option(512, "The longest answer, in tokens.", least=1)
    temperature: float = option(0.0, "Of the sampling; 0: the likeliest token.", least=0)
    parallel: int = option(4, "Requests under way at once.", least=1)
    attempts: int = option(5, "For one question.", least=1)
    pause_s: float = option(1.0, "Before the second attempt; it doubles.", least=0)
    timeout_s: float = option(300.0, "For one answer.", above=0)

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.endpoint)
        except (httpx.InvalidURL, TypeError):
            url = httpx.URL("")
        if url.scheme not in ("http", "https") or not url.host:
            raise TeacherError(f"endpoint={str(self.endpoint)[:200]!r} is no address; write it as http://HOST:PORT/v1.")
        if not self.model:
            raise TeacherError("the teacher's model has no name; pass the one that its server knows.")
        check(self, TeacherError)

    @property
    def url(self) -> str:
        """The address of the call, whether or not `endpoint` names it already."""
        base = self.endpoint.rstrip("/")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"


@dataclass(frozen=True)
class Question:
    """What to ask: `messages` in the web APIs' form; `make` is called when its turn comes, so that pictures are read late."""

    key: str
    make: Callable[[], list[dict[str, Any]]]


@dataclass(frozen=True)
class Asked:
    """The outcome: answers by key, and how many questions got none, with the first reason."""

    answers: dict[str, str]
    failed: int
    reason: str = ""


def ask_teacher(
    questions: Iterable[Question], options: TeacherOptions, path: Path, on_progress: Callable[[int], None] | None = None
) -> Asked:
    """Answer every question that `path` (JSONL) does not hold yet, and add the answers to it as they come.

    A question whose pictures cannot be read, or whose answer is empty or cut off, is skipped and counted. Raises
    TeacherError when the server cannot be reached or refuses (a wrong key, an unknown model): asking on is pointless.
    """
    answers = _read_answers(path)
    failures: list[str] = []
    lock = threading.Lock()
    stop = threading.Event()
    headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}
    try:
        with (
            path.open("a", encoding="utf-8") as file,
            httpx.Client(headers=headers, timeout=options.timeout_s, follow_redirects=False) as client,
            ThreadPoolExecutor(options.parallel) as pool,
        ):

            def work(question: Question) -> None:
                if stop.is_set():
                    return
                try:
                    answer = _ask(client, question, options, stop)
                except TeacherError:
                    stop.set()
                    raise
                except (_NoAnswer, ImageError, VideoError, SourceError) as error:
                    with lock:
                        failures.append(str(error))
                    return
                with lock:
                    answers[question.key] = answer
                    file.write(json.dumps({"key": question.key, "answer": answer}, ensure_ascii=False) + "\n")
                    file.flush()
                    if on_progress is not None:
                        on_progress(len(answers))

            known = set(answers)
            futures = []
            try:
                for question in questions:
                    if question.key in known or stop.is_set():
                        continue
                    known.add(question.key)
                    futures.append(pool.submit(work, question))
                for future in futures:
                    future.result()
            except BaseException:  # Ctrl-C too: what waits in the pool is not asked any more
                stop.set()
                raise
    except OSError as error:
        raise TeacherError(f"{path}: cannot be written ({error.strerror or error}).") from None
    for failure in failures:
        logger.info("no answer: %s", failure)
    return Asked(answers, len(failures), failures[0] if failures else "")


def question_key(*parts: str) -> str:
    """A short name of a question by its content, so that a changed mixture asks only what is new."""
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def image_part(source: Any) -> dict[str, Any]:
    """A picture as the web APIs take it: JPEG in a data URL, turned upright, its longest edge at most 1536 pixels."""
    picture = source if isinstance(source, Image.Image) else load_image(source)
    picture = picture.convert("RGB")
    picture.thumbnail((_LONGEST_EDGE_PX, _LONGEST_EDGE_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92)
    url = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": url}}


class _NoAnswer(Exception):
    """One question got none; the next may."""


def _ask(client: httpx.Client, question: Question, options: TeacherOptions, stop: threading.Event) -> str:
    body = {
        "model": options.model,
        "messages": question.make(),
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "stream": False,
    }
    problem = ""
    for attempt in range(options.attempts):
        if attempt and stop.wait(options.pause_s * 2 ** (attempt - 1)):
            break
        try:
            status, text = _post(client, options.url, body)
        except httpx.HTTPError as error:
            problem = f"cannot be reached ({str(error)[:200] or type(error).__name__})"
            continue
        if status in _AGAIN:
            problem = f"answers with status {status}"
            continue
        if status in (400, 413, 422):  # this question does not suit it: too long, too many pictures
            raise _NoAnswer(f"the teacher refused a question with status {status}: {text[:200]}")
        if status != 200:
            raise TeacherError(
                f"{options.url} answers with status {status}: {text[:200]!r}; check the address, the model's name and the key."
            )
        return _text(text)
    raise TeacherError(
        f"{options.url} {problem}, after {options.attempts} attempts; what was answered is kept: start the "
        "server and run the command again."
    )


def _post(client: httpx.Client, url: str, body: Mapping[str, Any]) -> tuple[int, str]:
    deadline = time.monotonic() + 4 * float(client.timeout.read or 300)
    with client.stream("POST", url, json=body) as response:
        data = bytearray()
        for piece in response.iter_bytes():
            data += piece
            if len(data) > _MAX_REPLY_BYTES or time.monotonic() > deadline:
                raise httpx.ReadError("the reply does not end")
    return response.status_code, data.decode("utf-8", "replace")


def _text(reply: str) -> str:
    try:
        choice = json.loads(reply)["choices"][0]
        answer, reason = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise TeacherError(f"the teacher's reply is not in the chat completions format: {reply[:200]!r}.") from None
    if reason == "length":
        raise _NoAnswer("an answer was cut off at max_tokens")
    if not isinstance(answer, str) or not answer.strip():
        raise _NoAnswer("an answer was empty")
    return answer.strip()


def _read_answers(path: Path) -> dict[str, str]:
    """What an earlier run wrote. A last line that a kill cut short is taken off; any other damage is an error."""
    if not path.exists():
        return {}
    answers: dict[str, str] = {}
    try:
        data = path.read_bytes()
        if whole := data.rfind(b"\n") + 1:
            lines: Sequence[bytes] = data[:whole].splitlines()
        else:
            lines = []
        if whole < len(data):
            os.truncate(path, whole)
        for number, line in enumerate(lines, start=1):
            entry = json.loads(line)
            if not isinstance(entry["key"], str) or not isinstance(entry["answer"], str):
                raise ValueError(f"line {number} is not one of ours")
            answers[entry["key"]] = entry["answer"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TeacherError(f"{path}: cannot be read as a teacher's answers ({error}); move it away to ask anew.") from None
    return answers
