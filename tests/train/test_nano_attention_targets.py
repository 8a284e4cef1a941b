"""Where tokens should look, worked out by hand on scenes and clips built by hand; and the loss against a slow loop.

Frames have 6 x 6 cells, numbered row by row; image token c of frame f stands at IMAGE + 40 f + c of a row, because the
prompt has other tokens between frames. Questions stand at START.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from smolvlm.config import ModelConfig, preset
from smolvlm.prompt.tokenizer import PromptTokenizer
from smolvlm.synth.sample import CharacterTruth, FrameTruth, ItemTruth, Question, Sample
from smolvlm.train.nano.attention_targets import (
    ANSWER_LAYER,
    CHANGE_LAYER,
    HEADS,
    QUESTION_LAYER,
    TIME_LAYER,
    AttentionTarget,
    attn_target_loss,
)
from smolvlm.train.nano.rows import RowMaker

pytestmark = pytest.mark.slow  # the laboratory: the outer ring
IMAGE, START = 5, 400

# Each look as {token: share}, the first head's and the last head's.
Looks = tuple[dict[int, float], dict[int, float]]
Found = dict[tuple[str, int, int], Looks]  # (the token's text, its place in the question with its answer, layer)


def thing(name: str, colour: str | None, centre: tuple[float, float]) -> ItemTruth:
    x, y = centre
    return ItemTruth(name, colour, (x - 0.1, y - 0.1, x + 0.1, y + 0.1))


def token(cell: int, frame: int = 0) -> int:
    return IMAGE + 40 * frame + cell


def at_both(*tokens: int) -> Looks:
    """Both heads, evenly at these tokens."""
    look = {t: 1 / len(tokens) for t in tokens}
    return look, look


STAR = thing("star", "red", (0.25, 0.25))  # column 1, row 1: cell 7
DOG = thing("dog", None, (0.75, 0.6))  # column 4, row 3: cell 22
SCENE = FrameTruth((STAR, DOG))


@pytest.fixture(scope="module")
def tokenizer(nano_tokenizer: Path) -> PromptTokenizer:
    return PromptTokenizer(nano_tokenizer.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def maker(tokenizer: PromptTokenizer) -> RowMaker:
    config: ModelConfig = preset("nano")
    assert config.image_seq_len == 36
    return RowMaker(config, tokenizer)


def sample(*truths: FrameTruth) -> Sample:
    frame = np.zeros((8, 8, 3), np.uint8)
    return Sample("image" if len(truths) < 2 else "video", (frame,) * max(len(truths), 1), (), truths=truths)


def find(maker: RowMaker, task: str, text: str, answer: str, *truths: FrameTruth) -> Found:
    """The attn_targets of a question about frames of these truths, by the text of the token that looks."""
    branch, answer_length = maker.branch(Question(task, text, answer), "")
    image_tokens = [token(cell, frame) for frame in range(len(truths)) for cell in range(36)]
    found: Found = {}
    for attn_target in maker.target_finder.find(sample(*truths), Question(task, text, answer), branch, answer_length, START, image_tokens):
        first, last = (dict(look) for look in attn_target.looks)
        assert sum(first.values()) == pytest.approx(1)
        assert sum(last.values()) == pytest.approx(1)
        key = (maker.tokenizer.decode([branch[attn_target.at - START]]), attn_target.at - START, attn_target.layer)
        assert key not in found, "one token, one layer, two attn_targets"
        found[key] = (first, last)
    return found


def place(maker: RowMaker, text: str, answer: str, word: str, nth: int = 0) -> int:
    """Where the nth token that reads `word` stands in a question with its answer."""
    words = [maker.tokenizer.decode([i]) for i in maker.branch(Question("", text, answer), "")[0]]
    return [i for i, found in enumerate(words) if found == word][nth]


def test_the_name_finds_its_thing_and_the_answer_begins_there(maker: RowMaker) -> None:
    asked = "Where is the dog?", "right"
    name, colon = place(maker, *asked, " dog"), place(maker, *asked, ":")
    assert place(maker, *asked, " right") == colon + 1  # the colon of "Assistant:" writes the answer's first word
    found = find(maker, "position", *asked, SCENE)
    assert found == {(" dog", name, QUESTION_LAYER): at_both(token(22)), (":", colon, ANSWER_LAYER): at_both(token(22))}


def test_a_colours_answer_looks_at_the_thing(maker: RowMaker) -> None:
    found = find(maker, "colour", "What colour is the star?", "red", SCENE)
    assert {(text, layer): looks for (text, _, layer), looks in found.items()} == {
        (" star", QUESTION_LAYER): at_both(token(7)),
        (":", ANSWER_LAYER): at_both(token(7)),
    }


@pytest.mark.parametrize("phrase", ["a cat", "a blue star"])  # no such thing; such a thing in another colour
def test_what_is_absent_looks_at_itself(maker: RowMaker, phrase: str) -> None:
    asked = f"Is there {phrase} in the picture?", "no"
    word = f" {phrase.split()[-1]}"
    at = place(maker, *asked, word)
    assert find(maker, "presence", *asked, SCENE) == {(word, at, QUESTION_LAYER): at_both(START + at)}


def test_presence_is_told_by_the_question_alone(maker: RowMaker) -> None:
    asked = "Is there a red star in the picture?", "yes"
    at = place(maker, *asked, " star")
    assert find(maker, "presence", *asked, SCENE) == {(" star", at, QUESTION_LAYER): at_both(token(7))}
    # An absent thing leaves no place where an answer could begin.
    asked = "Where is the cat?", "left"
    assert [layer for _, _, layer in find(maker, "position", *asked, SCENE)] == [QUESTION_LAYER]


def test_two_names_in_one_question(maker: RowMaker) -> None:
    found = find(maker, "spatial", "Is the star left or right of the dog?", "left", SCENE)
    assert {(text, layer): looks for (text, _, layer), looks in found.items()} == {
        (" star", QUESTION_LAYER): at_both(token(7)),
        (" dog", QUESTION_LAYER): at_both(token(22)),
    }


def test_each_phrase_of_a_caption_looks_at_its_thing(maker: RowMaker) -> None:
    """Article, colour and name: the token before is about to write what it looks at."""
    asked = "Describe this picture.", "a red star at the top left and a dog on the right"
    found = find(maker, "caption", *asked, SCENE)
    begin = place(maker, *asked, ":") + 1
    words = [" a", " red", " star", " at", " the", " top", " left", " and", " a", " dog", " on", " the", " right"]
    expected = {(words[i], begin + i, ANSWER_LAYER): at_both(token(7)) for i in (0, 1, 2)}
    expected |= {(words[i], begin + i, ANSWER_LAYER): at_both(token(22)) for i in (8, 9)}
    assert found == expected


def test_alike_things_take_turns_in_reading_order(maker: RowMaker) -> None:
    """The first named star is the one in the upper third, whatever the order of the truth."""
    low, high = thing("star", "red", (0.2, 0.9)), thing("star", "red", (0.9, 0.1))  # cells 31 and 5
    asked = "What do you see?", "a red star at the top right and a red star at the bottom left"
    found = find(maker, "caption", *asked, FrameTruth((low, high)))
    names = [(at, looks) for (text, at, _), looks in sorted(found.items(), key=lambda item: item[0][1]) if text == " star"]
    assert [looks for _, looks in names] == [at_both(token(5)), at_both(token(31))]


@pytest.mark.parametrize(
    ("text", "word", "answer", "cells"),
    [
        ("How many stars are there?", " stars", "2", (7, 31)),
        ("How many red shapes are there?", " shapes", "3", (7, 31, 5)),
        ("How many dogs are there?", " dogs", "1", (22,)),
    ],
)
def test_counted_things_share_attention_by_their_number(maker: RowMaker, text: str, word: str, answer: str, cells: Sequence[int]) -> None:
    """An eighth each, the rest stays: of two stars a quarter of the attention is away, of three three eighths."""
    items = (STAR, DOG, thing("star", "red", (0.2, 0.9)), thing("circle", "red", (0.9, 0.1)), thing("ring", "blue", (0.5, 0.5)))
    found = find(maker, "count", text, answer, FrameTruth(items))
    at = place(maker, text, answer, word)
    look = {token(cell): 1 / 8 for cell in cells} | {START + at: 1 - len(cells) / 8}
    assert found == {(word, at, QUESTION_LAYER): (look, look)}


def test_heads_look_at_the_first_and_the_last_frame_of_a_clip(maker: RowMaker) -> None:
    """A ball that moves along the middle row, and a dog that comes in the second frame."""
    balls = [thing("ball", None, (x, 0.5)) for x in (0.1, 0.5, 0.9)]  # columns 0, 3 and 5 of row 3: 18, 21 and 23
    truths = [FrameTruth((balls[0],)), FrameTruth((balls[1], DOG)), FrameTruth((balls[2], DOG))]
    ball = {token(18, 0): 1.0}, {token(23, 2): 1.0}
    dog = {token(22, 1): 1.0}, {token(22, 2): 1.0}
    found = find(maker, "motion", "Which way does the ball move?", "right", *truths)
    assert {(text, layer): looks for (text, _, layer), looks in found.items()} == {
        (" ball", QUESTION_LAYER): ball,
        (":", ANSWER_LAYER): ball,
    }
    found = find(maker, "event", "What happens?", "the dog appears", *truths)
    assert {(text, layer): looks for (text, _, layer), looks in found.items()} == {(" the", ANSWER_LAYER): dog, (" dog", ANSWER_LAYER): dog}
    found = find(maker, "action", "What does the dog do?", "it appears", *truths)
    assert {(text, layer): looks for (text, _, layer), looks in found.items()} == {(" dog", QUESTION_LAYER): dog, (":", ANSWER_LAYER): dog}


def shown_in(*centres: tuple[float, float] | None) -> list[FrameTruth]:
    """A clip's frames, with a cat at these places and a star that never moves."""
    return [FrameTruth((STAR,) if c is None else (STAR, thing("cat", None, c))) for c in centres]


HIGH, LOW = (0.5, 0.3), (0.5, 0.9)  # cells 9 and 33


@pytest.mark.parametrize(
    ("verb", "truths", "event"),
    [
        ("appear", shown_in(None, HIGH, HIGH), token(9, 1)),  # the first frame that shows it
        ("appear", shown_in(None, None, None, HIGH), token(9, 3)),
        ("disappear", shown_in(HIGH, HIGH, None, None), token(9, 2)),  # the first that does not, where it was
        ("fall", shown_in(HIGH, HIGH, HIGH, LOW), token(33, 3)),
    ],  # the first that shows it elsewhere
    ids=["appear", "appear late", "disappear", "fall"],
)
def test_a_time_is_read_off_the_frame_of_the_event(maker: RowMaker, verb: str, truths: list[FrameTruth], event: int) -> None:
    """From the token before the answer to the one before its last digit: " at", " ", "0", "0", ":", "0", "3"."""
    asked = f"When does the cat {verb}?", "at 00:03"
    begin = place(maker, *asked, ":") + 1
    found = find(maker, "when", *asked, *truths)
    answers = {at: looks for (_, at, layer), looks in found.items() if layer == ANSWER_LAYER}
    assert answers == {begin - 1 + i: at_both(event) for i in range(7)}
    branch, length = maker.branch(Question("when", *asked), "")
    assert length == 8  # seven and the stop token, which nobody needs to look for
    assert maker.tokenizer.decode(branch[begin:-1]) == " at 00:03"
    assert [text for text, _, layer in found if layer == QUESTION_LAYER] == [" cat"]


def test_no_event_no_time(maker: RowMaker) -> None:
    found = find(maker, "when", "When does the cat fall?", "at 00:01", *shown_in(HIGH, HIGH, HIGH))
    assert [layer for _, _, layer in found] == [QUESTION_LAYER]


def test_a_clips_cells_look_back_and_at_the_seconds_of_their_frame(maker: RowMaker) -> None:
    """Where something is at some time, in every frame: in one layer at the same place a frame before (first head) and in the
    first frame (last head), in another at the units and the tens of its time."""
    truths = tuple(shown_in(None, HIGH, LOW))
    frame = np.zeros((8, 8, 3), np.uint8)
    clip = Sample("video", (frame,) * 3, (), (0.0, 14.0, 28.0), 42.0, truths)
    row = maker.row(clip, [], 200)
    words = [maker.tokenizer.decode([int(i)]) for i in row.input_ids]
    cells = np.flatnonzero(row.input_ids == maker.config.image_token_id).reshape(3, 36)
    assert {attn_target.layer for attn_target in row.attn_targets} == {CHANGE_LAYER, TIME_LAYER}
    found = {(attn_target.layer, attn_target.at): attn_target.looks for attn_target in row.attn_targets}
    assert len(found) == len(row.attn_targets) == 2 * 3 * 3
    for number, seconds in enumerate(("00", "14", "28")):
        for cell in (7, 9, 33):
            at = int(cells[number, cell])
            (((units, all_units),), ((tens, all_tens),)) = found[TIME_LAYER, at]
            assert (words[tens], words[units]) == tuple(seconds)
            assert tens + 1 == units < cells[number, 0]
            assert units > (cells[number - 1, -1] if number else 0)  # of this frame's own time
            assert all_units == all_tens == 1.0
            before = int(cells[max(number - 1, 0), cell])  # the first frame has none before it: each looks at itself
            assert found[CHANGE_LAYER, at] == (((before, 1.0),), ((int(cells[0, cell]), 1.0),))
    assert maker.row(sample(SCENE), [], 100).attn_targets == ()  # one picture has no time


def test_the_second_of_two_pictures_looks_at_the_first(maker: RowMaker) -> None:
    """A dog that is only in the second: its cell looks at the empty one before it, and no cell at a time."""
    frame = np.zeros((8, 8, 3), np.uint8)
    pair = Sample("images", (frame,) * 2, (), truths=(FrameTruth((STAR,)), FrameTruth((STAR, DOG))))
    row = maker.row(pair, [], 120)
    cells = np.flatnonzero(row.input_ids == maker.config.image_token_id).reshape(2, 36)
    expected = {(int(cells[number, cell]), int(cells[0, cell])) for number in range(2) for cell in (7, 22)}
    assert {(attn_target.at, attn_target.looks[0][0][0]) for attn_target in row.attn_targets} == expected
    assert {attn_target.layer for attn_target in row.attn_targets} == {CHANGE_LAYER}


def test_two_alike_in_a_frame_are_looked_at_evenly(maker: RowMaker) -> None:
    other = thing("dog", None, (0.1, 0.1))  # cell 0
    found = find(maker, "presence", "Is there a dog?", "yes", FrameTruth((DOG, other)))
    assert list(found.values()) == [at_both(token(22), token(0))]


@pytest.mark.parametrize(("task", "answer"), [("defect", "yes"), ("defect_kind", "scratch")])
def test_an_answer_about_a_defect_begins_at_the_defect(maker: RowMaker, task: str, answer: str) -> None:
    """No word of the question says where; on a sound part the token looks at itself."""
    gear, scratch = thing("gear", None, (0.5, 0.5)), thing("scratch", None, (0.4, 0.7))  # the scratch: column 2, row 4
    asked = "What is wrong with the part?", answer
    colon = place(maker, *asked, ":")
    assert find(maker, task, *asked, FrameTruth((gear, scratch))) == {(":", colon, ANSWER_LAYER): at_both(token(26))}
    assert find(maker, task, *asked, FrameTruth((gear,))) == {(":", colon, ANSWER_LAYER): at_both(START + colon)}


def test_reading_looks_one_character_ahead(maker: RowMaker) -> None:
    """The truth's order does not matter, the place does; the token before a character looks at it."""
    letters = tuple(CharacterTruth(c, (x, 0.5)) for c, x in (("T", 0.3), ("S", 0.1), ("P", 0.9), ("O", 0.6)))
    asked = "What does the sign say?", "STOP"
    begin = place(maker, *asked, ":") + 1
    found = find(maker, "reading_word", *asked, FrameTruth((), letters))
    cells = (18, 19, 21, 23)  # row 3, columns 0, 1, 3 and 5
    assert {at: looks for (_, at, _), looks in found.items()} == {begin + i - 1: at_both(token(cell)) for i, cell in enumerate(cells)}
    assert {layer for _, _, layer in found} == {ANSWER_LAYER}


def test_the_space_before_a_number_is_no_character(maker: RowMaker) -> None:
    digits = tuple(CharacterTruth(c, (x, 0.1)) for c, x in (("4", 0.1), ("0", 0.5), ("7", 0.9)))  # cells 0, 3 and 5
    asked = "Read the number.", "407"
    begin = place(maker, *asked, ":") + 1  # a token for the space, then one a digit
    found = find(maker, "reading_number", *asked, FrameTruth((), digits))
    assert {(text, at): looks for (text, at, _), looks in found.items()} == {
        (" ", begin): at_both(token(0)),
        ("4", begin + 1): at_both(token(3)),
        ("0", begin + 2): at_both(token(5)),
    }


def test_without_truth_nobody_is_told_where_to_look(maker: RowMaker) -> None:
    assert find(maker, "position", "Where is the dog?", "right") == {}


def test_a_rows_gazes_count_from_its_beginning(maker: RowMaker) -> None:
    """Two questions in one row, with the media in front: each attn_target is at its own name and at true image tokens."""
    scene = sample(SCENE)
    questions = [Question("position", "Where is the dog?", "right"), Question("colour", "What colour is the star?", "red")]
    row = maker.row(scene, questions, 160)
    image_tokens = np.flatnonzero(row.input_ids == maker.config.image_token_id)
    assert len(image_tokens) == 36
    words = [maker.tokenizer.decode([int(i)]) for i in row.input_ids]
    expected = [
        (" dog", QUESTION_LAYER, image_tokens[22]),
        (":", ANSWER_LAYER, image_tokens[22]),
        (" star", QUESTION_LAYER, image_tokens[7]),
        (":", ANSWER_LAYER, image_tokens[7]),
    ]
    assert [(words[g.at], g.layer, g.looks) for g in row.attn_targets] == [
        (word, layer, (((target, 1.0),),) * 2) for word, layer, target in expected
    ]
    assert row.segments[[g.at for g in row.attn_targets]].tolist() == [1, 1, 2, 2]


# The loss

TARGETS = (
    (0, AttentionTarget(4, QUESTION_LAYER, (((1, 1.0),), ((2, 1.0),)))),
    (1, AttentionTarget(6, QUESTION_LAYER, (((0, 0.5), (3, 0.5)),) * 2)),
    (1, AttentionTarget(7, QUESTION_LAYER, (((0, 0.125), (0, 0.125), (7, 0.75)),) * 2)),  # two counted things in one cell
    (0, AttentionTarget(5, ANSWER_LAYER, (((1, 1.0),),) * 2)),
)


def scored() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random query (2, 4, 8, 16) and key (2, 2, 8, 16), and a causal mask in which row 1 does not see token 5."""
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 4, 8, 16, generator=generator), torch.randn(2, 2, 8, 16, generator=generator)
    mask = torch.ones(2, 1, 8, 8, dtype=torch.bool).tril()
    mask[1, 0, 6:, 5] = False
    return query, key, mask


def slow_loss(layer: int, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor) -> float:
    """Number by number in float64."""
    q, k, seen = query.double().numpy(), key.double().numpy(), mask.numpy()
    losses = []
    for row, attn_target in TARGETS:
        if attn_target.layer != layer:
            continue
        for head in range(HEADS):
            visible = [t for t in range(8) if seen[row, 0, attn_target.at, t]]
            scores = {t: float(np.dot(q[row, head, attn_target.at], k[row, 0, t])) / 16**0.5 for t in visible}
            total = sum(np.exp(s) for s in scores.values())
            losses.append(-sum(share * np.log(np.exp(scores[t]) / total) for t, share in attn_target.looks[head]))
    return float(np.mean(losses))


@pytest.mark.parametrize("layer", [QUESTION_LAYER, ANSWER_LAYER])
def test_the_loss_is_that_of_a_slow_loop(layer: int) -> None:
    loss = attn_target_loss(layer, *scored(), TARGETS)
    assert loss is not None
    assert loss.item() == pytest.approx(slow_loss(layer, *scored()), rel=1e-5)  # float32: sums of sixteen products
    assert attn_target_loss(0, *scored(), TARGETS) is None


def test_the_loss_moves_two_heads_and_nothing_else() -> None:
    query, key, mask = scored()
    query.requires_grad_()
    key.requires_grad_()
    loss = attn_target_loss(QUESTION_LAYER, query, key, mask, TARGETS)
    assert loss is not None
    loss.backward()
    assert query.grad is not None
    assert key.grad is not None
    moved = query.grad.abs().sum(-1) > 0
    expected = torch.zeros(2, 4, 8, dtype=torch.bool)
    expected[0, :HEADS, 4] = expected[1, :HEADS, 6:] = True
    assert torch.equal(moved, expected)
    assert not key.grad[:, 1].any()  # the key head of the other query heads
    assert not key.grad[1, 0, 5].any()  # what a token may not see cannot be pushed away


def test_the_loss_is_least_where_the_look_is_right() -> None:
    """Attention that is the target costs the target's entropy and has no gradient: a counting look of 1/8, 1/8 and 3/4."""
    shares = torch.tensor([0.125, 0.125, 0.75])
    query = torch.zeros(1, 2, 3, 4)
    query[..., 0] = 2.0  # times 4 ** -0.5: a score is the key's first number
    key = torch.zeros(1, 1, 3, 4)
    key[0, 0, :, 0] = shares.log()
    key.requires_grad_()
    look = tuple((i, float(share)) for i, share in enumerate(shares))
    mask = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    loss = attn_target_loss(0, query, key, mask, [(0, AttentionTarget(2, 0, (look, look)))])
    assert loss is not None
    assert loss.item() == pytest.approx(-float((shares * shares.log()).sum()), abs=1e-6)
    loss.backward()
    assert key.grad is not None
    assert key.grad.abs().max() < 1e-6
