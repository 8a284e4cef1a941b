"""The training benchmarks' arithmetic, worked out by hand, and the student that has fewer layers."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `benchmarks` stands beside `tests`

from benchmarks.distill_nano import cut, parameters, renumbered
from benchmarks.dpo_nano import balanced, mistakes, train_questions, write_media
from benchmarks.improvement import Line, gain, make_table, seed_list

from smolvlm.checkpoint.reader import CheckpointReader
from smolvlm.config import load_configs
from smolvlm.synth.benchmark import items
from smolvlm.synth.sample import Question, Sample


def test_mean_spread_and_gain() -> None:
    """Shares 0.5, 0.6, 0.7: mean 0.6, and deviations of 0.1, 0, 0.1 over 3 - 1 give a spread of 0.1."""
    before, after = Line("before", "part", 10, (4,)), Line("after", "part", 10, (5, 6, 7))
    assert after.mean == pytest.approx(0.6)
    assert after.spread == pytest.approx(0.1)
    assert before.spread == 0.0
    assert gain(after, before) == pytest.approx(0.2)


def test_interval_is_that_of_one_run_not_of_the_sum() -> None:
    """Wilson for 5 of 10 is 0.2366 to 0.7634 (z = 1.96); for 15 of 30 it would be 0.3315 to 0.6685."""
    assert Line("after", "part", 10, (4, 5, 6)).interval == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_a_gain_needs_the_same_questions() -> None:
    with pytest.raises(AssertionError, match="same questions"):
        gain(Line("after", "part", 10, (4,)), Line("before", "part", 20, (4,)))


def test_table_puts_each_task_beside_its_own_base() -> None:
    lines = [Line("before", "a", 10, (2,)), Line("before", "b", 10, (9,)), Line("after", "a", 10, (5, 7)), Line("after", "b", 10, (8, 8))]
    table = make_table(lines, "before", "")
    cells = [list(column.cells) for column in table.columns]
    assert list(zip(cells[0], cells[1], cells[-1], strict=True)) == [
        ("a", "before", ""),
        ("a", "after", "+40.0"),
        ("b", "before", ""),
        ("b", "after", "-10.0"),
    ]


def test_seed_list() -> None:
    assert seed_list("0, 12") == (0, 12)
    for bad in ("", "1,,2", "-1", "1,1", "x"):
        with pytest.raises(argparse.ArgumentTypeError):
            seed_list(bad)


def test_renumbered() -> None:
    name = "model.text_model.layers.{}.mlp.up_proj.weight"
    assert [renumbered(name.format(n), {1, 3}) for n in range(5)] == [name.format(0), None, name.format(1), None, name.format(2)]
    vision = "model.vision_model.encoder.layers.2.layer_norm1.bias"
    assert renumbered(vision, {0}) == vision.replace(".2.", ".1.")
    assert renumbered("model.text_model.norm.weight", {0}) == "model.text_model.norm.weight"


def test_the_cut_student_has_the_layers_that_stayed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "student"
    cut(tiny_checkpoint, out, (0,), (1,))
    old, new = load_configs(tiny_checkpoint)[0], load_configs(out)[0]
    assert new.text.num_hidden_layers == old.text.num_hidden_layers - 1
    assert new.vision.num_hidden_layers == old.vision.num_hidden_layers - 1
    with CheckpointReader(tiny_checkpoint) as before, CheckpointReader(out) as after:
        after.verify(new)
        layer = "model.text_model.layers.{}.mlp.up_proj.weight"
        assert np.array_equal(after.float32(layer.format(0)), before.float32(layer.format(1)))
        assert not np.array_equal(after.float32(layer.format(0)), before.float32(layer.format(0)))
        layer = "model.vision_model.encoder.layers.0.mlp.fc1.weight"
        assert np.array_equal(after.float32(layer), before.float32(layer))
        for name in ("lm_head.weight", "model.connector.modality_projection.proj.weight"):
            if name in before.infos:
                assert np.array_equal(after.float32(name), before.float32(name))
        gone = sum(before.infos[n].nbytes for n in before.infos if ".text_model.layers.0." in n or ".encoder.layers.1." in n)
        whole = sum(info.nbytes for info in before.infos.values())
        assert parameters(out) / parameters(tiny_checkpoint) == pytest.approx(1 - gone / whole)


def test_cut_names_layers_that_are_not_there(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="there are"):
        cut(tiny_checkpoint, tmp_path / "student", (99,), ())
    with pytest.raises(SystemExit, match="must stay"):
        cut(tiny_checkpoint, tmp_path / "student", tuple(range(load_configs(tiny_checkpoint)[0].text.num_hidden_layers)), ())


def test_mistakes_are_counted_once_and_only_if_something_was_said() -> None:
    assert mistakes("a nut", ["A nut.", " a washer", "a washer", "", "a gear"]) == ["a washer", "a gear"]


def test_pairs_come_from_other_pictures_than_the_benchmark() -> None:
    """Ten of each; and the pictures of two seeds differ too."""
    held_out = {item.sample.frames[0].tobytes() for item in items("part", 10)}
    stream, other = train_questions("part", 0), train_questions("part", 1_000_000)
    ours = {next(stream)[0].frames[0].tobytes() for _ in range(10)}
    theirs = {next(other)[0].frames[0].tobytes() for _ in range(10)}
    assert len(held_out | ours | theirs) == 30


def test_media_are_named_in_the_words_of_a_pair(tmp_path: Path) -> None:
    from smolvlm.train.preferences import read_preferences

    lines = []
    for number, task in enumerate(("part", "same", "motion")):
        sample, question = next(train_questions(task, 0))
        media = write_media(sample, tmp_path, str(number))
        lines.append({**media, "prompt": question.text, "chosen": question.answer, "rejected": "something else"})
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    first, second, third = (record.raw for record in read_preferences(path))
    assert first["conversations"][0]["value"].count("<image>") == 1
    assert second["conversations"][0]["value"].count("<image>") == len(second["image"]) == 2
    assert third["conversations"][0]["value"].count("<video>") == 1
    assert Path(third["video"]).is_file()


def test_mistakes_that_lean_to_one_side_are_balanced() -> None:
    """Three clips without a fall were called falls, one fall was overlooked: two falls that were seen join it."""

    def asked(truth: str) -> tuple[Sample, Question]:
        return Sample("image", (np.zeros((2, 2, 3), np.uint8),), ()), Question("fall", "Does anybody fall?", truth)

    wrongs = [(*asked("no"), "yes") for _ in range(3)] + [(*asked("yes"), "no")]
    rights = [(*asked(truth), "") for truth in ("yes", "no", "yes", "yes")]
    found = balanced(wrongs, rights)
    assert found[:4] == wrongs
    assert [(question.answer, rejected) for _, question, rejected in found[4:]] == [("yes", "no"), ("yes", "no")]
    assert balanced([], rights) == []
