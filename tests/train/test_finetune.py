"""`finetune` from a folder of pictures to an adapter and to a checkpoint, with what it says, measures and writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

import smolvlm
from smolvlm.checkpoint.adapter import Adapter
from smolvlm.errors import MixtureError, TrainingError
from smolvlm.train.accuracy import Accuracy, closed_options, measure
from smolvlm.train.finetune import FinetuneOptions, finetune, plan, split
from smolvlm.train.finetune_data import Understood
from smolvlm.train.record import Record
from smolvlm.train.tuning import TuneOptions

CLASSES = {"red": (220, 40, 30), "blue": (30, 60, 220)}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of 64 x 64 in two classes; no two are the same file."""
    root = tmp_path_factory.mktemp("parts")
    for name, colour in CLASSES.items():
        (root / name).mkdir()
        for i in range(6):
            picture = Image.new("RGB", (64, 64), colour)
            ImageDraw.Draw(picture).rectangle((i * 4, 10, i * 4 + 8, 20), fill=(i * 30, 200, 90))
            picture.save(root / name / f"{i}.png")
    return root


def options(method: str, model: Path, data: Path, out: Path, **more: Any) -> FinetuneOptions:
    given = {"detail": "low", "batch_size": 4, "workers": 0, "progress_bar": False, "validation_share": 0.34, "seq_len": 512}
    return FinetuneOptions.for_method(method, model=str(model), mixture=data, out=out, **(given | more))


@pytest.mark.slow
def test_an_adapter_that_learned_its_lesson(tiny_checkpoint: Path, parts: Path, tmp_path: Path) -> None:
    """Two questions about pictures, each with its answer. Random weights never say either; the adapter must."""
    lesson = (("What is it called?", "Bolt 7"), ("Is it broken?", "no"))
    for part, pictures in (("train", (0, 1)), ("validation", (2,))):
        (tmp_path / "data" / part).mkdir(parents=True)
        rows = [{"file_name": f"{i}.png", "question": q, "answer": a} for i in pictures for q, a in lesson]
        (tmp_path / "data" / part / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for i in pictures:
            shutil.copy(parts / "red" / f"{i}.png", tmp_path / "data" / part)
    said: list[str] = []
    # With AVX2, 28 steps at 1e-2 learn one of two answers; 60 at 3e-3 and 100 at 3e-3 (three seeds) learn both.
    more = {"steps": 60, "schedule": "constant", "lr_text": 3e-3, "lr_connector": 3e-3}
    asked = options("lora", tiny_checkpoint, tmp_path / "data", tmp_path / "run", **more)
    result = finetune(asked, on_note=said.append)
    assert said[:3] == [
        "understood train/ and validation/: metadata.jsonl: one example a line",
        "6 examples: 6 image",
        "4 to train on, 2 to measure with (brought by the data, never trained on)",
    ]
    assert said[3] == "before: 0 of 2 right (0.0%; always the commonest answer: 50.0%)"
    assert said[-1] == "after: 2 of 2 right (100.0%; always the commonest answer: 50.0%)"
    assert result.before is not None
    assert [item[:2] for item in result.before.wrong] == list(lesson)
    report = json.loads((tmp_path / "run" / "finetune.json").read_text())
    assert report["after"] == {"right": 2, "total": 2, "commonest": 1, "wrong": []}
    assert report["before"]["right"] == 0
    assert result.result == tmp_path / "run" / "adapter"
    assert Adapter(result.result).base_name == str(tiny_checkpoint)
    model = smolvlm.load(tiny_checkpoint, adapter=result.result)
    for name in "210":  # the last two it trained on; what it says of pictures of another color, nobody taught it
        answers = [model.ask(parts / "red" / f"{name}.png", question, detail="low", max_new_tokens=8).text for question, _ in lesson]
        assert answers == [answer for _, answer in lesson]
    # the same command again: nothing is trained, and what stands there is left alone
    before = (result.result / "adapter_model.safetensors").stat().st_mtime_ns
    again = finetune(asked, on_note=said.append)
    assert again.train.steps == 0
    assert again.after == result.after
    assert (result.result / "adapter_model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(TrainingError, match=r"holds a run of other options \(rank was 16 and is 4"):
        finetune(options("lora", tiny_checkpoint, tmp_path / "data", tmp_path / "run", rank=4, **more))


def test_a_folder_a_class_is_measured_by_choosing(tiny_checkpoint: Path, parts: Path, tmp_path: Path) -> None:
    said: list[str] = []
    result = finetune(options("lora", tiny_checkpoint, parts, tmp_path / "run", steps=1), on_note=said.append)
    assert said[:4] == [
        "understood a folder a class (blue 6, red 6); asked: 'Which of these does it show: blue, red?'",
        "12 examples: 12 image",
        "8 to train on, 4 to measure with (set apart, never trained on)",
        "the answer is one of 2: blue, red",
    ]
    assert result.before is not None
    # random weights hardly see: they choose one answer for all, which is half right
    assert (result.before.right, result.before.total, result.before.commonest) == (2, 4, 2)
    assert {item[2] for item in result.before.wrong} <= {"blue", "red"}


@pytest.mark.slow
def test_whole_weights_and_changed_data(tiny_checkpoint: Path, parts: Path, tmp_path: Path) -> None:
    data = tmp_path / "parts"
    shutil.copytree(parts, data)
    asked = options("full", tiny_checkpoint, data, tmp_path / "run", steps=2, measure=False)
    result = finetune(asked)
    assert (result.before, result.after, result.result) == (None, None, tmp_path / "run")
    trained = smolvlm.load(result.result, dtype="float32")
    base = smolvlm.load(tiny_checkpoint, dtype="float32")
    options_ = ["blue", "red"]
    assert trained.choose(None, "?", options_).logprobs != base.choose(None, "?", options_).logprobs
    (data / "red" / "5.png").unlink()
    with pytest.raises(TrainingError, match="data_fingerprint was"):
        finetune(asked)


@pytest.mark.parametrize("method", ["dora", "qlora"])
@pytest.mark.slow
def test_the_other_adapters_run_to_the_end(tiny_checkpoint: Path, parts: Path, tmp_path: Path, method: str) -> None:
    if method == "qlora":
        pytest.importorskip("bitsandbytes")
    asked = options(method, tiny_checkpoint, parts, tmp_path / "run", steps=2, measure=False, gradient_checkpointing=True)
    result = finetune(asked)
    adapter = Adapter(result.result)
    assert (next(iter(adapter.changes.values())).magnitude is not None) == (method == "dora")
    assert any(change.b.any() for change in adapter.changes.values()), "B starts at zero: something must have moved"


def records(*answers: str) -> list[dict[str, Any]]:
    return [
        {"image": f"/p/{i}.png", "conversations": [{"from": "human", "value": "<image>\nQ?"}, {"from": "gpt", "value": a}]}
        for i, a in enumerate(answers)
    ]


def test_the_split_is_fair_and_keeps_a_picture_on_one_side() -> None:
    raws = records(*["good"] * 40, *["bad"] * 10)
    raws += [{**raws[3], "conversations": [{"from": "human", "value": "<image>\nOther?"}, {"from": "gpt", "value": "good"}]}]
    training, validation = split(Understood(raws, None, ""), 0.2, seed=0)
    assert len(training) + len(validation) == 51
    assert {r["image"] for r in training} & {r["image"] for r in validation} == set()
    answers = [r["conversations"][-1]["value"] for r in validation]
    assert answers.count("bad") == 2
    assert answers.count("good") in (8, 9)
    assert split(Understood(raws, None, ""), 0.2, seed=0) == (training, validation)
    assert split(Understood(raws, None, ""), 0.2, seed=1) != (training, validation)
    assert split(Understood(raws[:4], None, ""), 0.2, seed=0) == (raws[:4], [])
    assert split(Understood(raws, raws[:2], ""), 0.2, seed=0) == (raws, raws[:2])


def test_free_answers_are_compared_as_a_reader_would(tiny_checkpoint: Path) -> None:
    """The tiny model's own greedy answer is what is expected: right, whatever its case and final full stop."""
    model = smolvlm.load(tiny_checkpoint, dtype="float32")
    answer = model.ask(None, "Say something.", max_new_tokens=6).text.strip()
    tokens = len(model.processor.tokenizer.encode_text(answer))
    assert tokens > 1

    def record(expected: str) -> Record:
        turns = [{"from": "human", "value": "Say something."}, {"from": "gpt", "value": expected}]
        return Record({"conversations": turns}, "", Path(), "text")

    longer = model.ask(None, "Say something.", max_new_tokens=tokens + 8).text.strip()
    found = measure(model, [record(longer.upper() + "."), record("no such words")])
    assert found.total == 2
    assert found.commonest == 1
    assert [item[:2] for item in found.wrong][-1] == ("Say something.", "no such words")
    assert closed_options([record("a"), record("b"), record("a"), record("b")]) == ("a", "b")
    assert closed_options([record("a"), record("b"), record("a")]) == ()
    assert Accuracy.from_dict(found.to_dict()) == found


def test_bad_data_end_in_one_sentence(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MixtureError, match="not understood"):
        plan(options("lora", tiny_checkpoint, tmp_path / "empty", tmp_path / "run"))
    for field, value in (("method", "ia3"), ("validation_share", 0.9), ("rank", 0)):
        with pytest.raises(TrainingError, match=field):
            FinetuneOptions(model="m", mixture=tmp_path, out=tmp_path, **{field: value})
    assert not (tmp_path / "run").exists()


def test_rates_follow_the_method(tmp_path: Path) -> None:
    given = {"model": "m", "mixture": tmp_path, "out": tmp_path}
    assert TuneOptions.for_method("full", **given).lr_text == 2e-5
    assert TuneOptions.for_method("lora", **given).lr_text == 2e-4
    assert TuneOptions.for_method("lora", **given, lr_text=1e-3, lr_vision=None).lr_text == 1e-3
