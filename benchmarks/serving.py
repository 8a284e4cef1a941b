"""`smolvlm serve` under load beside llama.cpp's `llama-server` and a plain `transformers` loop, on the CPU.

    python -m benchmarks.serving --rounds 2          # the 256M size, 2 threads; 1, 4, 16 and 32 clients
    python -m benchmarks.serving --rounds 2 --resume # goes on where such a run was interrupted
    python -m benchmarks.serving --quick             # does it all run? The figures mean nothing

Each client asks about a picture of its own with 32 new tokens, hears the answer as a stream, and asks again; no picture comes
twice, so no cache helps. Pictures `whole` have 1280 x 720 pixels: 13 tiles in each of the three systems, as the official
processor has it. `small` ones have 1024 x 512 and are not enlarged: 3 tiles; they are asked about by 16 clients. Then one
client asks twice about each of three pictures: the follow-up.

Every figure has a server of its own, started and asked one small question before. Systems take turns and their order changes.
Peers need 10 to 13 s for a picture of 13 tiles, ours 5. So that the whole stays near 40 minutes, each client asks ours twice and
peers once (a single client three times); with 32 clients all are asked once a client; rounds after the first are ours alone, with
up to 16 clients and the whole picture. llama-server has Q8_0 weights in the decoder, bf16 in the encoder (faster there than its
Q8_0), and a slot for each client (benchmarks/peer_llama_server.py); transformers has bf16 weights (benchmarks/peer_transformers_server.py);
`ours` has the defaults, `ours-q8` the encoder in 8 bits too (--dtype vision=q8).

Each finished figure is a file in .work/serving-*. Prints Markdown; a whole run writes benchmarks/results/serving-*.json and, of
the 256M size, docs/serving.png; a quick one or a part of it writes into .work.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import material
from benchmarks.machine import RESULTS, ROOT, WORK, describe_machine
from benchmarks.serving_clients import PICTURES, QUESTIONS, STRIP, as_json, body, closed_loop
from benchmarks.serving_report import draw, follow_ups, markdown, marks, summarize
from benchmarks.serving_systems import OURS, SYSTEMS, Setting, serving

CLIENTS = (1, 4, 16, 32)
SMALL_CLIENTS = 16  # of the small picture one number is enough: the work is of the same kind
FOLLOWED = 3  # pictures that are asked about twice
# The whole is to stay near 40 minutes: a peer needs 10 to 13 s for a picture of 13 tiles, ours 5.
_AGAIN_UP_TO = 16  # clients, in later rounds
_ALONE = 3  # questions at least, where a single client asks
_PAUSE_S = 1.0


@dataclass(frozen=True)
class Figure:
    """One measurement: a server is started for it."""

    round: int
    task: str  # "load" or "follow-up"
    picture: str
    clients: int
    system: str

    @property
    def file(self) -> str:
        return f"{self.task}-{self.picture}-{self.clients:02}-round{self.round}-{self.system}.json"


def figures(rounds: int, clients: list[int], systems: list[str], pictures: list[str], quick: bool) -> Iterator[Figure]:
    """What is to be measured, in order: the systems of a group one after another, turned from group to group."""
    turns = 0
    for number in range(1, rounds + 1):
        again = number > 1
        groups = [("load", "whole", n) for n in clients if "whole" in pictures and not (again and n > _AGAIN_UP_TO)]
        if "small" in pictures and not again:
            groups += [("load", "small", count) for count in (clients if quick else [SMALL_CLIENTS])]
        groups += [("follow-up", name, 1) for name in pictures if name == "whole" or quick]
        for task, picture, count in groups:
            turned = systems[turns % len(systems) :] + systems[: turns % len(systems)]
            turns += 1
            for system in turned:
                if system in OURS or not again:
                    yield Figure(number, task, picture, count, system)


def requests_of(figure: Figure, quick: bool) -> int:
    """How many questions are asked for a figure."""
    if quick:
        return figure.clients
    return max(_ALONE, figure.clients * (2 if figure.system in OURS and figure.clients <= _AGAIN_UP_TO else 1))


def measure(figure: Figure, folder: str, threads: int, new_tokens: int, quick: bool, logs: Path) -> dict[str, Any]:
    """Start a server, ask, end it: the answers' times, or what went wrong."""
    picture = PICTURES[figure.picture]
    # All systems get the same pictures; no two figures of a system share one.
    first = 10_000 * figure.round + 100 * figure.clients + (50_000 if figure.task == "follow-up" else 0)
    if figure.task == "load":
        asked = [body(picture, first + i, new_tokens) for i in range(requests_of(figure, quick))]
    else:
        asked = [body(picture, first + i, new_tokens, question) for i in range(1 if quick else FOLLOWED) for question in QUESTIONS]
    warm_up = body(STRIP, 0, 4)
    setting = Setting(folder, threads, figure.clients, picture)
    try:
        with serving(figure.system, setting, logs / figure.file.replace(".json", ".log")) as url:
            closed_loop(url, [warm_up], 1)
            time.sleep(_PAUSE_S)
            answers = closed_loop(url, asked, figure.clients)
    except FileNotFoundError as error:
        return {**asdict(figure), "absent": str(error)}
    except Exception as error:  # one that fails takes no figure from the others
        return {**asdict(figure), "error": f"{type(error).__name__}: {error}"}
    return {**asdict(figure), "answers": as_json(answers)}


def run(
    args: argparse.Namespace, folder: str, clients: list[int], systems: list[str], pictures: list[str], console: Console
) -> dict[str, Any]:
    """Everything, as the JSON report."""
    size = Path(folder).name
    kept = WORK / f"serving-{size}-{args.threads}threads-{args.new_tokens}tokens{'-quick' if args.quick else ''}"
    if not args.resume:
        shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True, exist_ok=True)
    cells: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for figure in figures(args.rounds, clients, systems, pictures, args.quick):
        if figure.system in missing:
            continue
        file = kept / figure.file
        known = file.exists()
        started = time.monotonic()
        if known:
            cell = json.loads(file.read_text(encoding="utf-8"))
        else:
            cell = measure(figure, folder, args.threads, args.new_tokens, args.quick, kept)
        label = f"  {figure.task:9} {figure.picture:5} {figure.clients:2} clients  round {figure.round}  {figure.system:12}"
        if problem := cell.get("absent") or cell.get("error"):
            console.print(f"{label} {problem}", highlight=False, markup=False)
            if "absent" in cell:
                missing[figure.system] = problem
                continue
        else:
            if not known:
                part = file.with_suffix(".part")
                part.write_text(json.dumps(cell) + "\n", encoding="utf-8")
                part.replace(file)
            took = "kept from before" if known else f"{time.monotonic() - started:.0f} s"
            console.print(f"{label} {len(cell['answers'])} answers, {took}", highlight=False)
        cells.append(cell)
    rows, followed = summarize(cells), follow_ups(cells)
    return {
        "command": " ".join([Path(sys.executable).name, "-m", "benchmarks.serving", *sys.argv[1:]]),
        "machine": describe_machine(),
        "settings": {
            "model": Path(args.model).name,
            "threads": args.threads,
            "rounds": args.rounds,
            "quick": args.quick,
            "new_tokens": args.new_tokens,
            "pictures": {name: asdict(PICTURES[name]) for name in pictures},
        },
        "absent": missing,
        "failed": [cell for cell in cells if "error" in cell],
        "rows": rows,
        "follow_ups": followed,
        "marks": {name: marks(rows, followed, pictures[0], name) for name in OURS if name in systems},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="256m", help="256m, 500m or 2.2b: random weights; or a folder, or nano")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clients", help="how many at once, such as 1,4,16,32")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help=f"of {','.join(SYSTEMS)}")
    parser.add_argument("--pictures", help=f"of {','.join(PICTURES)}")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one round of small pictures, one question a client")
    parser.add_argument("--resume", action="store_true", help="keep the figures of a run with the same settings")
    parser.add_argument("--out", type=Path, help="where to write the JSON file")
    parser.add_argument("--chart", type=Path, help="where to write the chart")
    args = parser.parse_args()
    try:
        clients = [int(text) for text in (args.clients or ("1,4" if args.quick else "1,4,16,32")).split(",")]
    except ValueError:
        parser.error(f"--clients {args.clients}: expected whole numbers with commas, such as 1,4,16,32")
    systems = args.systems.split(",")
    pictures = (args.pictures or ("small" if args.quick else "whole,small")).split(",")
    for given, known in ((systems, tuple(SYSTEMS)), (pictures, tuple(PICTURES))):
        if unknown := sorted(set(given) - set(known)):
            parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    if min(args.threads, args.rounds, args.new_tokens, *clients) < 1 or max(clients) > 64:
        parser.error("--threads, --rounds and --new-tokens must be at least 1, --clients from 1 to 64")
    args.rounds = 1 if args.quick else args.rounds
    folder = str(material.checkpoint(args.model, "bfloat16")) if args.model in ("256m", "500m", "2.2b") else args.model

    console = Console(stderr=True)
    report = run(args, folder, clients, systems, pictures, console)
    print(markdown(report["rows"], report["follow_ups"]))
    for system, found in report["marks"].items():
        print("".join(f"\n{system}: {name}: {value:.2f}" for name, value in found.items()))
    sized = args.model == "256m" and args.new_tokens == 32
    whole = (
        not args.quick
        and (clients, systems, pictures) == (list(CLIENTS), list(SYSTEMS), list(PICTURES))
        and not report["failed"]
        and not report["absent"]
    )
    name = f"serving-{Path(args.model).name}-{args.threads}threads"
    # Neither a trial nor a part of the run takes the place of a published figure unless it is told to (--out).
    out = args.out or (RESULTS / f"{name}.json" if whole else WORK / f"{name}-part.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    chart = args.chart or (ROOT / "docs" / "serving.png" if whole and sized else out.with_suffix(".png"))
    drawn = draw(report, pictures[0], chart)
    console.print(f"written: {out}" + (f", {chart}" if drawn else ""), highlight=False)


if __name__ == "__main__":
    main()
