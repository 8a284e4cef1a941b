"""The serving benchmark: its arithmetic worked out by hand, and a small real run."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `benchmarks` stands beside `tests`

from benchmarks import peer_llama_server, serving
from benchmarks.serving_clients import PICTURES, STRIP, Picture, body, closed_loop
from benchmarks.serving_report import follow_ups, markdown, marks, summarize

from smolvlm.config import preset, processor_preset
from smolvlm.media.tiling import split_image
from smolvlm.options.media import MediaOptions


def answer(asked: float, *pieces: float) -> dict[str, Any]:
    return {"asked": asked, "pieces": list(pieces), "over": pieces[-1], "prompt_tokens": 900, "new_tokens": len(pieces)}


def cell(system: str, clients: int, *answers: dict[str, Any], number: int = 1, task: str = "load") -> dict[str, Any]:
    return {"round": number, "task": task, "picture": "whole", "clients": clients, "system": system, "answers": answers}


def test_rates_and_percentiles_by_hand() -> None:
    """Two answers in 4 s are 0.5 requests/s; five tokens in 4 s are 1.25 tokens/s. Gaps: 1, 2 and 1 s; the first tokens
    come after 1 and 1 s. The 99th percentile of 1, 1, 2 lies 98 % of the way from the second to the third."""
    (row,) = summarize([cell("ours", 2, answer(0, 1, 2, 4), answer(1, 2, 3))])
    assert row["requests_per_s"] == pytest.approx(0.5)
    assert row["tokens_per_s"] == pytest.approx(1.25)
    assert row["first_token_s"] == pytest.approx({"p50": 1, "p99": 1, "max": 1})
    assert row["between_tokens_s"] == pytest.approx({"p50": 1, "p99": 1.98, "max": 2})
    assert (row["requests"], row["pieces"], row["new_tokens"]) == (2, 5, [2, 3])


def test_rounds_are_joined_and_failures_left_out() -> None:
    """Rates 1 and 0.5 requests/s: median 0.75, spread 0.5 / 0.75. The gaps of both rounds are one set."""
    failed = {"round": 3, "task": "load", "picture": "whole", "clients": 1, "system": "ours", "error": "no"}
    (row,) = summarize([cell("ours", 1, answer(0, 0.5, 1)), cell("ours", 1, answer(0, 0.5, 2), number=2), failed])
    assert (row["requests_per_s"], row["rounds"]) == (pytest.approx(0.75), 2)
    assert row["spread"] == pytest.approx(2 / 3)
    assert row["between_tokens_s"]["p50"] == pytest.approx(1.0)  # of 0.5 and 1.5
    assert summarize([failed]) == []


def test_an_answer_of_one_token_has_no_gap() -> None:
    (row,) = summarize([cell("ours", 1, answer(0, 1))])
    assert row["between_tokens_s"] is None
    assert "| - |" in markdown([row], [])


def test_marks_by_hand() -> None:
    """16 answers in 8 s against 16 in 32 s: 4 times. Gaps of 0.1 s alone, 0.3 s at 16 clients: 3 times. 10 s, then 2: 5."""
    rows = summarize(
        [
            cell("ours", 1, answer(0, 1, 1.1)),
            cell("ours", 16, *[answer(0, 7.7, 8.0)] * 16),
            cell("llama-server", 16, *[answer(0, 1, 32)] * 16),
        ]
    )
    asked_twice = (answer(0, 10, 11), answer(11, 13, 14), answer(14, 24, 25), answer(25, 27, 28))
    followed = follow_ups([cell("ours", 1, *asked_twice, task="follow-up")])
    assert followed[0] | {"pictures": 2, "first_s": 10, "second_s": 2} == followed[0]
    found = marks(rows, followed, "whole")
    assert found == pytest.approx(
        {
            "requests/s at 16 clients, times llama-server": 4,
            "between tokens, p99 at 1 clients / median of one": 1,
            "between tokens, p99 at 16 clients / median of one": 3,
            "second question on a picture, times sooner": 5,
        }
    )
    assert marks(rows, followed, "small") == {}


def test_turns_change_and_peers_run_once() -> None:
    figures = list(serving.figures(2, [1, 32], ["ours", "llama-server"], ["whole", "small"], quick=False))
    order = [(f.round, f.task, f.picture, f.clients, f.system) for f in figures]
    assert order[:4] == [
        (1, "load", "whole", 1, "ours"),
        (1, "load", "whole", 1, "llama-server"),
        (1, "load", "whole", 32, "llama-server"),
        (1, "load", "whole", 32, "ours"),
    ]
    assert [one[1:] for one in order if one[0] == 2] == [("load", "whole", 1, "ours"), ("follow-up", "whole", 1, "ours")]
    assert len({f.file for f in figures}) == len(figures)


@pytest.mark.parametrize("picture", [*PICTURES.values(), STRIP], ids=[*PICTURES, "strip"])
def test_pictures_are_cut_into_as_many_tiles_as_they_say(picture: Picture) -> None:
    """By the processor of the 256M size, in each of the two ways; and no two pictures share a tile."""
    config = processor_preset(preset("256m"))
    seen: set[bytes] = set()
    for number in (0, 1):
        with Image.open(io.BytesIO(picture.jpeg(number))) as image:
            assert image.size == picture.size
            ways = [MediaOptions(detail=picture.detail or "official")]
            if picture is not STRIP:
                ways.append(MediaOptions(longest_edge=picture.longest_edge))
            for options in ways:
                tiles = split_image(image, config, options).tiles
                assert len(tiles) == picture.tiles
        seen |= {tile.tobytes() for tile in tiles}
    assert len(seen) == 2 * picture.tiles


@contextmanager
def answering(status: int, text: str) -> Iterator[str]:
    """A server that gives everybody the same."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


CHUNK = 'data: {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": null}]}\n\n'


@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        (429, '{"error": {"message": "full"}}', "HTTP 429.*full"),
        (200, CHUNK, "without text or without a finish_reason"),
        (200, CHUNK + 'data: {"error": {"message": "broken"}}\n\n', "broke off.*broken"),
    ],
)
def test_half_an_answer_is_no_answer(status: int, text: str, message: str) -> None:
    with answering(status, text) as url, pytest.raises(RuntimeError, match=message):
        closed_loop(url, [body(STRIP, 0, 1)], 1)


@pytest.mark.slow
def test_a_small_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """nano on a real server: everything is asked, heard and written; with --resume nothing is asked again."""
    monkeypatch.setattr(serving, "WORK", tmp_path)
    out = tmp_path / "report.json"
    command = [
        "serving",
        "--model",
        "nano",
        "--threads",
        "1",
        "--systems",
        "ours",
        "--clients",
        "2",
        "--quick",
        "--new-tokens",
        "24",
        "--out",
        str(out),
    ]
    monkeypatch.setattr(sys, "argv", command)
    serving.main()
    report = json.loads(out.read_text())
    (row,) = report["rows"]
    assert (row["system"], row["clients"], row["requests"]) == ("ours", 2, 2)
    assert row["new_tokens"] == [24]
    assert row["requests_per_s"] > 0
    assert row["first_token_s"]["p50"] > row["between_tokens_s"]["p50"]
    assert row["between_tokens_s"]["max"] > 0
    (followed,) = report["follow_ups"]
    assert followed["second_s"] < followed["first_s"]
    assert "| small | 2 | ours | 2 |" in capsys.readouterr().out
    assert (tmp_path / "report.png").exists()

    def refuse(*_: Any) -> None:
        raise AssertionError("a server was started for what is known")

    monkeypatch.setattr(serving, "measure", refuse)
    monkeypatch.setattr(sys, "argv", [*command, "--resume"])
    serving.main()
    assert json.loads(out.read_text())["rows"] == report["rows"]


def test_a_peer_that_is_not_there_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "WORK", tmp_path)
    monkeypatch.setattr(peer_llama_server, "BINARY", tmp_path / "nothing")
    monkeypatch.setattr(sys, "argv", ["serving", "--model", "nano", "--systems", "llama-server", "--quick"])
    serving.main()
    report = json.loads((tmp_path / "serving-nano-2threads-part.json").read_text())
    assert (report["rows"], list(report["absent"])) == ([], ["llama-server"])
