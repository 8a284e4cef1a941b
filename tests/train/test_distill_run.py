"""Distillation runs: a teacher checkpoint, a teacher behind a real HTTP server, and teachers that do not fit."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from smolvlm.checkpoint.random import TINY, write_random_checkpoint
from smolvlm.errors import TeacherError, TrainingError
from smolvlm.train.distill import DistillOptions, distill

pytestmark = pytest.mark.slow  # whole training runs: the outer ring

CLIP = Path(__file__).resolve().parents[2] / "examples" / "media" / "bigbuckbunny.mp4"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Handler(BaseHTTPRequestHandler):
    """A teacher that says what colour reaches it, how many pictures, and what was asked."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][-1]["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        pictures = [
            Image.open(io.BytesIO(base64.b64decode(p["image_url"]["url"].partition(",")[2]))) for p in parts if p["type"] == "image_url"
        ]
        colour = "none" if not pictures else "red" if pictures[0].resize((1, 1)).getpixel((0, 0))[0] > 120 else "other"
        words = "".join(p["text"] for p in parts if p["type"] == "text")
        self.server.asked.append((words, len(pictures)))  # type: ignore[attr-defined]
        answer = json.dumps({"choices": [{"message": {"content": f"{colour}, {len(pictures)}"}, "finish_reason": "stop"}]})
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 64), (230, 20, 20)).save(tmp_path / "red.png")
    records = [
        {"image": "red.png", "conversations": [{"from": "human", "value": "<image>\nColour?"}, {"from": "gpt", "value": "?"}]},
        {"conversations": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"}]},
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (tmp_path / "mix.yaml").write_text("datasets:\n  - {name: d, json_path: data.jsonl, modality: image}\n")
    return tmp_path / "mix.yaml"


def options(student: Path, teacher: Any, mixture: Path, out: Path, **more: Any) -> DistillOptions:
    given = {"detail": "low", "batch_size": 2, "workers": 0, "progress_bar": False, "seq_len": 512}
    return DistillOptions.for_method("full", model=str(student), teacher=str(teacher), mixture=mixture, out=out, **(given | more))


def test_a_checkpoint_teaches_its_distribution(tiny_checkpoint: Path, mixture: Path, tmp_path: Path) -> None:
    """A teacher of another width and other weights; logits and hidden states come nearer, and only the student is saved."""
    big = replace(TINY, text=replace(TINY.text, hidden_size=160))
    teacher = write_random_checkpoint(tmp_path / "teacher", big, seed=5)
    asked = options(
        tiny_checkpoint,
        teacher,
        mixture,
        tmp_path / "run",
        steps=12,
        lr_text=2e-3,
        lr_connector=2e-3,
        answers=0.0,
        logits=1.0,
        hidden=1.0,
        temperature=1.0,
        schedule="constant",
        warmup_ratio=0.0,
    )
    distill(asked)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss/logits"] < 0.8 * log[0]["loss/logits"]
    assert log[-1]["loss/hidden"] < 0.8 * log[0]["loss/hidden"]
    import smolvlm

    smolvlm.load(tmp_path / "run", dtype="float32").ask(None, "1+1?", max_new_tokens=1)  # no tensor too many


def test_an_endpoint_writes_the_answers(tiny_checkpoint: Path, mixture: Path, tmp_path: Path, server: ThreadingHTTPServer) -> None:
    with (tmp_path / "data.jsonl").open("a") as file:  # a question without any answer, about a clip
        turns = [{"from": "human", "value": "<video>\nWhat happens?"}]
        file.write(json.dumps({"video": str(CLIP), "conversations": turns}) + "\n")
    endpoint = f"http://127.0.0.1:{server.server_address[1]}/v1"
    counted: list[int] = []
    asked = options(tiny_checkpoint, "teacher", mixture, tmp_path / "run", endpoint=endpoint, steps=2, max_frames=2, lr_vision=0.0)
    result = distill(asked, on_answer=counted.append)
    heard = sorted(server.asked)  # type: ignore[attr-defined]
    assert [(words.replace("\n", ""), n) for words, n in heard][:2] == [("1+1?", 0), ("Colour?", 1)]
    assert heard[2][1] == 2
    assert heard[2][0].startswith("Frame from 00:")
    assert heard[2][0].endswith("What happens?")
    answers = sorted(json.loads(line)["answer"] for line in (tmp_path / "run" / "answers.jsonl").read_text().splitlines())
    assert answers == ["none, 0", "other, 2", "red, 1"]
    assert counted == [1, 2, 3]
    assert result.steps == 2
    distill(asked)  # finished: nothing is asked again
    assert len(server.asked) == 3  # type: ignore[attr-defined]


def test_teachers_that_do_not_fit(tiny_checkpoint: Path, mixture: Path, tmp_path: Path) -> None:
    wide = write_random_checkpoint(tmp_path / "wide", replace(TINY, vision=replace(TINY.vision, image_size=128)))
    with pytest.raises(TrainingError, match=r"tokens a tile \(16\) differs from the student's \(4\).*--endpoint"):
        distill(options(tiny_checkpoint, wide, mixture, tmp_path / "run"))
    other = write_random_checkpoint(tmp_path / "other", "tiny")
    path = other / "tokenizer.json"
    raw = json.loads(path.read_text())
    vocab = raw["model"]["vocab"]
    first, second = list(vocab)[1000:1002]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    path.write_text(json.dumps(raw))
    with pytest.raises(TrainingError, match="different tokenizers"):
        distill(options(tiny_checkpoint, other, mixture, tmp_path / "run"))
    with pytest.raises(TeacherError, match="no address"):
        distill(options(tiny_checkpoint, "t", mixture, tmp_path / "run", endpoint="localhost"))
    assert not (tmp_path / "run").exists()
