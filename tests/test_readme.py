"""What the READMEs show runs: Python blocks are executed, and the command lines are accepted by the real parser."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import smolvlm

ROOT = Path(__file__).resolve().parents[1]
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]


class Invoice(BaseModel):
    total: int


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("path", READMES, ids=lambda p: p.name)
def test_python_blocks_run(path: Path, tiny_checkpoint: Path, examples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    media = {"clip.mp4": "bigbuckbunny.mp4", "match.mp4": "bigbuckbunny.mp4", "a.jpg": "rocket.jpg", "b.jpg": "coffee.png",
             "door.jpg": "chelsea.png", "invoice.png": "coffee.png"}  # fmt: skip
    found = blocks(path, "python")
    assert len(found) == 2
    for block in found:
        for shown, real in media.items():
            block = block.replace(f'"{shown}"', repr(str(examples / real)))
        for model in ('"256m"', '"HuggingFaceTB/SmolVLM2-256M-Video-Instruct"'):
            block = block.replace(model, repr(str(tiny_checkpoint)))
        names: dict[str, Any] = {"Invoice": Invoice}
        exec(compile(block, path.name, "exec"), names)
        if "record" in names:
            assert isinstance(names["record"], Invoice)
            assert names["choice"].option in ("open", "closed", "开着", "关着")
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("path", READMES, ids=lambda p: p.name)
def test_shown_commands_and_options_exist(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each shown command's options are in that command's help; nothing is loaded or downloaded."""
    from smolvlm.cli.main import main

    lines = [line for block in blocks(path, "bash") for line in block.splitlines() if line.startswith("smolvlm ")]
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        assert main([words[0], "--help"]) == 0, line
        shown = capsys.readouterr().out
        for option in (word for word in words if word.startswith("--") and word != "--help"):
            assert option in shown, f"{line}: {option}"


@pytest.mark.parametrize("path", READMES, ids=lambda p: p.name)
def test_option_names_in_prose_are_real(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in ("detail", "image_splitting", "longest_edge", "fps", "max_frames", "start", "end"):
        assert f"`{name}`" in text
        assert name in smolvlm.MediaOptions.__dataclass_fields__
    for name in ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "no_repeat_ngram_size", "stop",
                 "seed", "logprobs", "loop_guard"):  # fmt: skip
        assert f"`{name}`" in text
        assert name in smolvlm.GenerationParams.__dataclass_fields__


@pytest.mark.parametrize("path", READMES, ids=lambda p: p.name)
def test_links_and_named_files_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
    for target in re.findall(r"`pytest ([\w/.]+)`", text):
        assert (ROOT / target).exists(), target
