"""What the READMEs and docs show runs: Python blocks are executed, commands and options exist, data forms are read."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import smolvlm

ROOT = Path(__file__).resolve().parents[1]
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
DOCS = sorted((ROOT / "docs").glob("*.md"))
CONTRIBUTORS = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
TRAINING = [ROOT / "docs" / "training.md", ROOT / "docs" / "training.zh-CN.md"]
GROUPS = ("train", "eval")  # commands that have commands


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("path", READMES, ids=lambda p: p.name)
def test_python_blocks_run(
    path: Path, tiny_checkpoint: Path, examples: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first says with nano what its comments print; the published snippet runs on a stand-in for the 256M size."""
    first, second = blocks(path, "python")
    monkeypatch.chdir(examples / "nano")
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(first, path.name, "exec", dont_inherit=True), names)
    said = capsys.readouterr().out
    for answer in re.findall(r"^ *print\([^#]*# ([a-z ,]+)", first, flags=re.MULTILINE):
        assert answer.strip(" ,") in said, answer
    assert names["record"].answer == names["choice"].option == "open"
    second = second.replace('"clip.mp4"', repr(str(examples / "bigbuckbunny.mp4")))
    second = second.replace('"HuggingFaceTB/SmolVLM2-256M-Video-Instruct"', repr(str(tiny_checkpoint)))
    exec(compile(second, path.name, "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("path", [*READMES, *DOCS], ids=lambda p: p.name)
def test_shown_commands_and_options_exist(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each shown command's options are in that command's help; nothing is loaded or downloaded."""
    from smolvlm.cli.main import main

    shown_lines = (line.strip() for block in blocks(path, "bash") for line in block.splitlines())
    found = [re.match(r"(?:torchrun .* -m )?(smolvlm .*)", line) for line in shown_lines]
    lines = [match[1] for match in found if match]
    assert len(lines) >= (8 if path in (*READMES, *TRAINING) else 0)
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        assert main([*words[: 2 if words[0] in GROUPS else 1], "--help"]) == 0, line
        shown = capsys.readouterr().out
        for option in (word for word in words if word.startswith("--") and word != "--help"):
            assert option in shown, f"{line}: {option}"


@pytest.mark.parametrize("path", READMES, ids=lambda p: p.name)
def test_option_names_in_prose_are_real(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in ("detail", "image_splitting", "longest_edge", "fps", "max_frames", "start", "end"):
        assert f"`{name}`" in text
        assert name in smolvlm.MediaOptions.__dataclass_fields__
    for name in (
        "max_new_tokens",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "repetition_penalty",
        "no_repeat_ngram_size",
        "stop",
        "seed",
        "logprobs",
        "loop_guard",
        "special_tokens",
    ):
        assert f"`{name}`" in text
        assert name in smolvlm.GenerationParams.__dataclass_fields__


@pytest.mark.parametrize("path", [*READMES, *DOCS, *CONTRIBUTORS], ids=lambda p: p.name)
def test_links_and_named_files_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (path.parent / target).exists(), target
    for target in re.findall(r"`pytest ([\w/.]+)`", text):
        assert (ROOT / target).exists(), target


def test_paths_that_contributors_are_sent_to_exist() -> None:
    named = re.findall(r"`((?:src|native|tests|docs)/[\w/.]+)`", CONTRIBUTORS[0].read_text(encoding="utf-8"))
    assert len(named) > 10
    assert [path for path in named if "NAME" not in path and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("path", TRAINING, ids=lambda p: p.name)
def test_options_that_training_docs_name_exist(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from smolvlm.cli.main import main

    commands = [["train", stage] for stage in ("sft", "dpo", "distill", "pretrain")]
    commands += [["finetune"], ["merge"], ["ask"], ["eval", "synth"], ["eval", "handmade"]]
    assert all(main([*command, "--help"]) == 0 for command in commands)
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    named = set(re.findall(r"`(--[a-z][a-z-]+)", path.read_text(encoding="utf-8"))) - {"--help"}
    assert len(named) > 20
    assert named <= known


@pytest.mark.parametrize("path", TRAINING, ids=lambda p: p.name)
def test_data_forms_of_training_docs_are_read(path: Path, tmp_path: Path) -> None:
    """By the functions that the commands call: the mixture, a user's examples, preference pairs."""
    from smolvlm.train.finetune_data import understand
    from smolvlm.train.mixture import read_mixture
    from smolvlm.train.preferences import read_preferences

    (mixture,) = blocks(path, "yaml")
    (tmp_path / "mix.yaml").write_text(mixture, encoding="utf-8")
    assert [(e.name, e.modality, e.sampling_strategy) for e in read_mixture(tmp_path / "mix.yaml")] == [
        ("parts", "image", "all"),
        ("clips", "video", "random:10%"),
    ]
    examples, pairs = blocks(path, "json")
    for name in re.findall(r'"([\w.]+\.(?:jpg|mp4))"', examples + pairs):
        (tmp_path / name).touch()
    for name, text in (("examples.jsonl", examples), ("pairs.jsonl", pairs)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert len(understand(tmp_path / "examples.jsonl").records) == len(examples.splitlines()) == 6
    (pair,) = read_preferences(tmp_path / "pairs.jsonl")
    assert pair.raw["rejected"] == json.loads(pairs)["rejected"]


@pytest.mark.parametrize("path", TRAINING, ids=lambda p: p.name)
def test_python_of_training_docs_runs(
    path: Path, tiny_checkpoint: Path, examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With an adapter of the tiny checkpoint, made without peft: one low-rank change of one matrix."""
    from smolvlm.checkpoint.adapter import write_adapter
    from smolvlm.checkpoint.fingerprint import fingerprint
    from smolvlm.checkpoint.reader import CheckpointReader
    from smolvlm.config import load_configs

    config, _ = load_configs(tiny_checkpoint)
    text, module = config.text, "model.text_model.layers.0.self_attn.q_proj"
    rows = text.num_attention_heads * text.head_dim
    tensors = {
        f"{module}.lora_A.weight": np.ones((1, text.hidden_size), np.float32),
        f"{module}.lora_B.weight": np.ones((rows, 1), np.float32),
    }
    with CheckpointReader(tiny_checkpoint) as reader:
        mark = fingerprint(reader, config)
    settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 1.0}
    adapter = write_adapter(tmp_path / "adapter", tensors, settings, "tiny", mark)
    (block,) = blocks(path, "python")
    shown = {'"256m"': tiny_checkpoint, '"runs/parts/adapter"': adapter, '"new.jpg"': examples / "rocket.jpg"}
    for name, real in shown.items():
        assert name in block
        block = block.replace(name, repr(str(real)))
    exec(compile(block, path.name, "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("name", ["video.md", "video.zh-CN.md"])
def test_python_of_video_docs_runs(
    name: str, examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clip.mp4").write_bytes((examples / "nano" / "clip.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(ROOT / "docs" / name, "python")
    exec(compile(block, name, "exec"), {})
    said = capsys.readouterr().out
    assert said.count("the butterfly falls") == 1  # of the whole clip, stored; its first second shows another thing
    assert "h264" in said
