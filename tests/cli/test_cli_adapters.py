"""`--adapter`, `smolvlm merge`, `smolvlm finetune`, `smolvlm train dpo` and `distill` as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smolvlm.checkpoint.random import write_random_checkpoint
from smolvlm.config import load_configs
from smolvlm.nn.weights import load_model
from smolvlm.train.adapters import AdapterOptions, adapter_parameters, add_adapter, save_adapter

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def adapter(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    net = load_model(tiny_checkpoint, load_configs(tiny_checkpoint)[0])
    add_adapter(net, AdapterOptions(rank=2))
    for parameter in adapter_parameters(net).values():
        parameter.data.add_(0.02)
    return save_adapter(net, tmp_path_factory.mktemp("adapter") / "mine", tiny_checkpoint)


def test_an_adapter_changes_the_answer_and_is_named(run: Run, model: tuple[str, ...], adapter: Path) -> None:
    asked = ("choose", "Is it?", "--option", "yes", "--option", "no", "--json")
    plain, adapted = run(*asked, *model), run(*asked, *model, "--adapter", adapter)
    assert (plain.code, adapted.code) == (0, 0)
    assert plain.json["logprobs"] != adapted.json["logprobs"]
    assert f"{model[1]} + {adapter} answers" in adapted.err
    # without --model it is the one that the adapter was trained on
    assert run(*asked, "--adapter", adapter, *model[2:]).json["logprobs"] == adapted.json["logprobs"]


def test_a_wrong_adapter_is_one_sentence(run: Run, adapter: Path, tmp_path: Path) -> None:
    other = write_random_checkpoint(tmp_path / "other", "tiny", seed=1)
    refused = run("ask", "Hello?", "--model", other, "--adapter", adapter)
    assert refused.code == 2
    assert refused.out == ""
    assert "belongs to other weights" in refused.err
    missing = run("ask", "Hello?", "--adapter", tmp_path / "nothing")
    assert missing.code == 2
    assert "no such file; an adapter's folder holds" in missing.err


def test_merge_writes_a_model_that_answers_the_same(run: Run, model: tuple[str, ...], adapter: Path, tmp_path: Path) -> None:
    merged = run("merge", model[1], adapter, tmp_path / "merged")
    assert (merged.code, merged.out) == (0, f"{tmp_path / 'merged'}\n")
    asked = ("choose", "Is it?", "--option", "yes", "--option", "no", "--json")
    whole = run(*asked, "--model", tmp_path / "merged", *model[2:])
    assert whole.json["logprobs"] == run(*asked, *model, "--adapter", adapter).json["logprobs"]
    again = run("merge", model[1], adapter, tmp_path / "merged")
    assert again.code == 2
    assert "not empty" in again.err
    assert run("merge", model[1], adapter, tmp_path / "merged", "--overwrite").code == 0


def test_finetune_says_what_it_does(run: Run, model: tuple[str, ...], tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    rows = [{"image": "a.png", "question": f"{i}?", "answer": str(i)} for i in range(4)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run("finetune", model[1], tmp_path / "data.jsonl", "-o", tmp_path / "run", "--steps", 1, "--detail", "low")
    assert done.code == 0
    assert done.out == f"{tmp_path / 'run' / 'adapter'}\n"
    assert "understood data.jsonl: one example a record" in done.err
    assert f"--model {model[1]} --adapter {tmp_path / 'run' / 'adapter'}" in done.err
    refused = run("finetune", model[1], tmp_path / "gone", "-o", tmp_path / "run2")
    assert refused.code == 2
    assert "no such file or folder" in refused.err


@pytest.mark.parametrize("stage", ["dpo", "distill"])
@pytest.mark.slow
def test_the_other_stages_run(run: Run, model: tuple[str, ...], tmp_path: Path, stage: str) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    (tmp_path / "data.jsonl").write_text(json.dumps({"conversations": turns}) + "\n")
    (tmp_path / "mix.yaml").write_text("datasets: [{name: d, json_path: data.jsonl, modality: text}]\n")
    data: tuple[Any, ...] = ("--pairs", tmp_path / "pairs.jsonl")
    if stage == "distill":
        data = ("--mixture", tmp_path / "mix.yaml", "--teacher", model[1], "--method", "lora", "--batch-size", 1, "--no-packing")
    done = run("train", stage, "--model", model[1], *data, "-o", tmp_path / "run", "--steps", 1, "--workers", 0)
    assert done.code == 0, done.err
    assert done.out == f"{tmp_path / 'run' / 'adapter'}\n"
    if stage == "dpo":
        assert "reward margin 0.000" in done.err


@pytest.mark.parametrize("command", [("finetune",), ("merge",), ("train", "dpo"), ("train", "distill")])
def test_help_pages_teach(run: Run, command: tuple[str, ...]) -> None:
    page = run(*command, "--help")
    assert page.code == 0
    assert "Examples:" in page.out
    assert f"smolvlm {' '.join(command)} " in page.out
