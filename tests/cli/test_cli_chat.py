"""`chat` on piped questions: a conversation, its commands, and its errors."""

from __future__ import annotations

import io

import pytest

import smolvlm
from helpers_cli import PHOTO


@pytest.fixture
def chat(run, monkeypatch):
    def call(lines: str, *args: object):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
        return run("chat", *args)

    return call


@pytest.fixture
def expected(tiny_checkpoint):
    """The library's own session, as the reference."""
    api = smolvlm.load(tiny_checkpoint, dtype="float32", device="cpu")
    with api.session(PHOTO, max_new_tokens=10) as session:
        yield session


def test_two_turns_are_one_conversation(chat, model, expected) -> None:
    result = chat("What is this?\n\nAnd why?\n", PHOTO, *model, "--max-new-tokens", 10)
    assert result.code == 0, result.err
    first, second = expected.ask("What is this?"), expected.ask("And why?")
    assert result.out == f"{first.text}\n{second.text}\n"
    assert second.usage.prefilled_tokens < second.usage.prompt_tokens
    expected.reset()
    assert expected.ask("And why?").text != second.text  # so the first turn was really in the second prompt


def test_reset_forgets_the_turns(chat, model, expected) -> None:
    result = chat("What is this?\n/reset\nAnd why?\n", PHOTO, *model, "--max-new-tokens", 10)
    first = expected.ask("What is this?").text
    expected.reset()
    assert result.out == f"{first}\n{expected.ask('And why?').text}\n"


def test_exit_help_and_unknown_commands(chat, model) -> None:
    result = chat("/help\n/dance now\n/exit\nNever asked.\n", *model)
    assert (result.code, result.out) == (0, "")
    assert "/reset forgets" in result.err
    assert "/dance is no command" in result.err


def test_text_alone_with_a_system_message(chat, model, tiny_checkpoint) -> None:
    result = chat("Hello\n", *model, "--system", "Be brief.", "--max-new-tokens", 8)
    api = smolvlm.load(tiny_checkpoint, dtype="float32", device="cpu")
    assert result.out == api.ask(None, "Hello", system="Be brief.", max_new_tokens=8).text + "\n"


def test_media_that_cannot_be_read_end_it_before_the_model_is_loaded(chat, model, tmp_path) -> None:
    result = chat("What?\n", tmp_path / "none.jpg", *model)
    assert (result.code, result.out) == (2, "")
    assert len(result.err.splitlines()) == 1


def test_a_piped_question_that_fails_ends_the_run(chat, model) -> None:
    result = chat("word " * 9000 + "\nHello\n", *model)
    assert (result.code, result.out) == (2, "")
    assert "context" in result.err.splitlines()[-1]


def test_no_questions_no_answers(chat, model) -> None:
    result = chat("", *model)
    assert (result.code, result.out) == (0, "")


def test_bytes_that_are_no_text_are_questions_too(run, model, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe?\n"), encoding="utf-8"))
    assert run("chat", *model, "--max-new-tokens", 3).code == 0
