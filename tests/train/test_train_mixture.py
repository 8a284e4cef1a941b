"""Mixture files, sampling, and records: what is taken, in which order, and how bad input is named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers_train import record, text_record, write_jsonl, write_mixture
from smolvlm.errors import MixtureError
from smolvlm.prompt.messages import ImagePart, TextPart, VideoPart
from smolvlm.train.mixture import Mixture, choose, read_mixture
from smolvlm.train.record import Record, to_messages


def made(raw: dict[str, Any], modality: str = "image") -> Record:
    return Record(raw, "cats, record 3 of cats.jsonl", Path("media"), modality)


@pytest.mark.parametrize(
    ("strategy", "expected"), [("all", 50), ("first:1%", 1), ("first:10%", 5), ("first:3", 3), ("random:50%", 25), ("random:80", 50)]
)
def test_sampling_strategies_take_what_they_say(strategy: str, expected: int) -> None:
    chosen = choose(50, strategy, (0, 7))
    assert len(chosen) == len(set(chosen.tolist())) == expected
    assert (np.diff(chosen) > 0).all()
    if strategy.startswith("first"):
        assert chosen.tolist() == list(range(expected))


def test_random_sampling_depends_on_the_seed_alone() -> None:
    assert choose(1000, "random:5%", (1, 2)).tolist() == choose(1000, "random:5%", (1, 2)).tolist()
    assert choose(1000, "random:5%", (1, 2)).tolist() != choose(1000, "random:5%", (2, 2)).tolist()


@pytest.mark.parametrize("strategy", ["half", "first:", "first:x%", "random:101%", "end:10%", "first:-3"])
def test_an_unknown_sampling_strategy_is_refused(strategy: str) -> None:
    with pytest.raises(MixtureError, match=re.escape(strategy)):
        choose(10, strategy, (0, 0))


def test_json_and_jsonl_give_the_same_records(tmp_path: Path) -> None:
    records = [record(n) for n in range(5)]
    write_jsonl(tmp_path / "a.jsonl", records)
    (tmp_path / "a.json").write_text(json.dumps(records, indent=1))
    for name in ("a.jsonl", "a.json"):
        (tmp_path / "mix.yaml").write_text(f"datasets: [{{json_path: {name}, modality: image, path: there}}]")
        mixture = Mixture.from_file(tmp_path / "mix.yaml")
        assert [mixture.record(n).raw for n in range(5)] == records
        (part,) = (p for p in to_messages(mixture.record(2))[0].parts if isinstance(p, ImagePart))
        assert part.source == str(tmp_path / "there" / "2.png")


def test_every_epoch_has_each_record_once_in_another_order(tmp_path: Path) -> None:
    mixture = Mixture.from_file(write_mixture(tmp_path / "m", [record(n) for n in range(40)]), seed=3)
    first, second = mixture.order(0).tolist(), mixture.order(1).tolist()
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second
    assert first == mixture.order(0).tolist()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("datasets: []", "expected a list under `datasets`"),
        ("[1, 2]", "expected a list under `datasets`"),
        ("datasets: [{json_path: a.jsonl}]", "dataset 1: modality is missing"),
        ("datasets: [{json_path: a.jsonl, modality: sound}]", "'sound': expected one of text, image"),
        ("datasets: [{json_path: a.jsonl, modality: image, sampling: all}]", "unknown keys sampling"),
        ("datasets: [{json_path: gone.jsonl, modality: image, name: cats}]", "mix.yaml, dataset cats: no file"),
        ("datasets: [{json_path: a.jsonl, modality: image, sampling_strategy: some}]", "dataset 1: sampling_strategy 'some'"),
        ("datasets: [", "cannot be read as YAML"),
        ("datasets: [{json_path: 3, modality: image}]", "json_path is 3; expected text"),
        ("!!python/object/apply:os.system ['true']", "cannot be read as YAML"),
    ],
)
def test_bad_mixture_files_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mix.yaml").write_text(text)
    write_jsonl(tmp_path / "a.jsonl", [record(0)])
    with pytest.raises(MixtureError, match=re.escape(said)):
        Mixture.from_file(tmp_path / "mix.yaml")


def test_a_missing_mixture_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MixtureError, match="no such mixture file"):
        read_mixture(tmp_path / "mix.yaml")


def test_a_malformed_record_is_found_before_the_run_begins(tmp_path: Path) -> None:
    bad = {"conversations": [{"from": "human", "value": "Hello?"}]}
    with pytest.raises(MixtureError, match=r"data, record 2 of data\.jsonl: a conversation without an answer"):
        Mixture.from_file(write_mixture(tmp_path / "m", [record(0), bad]))
    (tmp_path / "m" / "data.jsonl").write_text('{"conversations": [\n')
    with pytest.raises(MixtureError, match=r"record 1 of data\.jsonl cannot be read as JSON"):
        Mixture.from_file(tmp_path / "m" / "mix.yaml")


def test_placeholders_become_media_in_place() -> None:
    raw = {
        "image": ["a.jpg", "https://example.com/b.jpg"],
        "video": "c.mp4",
        "conversations": [
            {"from": "system", "value": "Be brief."},
            {"from": "human", "value": "<image> or <image>\n: which? <video>"},
            {"from": "gpt", "value": "The <image> one."},
        ],
    }
    system, user, answer = to_messages(made(raw))
    assert (system.role, user.role, answer.role) == ("system", "user", "assistant")
    assert user.parts == (
        ImagePart(str(Path("media/a.jpg"))),
        TextPart("or"),
        ImagePart("https://example.com/b.jpg"),
        TextPart(": which?"),
        VideoPart(str(Path("media/c.mp4"))),
    )
    assert answer.parts == (TextPart("The <image> one."),)  # typed by the answerer: text


def turns(*values: str) -> dict[str, Any]:
    return {"conversations": [{"from": ("human", "gpt")[i % 2], "value": v} for i, v in enumerate(values)]}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (turns("<image>What?"), "0 images for 1 <image> placeholders"),
        ({"image": ["a", "b"], **turns("<image>What?", "That.")}, "2 images for 1 <image> placeholders"),
        ({"image": "a", **turns("What?", "That.")}, "1 image for 0 <image> placeholders"),
        ({"video": "a", **turns("<video><video>?", "That.")}, "1 video for 2 <video> placeholders"),
        (turns("What?"), "without an answer"),
        (turns("What?", "  "), "turn 2: an empty answer"),
        ({}, "no `conversations`"),
        ({"conversations": [{"from": "robot", "value": "x"}]}, "from is 'robot'"),
        ({"conversations": ["x"]}, "turn 1: expected {from, value}"),
        ({"image": 3, **turns("<image>What?", "That.")}, "3 is no name of a media file"),
        (turns("What \ud800?", "That."), "lone surrogate"),
    ],
)
def test_records_that_cannot_be_used_are_named(raw: dict[str, Any], said: str) -> None:
    with pytest.raises(MixtureError, match=re.escape(said)) as caught:
        to_messages(made(raw))
    assert str(caught.value).startswith("cats, record 3 of cats.jsonl")


def test_a_text_dataset_has_no_media() -> None:
    with pytest.raises(MixtureError, match="modality is text"):
        to_messages(made(record(1), "text"))
    to_messages(made(text_record(), "text"))
