"""A session encodes once, and a further question prefills only its own tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from smolvlm import SmolVLM
from smolvlm.errors import ContextLengthError, ParamsError, PromptError

OPTIONS = {"max_new_tokens": 9, "loop_guard": False, "ignore_eos": True}


def test_the_second_question_pays_only_for_itself(model: SmolVLM, examples: Path) -> None:
    counters = model.runtime.counters
    with model.session(examples / "bigbuckbunny.mp4", system="Be brief.", **OPTIONS) as session:
        first = session.ask("What happens?")
        assert first.usage.encoded_tiles == 5
        assert first.usage.prefilled_tokens == first.usage.prompt_tokens
        tiles, tokens = counters.tiles_encoded, counters.tokens_prefilled
        second = session.ask("And then?")
        assert counters.tiles_encoded == tiles
        # Of its own are: the last token of the first answer (sampled, never decoded), the end of that turn, and the question.
        question = len(model.processor(model.messages(None, "And then?")).input_ids) - 1  # without the <|im_start|>
        assert counters.tokens_prefilled - tokens == second.usage.prefilled_tokens == 1 + 2 + question
        assert second.usage.prompt_tokens == first.usage.prompt_tokens + 9 + 2 + question


def test_a_session_answers_as_a_fresh_chat_would(model: SmolVLM, examples: Path) -> None:
    """Same conversation, once through the session's cache and once from nothing, token for token."""
    photo = {"type": "image", "path": str(examples / "coffee.png")}
    with model.session(photo, **OPTIONS) as session:
        answers = [session.ask(question) for question in ("What is it?", "Why?", "Where?")]
        aside = session.ask("Hm?", remember=False)
        again = session.ask("Hm?", remember=False)
        prompt = list(session._turns)  # the exact turns, answers as the tokens that were generated
    assert aside.token_ids == again.token_ids
    assert again.usage.prefilled_tokens == 1  # the identical prompt: all but its last token was there
    for turn, answer in zip((2, 4), answers[1:], strict=True):
        fresh = model.chat([*prompt[:turn], prompt[turn]], **OPTIONS)
        assert fresh.token_ids == answer.token_ids


def test_the_prompt_holds_the_exact_tokens_of_earlier_answers(model: SmolVLM) -> None:
    with model.session(None, **OPTIONS) as session:
        first = session.ask("Hello")
        session.ask("Again")
        ids = list(model.processor.build(session._turns[:3], []).input_ids)
    start = len(model.processor(model.messages(None, "Hello")).input_ids)
    assert ids[:start] == list(model.processor(model.messages(None, "Hello")).input_ids)
    assert tuple(ids[start : start + 9]) == first.token_ids  # right after `Assistant:`, where they were generated
    assert ids[start + 9] == model.config.eos_token_ids[0]


def test_reset_forgets_the_turns_and_keeps_the_media(model: SmolVLM, examples: Path) -> None:
    with model.session(examples / "chelsea.png", detail="low", **OPTIONS) as session:
        first = session.ask("What is it?")
        session.ask("Why?")
        session.reset()
        again = session.ask("What is it?")
    assert again.token_ids == first.token_ids
    assert again.usage.encoded_tiles == 0


def test_a_closed_session_can_go_on(model: SmolVLM, examples: Path) -> None:
    session = model.session(examples / "chelsea.png", detail="low", **OPTIONS)
    session.ask("What is it?")
    expected = session.ask("Why?", remember=False)
    session.close()
    resumed = session.ask("Why?", remember=False)
    session.close()
    assert resumed.token_ids == expected.token_ids
    assert resumed.usage.encoded_tiles == 0
    assert resumed.usage.prefilled_tokens == resumed.usage.prompt_tokens


def test_one_answer_at_a_time(model: SmolVLM) -> None:
    with model.session(None, **OPTIONS) as session:
        stream = session.stream("Hello")
        next(stream)
        with pytest.raises(PromptError, match="still answering"):
            session.ask("Again")
        stream.close()
        assert session.ask("Again").finish_reason == "length"


def test_a_stream_nobody_holds_does_not_block_the_next_question(model: SmolVLM) -> None:
    with model.session(None, **OPTIONS) as session:
        expected = session.ask("Hello", remember=False)
        next(session.stream("Dropped after one piece"))
        assert session.ask("Hello", remember=False).token_ids == expected.token_ids


def test_texts_may_stand_between_media(model: SmolVLM, examples: Path) -> None:
    photo = {"type": "image", "path": str(examples / "coffee.png"), "detail": "low"}
    parts = [photo, {"type": "text", "text": "and then"}, photo]
    with model.session(parts, **OPTIONS) as session:
        first = session.ask("What has changed?", remember=False)
        again = session.ask("What has changed?")
        session.ask("And now?")
        session.add([{"type": "text", "text": "one more"}, photo])
        session.take_back(1)
        session.ask("And now?")
    assert first.token_ids == again.token_ids == model.ask(parts, "What has changed?", **OPTIONS).token_ids


def test_a_dropped_session_gives_its_pages_back(model: SmolVLM) -> None:
    for _ in range(3):
        model.session(None, **OPTIONS).ask("Hello")
        model.ask(None, "Hello", max_new_tokens=1)  # the next sequence that is opened closes those that nobody holds
    assert model.engine.kv_pages == 0


def test_what_changes_during_an_answer_stays_changed(model: SmolVLM, examples: Path) -> None:
    with model.session(None, **OPTIONS) as session:
        before = session.ask("Hello")
        stream = session.stream("Again")
        next(stream)
        session.reset()
        assert stream.answer.finish_reason == "length"
        assert session.ask("Hello").usage.prompt_tokens == before.usage.prompt_tokens
        session.add({"type": "image", "path": str(examples / "coffee.png"), "detail": "low"})
        stream = session.stream("And this?")
        next(stream)
        session.take_back(1)
        assert stream.answer.finish_reason == "length"
        assert session.ask("Why?").usage.image_tokens == 0


def test_a_cancelled_or_closed_answer_does_not_stand_in_the_way(model: SmolVLM) -> None:
    session = model.session(None, **OPTIONS)
    stream = session.stream("Hello")
    next(stream)
    stream.cancel()
    assert session.ask("Again").finish_reason == "length"
    stream = session.stream("Hello")
    next(stream)
    session.close()
    assert stream.answer.finish_reason == "cancelled"
    assert session.ask("Again").finish_reason == "length"
    session.close()
    with pytest.raises(ParamsError, match="count=a: expected"):
        session.take_back("a")  # type: ignore[arg-type]


def test_a_full_session_names_the_way_out(model: SmolVLM) -> None:
    with model.session(max_new_tokens=4) as session:
        with pytest.raises(ContextLengthError) as first:
            session.ask("word " * 10_000)
        assert "reset()" not in str(first.value)  # nothing to forget yet
        session.ask("Hello")
        with pytest.raises(ContextLengthError, match=r"reset\(\) forgets"):
            session.ask("word " * 10_000)
