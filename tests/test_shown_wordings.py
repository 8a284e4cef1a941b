"""Each question that the docs, help pages, demo and page show is one that `nano` answers rightly, with a margin.

The questions are found in the texts, not listed here; what they are asked about is a file of examples/media/nano. A
question that is not in ANSWERS fails: look at nano's answer, and add it only if it is right.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import smolvlm

ROOT = Path(__file__).resolve().parents[1]
MEDIA = ROOT / "examples" / "media" / "nano"
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
PAGES = [*READMES, *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = ("ask", "describe", "chat", "choose", "extract", "batch", "serve", "quantize", "random-checkpoint")

# Names of the docs that stand for a user's own file -> ours.
STAND_INS = {
    "match.mp4": "clip.mp4",
    "film.mkv": "clip.mp4",
    "new.jpg": "part.png",
    "photo.jpg": "scene.png",
    "holiday.heic": "scene.png",
    "receipt.jpg": "room.png",
}
SCENE = "a brown ring at the top right, a white heart on the left, a butterfly on the right and an orange circle at the bottom right"

# By hand, from the pictures (tools/make_demo_media.py prints the generator's truth).
ANSWERS = {
    ("scene.png", "Describe this picture."): SCENE,
    ("scene.png", "Describe this in detail."): SCENE,
    ("scene.png", "What colour is the ring?"): "brown",
    ("scene.png", "Where is the butterfly?"): "right",
    ("scene.png", "Is there a dog?"): "no",
    ("sign.png", "What does the sign say?"): "MILK",
    ("sign.png", "Read the text."): "MILK",
    ("clip.mp4", "What happens in this video?"): "the butterfly falls",
    ("clip.mp4", "What happens?"): "the butterfly falls",
    ("clip.mp4", "Describe this video."): "the butterfly falls",
    ("clip.mp4", "Describe this in detail."): "the butterfly falls",
    ("clip.mp4", "When does the butterfly fall?"): "at 00:02",
    ("before.png after.png", "What has changed?"): "there is now a yellow star",
    ("part.png", "What is wrong with the part?"): "missing hole",
    ("room.png", "Is the door open or closed?"): "open",
}
LEAST_MARGIN = 1.0  # between the logits of the answer's tokens and their best rivals; instruction sets differ by some 0.1
DESCRIBE = "Describe this in detail."


def code_lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return [line for block in re.findall(r"```(?:bash|python)\n(.*?)```", text, flags=re.DOTALL) for line in block.splitlines()]


def help_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    from smolvlm.cli.main import main

    assert main(["--help"]) == 0
    assert all(main([command, "--help"]) == 0 for command in COMMANDS)
    return capsys.readouterr().out.splitlines()


def named(words: list[str]) -> str:
    """The media among some words, as our files."""
    files = [STAND_INS.get(Path(word).name, Path(word).name) for word in words]
    return " ".join(name for name in files if (MEDIA / name).suffix in (".png", ".mp4") and (MEDIA / name).exists())


def of_command(line: str) -> list[tuple[str, str]]:
    """(media, question) of one shown command line, pipes included."""
    match = re.search(r"(?:^|\s)smolvlm (ask|describe|chat|choose|extract|batch) (.*)", line)
    if match is None or "Usage:" in line or "--adapter" in line:  # an adapter was taught the question that it is asked
        return []
    before = shlex.split(line[: match.start()].replace("|", " "), comments=True)
    words = shlex.split(match[2], comments=True)
    plain = [w for w in words if not w.startswith("-") or w == "-"]
    if match[1] == "batch":
        asked = [words[i + 1] for i, word in enumerate(words[:-1]) if word in ("-q", "--question")]
        asked += [DESCRIBE] if "--describe" in words else []
        return [("clip.mp4" if "clips/" in words else "scene.png", question) for question in asked]
    media = named([*before, *plain])
    if match[1] == "describe":
        return [(media or "scene.png", DESCRIBE)]
    if match[1] == "chat":
        return [(media, text) for text in (before[1].split("\\n") if before else []) if text]
    if before and before[0] == "echo":
        return [(media, before[1])]
    questions = [word for word in plain if " " in word]
    return [(media, questions[0])] if questions else []


def of_python(lines: list[str]) -> list[tuple[str, str]]:
    text = "\n".join(lines)
    found = [
        (named(re.findall(r'"([^"]+)"', m[1])), m[2])
        for m in re.finditer(r'model\.(?:ask|stream|choose)\((\[[^\]]*\]|"[^"]*"), "([^"]+)"', text)
    ]
    for m in re.finditer(r'model\.session\("([^"]+)"[^)]*\) as session:\n((?: {4}.*\n?)+)', text):
        found += [(named([m[1]]), question) for question in re.findall(r'session\.ask\("([^"]+)"', m[2])]
    found += [(named([m[1]]), m[2]) for m in re.finditer(r'model\.extract\("([^"]+)", \w+, "([^"]+)"', text)]
    written = re.findall(r'"type": "text", "text": "([^"]+)"', text)
    return found + [("sign.png" if "sign" in question else "clip.mp4", question) for question in written]


@pytest.fixture(scope="module")
def nano() -> smolvlm.SmolVLM:
    return smolvlm.load("nano")


@pytest.fixture(scope="module")
def answered(nano: smolvlm.SmolVLM) -> dict[tuple[str, str], tuple[str, float]]:
    """What nano says to each of ANSWERS, and the least margin of a token."""
    found = {}
    for media, question in ANSWERS:
        answer = nano.ask([MEDIA / name for name in media.split()], question, max_new_tokens=64, logprobs=2)
        assert answer.logprobs is not None
        margin = min(token.logprob - min(value for _, _, value in token.top) for token in answer.logprobs)
        found[media, question] = answer.text, margin
    return found


def test_nano_is_right_with_a_margin(answered: dict[tuple[str, str], tuple[str, float]]) -> None:
    assert {shown: text for shown, (text, _) in answered.items()} == ANSWERS
    assert {shown: margin for shown, (_, margin) in answered.items() if margin < LEAST_MARGIN} == {}


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_each_wording_of_the_docs_is_one_that_it_gets_right(path: Path) -> None:
    lines = code_lines(path)
    shown = [pair for line in lines for pair in of_command(line)] + of_python(lines)
    if path in READMES:
        assert len(shown) >= 18
    assert [pair for pair in shown if pair not in ANSWERS] == []


def test_each_wording_of_the_help_pages(capsys: pytest.CaptureFixture[str]) -> None:
    lines = help_lines(capsys)
    shown = [pair for line in lines for pair in of_command(line)] + of_python(lines)
    assert len(shown) >= 20
    assert [pair for pair in shown if pair not in ANSWERS] == []


def test_each_wording_of_the_demo_and_the_page() -> None:
    from smolvlm.ui.examples import EXAMPLES
    from smolvlm.ui.texts import text

    demo = (ROOT / "examples" / "demo.py").read_text(encoding="utf-8")
    asked = {name: re.findall(r'"([^"]+[.?])"', found) for name, found in re.findall(r'"([\w.]+)": \(([^)]*)\)', demo)}
    assert sum(map(len, asked.values())) == 7
    shown = [(name, question) for name, questions in asked.items() for question in questions]
    shown += [(example.file.name, example.question) for example in EXAMPLES]
    shown += [("clip.mp4", text("question_hint", lang)) for lang in ("en", "zh")]
    assert [pair for pair in shown if pair not in ANSWERS] == []
    for example in EXAMPLES:
        assert example.file.read_bytes() == (MEDIA / example.file.name).read_bytes()


@pytest.mark.parametrize("path", READMES, ids=lambda p: p.name)
def test_answers_that_the_readme_prints(path: Path, answered: dict[tuple[str, str], tuple[str, float]]) -> None:
    """The comment behind a command is the answer to its question; an ellipsis leaves the rest out."""
    checked = 0
    for line in code_lines(path):
        comment = line.partition("  # ")[2].strip()
        for pair in of_command(line):
            if not comment or "--model" in line or "--out" in line:
                continue
            plain = re.sub(r'^\{"answer": "|^"text": "|"\}$|", \.\.\.$|, \d.*%$|, \.\.\.$', "", comment)
            if re.search(r"[a-z]{3}:|/|：", plain):
                continue  # a remark, not an answer
            assert answered[pair][0].startswith(re.sub(r'[",.]+$', "", plain)), line
            checked += 1
    assert checked >= 10


@pytest.mark.slow
@pytest.mark.parametrize("instructions", ["scalar", "avx2"])
def test_on_other_instruction_sets_too(instructions: str) -> None:
    """The environment is read once a process. Where the processor lacks the set, the engine says so and this fails."""
    script = (
        "import sys; sys.path.insert(0, 'tests'); import smolvlm, test_shown_wordings as t; m = smolvlm.load('nano'); "
        "wrong = [(p, a) for p, right in t.ANSWERS.items() if (a := m.ask([t.MEDIA / n for n in p[0].split()], p[1], "
        "max_new_tokens=64).text) != right]; print(wrong)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        env=os.environ | {"SMOLVLM_INSTRUCTIONS": instructions, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.stdout == "[]\n", done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the README's commands are a POSIX shell's")
@pytest.mark.parametrize("path", READMES, ids=lambda p: p.name)
def test_the_readmes_commands_as_a_shell_runs_them(path: Path, tmp_path: Path) -> None:
    """The whole block of examples, pasted; each command's answer is where its comment says."""
    block = next(
        b
        for b in re.findall(r"```bash\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        if b.startswith('smolvlm ask sign.png "What does the sign say?"  ')
    )
    for name in MEDIA.iterdir():
        (tmp_path / name.name).symlink_to(name)
    starter = tmp_path / "bin" / "smolvlm"
    starter.parent.mkdir()
    starter.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m smolvlm "$@"\n')
    starter.chmod(0o755)
    environment: dict[str, Any] = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PATH": f"{starter.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-e", "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=1200
    )
    assert done.returncode == 0, done.stderr
    out = done.stdout
    for said in (
        "MILK\nbrown\nat 00:02\nthe butterfly falls\nthere is now a yellow star\n",
        '"text": "MILK"',
        f"right\n{SCENE}\n",
        "open     99.98%",
        '"answer": "open"',
    ):
        assert said in out, out
