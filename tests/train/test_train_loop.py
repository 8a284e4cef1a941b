"""Runs as a user makes them: learning, saving, killed and resumed, refused, and read by others at the end."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import oracle  # noqa: F401  (before transformers)
import pytest
import torch
from transformers import AutoProcessor
from transformers import SmolVLMForConditionalGeneration as Reference

import smolvlm
from helpers_train import picture_mixture
from smolvlm.errors import TrainingError
from smolvlm.nn.weights import load_model
from smolvlm.options.training import TrainOptions
from smolvlm.processor import Processor
from smolvlm.train.sft import sft
from smolvlm.train.state import latest_state, load_tensors

SCRIPT = Path(__file__).with_name("run_sft.py")
SOURCE = Path(smolvlm.__file__).parents[1]


def wanted(checkpoint: Path, mixture: Path, out: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": str(checkpoint),
        "mixture": str(mixture),
        "out": str(out),
        "steps": 6,
        "batch_size": 2,
        "seq_len": 160,
        "detail": "low",
        "lr_text": 3e-3,
        "lr_connector": 3e-3,
        "lr_vision": 1e-3,
        "save_every": 2,
        "neftune_alpha": 5.0,
        "workers": 0,
        "progress_bar": False,
        **changes,
    }


def run(options: dict[str, Any], *args: object, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """In processes of their own, as `torchrun` starts them when there are two."""
    path = Path(options["out"]).with_suffix(".json")
    path.write_text(json.dumps(options))
    launch = (
        [sys.executable]
        if processes == 1
        else [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE)}
    return subprocess.run(
        [*launch, str(SCRIPT), str(path), *map(str, args)], capture_output=True, text=True, timeout=300, check=False, env=environment
    )


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_mixture(tmp_path_factory.mktemp("data") / "m")


@pytest.fixture(scope="module")
def unbroken(tiny_checkpoint: Path, mixture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed. Read-only."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    result = sft(TrainOptions(**wanted(tiny_checkpoint, mixture, out)))
    assert result.steps == 6
    return out


def test_a_run_leaves_its_files(unbroken: Path) -> None:
    names = {path.name for path in unbroken.iterdir()}
    assert {"run.json", "log.jsonl", "loss.png", "step-000004", "step-000006", "model.safetensors", "config.json"} <= names
    assert "step-000002" not in names  # keep=2
    assert not [name for name in names if name.startswith(".")]
    lines = log(unbroken)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert all(line["tokens_per_s"] > 0 and line["grad_norm"] > 0 for line in lines)
    assert (unbroken / "loss.png").read_bytes()[:4] == b"\x89PNG"
    from PIL import Image

    with Image.open(unbroken / "loss.png") as picture:
        assert len(set(picture.convert("L").resize((64, 32)).tobytes())) > 8  # something is drawn


def test_killed_and_resumed_gives_the_losses_of_the_unbroken_run(
    unbroken: Path, tiny_checkpoint: Path, mixture: Path, tmp_path: Path
) -> None:
    options = wanted(tiny_checkpoint, mixture, tmp_path / "killed")
    kill_at = random.SystemRandom().randint(3, 5)
    assert run(options, "--kill-at", kill_at).returncode == -9, kill_at
    assert not (tmp_path / "killed" / "config.json").exists()
    resumed = sft(TrainOptions(**options))
    assert resumed.steps == 6
    ours, theirs = log(tmp_path / "killed"), log(unbroken)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert abs(one["loss"] - other["loss"]) < 1e-6, (kill_at, one["step"])
    assert (tmp_path / "killed" / "model.safetensors").read_bytes() == (unbroken / "model.safetensors").read_bytes()


def test_a_finished_run_is_left_as_it_is(unbroken: Path, tiny_checkpoint: Path, mixture: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*")}
    sft(TrainOptions(**wanted(tiny_checkpoint, mixture, unbroken)))
    assert "finished already" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in unbroken.rglob("*")} == before


def test_the_output_is_an_official_checkpoint(unbroken: Path, tiny_checkpoint: Path) -> None:
    model, info = Reference.from_pretrained(unbroken, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    AutoProcessor.from_pretrained(unbroken)
    ours = load_model(unbroken, Processor.from_folder(unbroken).model)
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        assert (model.eval()(input_ids=ids).logits - ours(ids)).abs().max() < 1e-4
    assert not torch.equal(ours.lm_head.weight, load_model(tiny_checkpoint, ours.config).lm_head.weight)
    assert smolvlm.load(str(unbroken), device="cpu", dtype="float32").ask(None, "Which?", max_new_tokens=2).text is not None
    for name in ("tokenizer.json", "chat_template.json", "preprocessor_config.json"):
        assert (unbroken / name).read_text() == (tiny_checkpoint / name).read_text()


def test_folders_of_others_are_never_touched(unbroken: Path, tiny_checkpoint: Path, mixture: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("two years of work")
    with pytest.raises(TrainingError, match="holds no run of ours"):
        sft(TrainOptions(**wanted(tiny_checkpoint, mixture, tmp_path / "mine")))
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    with pytest.raises(TrainingError, match=r"other options \(lr_text was 0\.003 and is 0\.5\)"):
        sft(TrainOptions(**wanted(tiny_checkpoint, mixture, unbroken, lr_text=0.5)))
    (tmp_path / "file").write_text("x")
    with pytest.raises(TrainingError, match="is a file"):
        sft(TrainOptions(**wanted(tiny_checkpoint, mixture, tmp_path / "file")))


def test_a_damaged_save_is_passed_over(unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken, tmp_path / "run")
    newest = tmp_path / "run" / "step-000006" / "trainer.safetensors"
    newest.write_bytes(newest.read_bytes()[:-10])
    found = latest_state(tmp_path / "run")
    assert found is not None
    assert found.state.step == 4


@pytest.mark.slow
def test_a_full_disk_during_a_save_leaves_the_last_good_one(tiny_checkpoint: Path, mixture: Path, tmp_path: Path) -> None:
    options = wanted(tiny_checkpoint, mixture, tmp_path / "full")
    ended = run(options, "--limit-at", 3, 1_000_000)
    assert ended.returncode == 2, ended.stderr
    message = [line for line in ended.stderr.splitlines() if line.startswith("TrainingError: ")][-1]
    assert "step 4 could not be saved" in message
    assert "step-000002 is the last complete save" in message
    saved = latest_state(tmp_path / "full")
    assert saved is not None
    assert saved.state.step == 2
    load_tensors(saved)
    assert not list((tmp_path / "full").glob(".*"))


@pytest.mark.slow  # that a run learns: test_an_adapter_that_learned_its_lesson
def test_the_loss_on_one_repeated_batch_falls_under_a_tenth(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Two pictures and their answers, known by heart; the answers differ, so the pictures must be looked at."""
    repeated = picture_mixture(tmp_path / "m", 2)
    options = wanted(
        tiny_checkpoint,
        repeated,
        tmp_path / "run",
        steps=40,
        lr_text=1e-2,
        lr_connector=1e-2,
        neftune_alpha=0.0,
        save_every=1000,
        schedule="constant",
        batch_size=1,
        packing=True,
        seq_len=300,
    )
    result = sft(TrainOptions(**options))
    assert result.losses[0][1] > 5
    assert result.losses[-1][1] < 0.1, result.losses[-5:]


def test_accumulated_batches_weigh_by_their_tokens(tiny_checkpoint: Path, mixture: Path, tmp_path: Path) -> None:
    """Two batches of two rows in one step leave the first moments of one batch of four."""
    for name, rows, batches in (("one", 4, 1), ("two", 2, 2)):
        sft(
            TrainOptions(
                **wanted(
                    tiny_checkpoint,
                    mixture,
                    tmp_path / name,
                    steps=1,
                    batch_size=rows,
                    packing=False,
                    gradient_accumulation=batches,
                    neftune_alpha=0.0,
                    max_grad_norm=0.0,
                )
            )
        )
    same_gradients(tmp_path / "one", tmp_path / "two")


def same_gradients(one: Path, other: Path) -> None:
    """After one step AdamW's first moments are a tenth of the gradients."""
    first, second = latest_state(one), latest_state(other)
    assert first is not None
    assert second is not None
    ours, theirs = load_tensors(first), load_tensors(second)
    assert ours.keys() == theirs.keys()
    moments = [name for name in ours if name.startswith("exp_avg.")]
    assert len(moments) > 20
    for name in moments:
        # float32 sums of a few hundred terms in another order; 1e-10 is the noise of gradients that are 0 (a key's bias).
        assert (ours[name] - theirs[name]).norm() < 1e-5 * ours[name].norm() + 1e-10, name
    assert abs(log(one)[0]["loss"] - log(other)[0]["loss"]) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [False, True], ids=["ddp", "fsdp"])
def test_two_processes_have_the_gradients_of_one(tiny_checkpoint: Path, mixture: Path, tmp_path: Path, fsdp: bool) -> None:
    """The rows of one process have no picture (DDP) or both have some (FSDP): all take part in every exchange."""
    same = {"steps": 1, "packing": False, "neftune_alpha": 0.0, "max_grad_norm": 0.0}
    sft(TrainOptions(**wanted(tiny_checkpoint, mixture, tmp_path / "one", batch_size=8 if fsdp else 4, **same)))
    options = wanted(tiny_checkpoint, mixture, tmp_path / "two", batch_size=4 if fsdp else 2, fsdp=fsdp, **same)
    ended = run(options, processes=2)
    assert ended.returncode == 0, ended.stderr[:6000]
    same_gradients(tmp_path / "one", tmp_path / "two")
    load_model(tmp_path / "two", Processor.from_folder(tmp_path / "two").model)  # rank 0 wrote it whole
