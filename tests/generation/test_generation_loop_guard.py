"""The loop guards. LoopGuard: equal to an obvious slow rule; ordinary text passes; loops end after their first copy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers_generation import decode, encode, eos_id, scripted_engine
from smolvlm.generation import GenerationParams, LoopGuard, Request, SentenceGuard, collect, generate

ORDINARY = {
    "prose": "The picture shows a small kitchen. On the left, there is a window with white curtains; on the right, "
    "there is a window with blue curtains. A woman stands at the table and cuts bread. Behind her, a man stands at the "
    "stove and stirs soup. The woman wears a red apron, the man wears a blue apron. Both of them are smiling.",
    "list": "".join(f"{i}. The {c} box is on the shelf.\n" for i, c in enumerate(["red", "green", "blue", "white", "black"], 1)),
    "colours": "- a red cup\n- a red plate\n- a red bowl\n- a blue cup\n- a blue plate\n- a blue bowl\n- a green cup\n",
    "table": "| fruit | count | price |\n| --- | --- | --- |\n| apple | 1 | 2.00 |\n| pear | 1 | 2.00 |\n| plum | 1 | 2.00 |\n"
    "| fig | 1 | 2.00 |\n| kiwi | 1 | 2.00 |\n",
    "yes and no": "| Tom | no | no | no |\n| Ann | no | no | no |\n| Eva | no | no | no |\n| Max | no | no | no |\n",
    "empty table": "|   |   |   |\n" * 6,
    "matrix": "[" + ",\n ".join(["[0, 0, 0, 0, 0]"] * 5) + "]",
    "rule": "Title\n" + "=" * 60 + "\nText\n" + "- " * 30,
    "numbers": ", ".join(str(i) for i in range(1, 101)),
    "zeros": "A googol begins 1" + "0" * 60 + " and goes on.",
    "laughter": "He laughed: ha ha ha ha ha ha ha ha ha! Then he said no, no, no, no, no.",
    "refrain": "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream. " * 2,
    "villanelle": "Do not go gentle into that good night. Old age should burn and rave at close of day. "
    "Rage, rage against the dying of the light. Though wise men know dark is right, they "
    "do not go gentle into that good night. Good men cry how bright. Rage, rage against the dying of the light. "
    "Wild men learn too late. Do not go gentle into that good night.",
    "chorus": "".join(
        f"Verse {i} has its own words to sing. We sail across the sea. The wind is in our hair. The sun is on our backs. "
        "We never will look back. Our home is far away. Our hearts are light and free. "
        for i in range(1, 4)
    ),
    "song": "We will, we will rock you. We will, we will rock you. Buddy, you are a boy. We will, we will rock you.",
    "code": "def add(a, b):\n    return a + b\n\ndef sub(a, b):\n    return a - b\n\ndef mul(a, b):\n    return a * b\n",
    "json": '[{"name": "cup", "x": 0, "y": 0}, {"name": "jar", "x": 0, "y": 0}, {"name": "pan", "x": 0, "y": 0}]',
    "time stamps": "".join(f"00:0{i}: The man walks along the road.\n" for i in range(1, 8)),
    "spelling": "A-B-C-A-B-C, easy as one two three, A-B-C, one two three, you and me.",
    "Chinese": "图片中有一只猫。猫坐在窗台上,窗台上有一盆花。花是红色的,猫是白色的。窗外有一棵树,树上有一只鸟。",
}
LOOPS = {
    "sentence": ("The man is walking. ", "The dog is sitting on the grass in the park. "),
    "word": ("It is", " very"),
    "two sentences": ("In the video, ", "the man picks up the cup. He puts it down on the table. "),
    "list items": ("The objects are:\n", "- a chair\n- a table\n- a lamp\n"),
    "letters": ("Sign: ", "A B "),
    "Chinese": ("Answer: ", "一只猫坐在窗台上,"),
    "emoji": ("Great ", "😀 a "),
    "number row": ("", "0, "),
    "shares its end": ("The dog is sitting on the mat. ", "The cat is sitting on the mat. "),
}


NEAR_LOOPS = {
    "numbered": ("I see:\n", [f"{i}. A man is walking on the street.\n" for i in range(1, 60)], 3),
    "bullets and numbers": ("", [f"- ({i}) The cat sits on a mat.\n" for i in range(1, 60)], 3),
    "alternating": ("", [f"{i}. {s}\n" for i in range(1, 40) for s in ("The car is red and new.", "The road is wet.")], 5),
    "Chinese": ("", [f"{i}. 一只猫坐在窗台上。\n" for i in range(1, 60)], 3),
}


def run(text: str) -> tuple[str, bool, int]:
    """The text that a reader sees, whether a loop was found, and the tokens read until then: as `generate` does it."""
    ids = encode(text)
    engine = scripted_engine({1: ids})
    seq = engine.open(len(ids) + 4)
    params = GenerationParams(max_new_tokens=len(ids) + 1)
    request = Request(seq, engine.prefill(seq, [1, 2, 3])[0], [1, 2, 3], params)
    answer = collect(generate(engine, [request], decode, [eos_id()]))[0]
    return answer.text, answer.finish_reason == "repetition", len(answer.sampled_ids)


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_text_is_left_alone(name: str) -> None:
    assert run(ORDINARY[name])[:2] == (ORDINARY[name], False)


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_ends_after_its_first_copy(name: str) -> None:
    start, unit = LOOPS[name]
    shown, found, count = run(start + unit * 100)
    assert found
    assert shown.rstrip() == (start + unit).rstrip()
    assert count <= len(encode(start)) + max(9 * len(encode(unit)) + 96, 30)


@pytest.mark.parametrize("name", NEAR_LOOPS)
def test_the_same_sentences_under_new_numbers_end_too(name: str) -> None:
    start, items, kept = NEAR_LOOPS[name]
    shown, found, count = run(start + "".join(items))
    assert found
    assert shown.rstrip() == (start + "".join(items[:kept])).rstrip()
    assert count < len(encode(start + "".join(items[: kept + 8])))


def test_what_is_said_twice_or_with_something_new_between_is_kept() -> None:
    line = "The man walks along the road. "
    for text in (
        line * 2,
        line
        + "He stops at a shop. "
        + line
        + "He buys a loaf of bread. "
        + line
        + "He eats it on a bench. "
        + line
        + "Then it begins to rain. "
        + line
        + "He runs home as fast as he can. "
        + line
        + "The end has come at last.",
    ):
        assert run(text)[:2] == (text, False)


def test_sentences_are_held_back_only_while_they_are_stale() -> None:
    guard, said = SentenceGuard(), []
    fresh = [f"Number {i} is a new thing here.\n" for i in range(9)]
    for sentence in ["It rains on the town.\n"] * 4 + fresh[:2] + ["It rains on the town.\n"] + fresh[2:3]:
        said.append(guard.push(sentence))
    assert said == [0, 0, 0, 1, 0, 0, 0, 0]  # the third is the first stale one, and it has been shown
    assert guard.start is None
    for sentence in ["3. It rains on the town.\n"] * 5:
        guard.push(sentence)
    assert guard.start == 9  # with it the first stale sentence of this run, not that of the earlier one


def test_a_word_written_forever_keeps_one_copy() -> None:
    shown, found, count = run("no" + " no" * 200)
    assert found
    assert shown.rstrip() in ("no", "no no")
    assert count < 40


def test_a_long_paragraph_is_found_after_its_third_copy() -> None:
    unit = ORDINARY["prose"] + " "
    period = len(encode(unit))
    assert 36 < period < 256
    shown, found, count = run(unit * 6)
    assert found
    assert shown.rstrip() == unit.rstrip()
    assert count <= 3 * period + 2


def test_text_before_and_between_is_kept() -> None:
    broken = "He ran and ran and ran and ran, then he stopped."
    assert run(broken)[0] == broken
    assert run(broken + " The end." + " Again and again." * 50)[0].rstrip() == broken + " The end. Again and again."


@settings(max_examples=60, deadline=None)
@given(head=st.lists(st.integers(0, 5), max_size=40), unit=st.lists(st.integers(0, 5), min_size=1, max_size=12), copies=st.integers(1, 30))
def test_it_equals_the_obvious_slow_rule(head: list[int], unit: list[int], copies: int) -> None:
    """For each period: how far does the tail equal itself, shifted? Written without any memory."""
    guard, max_period = LoopGuard(max_period=16), 16
    tokens: list[int] = []
    for token in head + unit * copies:
        tokens.append(token)
        held = guard.push(token)
        lengths = []
        for period in range(1, max_period + 1):
            length = 0
            while length + period < len(tokens) and tokens[-1 - length] == tokens[-1 - length - period]:
                length += 1
            lengths.append(length)
        assert held == max(lengths)
        confirmed = [p for p, length in enumerate(lengths, start=1) if length >= max(24, 3 * p)]
        assert (guard.loop is not None) == bool(confirmed)
        if guard.loop is not None:
            assert guard.loop == (len(tokens) - lengths[confirmed[0] - 1], confirmed[0])
            break


def test_random_tokens_are_not_a_loop_and_are_held_for_a_moment_only() -> None:
    rng = np.random.default_rng(0)
    guard = LoopGuard()
    held = [guard.push(int(token)) for token in rng.integers(0, 1000, size=20_000)]
    assert guard.loop is None
    assert max(held) <= 4  # five in a row by luck: 20,000 * 256 / 1000**5
