"""`choose`, `extract`, `info`, `models`, `download`, `random-checkpoint`, help and version."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest
from safetensors.numpy import load_file

import smolvlm
from helpers_cli import PHOTO, put_into_cache
from smolvlm import hub
from smolvlm.cli.console import Bars

SCHEMA = {
    "type": "object",
    "properties": {"animal": {"enum": ["cat", "dog"]}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["animal", "count"],
    "additionalProperties": False,
}
COMMANDS = (
    "ask",
    "describe",
    "chat",
    "choose",
    "extract",
    "info",
    "models",
    "download",
    "merge",
    "random-checkpoint",
    "finetune",
    "synth",
    "train",
    "eval",
)


def test_choose_prints_the_librarys_probabilities(run, model, tiny_checkpoint) -> None:
    expected = smolvlm.load(tiny_checkpoint, dtype="float32", device="cpu").choose(PHOTO, "A cat?", ["yes", "no"])
    args = ("choose", PHOTO, "A cat?", "--option", "yes", "--option", "no", *model)
    data = run(*args, "--json").json
    assert data["option"] == expected.option
    assert data["probabilities"] == pytest.approx(dict(expected.probabilities), abs=1e-6)
    lines = run(*args).out.splitlines()
    assert len(lines) == 2
    shown = {line.split()[0]: float(line.split()[1].rstrip("%")) / 100 for line in lines}
    assert shown == pytest.approx(dict(expected.probabilities), abs=1e-4)
    assert lines[0].split()[0] == expected.option
    assert lines[0].count("#") > lines[1].count("#")


def test_choose_takes_media_options(run, model) -> None:
    args = ("choose", PHOTO, "A cat?", "--option", "yes", "--option", "no", *model, "--json")
    assert run(*args, "--detail", "low").json["logprobs"] != run(*args).json["logprobs"]


def test_extract_validates(run, model, tmp_path) -> None:
    path = tmp_path / "animal.json"
    path.write_text(json.dumps(SCHEMA))
    plain = run("extract", PHOTO, "--schema", path, *model)
    assert plain.code == 0, plain.err
    jsonschema.validate(plain.json, SCHEMA)
    asked = run("extract", PHOTO, "Which animal is it?", "--schema", path, *model, "--temperature", 1, "--seed", 3)
    jsonschema.validate(asked.json, SCHEMA)


def test_extract_that_does_not_fit_prints_nothing(run, model, tmp_path) -> None:
    path = tmp_path / "animal.json"
    path.write_text(json.dumps(SCHEMA))
    result = run("extract", PHOTO, "--schema", path, *model, "--max-new-tokens", 1)
    assert (result.code, result.out) == (2, "")
    assert "--max-new-tokens" in result.err


def test_info_counts_what_is_in_the_file(run, tiny_checkpoint) -> None:
    weights = load_file(tiny_checkpoint / "model.safetensors")
    data = run("info", tiny_checkpoint, "--json").json
    assert data["parameters"] == sum(array.size for array in weights.values())
    assert sum(data["parameters_by_part"].values()) == data["parameters"]
    assert data["tensors"] == len(weights)
    assert data["dtypes"] == ["F32"]
    assert all(array.dtype == np.float32 for array in weights.values())
    assert data["random_weights"] is True
    assert data["tokens_per_tile"] == 4  # 64 / 16 = 4 patches a side, folded 2 x 2
    assert data["special_tokens"]["<image>"] == 49190
    assert data["stop_token_ids"] == [49279]
    assert data["files"]["config.json"] == (tiny_checkpoint / "config.json").stat().st_size
    text = run("info", tiny_checkpoint).out
    for part in ("8192 tokens", "4 tokens a tile", "<image> 49190", "F32", "model.safetensors", "knows nothing"):
        assert part in text


def test_random_checkpoint_is_whole_and_says_what_it_is(run, tmp_path) -> None:
    made = run("random-checkpoint", tmp_path / "new", "--size", "tiny", "--dtype", "float16", "--seed", 5)
    assert (made.code, made.out) == (0, f"{tmp_path / 'new'}\n")
    assert "knows nothing" in made.err
    assert run("info", tmp_path / "new", "--json").json["dtypes"] == ["F16"]
    assert run("random-checkpoint", tmp_path / "new", "--size", "tiny", "--overwrite").code == 0
    assert run("info", tmp_path / "new", "--json").json["dtypes"] == ["F32"]


def test_random_checkpoint_replaces_nothing_unasked(run, tmp_path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("Dear")
    for flags in ([], ["--overwrite"]):
        result = run("random-checkpoint", tmp_path / "letters", "--size", "tiny", *flags)
        assert (result.code, result.out) == (2, "")
        assert (tmp_path / "letters" / "dear.txt").read_text() == "Dear"


def test_random_checkpoint_refuses_an_unknown_size(run, tmp_path) -> None:
    result = run("random-checkpoint", tmp_path / "new", "--size", "7b")
    assert result.code == 2
    assert "7b" in result.err
    assert list(tmp_path.iterdir()) == []


def test_without_model_the_one_on_this_machine_answers(run, tiny_checkpoint) -> None:
    repo = hub.SHORT_NAMES["500m"]
    put_into_cache(repo, tiny_checkpoint)
    result = run("ask", "Hi", "--max-new-tokens", 2)
    assert result.code == 0
    assert result.err.startswith(f"smolvlm: {repo} answers")
    listed = {entry["name"]: entry["size_bytes"] for entry in run("models", "--json").json["models"]}
    assert listed[repo] == sum(file.stat().st_size for file in tiny_checkpoint.iterdir())
    assert [name for name, size in listed.items() if size] == [repo]
    assert f"{repo} (500m)" in run("models").out
    assert run("info", "500m", "--json").json["tokens_per_tile"] == 4


def test_without_any_model_nano_answers_and_says_so(run) -> None:
    result = run("ask", "Hi", "--max-new-tokens", "4")
    assert result.code == 0
    assert "nano answers" in result.err


def test_download_without_network_is_one_sentence(run) -> None:
    result = run("download", "256m")
    assert (result.code, result.out) == (2, "")
    assert "HF_HUB_OFFLINE" in result.err


def test_version(run) -> None:
    assert run("--version").out == f"smolvlm {smolvlm.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_example(run, command) -> None:
    result = run(command, "--help")
    assert (result.code, result.err) == (0, "")
    examples = [line for line in result.out.splitlines() if line.startswith("    ") and f"smolvlm {command}" in line]
    assert "Examples:" in result.out
    assert examples


def test_help_shows_the_librarys_defaults(run) -> None:
    page = " ".join(run("ask", "--help").out.split())
    assert f"The longest answer, in tokens. [default: {smolvlm.GenerationParams().max_new_tokens}]" in page
    assert f"fastest). [default: {smolvlm.MediaOptions().detail}]" in page
    assert "Usage: smolvlm ask [OPTIONS] [MEDIA]... PROMPT Answer" in page


def test_bare_command_shows_all_commands(run) -> None:
    result = run()
    assert result.code == 0
    assert all(f"  {command} " in result.out for command in COMMANDS)
    assert "..." not in result.out.split("Commands:")[1]  # no summary is cut short


def test_a_download_off_a_terminal_is_one_line(capsys) -> None:
    with Bars() as bars:
        for done in (0, 1_000_000, 5_000_000):
            bars.download(done, 5_000_000)
    assert capsys.readouterr() == ("", "smolvlm: downloading 5.00 MB ...\n")
