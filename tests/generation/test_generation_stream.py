"""TextStream: the pieces joined are the final text, whatever the tokens, stop strings and holds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers_generation import decode, encode, eos_id, small_tokenizer
from smolvlm.generation import TextStream

TEXTS = st.text(alphabet=st.sampled_from("ab \n.😀é猫在👨‍👩‍👧🇩🇪\ufffd1,"), max_size=60)
STOPS = st.lists(st.text(alphabet=st.sampled_from("ab \n.😀猫1"), min_size=1, max_size=4), max_size=3)


def byte_ids(text: str) -> list[int]:
    """One token for each byte: the worst case, every character in pieces."""
    tokenizer = small_tokenizer()
    from tokenizers import pre_tokenizers

    shown = "".join(piece for piece, _ in pre_tokenizers.ByteLevel(False, use_regex=False).pre_tokenize_str(text))
    return [tokenizer.token_to_id(character) for character in shown]


def split_text(text: str, stops: Sequence[str]) -> str:
    """The obvious, slow rule: read character by character, stop at the first stop string that is complete."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))]
    return text


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, stops=STOPS, by_bytes=st.booleans(), data=st.data())
def test_pieces_joined_are_the_text_up_to_the_stop_string(text: str, stops: list[str], by_bytes: bool, data) -> None:
    ids = byte_ids(text) if by_bytes else encode(text)
    assert decode(ids) == text
    stream = TextStream(decode, stops)
    pieces, held = [], 0
    for token_id in ids:
        held = data.draw(st.integers(0, held + 1))  # the loop guard lets go of some, or of none
        pieces.append(stream.push(token_id, held))
        if stream.stopped:
            break
    pieces.append(stream.finish())
    expected = split_text(text, stops)
    if text.endswith("\ufffd") and expected == text:
        expected = expected[:-1]  # looks like an unfinished character at the end, and is dropped as one
    assert "".join(pieces) == expected
    assert stream.stopped == (split_text(text, stops) != text) or text.endswith("\ufffd")


@settings(max_examples=300, deadline=None)
@given(ids=st.lists(st.integers(0, small_tokenizer().get_vocab_size() - 1), max_size=80))
def test_any_tokens_at_all(ids: list[int]) -> None:
    """Broken bytes, special tokens, halves of characters: equal to decoding everything at once."""
    stream = TextStream(decode)
    pieces = [stream.push(token_id) for token_id in ids]
    for count in range(1, len(ids) + 1):
        so_far, whole = "".join(pieces[:count]), decode(ids[:count])
        assert so_far == (whole[:-1] if whole.endswith("\ufffd") else whole)  # at once, but never half a character
    assert "".join(pieces) + stream.finish() == "".join(pieces)


@settings(max_examples=200, deadline=None)
@given(picks=st.lists(st.integers(0, 7), max_size=90), pattern=st.lists(st.integers(0, 7), max_size=4))
def test_long_runs_of_broken_bytes(picks: list[int], pattern: list[int]) -> None:
    """First bytes and middles of characters in any order, also for ever: windows are cut only at true boundaries."""
    pieces = [*byte_ids("😀"), *byte_ids("\ufffd"), eos_id()]
    ids = [pieces[i] for i in picks + pattern * 20]
    stream = TextStream(decode)
    text = "".join(stream.push(token_id) for token_id in ids) + stream.finish()
    whole = decode(ids)
    assert text == (whole[:-1] if whole.endswith("\ufffd") else whole)


def test_a_character_in_four_tokens_comes_whole() -> None:
    stream = TextStream(decode)
    assert [stream.push(i) for i in byte_ids("a😀b")] == ["a", "", "", "", "😀", "b"]


def test_an_unfinished_character_is_dropped_at_the_end() -> None:
    stream = TextStream(decode)
    pieces = [stream.push(i) for i in byte_ids("ok 😀")[:-1]]
    assert "".join(pieces) + stream.finish() == "ok "


def test_a_stop_string_over_several_tokens_never_shows() -> None:
    stream = TextStream(decode, ["\nUser:"])
    pieces = []
    for token_id in byte_ids("Fine.\nUse it.\nUser: no"):
        pieces.append(stream.push(token_id))
        if stream.stopped:
            break
    assert pieces[:10] == ["F", "i", "n", "e", ".", "", "", "", "", "\nUse "]
    assert "".join(pieces) + stream.finish() == "Fine.\nUse it."
    assert stream.visible_tokens == len("Fine.\nUse it.")


def test_the_tokenisation_of_a_stop_string_does_not_matter() -> None:
    for stops in (["aba", "b"], ["b", "aba"]):
        for ids in (byte_ids("xaba"), encode("xaba")):
            stream, text = TextStream(decode, stops), ""
            for token_id in ids:
                text += stream.push(token_id)
                if stream.stopped:
                    break
            assert text == "xa"
    words = ["xabcdx", "xab", "cdx"]
    for ids in ([0], [1, 2]):  # "c" is complete before "abcd" is, though it begins later
        stream = TextStream(lambda some: "".join(words[i] for i in some), ["abcd", "c"])
        assert "".join(stream.push(i) for i in ids) == "xab"


def test_held_tokens_are_not_shown_until_they_are_let_go_or_cut() -> None:
    ids = byte_ids("One. One. Two")
    stream = TextStream(decode)
    for token_id in ids[:5]:
        stream.push(token_id)
    assert [stream.push(token_id, held) for held, token_id in enumerate(ids[5:10], start=1)] == [""] * 5
    assert stream.push(ids[10], 0) == "One. T"
    stream = TextStream(decode)
    for index, token_id in enumerate(ids[:10]):
        stream.push(token_id, max(0, index - 4))
    assert stream.cut(5) == ""
    assert stream.visible_tokens == 5
    assert stream.finish() == ""


@pytest.mark.parametrize(
    ("text", "tokens", "extend", "expected"),
    [
        ("He sat. He sat. ", 7, 7, "He sat."),  # already at the end of a sentence: nothing is added
        ("He sat. He sat. ", 8, 7, "He sat. "),
        ("He sat. He sat. ", 4, 7, "He sat."),  # in the middle: on to the end
        ("He sat. He sat. ", 4, 2, "He s"),  # too far away
        ("tick tock tick tock ", 10, 9, "tick tock "),  # no sentence at all
        ("他坐下。他坐下。", 3 * 2, 3 * 3, "他坐下。"),  # three bytes a character
    ],
)
def test_a_cut_moves_on_to_the_end_of_the_sentence(text: str, tokens: int, extend: int, expected: str) -> None:
    stream, ids = TextStream(decode), byte_ids(text)
    shown = "".join(stream.push(token_id, max(0, index + 1 - tokens)) for index, token_id in enumerate(ids))
    shown += stream.cut(tokens, extend)
    assert shown == expected
    assert decode(ids[: stream.visible_tokens]) == expected


@pytest.mark.parametrize("kind", ["text", "bad bytes", "special", "replacement"])
def test_the_work_for_a_token_does_not_grow_with_the_answer(kind: str) -> None:
    ids = {
        "text": encode("A cat and 猫 and 😀. "),
        "bad bytes": [byte_ids("猫")[1]],  # a continuation byte for ever
        "special": [eos_id()],
        "replacement": byte_ids("\ufffd"),
    }[kind] * 400
    decoded = 0

    def counting(window: Sequence[int]) -> str:
        nonlocal decoded
        decoded += len(window)
        return decode(window)

    stream = TextStream(counting)
    text = "".join(stream.push(token_id) for token_id in ids) + stream.finish()
    whole = decode(ids)
    assert text == (whole[:-1] if whole.endswith("\ufffd") else whole)
    assert decoded < 60 * len(ids)  # quadratic would be 200 * len(ids) for 400 tokens and grow
