"""`-` is standard input: for a picture, for a question, never for both. Real processes, pipes and a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers_cli import ROOT

MEDIA = ROOT / "examples" / "media" / "nano"
SCENE, CLIP = MEDIA / "scene.png", MEDIA / "clip.mp4"
COMMAND = [sys.executable, "-m", "smolvlm"]


@pytest.fixture
def call(tmp_path: Path):
    """Run the command in an empty folder; (exit code, stdout, stderr)."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}

    def run(*args: object, stdin: bytes | int = subprocess.DEVNULL) -> tuple[int, str, str]:
        given = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
        done = subprocess.run([*COMMAND, *map(str, args)], env=environment, cwd=tmp_path, capture_output=True, timeout=120, **given)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return run


def test_a_picture_and_a_question_come_from_a_pipe(call) -> None:
    assert call("ask", "-", "What colour is the ring?", stdin=SCENE.read_bytes())[:2] == (0, "brown\n")
    assert call("ask", SCENE, "-", stdin="\ufeff  What colour is the ring?\n".encode())[:2] == (0, "brown\n")


@pytest.mark.slow
def test_a_video_and_other_commands_too(call) -> None:
    assert call("ask", "-", "What happens in this video?", stdin=CLIP.read_bytes())[:2] == (0, "the butterfly falls\n")
    code, out, _ = call("choose", SCENE, "-", "--option", "yes", "--option", "no", stdin=b"Is there a dog?")
    assert (code, out.split()[0]) == (0, "no")
    assert call("describe", "-", stdin=SCENE.read_bytes())[1].startswith("a brown ring")


@pytest.mark.parametrize(
    ("args", "stdin", "words"),
    [
        (("ask", "-", "-"), b"x", "one argument only"),
        (("ask", "-", "-", "What is this?"), b"x", "one argument only"),
        (("ask", SCENE, "-"), b"", "standard input is empty"),
        (("ask", SCENE, "-"), b" \n\n", "standard input is empty"),
        (("ask", "-", "What is this?"), b"", "standard input is empty"),
        (("ask", SCENE, "-"), SCENE.read_bytes(), "standard input is no text"),
        (("ask", SCENE, "-"), b"a" * 1_000_001, "1,000,000 bytes"),
        (("ask", "-", "What is this?"), b"not a picture at all, only words " * 9, "<stdin>"),
        (("ask", SCENE, ""), b"", "the prompt is empty"),
        (("ask", SCENE, "  "), b"", "the prompt is empty"),
        (("choose", SCENE, "", "--option", "a"), b"", "the question is empty"),
        (("extract", SCENE, "", "--schema", "x.json"), b"", "the prompt is empty"),
        (("chat", "-"), b"Hi\n", "standard input"),
    ],
)
def test_what_cannot_be_is_one_sentence(call, args, stdin, words) -> None:
    code, out, err = call(*args, stdin=stdin)
    assert (code, out) == (2, "")
    assert words in err
    assert err.startswith("smolvlm: error: ")
    assert err.count("\n") == 1, err


@pytest.mark.skipif(os.name == "nt", reason="POSIX terminals")
def test_a_terminal_gives_one_line_as_the_question_and_never_a_picture(call) -> None:
    import pty

    leader, follower = pty.openpty()
    try:
        code, out, err = call("ask", "-", "What is this?", stdin=follower)
        assert (code, out) == (2, "")
        assert "nothing is piped in" in err
        os.write(leader, b"What colour is the ring?\n")
        code, out, err = call("ask", SCENE, "-", stdin=follower)
        assert (code, out) == (0, "brown\n"), err
        assert err.startswith("prompt: ")
    finally:
        os.close(leader)
        os.close(follower)


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes it")
def test_a_closed_standard_input_is_said(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    script = f'exec "{sys.executable}" -m smolvlm ask - "What is this?" <&-'
    done = subprocess.run(["sh", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "standard input" in done.stderr


def test_a_question_may_have_the_name_of_a_folder(call, tmp_path: Path) -> None:
    (tmp_path / "What colour is the ring?").mkdir()
    (tmp_path / "photos").mkdir()
    assert call("ask", SCENE, "What colour is the ring?")[:2] == (0, "brown\n")
    code, out, err = call("ask", "photos/")
    assert (code, out) == (2, "")
    assert "last argument is the prompt" in err
