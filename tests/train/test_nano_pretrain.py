"""The whole recipe in small: every stage learns, a killed run ends as an unbroken one, and others can read the result."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle  # noqa: F401  (before transformers)
import pytest
import torch
from safetensors.torch import load_file
from transformers import SmolVLMForConditionalGeneration as Reference

from smolvlm.config import load_configs
from smolvlm.errors import TrainingError
from smolvlm.evals.runner import evaluate
from smolvlm.evals.synth_suite import synth_suite
from smolvlm.nn.weights import load_model
from smolvlm.prompt.tokenizer import PromptTokenizer
from smolvlm.train.nano.connect import fit_connector
from smolvlm.train.nano.data import BatchStream, mixture
from smolvlm.train.nano.objective import Nano
from smolvlm.train.nano.pretrain import PretrainOptions, pretrain
from smolvlm.train.nano.recipe import RECIPES, StagePlan, recipe
from smolvlm.train.nano.rows import RowMaker

pytestmark = pytest.mark.slow  # whole training runs: the outer ring

TINY = replace(
    recipe("toy"), name="tiny", stages=(StagePlan("decoder", 30, 0.1), StagePlan("tower", 30, 0.1), StagePlan("both", 20, 0.1, 1e-3, 0.01))
)


def losses(stage: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (stage / "log.jsonl").read_text().splitlines()]


# Every run is a process of its own, as a user's is: what other tests set in this one (threads, say) changes no loss.
_SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_nano_pretrain import TINY
from smolvlm.train.nano.pretrain import PretrainOptions, pretrain
pretrain(PretrainOptions(TINY, Path(sys.argv[1]), precision="float32", workers=0, save_every=4, log_every=1, progress_bar=False),
         card="# A toy\\n")
"""


def start(out: Path) -> subprocess.Popen[bytes]:
    script = _SCRIPT.format(tests=str(Path(__file__).parent))
    return subprocess.Popen([sys.executable, "-c", script, str(out)], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, nano_tokenizer: Path) -> Path:
    out = tmp_path_factory.mktemp("nano") / "run"
    out.mkdir()
    shutil.copy(nano_tokenizer, out / "tokenizer.json")
    assert start(out).wait() == 0
    return out


def test_every_stage_learns(trained: Path) -> None:
    for plan in TINY.stages:
        found = losses(trained / plan.stage)
        assert len(found) == plan.steps
        assert np.mean(found[-5:]) < (0.8 if plan.stage != "both" else 1.0) * np.mean(found[:5]), plan.stage


def test_the_model_is_a_checkpoint_that_answers(trained: Path) -> None:
    import smolvlm

    model = smolvlm.load(trained / "model", dtype="float32")
    assert (trained / "model" / "README.md").read_text() == "# A toy\n"
    picture = np.zeros((60, 96, 3), np.uint8)
    answer = model.ask(picture, "What colour is the star?", max_new_tokens=4)
    assert answer.usage.encoded_tiles == 1  # nano does not split pictures
    assert answer.finish_reason in ("stop", "length", "repetition")
    weights = load_file(trained / "both" / "weights.safetensors")
    head = load_file(trained / "model" / "model.safetensors")["lm_head.weight"]
    torch.testing.assert_close(head, weights["model.lm_head.weight"].bfloat16(), rtol=0, atol=0)


def test_it_is_measured_as_every_model_is(trained: Path) -> None:
    """`smolvlm eval` on what the toy recipe made: the path from nothing to a score, every week of the project."""
    import smolvlm

    report = evaluate(smolvlm.load(trained / "model", dtype="float32"), synth_suite(), tasks=("colour", "event"), items=4, max_new_tokens=8)
    assert [(row.task, row.items) for row in report.rows] == [("colour", 4), ("event", 4)]


def test_transformers_reads_it_and_agrees(trained: Path) -> None:
    reference, info = Reference.from_pretrained(trained / "model", dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    config, _ = load_configs(trained / "model")
    ours = load_model(trained / "model", config)
    ids = torch.randint(3, 1400, (1, 40), generator=torch.Generator().manual_seed(0))
    ids[0, 5 : 5 + config.image_seq_len] = config.image_token_id
    pixels = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        theirs = reference(input_ids=ids, pixel_values=pixels[None]).logits
        torch.testing.assert_close(ours(ids, pixels), theirs, rtol=0, atol=1e-4)


def test_a_finished_run_is_left_as_it_is(trained: Path) -> None:
    before = (trained / "model" / "model.safetensors").stat().st_mtime_ns
    pretrain(PretrainOptions(TINY, trained, precision="float32", workers=0, progress_bar=False))
    assert (trained / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_a_run_makes_its_tokenizer(nano_tokenizer: Path, tmp_path: Path) -> None:
    """What the other runs here are given, a run in an empty folder makes itself."""
    process = start(tmp_path / "run")
    made = tmp_path / "run" / "tokenizer.json"
    deadline = time.monotonic() + 240
    while not made.is_file() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert made.read_bytes() == nano_tokenizer.read_bytes()


def test_a_folder_of_someone_elses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(TrainingError, match="is not empty and holds no pretraining of ours"):
        pretrain(PretrainOptions(TINY, tmp_path))
    with pytest.raises(TrainingError, match="there are toy, cpu, gpu"):
        recipe("nope")


@pytest.mark.slow  # as test_train_loop.py does in small
def test_kill_9_and_resume_gives_the_same_losses(trained: Path, tmp_path: Path) -> None:
    """In the middle of the second stage: the stages after it and their losses must come out as in the unbroken run."""
    out = tmp_path / "run"
    out.mkdir()
    shutil.copy(trained / "tokenizer.json", out)
    process = start(out)
    log = out / "tower" / "log.jsonl"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and (not log.is_file() or len(log.read_text().splitlines()) < 11):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(losses(out / "tower")) < 30
    assert start(out).wait() == 0
    for plan in TINY.stages:
        assert losses(out / plan.stage) == pytest.approx(losses(trained / plan.stage), abs=1e-6)


def test_the_connector_is_solved_for(trained: Path) -> None:
    """Against NumPy's least squares on the same rows; and moving off the solution makes the fit worse."""
    tokenizer = PromptTokenizer((trained / "tokenizer.json").read_text())
    config = replace(TINY.shape, image_token_id=tokenizer.id_of("<image>"))
    nano = Nano(config, tokenizer, 0)
    stream = BatchStream(RowMaker(config, tokenizer), TINY.world, "train", mixture("decoder", 0.2), range(4))
    batches = [stream[i] for i in range(4)]
    left = fit_connector(nano, batches)
    folded = torch.cat([nano.folded(b).flatten(0, 1) for b in batches]).double().detach().numpy()
    target = torch.cat([nano.oracle_embeds(b.labels).flatten(0, 1) for b in batches]).double().detach().numpy()
    there = torch.cat([(b.labels > 0).any(-1).flatten() for b in batches]).numpy()
    root = np.sqrt(np.where(there, 1.0, 0.1))[:, None]
    best, *_ = np.linalg.lstsq(root * folded, root * target, rcond=None)
    unexplained = ((root * (folded @ best - target)) ** 2).sum() / ((root * target) ** 2).sum()
    assert left == pytest.approx(unexplained, abs=0.02)  # the ridge keeps it a little above


def test_recipes_differ_by_figures_only() -> None:
    assert [plan.stage for plan in RECIPES["cpu"].stages] == [plan.stage for plan in RECIPES["gpu"].stages]
