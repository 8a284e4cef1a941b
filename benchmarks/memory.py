"""Peak memory of `smolvlm ask` about 64 frames of video, the whole process: Python, decoder of the video, weights, cache.

    python -m benchmarks.memory                        # 256M and 500M, loaded from the original and mapped from `quantize`
    python -m benchmarks.memory --sizes 256m

Random weights, 64 new tokens. The figure is the kernel's (VmHWM): pages of a mapped file count as soon as they were read.
Writes benchmarks/results/memory.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import material
from benchmarks.machine import RESULTS, WORK, describe_machine, peak_memory_bytes
from smolvlm.cli.main import main as smolvlm

NEW_TOKENS = 64
_MARKS_MB = {"256m": 700, "500m": 1100}  # what this project asks of itself, at q8


def quantized(size: str) -> Path:
    """The same checkpoint as `smolvlm quantize` writes it, in q8."""
    path = WORK / f"random-{size}-q8"
    if not (path / "config.json").exists():
        _smolvlm("quantize", str(material.checkpoint(size, "bfloat16")), str(path), "--overwrite")
    return path


def one(folder: Path, dtype: str) -> dict[str, Any]:
    """Ask in this process, which has done nothing else, and say what it took at most."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        _smolvlm(
            "ask",
            str(material.clip()),
            "What happens?",
            "--model",
            str(folder),
            "--engine",
            "native",
            "--dtype",
            dtype,
            "--max-frames",
            "64",
            "--max-new-tokens",
            str(NEW_TOKENS),
            "--no-loop-guard",
            "--json",
        )
    usage = json.loads(said.getvalue())["usage"]
    return {"peak_bytes": peak_memory_bytes(), "prompt_tokens": usage["prompt_tokens"]}


def _smolvlm(*arguments: str) -> None:
    sys.argv = ["smolvlm", *arguments]
    try:
        smolvlm()
    except SystemExit as end:
        if end.code:
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="256m,500m", help="sizes of the family, with commas between")
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "DTYPE"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(one(Path(chosen.one[0]), chosen.one[1])))
        return
    table = Table("size", "weights", "dtype", "peak, MB", "mark, MB", title="64 frames of video, 64 new tokens")
    rows = []
    for size in chosen.sizes.split(","):
        material.clip()
        for weights, folder in (("original", material.checkpoint(size, "bfloat16")), ("quantized", quantized(size))):
            for dtype in ("q8", "q8,kv=q8"):
                command = [sys.executable, "-m", "benchmarks.memory", "--one", str(folder), dtype]
                answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
                rows.append({"size": size, "weights": weights, "dtype": dtype, **answer})
                table.add_row(size, weights, dtype, f"{answer['peak_bytes'] / 1e6:.0f}", str(_MARKS_MB.get(size, "")))
    Console(width=100).print(table)
    results = {"machine": describe_machine(), "new_tokens": NEW_TOKENS, "rows": rows}
    (RESULTS / "memory.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
