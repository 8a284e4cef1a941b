"""The main job on real input: a photo and a clip from `examples/media` through the whole path, from file to answer.

    make demo                                   # or: python examples/demo.py [--model FOLDER_OR_HUB_ID]

Without `--model` it makes a checkpoint of the official 256M format with random weights, because the published weights are
a download that this demo does not force on you. Such a model knows nothing: its words are nonsense, and the demo says so.
What is real is everything else: files, pixels, prompt, encoder, decoder, grammar, timings.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

import smolvlm
from smolvlm.answers import Answer
from smolvlm.checkpoint.random import write_random_checkpoint

HERE = Path(__file__).resolve().parent
MEDIA = HERE / "media"
WORK = Path(os.environ.get("SMOLVLM_WORK", HERE.parent / ".work"))
SCHEMA = {
    "type": "object",
    "properties": {
        "subject": {"type": "string", "maxLength": 40},
        "indoors": {"type": "boolean"},
        "people": {"type": "integer", "minimum": 0, "maximum": 20},
    },
    "required": ["subject", "indoors", "people"],
}

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def random_model() -> Path:
    folder = WORK / "random-256m"
    if not (folder / "config.json").exists():
        err.print("Writing a checkpoint of the official 256M format with random weights (once, 0.5 GB)...")
        write_random_checkpoint(folder, "256m", dtype="bfloat16")
    return folder


def load(name: str) -> smolvlm.SmolVLM:
    with Progress(TextColumn("Loading weights"), BarColumn(), MofNCompleteColumn(), console=err, transient=True) as bar:
        task = bar.add_task("weights", total=None)
        return smolvlm.load(name, on_progress=lambda _, done, total: bar.update(task, completed=done, total=total))


def show(question: str, answer: Answer) -> None:
    out.print(f"[bold]{question}[/bold]")
    out.print(f"  {' '.join(answer.text.split())}", markup=False)
    usage, timings = answer.usage, answer.timings
    out.print(f"  [dim]{answer.finish_reason}; {usage.encoded_tiles} tiles encoded, {usage.prefilled_tokens} of {usage.prompt_tokens} "
              f"prompt tokens prefilled, {usage.completion_tokens} generated; first token after {timings.first_token_s:.2f} s, "
              f"all after {timings.total_s:.2f} s[/dim]")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a checkpoint folder or Hub id; without it, random weights of the 256M format")
    parser.add_argument("--max-new-tokens", type=int, default=24)
    args = parser.parse_args()
    model = load(args.model or str(random_model()))
    engine = model.engine
    out.print(
        f"Model: {args.model or 'random weights, 256M format'}; {engine.name} engine, {engine.dtype} on {engine.device}."
    )
    if args.model is None:
        out.print("[yellow]THIS MODEL KNOWS NOTHING: its weights are random, so its words below mean nothing. "
                  "Everything around the words is real.[/yellow]")  # fmt: skip
    limit = {"max_new_tokens": args.max_new_tokens}

    out.rule("A photo: examples/media/chelsea.png")
    with model.session(MEDIA / "chelsea.png", **limit) as session:
        show("What is in the picture?", session.ask("What is in the picture?"))
        show("What colour is it? (a follow-up pays only for its own tokens)", session.ask("What colour is it?"))

    out.rule("A clip: examples/media/bigbuckbunny.mp4")
    show("What happens in the video?", model.ask(MEDIA / "bigbuckbunny.mp4", "What happens in the video?", **limit))

    out.rule("A choice with probabilities, and JSON that always fits its schema")
    choice = model.choose(
        MEDIA / "coffee.png", "What is on the table?", ["a cup of coffee", "a cat", "a rocket"], detail="fit"
    )
    for option, probability in choice.probabilities.items():
        out.print(f"  {option:<16} {probability:6.1%} {'█' * round(30 * probability)}", markup=False)
    record = model.extract(MEDIA / "rocket.jpg", SCHEMA, detail="fit", max_new_tokens=64)
    out.print(f"  {json.dumps(record, ensure_ascii=False)}", markup=False)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except smolvlm.SmolVLMError as error:
        sys.exit(f"demo: error: {error}")
