"""Ten minutes at twice what the server can do: is every request answered or refused, and with its own answer?

    python -m benchmarks.soak                       # nano; finds the capacity first, then offers twice that
    python -m benchmarks.soak --minutes 1 --rate 40

Each question has its own answer, which the library gave beforehand, alone: what the server says is compared letter for letter.
Requests are offered at a fixed rate, whether earlier ones are answered or not. Writes benchmarks/results/soak.json and
docs/soak.png.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import math
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import psutil
from PIL import Image
from rich.console import Console

import smolvlm
from benchmarks.machine import RESULTS, ROOT, describe_machine
from benchmarks.server_process import ServerProcess, run_server
from smolvlm.synth.benchmark import items
from smolvlm.synth.video_file import video_bytes

MODEL = "nano"
NEW_TOKENS = 32
PICTURES = {"caption": 200, "reading_number": 100, "colour": 100, "count": 50}  # tasks of the benchmark, and how many items
CLIPS = {"event": 20}
TEXTS = 60
# Small caches, so that a soak fills them at once and lives with evictions; a queue that is worked off in seconds.
FLAGS = ("--tile-cache-bytes", str(8 * 1024**2), "--kv-tokens", "16384", "--max-waiting", "32", "--max-running", "16")
CAPACITY_CLIENTS, CAPACITY_S = 16, 20.0
SAMPLE_S, WINDOW_S, SETTLED_S = 1.0, 30.0, 120.0
PROBES, BACK = 20, 1.5  # "full speed": a probe takes at most 1.5 times the median of 20 probes before the load
TIMEOUT_S = 120.0  # a request without a word for so long is lost


@dataclass(frozen=True)
class Question:
    """`answer` is what the library says; `body` and `streamed_body` ask the server the same."""

    kind: str
    answer: str
    body: bytes
    streamed_body: bytes


@dataclass(frozen=True)
class Outcome:
    """What became of one request. `what`: right, wrong, 429, 503, another status, or lost. Seconds from the load's start."""

    offered_s: float
    ended_s: float
    kind: str
    what: str


def make_questions(console: Console, share: float = 1.0) -> list[Question]:
    """All questions, or a share of each kind, with the answers that the model gives when it is asked one at a time."""
    model = smolvlm.load(MODEL)
    made = []
    for kind, tasks in (("picture", PICTURES), ("clip", CLIPS)):
        for task, count in tasks.items():
            for item in items(task, math.ceil(share * count)):
                data = _png(item.sample.frames[0]) if kind == "picture" else video_bytes(item.sample)
                made.append(_question(model, kind, data, item.question.text))
    made += [_question(model, "text", None, f"What is number {n}?") for n in range(math.ceil(share * TEXTS))]
    answers = Counter(question.answer for question in made)
    alone = sum(1 for question in made if answers[question.answer] == 1)
    console.print(f"{len(made)} questions with {len(answers)} different answers; {alone} have one that no other has.")
    return made


def _png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _question(model: smolvlm.SmolVLM, kind: str, data: bytes | None, text: str) -> Question:
    answer = model.ask(data, text, max_new_tokens=NEW_TOKENS).text
    content: Any = text
    if data is not None:
        name, mime = ("image_url", "image/png") if kind == "picture" else ("video_url", "video/mp4")
        url = f"data:{mime};base64,{base64.b64encode(data).decode()}"
        content = [{"type": name, name: {"url": url}}, {"type": "text", "text": text}]
    asked = {"model": MODEL, "max_tokens": NEW_TOKENS, "messages": [{"role": "user", "content": content}]}
    return Question(kind, answer, json.dumps(asked).encode(), json.dumps(asked | {"stream": True}).encode())


Address: TypeAlias = tuple[str, int]


def _request(body: bytes) -> bytes:
    """HTTP/1.0: one answer a connection, and its end is the connection's. A client library costs more than the server's part."""
    head = f"POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _exchange(address: Address, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()


async def ask(address: Address, question: Question, streamed: bool) -> str:
    """The outcome in a word, as `Outcome.what`."""
    try:
        request = _request(question.streamed_body if streamed else question.body)
        answer = await asyncio.wait_for(_exchange(address, request), TIMEOUT_S)
    except (OSError, asyncio.TimeoutError):
        return "lost"
    head, _, text = answer.partition(b"\r\n\r\n")
    if not text:
        return "lost"
    status = head[9:12].decode()
    if status != "200":
        return status
    try:
        said = _streamed_text(text) if streamed else str(json.loads(text)["choices"][0]["message"]["content"])
    except ValueError:  # cut off, or an error in the middle of a stream
        return "lost"
    return "right" if said == question.answer else "wrong"


def _streamed_text(events: bytes) -> str:
    """The pieces of a stream together. Raises ValueError for one that does not come to its end."""
    lines = events.decode().split("\n\n")
    if lines[-2:] != ["data: [DONE]", ""]:
        raise ValueError("the stream broke off")
    choices = [json.loads(line[6:])["choices"][0] for line in lines[:-2]]
    if choices[-1]["finish_reason"] is None:
        raise ValueError("the stream ended without a reason")
    return "".join(choice["delta"].get("content", "") for choice in choices)


async def find_capacity(address: Address, questions: Sequence[Question], seconds: float) -> float:
    """Answers a second when `CAPACITY_CLIENTS` clients ask again as soon as they are answered."""
    end = time.monotonic() + seconds
    rng = random.Random(0)
    answered = 0

    async def one() -> None:
        nonlocal answered
        while time.monotonic() < end:
            what = await ask(address, rng.choice(questions), rng.random() < 0.5)
            if what != "right":
                raise RuntimeError(f"with {CAPACITY_CLIENTS} clients one request ended as: {what}")
            answered += 1

    await asyncio.gather(*(one() for _ in range(CAPACITY_CLIENTS)))
    return answered / seconds


async def probe(address: Address, question: Question) -> tuple[str, float]:
    """One request that nobody else disturbs: its outcome and its seconds."""
    started = time.perf_counter()
    return await ask(address, question, False), time.perf_counter() - started


async def soak(server: ServerProcess, questions: Sequence[Question], rate: float, seconds: float) -> dict[str, Any]:
    """Offer `rate` requests a second for `seconds`, then ask until the server is as quick as before."""
    rng = random.Random(1)
    outcomes: list[Outcome] = []
    memory: list[tuple[float, int]] = []
    text = next(question for question in questions if question.kind == "text")
    before = [await probe(server.address, text) for _ in range(PROBES)]
    usual_s = statistics.median(s for _, s in before)
    start = time.monotonic()

    async def one(question: Question, streamed: bool) -> None:
        offered = time.monotonic() - start
        what = await ask(server.address, question, streamed)
        outcomes.append(Outcome(offered, time.monotonic() - start, question.kind, what))

    async def watch() -> None:
        while True:
            memory.append((time.monotonic() - start, server.memory_bytes()))
            await asyncio.sleep(SAMPLE_S)

    watching = asyncio.create_task(watch())
    tasks = set()
    late_s = 0.0
    for number in range(int(rate * seconds)):
        due = start + number / rate
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        late_s = max(late_s, -wait)
        tasks.add(task := asyncio.create_task(one(rng.choice(questions), rng.random() < 0.5)))
        task.add_done_callback(tasks.discard)
    ended = time.monotonic()
    back_s, after = await _until_quick(server.address, text, usual_s, ended)
    await asyncio.gather(*tasks)
    drained_s = max(outcome.ended_s for outcome in outcomes) - (ended - start)
    watching.cancel()
    return {
        "rate": rate,
        "seconds": ended - start,
        "offered": len(outcomes),
        "outcomes": _counted(outcomes),
        "late_s": late_s,
        "probe_before_s": usual_s,
        "probe_after_s": after,
        "back_s": back_s,
        "drained_s": drained_s,
        "answered_s": _quantiles([o.ended_s - o.offered_s for o in outcomes if o.what == "right"]),
        "refused_s": _quantiles([o.ended_s - o.offered_s for o in outcomes if o.what in ("429", "503")]),
        "memory": flatness(memory),
        "per_window": _per_window(outcomes, memory),
    }


async def _until_quick(address: Address, text: Question, usual_s: float, ended: float) -> tuple[float, float]:
    """Seconds from the load's end to the first of `PROBES` right and quick probes in a row, and the median of those."""
    while time.monotonic() - ended < TIMEOUT_S:
        began = time.monotonic() - ended
        row = []
        while len(row) < PROBES:
            what, took = await probe(address, text)
            if what != "right" or took > BACK * usual_s + 0.005:  # a text takes milliseconds: the clock's own noise
                break
            row.append(took)
        else:
            return began, statistics.median(row)
    return float("inf"), float("inf")


def _counted(outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    """kind -> what -> how often."""
    kinds = sorted({outcome.kind for outcome in outcomes})
    return {kind: dict(sorted(Counter(o.what for o in outcomes if o.kind == kind).items())) for kind in kinds}


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds) or [0.0]
    return {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}


def flatness(memory: Sequence[tuple[float, int]]) -> dict[str, Any]:
    """`memory` is (second, bytes). Medians of half minutes after the first two minutes: their range over the first of them.

    Medians, because a decoding process that has done its share is replaced: for a moment there is one less.
    """
    settled = [(s, size) for s, size in memory if s >= SETTLED_S]
    windows = [statistics.median(size for _, size in window) for window in _windows(settled)]
    change = (max(windows) - min(windows)) / windows[0] if windows else None
    return {"settled_windows": windows, "change": change, "peak": max(size for _, size in memory)}


def _windows(points: Sequence[tuple[float, int]]) -> Iterator[list[tuple[float, int]]]:
    if not points:
        return
    for number in range(int((points[-1][0] - points[0][0]) / WINDOW_S)):
        low = points[0][0] + number * WINDOW_S
        yield [point for point in points if low <= point[0] < low + WINDOW_S]


def _per_window(outcomes: Sequence[Outcome], memory: Sequence[tuple[float, int]], width_s: float = 5.0) -> list[dict[str, Any]]:
    """Five seconds each: what ended in them, and the memory; for the plot."""
    rows = []
    for number in range(int(max(o.ended_s for o in outcomes) / width_s) + 1):
        low, high = number * width_s, (number + 1) * width_s
        ended = Counter(o.what for o in outcomes if low <= o.ended_s < high)
        sizes = [size for s, size in memory if low <= s < high]
        rows.append({"s": low, **ended, "memory": statistics.median(sizes) if sizes else None})
    return rows


def figures(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures in question, a line each."""
    load, memory = report["load"], report["load"]["memory"]
    totals: Counter[str] = Counter()
    for counts in load["outcomes"].values():
        totals.update(counts)
    change = memory["change"]
    first = [
        ("load", f"{load['seconds'] / 60:.1f} minutes at {load['rate'] / report['capacity']:.1f} times the capacity"),
        ("capacity, answers/s", f"{report['capacity']:.1f}"),
        ("offered, requests/s", f"{load['rate']:.1f}"),
        ("offered", f"{load['offered']:,}"),
        ("answered, letter for letter as the library", f"{totals.pop('right', 0):,}"),
        ("answered otherwise", f"{totals.pop('wrong', 0):,}"),
        ("refused with 429", f"{totals.pop('429', 0):,}"),
        ("refused with 503", f"{totals.pop('503', 0):,}"),
        ("lost", f"{totals.pop('lost', 0):,}"),
        ("any other status", ", ".join(f"{status}: {n}" for status, n in totals.items()) or "0"),
    ]
    return [
        *first,
        ("an answer, p50 / p99", f"{load['answered_s']['p50']:.2f} s / {load['answered_s']['p99']:.2f} s"),
        ("a refusal, p50 / p99", f"{1000 * load['refused_s']['p50']:.0f} ms / {1000 * load['refused_s']['p99']:.0f} ms"),
        ("memory after the first 2 minutes, change", "-" if change is None else f"{100 * change:.1f} %"),
        ("memory, most", f"{memory['peak'] / 1e6:.0f} MB"),
        ("last answer after the load's end", f"{load['drained_s']:.1f} s"),
        ("a question alone, before / after", f"{1000 * load['probe_before_s']:.1f} / {1000 * load['probe_after_s']:.1f} ms"),
        ("full speed after the load's end", f"{load['back_s']:.1f} s"),
    ]


def show(report: dict[str, Any], console: Console) -> None:
    """The figures as a Markdown table."""
    console.print("| | |", "| --- | ---: |", *(f"| {name} | {value} |" for name, value in figures(report)), sep="\n", markup=False)


def draw(report: dict[str, Any], out: Path) -> bool:
    """Answers, refusals and memory over time. False where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return False
    rows = report["load"]["per_window"][:-1]
    minutes = [row["s"] / 60 for row in rows]
    figure = Figure(figsize=(8, 5), layout="constrained")
    rates, memory = figure.subplots(2, 1, sharex=True)
    for what, label, colour in (("right", "answered", "#2a9d8f"), ("429", "refused (429)", "#8d99ae"), ("wrong", "wrong", "#d1495b")):
        rates.plot(minutes, [row.get(what, 0) / 5 for row in rows], label=label, color=colour)
    rates.axhline(report["capacity"], color="#2a9d8f", linestyle=":", linewidth=1)
    rates.set(ylabel="a second", ylim=(0, None), title=f"nano at {report['load']['rate']:.0f} requests/s; the dotted line is its capacity")
    rates.legend(loc="lower left")
    known = [(m, row["memory"] / 1e6) for m, row in zip(minutes, rows, strict=True) if row["memory"]]
    memory.plot([m for m, _ in known], [size for _, size in known], color="#d1495b")
    memory.set(xlabel="minutes", ylabel="memory of all processes, MB", ylim=(0, None))
    for axes in (rates, memory):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=120)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, help="requests a second; twice the capacity where it is not given")
    parser.add_argument("--out", type=Path, default=RESULTS / "soak.json")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "soak.png")
    parser.add_argument("--again", action="store_true", help="print and draw the report of an earlier run once more")
    options = parser.parse_args()
    console = Console(highlight=False)
    if options.again:
        report = json.loads(options.out.read_text(encoding="utf-8"))
        show(report, console)
        draw(report, options.plot)
        return 0
    questions = make_questions(console)
    with tempfile.TemporaryDirectory() as folder, run_server(Path(folder) / "log", *FLAGS, model=MODEL) as server:
        capacity = asyncio.run(find_capacity(server.address, questions, CAPACITY_S))
        console.print(f"capacity: {capacity:.1f} answers/s with {CAPACITY_CLIENTS} clients")
        load = asyncio.run(soak(server, questions, options.rate or 2 * capacity, 60 * options.minutes))
        lost = server.metric("smolvlm_media_workers_lost")
        failed = server.metric("smolvlm_jobs_total", outcome="failed") + server.metric("smolvlm_jobs_total", outcome="expired")
    report = {
        "machine": describe_machine(),
        "flags": FLAGS,
        "capacity": capacity,
        "load": load,
        "jobs_failed": failed,
        "media_workers_lost": lost,
        "client_memory": psutil.Process().memory_info().rss,
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    show(report, console)
    draw(report, options.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
