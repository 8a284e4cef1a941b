"""The program as users start it: a process of its own, with pipes, signals and a terminal."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from helpers_cli import CLIP, PHOTO, ROOT

COMMAND = [sys.executable, "-m", "smolvlm"]
NEVER_ENDING = ("--no-loop-guard", "--max-new-tokens", "8000", "--stream")


@pytest.fixture
def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


def _start(*args: object, env: dict[str, str], **options: Any) -> subprocess.Popen[bytes]:
    """As from a terminal: a suite that a shell runs in the background ignores Ctrl-C, and its children would inherit that."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if os.name == "posix":
        pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen([*COMMAND, *map(str, args)], env=env, **pipes | options)


def test_a_bad_input_ends_with_code_2(environment, model) -> None:
    done = subprocess.run([*COMMAND, "describe", "none.jpg", *model], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("smolvlm: error: none.jpg")
    assert done.stderr.count("\n") == 1


def test_help_and_info_import_no_torch(environment, tiny_checkpoint) -> None:
    script = (
        "import sys; from smolvlm.cli.main import main; code = main(sys.argv[1:]); "
        "print([m for m in ('torch', 'transformers', 'rich') if m in sys.modules], code, file=sys.stderr)"
    )
    for args in (["--help"], ["ask", "--help"], ["info", str(tiny_checkpoint)], ["models"]):
        done = subprocess.run([sys.executable, "-c", script, *args], env=environment, capture_output=True, text=True, timeout=120)
        assert done.stderr == "[] 0\n", args


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_ends_ask_quietly(environment, model) -> None:
    process = _start("ask", "Hi", *model, *NEVER_ENDING, env=environment)
    assert process.stdout is not None
    process.stdout.read(1)  # the answer has begun
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.slow
def test_ctrl_c_in_chat_stops_the_answer_and_not_the_program(environment, model) -> None:
    flags = ("--detail", "low", "--no-loop-guard", "--max-new-tokens", "8000")
    process = _start("chat", PHOTO, *flags, *model, env=environment)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"Tell me everything.\n")
    process.stdin.flush()
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    assert process.poll() is None
    process.stdin.write(b"/reset\n")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert b"smolvlm: the answer was stopped." in err
    assert b"the conversation starts again" in err


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_a_reader_that_goes_away_is_no_error(environment, model) -> None:
    process = _start("ask", "Hi", *model, *NEVER_ENDING, env=environment)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) != 0
    assert b"Traceback" not in err
    assert b"error" not in err


@pytest.mark.skipif(os.name == "nt", reason="POSIX terminals")
@pytest.mark.slow
def test_on_a_terminal_bars_are_drawn_and_in_a_pipe_all_is_plain(environment, model) -> None:
    import pty

    leader, follower = pty.openpty()
    args = ("ask", str(CLIP), "What happens?", *model, "--max-new-tokens", "6")
    terminal = environment | {"TERM": "xterm", "COLUMNS": "100"}
    process = _start(*args, env=terminal, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    shown = bytearray()
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux says so when the last process has closed the terminal
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait(timeout=60) == 0, shown.decode(errors="replace")
    assert b"loading weights" in shown
    assert b"reading frames" in shown
    assert b"\x1b[2msmolvlm: " in shown  # the model's line, dim
    plain = subprocess.run([*COMMAND, *args], env=environment, capture_output=True, timeout=120)
    assert plain.returncode == 0
    assert all(line.startswith(b"smolvlm: ") for line in plain.stderr.splitlines())
    assert b"\x1b" not in plain.stderr
    assert plain.stdout.strip() in bytes(shown).replace(b"\r\n", b"\n")


def test_a_defect_of_ours_is_one_line_and_code_1(environment) -> None:
    """A real one, made on purpose: a module of ours that fails when the command imports it."""
    broken = "import sys; from smolvlm.cli.main import main; sys.modules['smolvlm.hub'] = None; "
    script = broken + "sys.exit(main(['models']))"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("smolvlm: unexpected error: ")
    assert "report" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_is_no_defect(environment, model) -> None:
    for args in (["--help"], ["ask", "Hi", *model, "--max-new-tokens", "2", "--stream"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([*COMMAND, *args], env=environment, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
        assert done.returncode == 2, args
        lines = done.stderr.splitlines()
        assert lines[-1].startswith("smolvlm: error: standard output: cannot be written (No space left on device)"), lines
        assert "Exception ignored" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="closes descriptors as a shell does")
@pytest.mark.slow
def test_closed_standard_streams(environment, tiny_checkpoint) -> None:
    program = " ".join(shlex.quote(part) for part in COMMAND)
    for redirection, command, code, out, words in (
        (">&-", f"info {shlex.quote(str(tiny_checkpoint))}", 0, "", ""),
        ("2>&-", "ask", 2, "", ""),
        ("<&-", "chat", 2, "", "standard input, which is closed"),
        ("<&- >&- 2>&-", "--version", 0, "", ""),
    ):
        done = subprocess.run(
            ["sh", "-c", f"{program} {command} {redirection}"], env=environment, capture_output=True, text=True, timeout=120
        )
        assert (done.returncode, done.stdout[:7]) == (code, out), (redirection, command, done.stderr)
        assert words in done.stderr
        assert "Traceback" not in done.stderr
