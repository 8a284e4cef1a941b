"""`smolvlm eval`: the two suites on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_synth_prints_a_table_and_keeps_the_files(run, model: tuple[str, ...], tmp_path: Path) -> None:
    options = ("--task", "colour", "--task", "presence", "--items", 3, "--detail", "fit", "--out", tmp_path)
    first = run("eval", "synth", *model, *options)
    assert first.code == 0, first.err
    lines = first.out.splitlines()
    assert lines[0].startswith("synth, version 1, small world: ")
    assert [line.split()[0] for line in lines[1:]] == ["task", "colour", "presence"]
    assert "random weights" in first.err
    report = json.loads((tmp_path / "report.json").read_text())
    assert [(row["task"], row["items"]) for row in report["tasks"]] == [("colour", 3), ("presence", 3)]
    assert len(report["fingerprint"]) == 32
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    before = (tmp_path / "items.jsonl").read_bytes()
    again = run("eval", "synth", *model, *options)
    assert (again.code, again.out) == (0, first.out)
    assert (tmp_path / "items.jsonl").read_bytes() == before


def test_json_and_markdown(run, model: tuple[str, ...]) -> None:
    command = ("eval", "handmade", *model, "--task", "colour", "--items", 2, "--detail", "low")
    result = run(*command, "--json")
    assert result.code == 0, result.err
    assert result.json["suite"] == "handmade"
    assert result.json["tasks"][0]["items"] == 2
    result = run(*command, "--markdown")
    assert result.out.splitlines()[2].startswith("| task | items |")


def test_the_tasks_are_listed_without_a_model(run) -> None:
    result = run("eval", "synth", "--list")
    assert result.code == 0
    assert [line.split()[0] for line in result.out.splitlines()][:3] == ["colour", "object", "presence"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("eval", "synth", "--task", "colours"), "synth has no task 'colours'; it has colour,"),
        (("eval", "synth", "--world", "huge"), "--world 'huge' is not one of small, wide"),
        (("eval", "synth", "--json", "--markdown"), "--json and --markdown exclude each other"),
        (("eval", "synth", "--items", "0"), "'--items'"),
        (("eval", "synth", "--model", "/nowhere/at/all"), "/nowhere/at/all"),
        (("eval", "dreams"), "No such command 'dreams'"),
    ],
)
def test_bad_input_is_one_line(run, arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert not result.out


def test_nano_is_the_default_whatever_is_on_the_machine() -> None:
    from smolvlm.cli.eval import EvaluatedFlags

    assert EvaluatedFlags().chosen().model == "nano"
    assert EvaluatedFlags(adapter="somewhere").chosen().model is None
    assert EvaluatedFlags(model="256m", adapter="somewhere").chosen().model == "256m"
