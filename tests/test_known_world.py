"""What `nano` says about its own limits: never silent, sharper where a picture or a question is outside of its world."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw

import smolvlm
from smolvlm import known_world
from smolvlm.known_world import KNOWS, color_count, is_known, looks_drawn, unknown_words, warning
from smolvlm.synth import generate

ROOT = Path(__file__).resolve().parents[1]
MEDIA = ROOT / "examples" / "media"
LEARNED = ("scene", "writing", "clip", "pair", "part", "room", "room_clip")


@pytest.fixture(scope="module")
def nano() -> smolvlm.SmolVLM:
    return smolvlm.load("nano")


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("generator", LEARNED)
@pytest.mark.slow
def test_wordings_of_the_generators_are_known(generator: str) -> None:
    """Drawn anew, other samples than those the list was made from: a wording that is added there must be added here."""
    asked = {q.text for i in range(2000, 2060) for q in generate(generator, "train", i).questions}
    assert {text for text in asked if not is_known(text)} == set()
    assert {word for text in asked for word in unknown_words(text)} == set()


@pytest.mark.parametrize(
    "question",
    [
        "Name three rivers.",
        "What is the capital of France?",
        "Who scores?",
        "What is the total?",
        "Is anybody hurt?",
        "What is written on the sign?",
        "How many objects are there?",
        "What is in the picture?",
        "这是什么？",
        "",
        "???",
    ],
)
def test_other_wordings_are_not(question: str) -> None:
    assert not is_known(question)
    assert warning(question) != KNOWS


def test_words_that_it_never_met_are_named() -> None:
    assert unknown_words("Name three rivers, rivers of France!") == ["three", "rivers", "france"]
    assert "three, rivers" in warning("Name three rivers.")
    assert "worded like this" in warning("What is written on the sign?")
    assert warning("Where is the red star?") == KNOWS
    assert "a.jpg (and 1 more) does not look drawn" in warning("What is this?", ["a.jpg", "b.jpg"])


def test_a_color_count_is_that_of_the_definition() -> None:
    """Two halves are 2 colors, a quarter and three quarters 2 ** 0.811, sixty-four equal squares 64."""
    halves = np.zeros((96, 96, 3), np.uint8)
    halves[:, 48:] = 200
    assert color_count(halves) == pytest.approx(2.0)
    quarter = np.zeros((96, 96, 3), np.uint8)
    quarter[:, 72:] = 200
    assert color_count(quarter) == pytest.approx(2 ** (0.25 * 2 + 0.75 * np.log2(4 / 3)))
    squares = np.repeat(np.repeat(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4, 12, 0), 12, 1)
    levels = len(np.unique(squares // 8))
    assert color_count(np.stack([squares] * 3, -1)) == pytest.approx(levels)
    assert color_count(np.zeros((1, 1, 3), np.uint8)) == 1.0
    assert color_count(np.zeros((3, 500, 3), np.uint8)) == 1.0


@pytest.mark.slow
def test_false_alarms_on_drawn_scenes_are_rare() -> None:
    """280 scenes of the test split and 60 by other libraries on photographed grounds: at most 2 % and 10 % of them."""
    drawn = [generate(g, "test", i).frames[0] for g in LEARNED for i in range(3000, 3040)]
    alarms = sum(not looks_drawn(frame[None]) for frame in drawn)
    assert alarms <= 0.02 * len(drawn), alarms
    handmade = sorted((ROOT / "src/smolvlm/evals/assets/handmade").glob("*.jpg"))
    assert len(handmade) == 60
    alarms = sum(not looks_drawn(np.asarray(Image.open(p).convert("RGB").resize((192, 192)))[None]) for p in handmade)
    assert alarms <= 0.1 * len(handmade), alarms
    flat = Image.new("RGB", (192, 192), "white")
    ImageDraw.Draw(flat).ellipse((40, 40, 120, 120), fill="red")
    assert looks_drawn(np.asarray(flat)[None])


@pytest.mark.parametrize("name", ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"])
def test_photographs_are_recognized(name: str, nano: smolvlm.SmolVLM) -> None:
    assert color_count(pixels(MEDIA / name)) > known_world.MAX_DRAWN_COLORS
    answer = nano.ask(MEDIA / name, "What is this?", max_new_tokens=4)
    assert any(f"{name} does not look drawn" in sentence for sentence in answer.warnings)


def test_film_frames_are_recognized() -> None:
    with av.open(str(MEDIA / "bigbuckbunny.mp4")) as video:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)][::20])
    assert not looks_drawn(frames)


def test_every_answer_carries_it_and_the_log_says_it_once(nano: smolvlm.SmolVLM, caplog: pytest.LogCaptureFixture) -> None:
    scene = MEDIA / "nano" / "scene.png"
    with caplog.at_level(logging.WARNING, logger="smolvlm"):
        model = smolvlm.load("nano")
        answers = [model.ask(scene, "Describe this picture.", max_new_tokens=2) for _ in range(3)]
        choice = model.choose(scene, "Is there a dog?", ["yes", "no"])
    assert [answer.warnings for answer in answers] == [(KNOWS,)] * 3
    assert choice.warnings == (KNOWS,)
    assert json.loads(json.dumps(answers[0].to_dict()))["warnings"] == [KNOWS]
    assert [record.getMessage() for record in caplog.records] == [KNOWS]
    with nano.session(scene) as session:
        assert session.ask("Describe this picture.").warnings == (KNOWS,)
        assert "rivers" in session.ask("Name three rivers.").warnings[0]


def test_other_models_carry_nothing(tiny_checkpoint: Path) -> None:
    model = smolvlm.load(tiny_checkpoint, engine="native")
    answer = model.ask(MEDIA / "rocket.jpg", "Name three rivers.", detail="low", max_new_tokens=2)
    assert not any("drawn" in sentence for sentence in answer.warnings)
    assert "warnings" not in model.ask(MEDIA / "nano" / "sign.png", "Name three rivers.", max_new_tokens=2).to_dict()
