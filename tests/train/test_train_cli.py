"""`smolvlm train sft`: the command trains, says what it did, shows the library's defaults, and names bad input."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from helpers_train import picture_mixture
from smolvlm.cli.train import train_app
from smolvlm.errors import MixtureError
from smolvlm.options.training import TrainOptions


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    parent = typer.Typer(rich_markup_mode=None)
    parent.add_typer(train_app, name="train")
    return parent


def test_a_run_by_command(app: typer.Typer, tiny_checkpoint: Path, tmp_path: Path) -> None:
    mixture = picture_mixture(tmp_path / "m", 2)
    args = [
        "train",
        "sft",
        "--model",
        str(tiny_checkpoint),
        "--mixture",
        str(mixture),
        "--out",
        str(tmp_path / "run"),
        "--steps",
        "1",
        "--batch-size",
        "1",
        "--seq-len",
        "200",
        "--detail",
        "low",
        "--lr-vision",
        "0",
        "--no-packing",
        "--workers",
        "0",
    ]
    result = CliRunner().invoke(app, args, catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path / 'run'}\n"
    assert "1 steps; loss" in result.stderr
    assert "records read" in result.stderr
    import json

    kept = json.loads((tmp_path / "run" / "run.json").read_text())["options"]
    assert (kept["packing"], kept["lr_vision"], kept["steps"], kept["lr_text"]) == (False, 0.0, 1, TrainOptions.lr_text)


def test_the_help_page_shows_the_options_own_defaults(app: typer.Typer) -> None:
    page = " ".join(CliRunner().invoke(app, ["train", "sft", "--help"]).stdout.split())
    for default in (TrainOptions.lr_vision, TrainOptions.lr_connector, TrainOptions.batch_size, TrainOptions.prompt_style):
        assert f"[default: {default}]" in page
    assert "torchrun" in page


def test_a_missing_mixture_is_one_sentence(app: typer.Typer, tiny_checkpoint: Path, tmp_path: Path) -> None:
    args = ["train", "sft", "--model", str(tiny_checkpoint), "--mixture", str(tmp_path / "no.yaml"), "--out", str(tmp_path / "o")]
    with pytest.raises(MixtureError, match="no such mixture file"):
        CliRunner().invoke(app, args, catch_exceptions=False)
    assert not (tmp_path / "o").exists()
