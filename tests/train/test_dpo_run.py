"""A preference run from a JSONL of pairs to an adapter: forms of a pair, masks, a resumed run, and bad pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import smolvlm
from smolvlm.errors import MixtureError, TrainingError
from smolvlm.processor import Processor
from smolvlm.train.batching import IGNORE
from smolvlm.train.conversation import Skipped
from smolvlm.train.dpo import DPOOptions, dpo
from smolvlm.train.preferences import EncodedPair, PairBatches, PairEncoder, pair_mixture, read_preferences
from smolvlm.train.tuning import result_folder


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


PAIRS: list[dict[str, Any]] = [
    {"image": "a.png", "prompt": "What is it?", "chosen": "A red square.", "rejected": "A dog on a beach."},
    {"question": "1+1?", "chosen": "2", "rejected": "3"},
    {
        "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}, {"from": "human", "value": "Bye?"}],
        "chosen": {"from": "gpt", "value": "Bye."},
        "rejected": {"from": "gpt", "value": "No."},
    },
    {
        "chosen": [{"role": "user", "content": "Up?"}, {"role": "assistant", "content": "Down."}],
        "rejected": [{"role": "user", "content": "Up?"}, {"role": "assistant", "content": "Left."}],
    },
]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "a.png")
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    return path


def test_every_form_becomes_the_pair_it_says(tiny_checkpoint: Path, pairs: Path) -> None:
    """Only the last answer and its stop token are learned, on either side; read back by the tokenizer."""
    processor = Processor.from_folder(tiny_checkpoint)
    encoder = PairEncoder(processor, 2000)
    stop = "<end_of_utterance>"
    wanted = [("A red square.", "A dog on a beach."), ("2", "3"), ("Bye.", "No."), ("Down.", "Left.")]
    for record, answers in zip(read_preferences(pairs), wanted, strict=True):
        pair = encoder(record)
        assert isinstance(pair, EncodedPair)
        assert pair.rejected is not None
        source = PairBatches(pair_mixture(pairs, seed=0), encoder, batch_size=1, packing=False)
        for example, answer in zip((pair.example, pair.rejected), answers, strict=True):
            from smolvlm.train.dpo_objective import last_answer_only

            learned = [i for i in last_answer_only(example).labels.tolist() if i != IGNORE]
            assert processor.tokenizer.decode(learned, skip_special_tokens=False) == f" {answer}{stop}"
        assert len(source.mixture) == 4
    first = encoder(read_preferences(pairs)[0])
    assert isinstance(first, EncodedPair)
    assert first.rejected is not None
    assert len(first.example.tiles) == len(first.rejected.tiles) > 0
    assert isinstance(PairEncoder(processor, 20)(read_preferences(pairs)[0]), Skipped)


@pytest.mark.slow
def test_a_run_prefers_the_chosen_and_goes_on_after_a_stop(tiny_checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    def options(out: str, **more: Any) -> DPOOptions:
        return DPOOptions.for_method(
            "lora",
            model=str(tiny_checkpoint),
            mixture=pairs,
            out=tmp_path / out,
            detail="low",
            batch_size=2,
            workers=0,
            lr_text=5e-3,
            lr_connector=5e-3,
            schedule="constant",
            beta=0.5,
            progress_bar=False,
            save_every=6,
            **more,
        )

    whole = options("whole", steps=12)
    result = dpo(whole)
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert log[0]["loss"] == pytest.approx(0.693147, abs=1e-4)  # log 2: at first policy and reference are one
    assert log[-1]["loss"] < 0.5
    assert log[-1]["rewards/accuracy"] == 1.0
    assert log[-1]["rewards/margin"] > 0.5
    assert result.metrics["rewards/margin"] == pytest.approx(log[-1]["rewards/margin"])

    class Stop(Exception):
        pass

    def stop(record: Any) -> None:
        if record.step == 9:
            raise Stop

    with pytest.raises(Stop):
        dpo(options("broken", steps=12), on_step=stop)
    dpo(options("broken", steps=12))
    again = [json.loads(line)["loss"] for line in (tmp_path / "broken" / "log.jsonl").read_text().splitlines()]
    assert again == pytest.approx([line["loss"] for line in log], abs=1e-6)
    base = smolvlm.load(tiny_checkpoint, dtype="float32")
    tuned = smolvlm.load(tiny_checkpoint, adapter=result_folder(whole), dtype="float32")
    gaps = [s["2"] - s["3"] for s in (m.choose(None, "1+1?", ["2", "3"]).logprobs for m in (base, tuned))]
    assert gaps[1] > gaps[0] + 0.3


@pytest.mark.slow
def test_whole_weights_have_a_frozen_copy_as_reference(tiny_checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    options = DPOOptions.for_method(
        "full",
        model=str(tiny_checkpoint),
        mixture=pairs,
        out=tmp_path / "run",
        detail="low",
        batch_size=4,
        steps=2,
        lr_text=1e-3,
        warmup_ratio=0.0,
        workers=0,
        progress_bar=False,
    )
    losses = dpo(options).losses
    assert losses[0][1] == pytest.approx(0.693147, abs=1e-4)
    assert losses[1][1] < 0.69
    assert smolvlm.load(tmp_path / "run").name == str(tmp_path / "run")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a", "chosen": "b"}', "expected an object with prompt, chosen and rejected"),
        ('{"prompt": "a", "chosen": "b", "rejected": "b"}', "the same answer"),
        ('{"prompt": "a", "chosen": "b", "rejected": ""}', "rejected is no answer"),
        ('{"chosen": "b", "rejected": "c"}', "no prompt"),
        ('{"image": "gone.png", "prompt": "a", "chosen": "b", "rejected": "c"}', "gone.png: no such file"),
        ("nonsense", "not JSON"),
    ],
)
def test_a_bad_pair_is_named_by_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' + line + "\n")
    with pytest.raises(MixtureError, match=message) as error:
        read_preferences(path)
    assert f"{path}, line 2" in str(error.value)


def test_what_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    for name, message in (("empty.jsonl", "holds no pairs"), ("gone.jsonl", "cannot be read")):
        with pytest.raises(MixtureError, match=message):
            read_preferences(tmp_path / name)
    with pytest.raises(TrainingError, match="beta"):
        DPOOptions(model="m", mixture=tmp_path, out=tmp_path, beta=-1)
