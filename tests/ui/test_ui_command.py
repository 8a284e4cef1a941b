"""`smolvlm ui` on the command line: what is refused, in one line, before or in place of a page."""

from __future__ import annotations

import socket
import sys

import pytest

from smolvlm.cli.main import main


def test_the_help_imports_no_gradio(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)  # importing it would fail
    assert main(["ui", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "smolvlm ui --simple --lang zh" in shown
    assert "7860" in shown


def test_without_gradio_the_extra_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["ui", "--model", "nano"]) == 2
    assert 'pip install "smolvlm[ui]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--lang", "fr"], "--lang fr: expected one of auto, en, zh."),
        (["--port", "70000"], "--port 70000: expected a whole number from 0 to 65535."),
        (["--max-upload-mb", "0"], "--max-upload-mb 0"),
    ],
)
def test_a_bad_flag_is_one_line(flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio", reason='no Gradio: pip install "smolvlm[ui]"')
    assert main(["ui", "--model", "nano", "--no-browser", *flags]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio", reason='no Gradio: pip install "smolvlm[ui]"')
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["ui", "--model", "nano", "--no-browser", "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err
