"""Messages of the library about Python arguments, as the command line shows them; and the causes that errors name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from helpers_cli import ROCKET, ROOT
from smolvlm.cli.main import app
from smolvlm.cli.wording import as_flags, flags_of

COMMAND = [sys.executable, "-m", "smolvlm"]


def flags(command: str):
    return flags_of(typer.main.get_command(app).commands[command].params)


@pytest.mark.parametrize(
    ("command", "message", "shown"),
    [
        ("ask", "end=5.0 is before start=9.0; pass an end after the start.", "--end 5 is before --start 9; pass an end after the start."),
        ("ask", "start=3720 is past its end.", "--start 3720 is past its end."),
        ("ask", "detail='best': expected one of fit, low.", "--detail best: expected one of fit, low."),
        (
            "ask",
            'sample fewer frames (max_frames=...), or (detail="fit" or detail="low")',
            "sample fewer frames (--max-frames N), or (--detail fit or --detail low)",
        ),
        (
            "ask",
            "the native engine runs on the CPU; use engine='torch' for a GPU.",
            "the native engine runs on the CPU; use --engine torch for a GPU.",
        ),
        ("ask", "shorten it or ask for fewer `max_new_tokens`", "shorten it or ask for fewer --max-new-tokens"),
        ("ask", "loop_guard=False lets it go on", "--no-loop-guard lets it go on"),
        ("ask", "stop=' x': bad", "--stop ' x': bad"),
        ("ask", "https://a.org/b?start=5&end=9: no such page", "https://a.org/b?start=5&end=9: no such page"),
        ("ask", "config.json: hidden_act='x' is not supported", "config.json: hidden_act='x' is not supported"),
        ("ask", "start=5.jpg: no such file", "start=5.jpg: no such file"),
        ("quantize", "out exists; pass overwrite=True.", "out exists; pass --overwrite."),
        ("quantize", "dtype='vision=f32': 'vision=f32' is not understood", "--dtype vision=f32: 'vision=f32' is not understood"),
        ("batch", "part_inputs=0: expected a whole number", "--part-inputs 0: expected a whole number"),
        ("ask", "overwrite=True is no flag of this command", "overwrite=True is no flag of this command"),
    ],
)
def test_arguments_become_flags(command: str, message: str, shown: str) -> None:
    assert as_flags(message, flags(command), ["start=5.jpg"]) == shown


@pytest.fixture
def refused(tmp_path: Path):
    """One real command that must end in one sentence and code 2, without HF_HUB_OFFLINE and with a Hub that nobody serves."""
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    environment |= {"PYTHONPATH": str(ROOT / "src"), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")}

    def call(*args: object) -> str:
        done = subprocess.run(
            [*COMMAND, *map(str, args)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert done.stderr.startswith("smolvlm: error: ")
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    return call


def test_a_dtype_is_explained_for_both_engines(refused) -> None:
    line = refused("ask", ROCKET, "Hi", "--dtype", "int4", "--model", "nano")
    assert "--dtype int4 is unknown" in line
    assert all(word in line for word in ("q8", "q4", "native", "float32", "torch"))


def test_a_model_that_is_not_here_blames_no_variable(refused) -> None:
    line = refused("info", "256m")
    assert "OFFLINE" not in line
    assert "run `smolvlm download" in line


def test_a_download_without_network_says_the_cause(refused) -> None:
    line = refused("download", "256m")
    assert "refused" in line
    assert "smolvlm download" not in line


def test_flags_in_errors_of_real_commands(refused, tmp_path: Path) -> None:
    assert "--end 5 is before --start 9" in refused("ask", ROCKET, "Hi", "--start", "9", "--end", "0:05")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("{}")
    line = refused("quantize", "nano", "out")
    assert "--overwrite" in line
    assert "overwrite=True" not in line


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.JSON", "x.tsv"])
def test_a_batch_is_not_written_under_another_formats_name(refused, tmp_path: Path, name: str) -> None:
    line = refused("batch", ROCKET, "--describe", "--out", name)
    assert "Parquet" in line
    assert "x.parquet" in line
    assert not (tmp_path / name).exists()
