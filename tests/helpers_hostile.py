"""nano's folder with one value changed, and a process that loads such folders one after another under limits.

Run as a program it is that process: `python helpers_hostile.py FOLDER CASES` reads a JSON list of cases and writes one JSON
line for each: what became of it, how long it took, and the most memory the process has had.
"""

from __future__ import annotations

import copy
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers_processes import peak_bytes

NANO = Path(__file__).resolve().parents[1] / "src/smolvlm/models/nano"
FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "chat_template.json",
    "tokenizer.json",
)
# As text, because some of them are no JSON: the file is written with the text in the value's place.
VALUES = (
    "-1",
    "0",
    "1",
    "2147483648",
    "9223372036854775808",
    "1180591620717411303424",
    "1" + "0" * 5000,
    "1e308",
    "1e400",
    "1e-308",
    "-0.5",
    "NaN",
    "Infinity",
    "-Infinity",
    '""',
    '"x"',
    "[]",
    "{}",
    "null",
    "true",
    "[[1]]",
    '{"a": {"b": []}}',
    '"' + "y" * 100_000 + '"',
    '"\\ud800"',
    "[0, 0]",
)
_HOLE = "\ue000hole\ue000"
MEMORY_MB = 1500  # a plain load of nano stays under 500
DEADLINE_S = 60.0  # each case; a loaded machine is slow


@dataclass(frozen=True)
class Case:
    """The value at `path` in the file becomes `value`, a piece of JSON or of something like it."""

    file: str
    path: tuple[str | int, ...]
    value: str

    def text(self) -> str:
        raw = copy.deepcopy(json.loads((NANO / self.file).read_text(encoding="utf-8")))
        target = raw
        for step in self.path[:-1]:
            target = target[step]
        target[self.path[-1]] = _HOLE
        return json.dumps(raw).replace(json.dumps(_HOLE), self.value)


@dataclass(frozen=True)
class Outcome:
    """`what`: "works", "refused: ..." by an error of ours, or what went wrong."""

    what: str
    seconds: float = 0.0
    peak_mb: float = 0.0

    @property
    def is_good(self) -> bool:
        return (self.what == "works" or self.what.startswith("refused")) and self.peak_mb < MEMORY_MB


def paths(raw: Any, prefix: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a JSON value; of long lists and tables, the first two and the last."""
    items = list(raw.items() if isinstance(raw, dict) else enumerate(raw))
    for key, value in items if len(items) <= 40 else [*items[:2], items[-1]]:
        yield (*prefix, key)
        if isinstance(value, dict | list):
            yield from paths(value, (*prefix, key))


def all_cases() -> list[Case]:
    return [
        Case(name, path, value)
        for name in FILES
        for path in paths(json.loads((NANO / name).read_text(encoding="utf-8")))
        for value in VALUES
    ]


def outcomes(cases: list[Case], extra: dict[str, str] | None = None) -> dict[Case, Outcome]:
    """What became of each. A process that dies or hangs is said for the case that it was at; a new one goes on behind it."""
    result: dict[Case, Outcome] = {}
    left = list(cases)
    while left:
        with tempfile.TemporaryDirectory(prefix="smolvlm-hostile-") as folder:
            lines, end = _run(Path(folder), left)
        for line in lines:
            result[left[line["case"]]] = Outcome(line["what"], line["seconds"], line["peak_mb"])
        left = left[len(lines) :]
        if left:
            result[left.pop(0)] = Outcome(end)
    return result


def _run(folder: Path, cases: list[Case]) -> tuple[list[dict[str, Any]], str]:
    listed = folder / "cases.json"
    listed.write_text(json.dumps([[case.file, case.path, case.text()] for case in cases]))
    with subprocess.Popen(
        [sys.executable, __file__, str(folder), str(listed)], stdout=subprocess.PIPE, stderr=(folder / "stderr").open("w"), text=True
    ) as process:
        assert process.stdout is not None
        lines, end = [], "ended"
        watch = _Watch(process)
        for line in process.stdout:
            watch.alive()
            lines.append(json.loads(line))
        process.wait()
        watch.stop()
        if watch.late:
            end = f"hung for {DEADLINE_S} s"
        elif process.returncode:
            end = f"died with {process.returncode}: {(folder / 'stderr').read_text(errors='replace')[-300:]}"
    return lines, end


class _Watch:
    """Kills a process that has been silent for too long."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        import threading

        self.late = False
        self._process, self._last, self._ended = process, time.monotonic(), threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def alive(self) -> None:
        self._last = time.monotonic()

    def stop(self) -> None:
        self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(0.5):
            if time.monotonic() - self._last > DEADLINE_S:
                self.late = True
                self._process.kill()
                return


def _work(folder: Path, listed: Path) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30))  # a bomb ends in MemoryError, not in the machine's end
    for number, (name, _path, text) in enumerate(json.loads(listed.read_text())):
        model = folder / "model"
        shutil.rmtree(model, ignore_errors=True)
        model.mkdir()
        for file in NANO.iterdir():
            if file.name != name:
                (model / file.name).symlink_to(file)
        (model / name).write_text(text, encoding="utf-8")
        start = time.perf_counter()
        what = _outcome(model)
        seconds = time.perf_counter() - start
        print(json.dumps({"case": number, "what": what, "seconds": seconds, "peak_mb": peak_bytes() / 2**20}), flush=True)


def _outcome(model: Path) -> str:
    import numpy as np
    from PIL import Image

    import smolvlm
    from smolvlm.errors import SmolVLMError
    from smolvlm.media import MediaOptions

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    try:
        loaded = smolvlm.load(model, engine="native")
        messages = loaded.messages(picture, "How many?")
        prompted = loaded.runtime.prompt(messages, MediaOptions(), 2)
        logits = prompted.logits
        prompted.sequence.close()
        loaded.ask(picture, "How many?", max_new_tokens=2)
    except SmolVLMError as error:
        text = str(error)
        return f"refused: {text}" if "\n" not in text and len(text) < 1200 else f"a message of {len(text)} characters"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    if not np.isfinite(logits).all():
        return "logits that are not finite"
    return "works"


if __name__ == "__main__":
    os.environ.setdefault("SMOLVLM_THREADS", "1")
    _work(Path(sys.argv[1]), Path(sys.argv[2]))
