"""`examples/finetune_parts.py` as it is: on random weights that it runs to its end, on `nano` that it teaches."""

from __future__ import annotations

import importlib.util
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smolvlm.cli.main import main
from smolvlm.errors import TrainingError

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "finetune_parts.py"


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("finetune_parts", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:  # a dataclass looks its module up by name
        patch.setitem(sys.modules, "finetune_parts", module)
        spec.loader.exec_module(module)
        yield module


def test_the_pictures_are_halves_that_no_split_shares(example: Any, tmp_path: Path) -> None:
    seen = set()
    for split in ("train", "test"):
        example.draw_set(tmp_path / split, split, 6)
        for name in example.CLASSES:
            files = sorted((tmp_path / split / name).iterdir())
            assert len(files) == 3
            seen |= {np.asarray(Image.open(file)).tobytes() for file in files}
    assert len(seen) == 12
    example.draw_set(tmp_path / "ways", "train", 6, example.WAYS)
    ways = {np.asarray(Image.open(file)).tobytes() for file in (tmp_path / "ways").glob("*/*.png")}
    assert len(ways) == 6 * 8  # no two ways to lie are one
    assert len(ways & seen) == 6  # and the first of each is the picture as it was drawn
    for name in example.CLASSES:
        assert len(list((tmp_path / "ways" / name).iterdir())) == 3 * 8
    with pytest.raises(TrainingError, match="holds 2 other pictures"):
        example.draw_set(tmp_path / "test", "test", 4)


@pytest.mark.slow
def test_the_script_runs_to_its_end(example: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    said: list[str] = []
    outcome = example.teach(str(tiny_checkpoint), tmp_path / "out", pictures=4, held_out=4, epochs=1, say=said.append)
    assert "the answer is one of 2: A, B" in said
    assert "32 to train on, 4 to measure with (brought by the data, never trained on)" in said
    result = outcome.result
    assert (result.before.total, result.before.commonest, result.after.total) == (4, 2, 4)
    assert (result.result / "adapter_model.safetensors").is_file()
    with Image.open(outcome.picture) as page:
        assert page.width == 10 + 4 * 202
    table = example.figures(outcome).splitlines()
    assert table[2].startswith(f"| before | {result.before.right} of 4 | ")
    assert table[3].startswith("| after | ")
    assert table[-1].startswith("2 steps; ")


@pytest.mark.parametrize("page", ["finetune-parts.md", "finetune-parts.zh-CN.md"])
def test_the_page_shows_what_the_script_does(example: Any, page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line on the page has the script's own numbers, and every shown option is one of its command."""
    text = (SCRIPT.parents[1] / "docs" / page).read_text(encoding="utf-8")
    lines = [shlex.split(line) for line in text.splitlines() if line.strip().startswith("smolvlm ")]
    assert [line[1] for line in lines] == ["finetune", "choose", "merge", "finetune"]
    for line in lines:
        assert main([line[1], "--help"]) == 0
        shown = capsys.readouterr().out
        assert all(word in shown for word in line if word.startswith("--")), line
    given = dict(zip(lines[0], lines[0][1:], strict=False))
    assert {float(given[f"--lr-{part}"]) for part in ("vision", "connector", "text")} == {example.RATE}
    assert (int(given["--epochs"]), given["--question"]) == (example.EPOCHS, example.QUESTION)
    assert ("--adapt-vision" in given) == example.RECIPE["adapt_vision"]
    assert [given[f"--{name}"] for name in ("method", "batch-size", "detail", "precision")] == [
        str(example.RECIPE[name]) for name in ("method", "batch_size", "detail", "precision")
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nano_learns_to_see_cracks(example: Any, tmp_path: Path) -> None:
    """The issue's figures: from chance to at least 95 % on held-out parts, in under ten minutes on a CPU."""
    begin = time.perf_counter()
    outcome = example.teach("nano", tmp_path / "out")
    minutes = (time.perf_counter() - begin) / 60
    print(f"\n{example.figures(outcome)}")
    before, after = outcome.result.before, outcome.result.after
    assert (before.total, after.total, after.commonest) == (200, 200, 100)
    assert before.share < 0.6  # chance
    assert after.share >= 0.95
    assert minutes < 10
