"""The API against its own document: schemathesis makes requests of every operation, some that fit and some that do not.

Whatever is sent, no answer is a 5xx, and every answer has a status, a content type and a body that the document knows.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from helpers_serve import MEDIA, Server, data_url, serving

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
SMALL = (
    "--max-answer-tokens",
    "8",
    "--max-choices",
    "2",
    "--max-media",
    "4",
    "--max-frames",
    "8",
    "--max-body-bytes",
    "1000000",
    "--max-files-bytes",
    "20000000",
)
SHARES = {"POST /v1/chat/completions": 8, "POST /v1/responses": 6, "POST /v1/files": 3}  # others: 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("schema") / "log", *SMALL) as running:
        yield running


def filled_in(value: Any, uploads: list[str], rng: random.Random) -> Any:
    """`value` with real media, words and counts that this server grants in the places of made-up ones, most of the time:
    else nearly every request would end at the same few refusals."""
    if isinstance(value, list):
        return [filled_in(item, uploads, rng) for item in value]
    if not isinstance(value, dict):
        return value
    made = {key: filled_in(item, uploads, rng) for key, item in value.items()}
    for key, item in tuple(made.items()):
        if rng.random() < 0.2:
            continue
        if key in ("url", "image_url", "video_url") and isinstance(item, str | None):
            made[key] = data_url(rng.choice(["scene.png", "sign.png", "clip.mp4"]))
        elif key == "file_id" and isinstance(item, str):
            made[key] = rng.choice(uploads)
        elif key in ("content", "text", "input") and item in ("", None, []):
            made[key] = "What is this?"
        elif key in ("n", "max_tokens", "max_completion_tokens", "max_output_tokens") and isinstance(item, int):
            made[key] = 1 + item % 2
        elif key == "top_logprobs":
            made["logprobs"] = True
    return made


def hammer(server: Server, share: int) -> Counter[tuple[str, int]]:
    """Ask `share` times as often as an operation's share, half of it with requests that do not fit; how often each
    operation answered with each status."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    statuses: Counter[tuple[str, int]] = Counter()
    uploads = [
        httpx.post(f"{server.url}/v1/files", files={"file": (name, (MEDIA / name).read_bytes())}).json()["id"]
        for name in ("sign.png", "clip.mp4")
    ]
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in MODES if operation.body else MODES[:1]:  # any text is a path's parameter

            @settings(
                max_examples=share * SHARES.get(operation.label, 1),
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],
            )
            @given(case=operation.as_strategy(generation_mode=mode), seed=st.integers(0, 2**32))
            def ask(case: schemathesis.Case, seed: int) -> None:
                rng = random.Random(seed)
                if isinstance(case.body, dict):
                    case.body = filled_in(case.body, uploads, rng)
                if "file_id" in (case.path_parameters or {}) and case.method != "DELETE" and rng.random() < 0.5:
                    case.path_parameters["file_id"] = rng.choice(uploads)
                answer = case.call(timeout=20)
                statuses[case.operation.label, answer.status_code] += 1
                case.validate_response(answer, checks=CHECKS)

            ask()
    return statuses


def check(statuses: Counter[tuple[str, int]], server: Server, least: int) -> None:
    print(f"{statuses.total()} cases:", {f"{label} {status}": n for (label, status), n in sorted(statuses.items())})
    assert statuses.total() >= least
    answered = {label for label, status in statuses if status == 200}
    assert {"POST /v1/chat/completions", "POST /v1/responses", "POST /v1/files"} <= answered, "some got through"
    assert not any(status >= 500 for _, status in statuses)
    # And by the server's own book; a connection that it dropped would be a 0 there.
    for status in ("0", "500"):  # 503 is what /ready said while it warmed up
        assert server.metric("smolvlm_http_requests_total", status=status) == 0
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_the_document_holds(server: Server) -> None:
    check(hammer(server, 2), server, 70)


@pytest.mark.slow
def test_the_document_holds_in_2000_cases(tmp_path: Path) -> None:
    with serving(tmp_path / "log", *SMALL) as server:
        check(hammer(server, 50), server, 2000)
