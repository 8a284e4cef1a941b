"""What people made with an earlier version still works, or one sentence names the command that renews it.

The files are in tests/fixtures, made by the code of the commit that their folder is named after; its README.md says how.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import smolvlm
from smolvlm.cli.main import main
from smolvlm.serve.config import ServeConfig

MADE = Path(__file__).parent / "fixtures" / "made_by_5192726"
FINETUNE = (
    "finetune ./checkpoint examples.jsonl --out run --rank 2 --alpha 4 --steps 4 --save-every 2 --no-measure --batch-size 2 --lr-text 0.05"
)
BATCH = ["batch", "pictures", "-q", "What is this?", "-m", "./checkpoint", "--max-new-tokens", "6", "--part-inputs", "1"]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, in which commands run as they did."""
    folder = tmp_path / "made"
    shutil.copytree(MADE, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "folder", "options"),
    [
        ("checkpoint", "checkpoint", {"dtype": "bfloat16"}),
        ("q8", "q8", {}),
        ("q4", "q4", {}),
        ("adapter", "checkpoint", {"dtype": "bfloat16", "adapter": MADE / "adapter"}),
    ],
)
def test_weights_give_the_logits_that_they_gave(name: str, folder: str, options: dict[str, Any]) -> None:
    engine = smolvlm.load(MADE / folder, engine="native", **options).engine
    pixels = np.linspace(-1, 1, 3 * 64 * 64, dtype=np.float32).reshape(1, 3, 64, 64)
    seq = engine.open(16)
    logits = engine.prefill(seq, [1, 1472, 1472, 1472, 1472, 50, 60, 70], [engine.encode_images(pixels)])
    before = np.load(MADE / "logits.npz")
    # Processors differ in the order of sums; the unquantized checkpoint is 0.008 away from q8, 0.08 from q4, 0.88 from the adapter.
    assert np.abs(np.asarray(logits).reshape(-1) - before[name]).max() < 2e-3


def test_a_stopped_finetuning_goes_on(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = (made / "run" / "log.jsonl").read_text()
    assert main(FINETUNE.split()) == 0, capsys.readouterr().err
    log = (made / "run" / "log.jsonl").read_text()
    assert log.startswith(first)
    # The last is what the earlier version came to where nobody stopped it.
    assert [json.loads(line)["loss"] for line in log.splitlines()] == pytest.approx([7.46859, 7.31222, 6.96808, 6.79521], rel=1e-4)
    assert (made / "run" / "adapter" / "adapter_model.safetensors").exists()


def test_a_stopped_batch_names_what_to_do_and_doing_it_works(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its parts lack a column that the output has now."""
    parts = made / "captions.parquet.parts"
    assert main([*BATCH, "--out", "captions.parquet"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("smolvlm: error: ")
    assert f"another version of smolvlm; run the same command with another --out, or delete {parts} and run it again" in said
    shutil.rmtree(parts)
    assert main([*BATCH, "--out", "captions.parquet"]) == 0
    from pyarrow import parquet

    assert parquet.read_table("captions.parquet")["source"].to_pylist() == [str(made / "pictures" / f"{n}.png") for n in ("scene", "sign")]


def test_a_servers_configuration_is_read(made: Path) -> None:
    config = ServeConfig.gather({}, "serve.toml", {})
    assert (config.model, config.served_name, config.port, config.kv_tokens) == ("./q8", "house", 0, 8192)
    assert (config.key_rate, config.remote_hosts, config.head_timeout_s) == (30.0, ("upload.wikimedia.org",), 5.0)


def test_a_configuration_with_workers_is_told_what_runs_several_processes(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--config", "serve-workers.toml"]) == 2
    assert "serve run smolvlm.scale.ray_serve:app" in capsys.readouterr().err.splitlines()[-1]
