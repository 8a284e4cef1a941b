"""The plain `transformers` loop behind the smallest HTTP server: one request after another, in the order they came.

    python -m benchmarks.peer_transformers_server FOLDER THREADS PORT LONGEST_EDGE

Knows of `POST /v1/chat/completions` what benchmarks/serving_clients.py sends, and sends a piece of text a token.
"""

from __future__ import annotations

import base64
import io
import json
import queue
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.reference import Reference, transformers

Line = queue.SimpleQueue["tuple[dict[str, Any], queue.SimpleQueue[dict[str, Any] | None]]"]


class Pieces(transformers.generation.streamers.BaseStreamer):  # type: ignore[misc]
    """Hands each new token's text on as it comes; the first call of `generate` is the prompt."""

    def __init__(self, processor: Any, out: queue.SimpleQueue[dict[str, Any] | None]) -> None:
        self._processor, self._out, self._prompt_seen = processor, out, False

    def put(self, value: Any) -> None:
        if self._prompt_seen:
            self._out.put(_chunk({"content": self._processor.decode(value.reshape(-1))}))
        self._prompt_seen = True

    def end(self) -> None:
        pass


def _chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None} | more]}


@torch.inference_mode()
def answer(reference: Reference, longest_edge: int, asked: dict[str, Any], out: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    """Decode, process, generate: what the documentation of `transformers` does."""
    picture, text = asked["messages"][0]["content"]
    data = base64.b64decode(picture["image_url"]["url"].partition(",")[2])
    content = [{"type": "image", "image": Image.open(io.BytesIO(data))}, text]
    inputs = reference.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"size": {"longest_edge": longest_edge}},
    ).to(reference.dtype)
    new = asked["max_tokens"]
    pieces = Pieces(reference.processor, out)
    made = reference.model.generate(**inputs, do_sample=False, min_new_tokens=new, max_new_tokens=new, streamer=pieces)
    prompt_tokens = inputs["input_ids"].shape[1]
    out.put(_chunk({}, finish_reason="length"))
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": made.shape[1] - prompt_tokens}
    out.put({"choices": [], "usage": usage})


def work(reference: Reference, longest_edge: int, line: Line) -> None:
    """The loop itself."""
    while True:
        asked, out = line.get()
        try:
            answer(reference, longest_edge, asked, out)
        except Exception as error:  # the client must hear of it
            out.put({"error": f"{type(error).__name__}: {error}"})
        out.put(None)


def handler(line: Line) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            out: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
            line.put((asked, out))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            while (piece := out.get()) is not None:
                self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def main() -> None:
    folder, threads, port, longest_edge = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    line: Line = queue.SimpleQueue()
    reference = Reference(folder, "bf16", threads)
    threading.Thread(target=work, args=(reference, longest_edge, line), daemon=True).start()
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", port), handler(line)).serve_forever()


if __name__ == "__main__":
    main()
