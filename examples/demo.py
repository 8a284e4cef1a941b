"""The main job on real files: a picture, a sign and a clip from `examples/media/nano`, answered by the model in the package.

    make demo                                   # or: python examples/demo.py [--model FOLDER_OR_HUB_ID]

`nano` is small (9.7 million parameters) and knows a small world; `--model 256m` asks a published checkpoint the same.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

import smolvlm
from smolvlm.answers import Answer

MEDIA = Path(__file__).resolve().parent / "media" / "nano"
QUESTIONS = {
    "scene.png": ("Describe this picture.", "What colour is the ring?", "Where is the butterfly?", "Is there a dog?"),
    "sign.png": ("What does the sign say?",),
    "clip.mp4": ("What happens in this video?", "When does the butterfly fall?"),
}

out = Console(highlight=False)


def show(question: str, answer: Answer) -> None:
    """A question, its answer, and what it cost."""
    out.print(f"  [bold]{question}[/bold]")
    out.print(f"    {answer.text.strip()}", markup=False)
    usage, timings = answer.usage, answer.timings
    out.print(
        f"    [dim]{usage.encoded_tiles} tiles encoded, {usage.prefilled_tokens} of {usage.prompt_tokens} prompt tokens "
        f"prefilled, first token after {timings.first_token_s * 1000:.0f} ms[/dim]"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="a checkpoint folder, a short name or a Hub id")
    args = parser.parse_args()
    model = smolvlm.load(args.model)
    engine = model.engine
    out.print(f"Model: {args.model}; {engine.name} engine, {engine.dtype} on {engine.device}.")
    for name, questions in QUESTIONS.items():
        out.rule(f"examples/media/nano/{name}", align="left")
        # A session keeps the encoded media: each further question costs only its own tokens.
        with model.session(MEDIA / name, max_new_tokens=64) as session:
            for question in questions:
                show(question, session.ask(question))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except smolvlm.SmolVLMError as error:
        sys.exit(f"demo: error: {error}")
