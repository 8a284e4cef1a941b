"""Signs: a word in capitals or a number, in many fonts, alone or beside other things."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from smolvlm.synth.backgrounds import background
from smolvlm.synth.finish import finish
from smolvlm.synth.fonts import fonts, load_font
from smolvlm.synth.items import Item, make_item
from smolvlm.synth.layout import Point, frame_size, point_in
from smolvlm.synth.palette import luminance, shade
from smolvlm.synth.questions import colour_questions, object_questions, phrased, position_questions
from smolvlm.synth.sample import CharacterTruth, FrameTruth, Question, Sample, Split
from smolvlm.synth.scenes import draw_items, truths
from smolvlm.synth.world import World

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_READ_WORD = (
    "What does the sign say?",
    "Read the text.",
    "What is written here?",
    "What word is this?",
    "What does the text say?",
    "Which word do you see?",
)
_READ_NUMBER = ("What number is this?", "Read the number.", "Which number is shown?", "What number do you see?")
# A third of the words are real; the others are drawn letter by letter, so that reading cannot become guessing.
_WORDS = (
    "STOP",
    "EXIT",
    "OPEN",
    "SALE",
    "TAXI",
    "BUS",
    "CAFE",
    "BANK",
    "HELLO",
    "PARK",
    "ZOO",
    "HOTEL",
    "FIRE",
    "WATER",
    "PIZZA",
    "MILK",
    "TEA",
    "BREAD",
    "SHOP",
    "MUSIC",
    "BOOK",
    "TRAIN",
    "PUSH",
    "PULL",
    "WAY",
    "FISH",
    "JAZZ",
    "QUIET",
    "VIDEO",
    "LUNCH",
    "KING",
    "BOX",
)


def draw_writing(rng: np.random.Generator, world: World, split: Split) -> Sample:
    """A word of 1 to `max_letters` capitals or a number of 1 to `max_digits` digits; a third with one or two things."""
    is_word = bool(rng.random() < 0.55)
    text = random_word(rng, world.max_letters) if is_word else random_number(rng, world.max_digits)
    canvas = background(rng, *frame_size(rng, world), split)
    placed: list[tuple[Item, Point]] = []
    row = int(rng.integers(3))
    if rng.random() < 0.35:
        rows = [r for r in range(3) if r != row]
        columns = rng.permutation(3)
        for i in range(int(rng.integers(1, 3))):
            item = make_item(rng, world, float(rng.uniform(0.2, 0.28)))
            placed.append((item, point_in(rng, (rows[i % 2], int(columns[i])), item.size)))
        band = (row / 3, (row + 1) / 3)
    else:
        band = (0.0, 1.0)
    draw_items(canvas, placed)
    characters = write_text(rng, canvas, text, split, band)
    items = truths(placed, canvas.size)
    questions = [Question("reading_word" if is_word else "reading_number", phrased(rng, _READ_WORD if is_word else _READ_NUMBER), text)]
    questions += colour_questions(rng, items) + position_questions(rng, items)
    questions += object_questions(rng, items) if len(items) > 1 else []
    return Sample("image", (finish(rng, canvas),), tuple(questions), truths=(FrameTruth(items, characters),))


def draw_lines(rng: np.random.Generator, world: World, split: Split) -> Sample:
    """Two to five lines of random characters and no question: letters in plenty for a vision tower's dense losses."""
    canvas = background(rng, *frame_size(rng, world), split)
    characters: list[CharacterTruth] = []
    lines = int(rng.choice((2, 3, 4, 5), p=(0.15, 0.25, 0.3, 0.3)))
    for row in range(lines):
        length = lines + int(rng.integers(0, 3))  # the smaller the line, the more it holds
        pool = LETTERS if rng.random() < 0.65 else "0123456789"
        text = "".join(pool[int(i)] for i in rng.integers(0, len(pool), length))
        characters += write_text(rng, canvas, text, split, (row / lines, (row + 1) / lines))
    return Sample("image", (finish(rng, canvas),), (), truths=(FrameTruth((), tuple(characters)),))


def random_word(rng: np.random.Generator, max_letters: int) -> str:
    """A real word in a third of the cases, else random capitals."""
    if rng.random() < 0.33:
        return str(rng.choice([word for word in _WORDS if len(word) <= max_letters]))
    length = int(rng.integers(1, max_letters + 1))
    return "".join(LETTERS[int(i)] for i in rng.integers(0, 26, length))


def random_number(rng: np.random.Generator, max_digits: int) -> str:
    """Every length as likely as the others; no leading zero but for 0 itself."""
    length = int(rng.integers(1, max_digits + 1))
    return str(int(rng.integers(0 if length == 1 else 10 ** (length - 1), 10**length)))


def write_text(
    rng: np.random.Generator, canvas: Image.Image, text: str, split: Split, band: tuple[float, float]
) -> tuple[CharacterTruth, ...]:
    """Print `text` as large as a random height, the width and the band (y0, y1 in fractions) allow, often on a plate."""
    frame_width, frame_height = canvas.size
    font_name = str(rng.choice(fonts(split)))
    font = load_font(font_name, _fitting_px(rng, font_name, text, canvas.size, band[1] - band[0]))
    left, top, right, bottom = font.getbbox(text)
    width, height = right - left, bottom - top
    pad = 0.03 * min(canvas.size)
    x = float(rng.uniform(pad, max(frame_width - width - pad, pad + 1)))
    highest = band[0] * frame_height + pad
    y = float(rng.uniform(highest, max(band[1] * frame_height - height - pad, highest + 1)))
    draw = ImageDraw.Draw(canvas)
    plate = (x - 0.7 * pad, y - 0.7 * pad, x + width + 0.7 * pad, y + height + 0.7 * pad)
    if rng.random() < 0.5:
        ground = _any_colour(rng)
        draw.rounded_rectangle(plate, radius=float(rng.uniform(0, pad)), fill=ground)
    else:
        behind = canvas.crop(tuple(round(v) for v in plate)).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))  # type: ignore[arg-type]
        assert isinstance(behind, tuple)
        ground = (int(behind[0]), int(behind[1]), int(behind[2]))
    draw.text((x - left, y - top), text, font=font, fill=_readable_on(rng, ground))
    return tuple(
        CharacterTruth(character, (middle / frame_width, (y + height / 2) / frame_height))
        for character, middle in zip(text, _middles(font, text, x - left), strict=True)
    )


def _fitting_px(rng: np.random.Generator, font_name: str, text: str, frame_px: tuple[int, int], band_share: float) -> int:
    """A font size between small but legible and what the frame can hold."""
    trial = load_font(font_name, 100)
    left, top, right, bottom = trial.getbbox(text)
    width, height = frame_px
    tallest = min(0.85 * band_share, 0.42) * height
    largest = min(0.92 * width / (right - left), tallest / (bottom - top)) * 100
    smallest = min(0.17 * max(frame_px), largest)
    return max(8, round(float(rng.uniform(smallest, largest))))


def _middles(font: ImageFont.FreeTypeFont, text: str, origin_px: float) -> list[float]:
    """The x of the middle of each character, in pixels."""
    edges = [font.getlength(text[:i]) for i in range(len(text) + 1)]
    return [origin_px + (edges[i] + edges[i + 1]) / 2 for i in range(len(text))]


def _any_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    return shade(rng, str(rng.choice(("red", "yellow", "green", "blue", "black", "white", "white", "orange"))))


def _readable_on(rng: np.random.Generator, ground: tuple[int, int, int]) -> tuple[int, int, int]:
    """A colour that stands out by at least 90 levels of brightness."""
    for _ in range(8):
        ink = shade(rng, str(rng.choice(("black", "white", "blue", "red", "green", "yellow"))))
        if abs(luminance(ink) - luminance(ground)) > 90:
            return ink
    return (10, 10, 10) if luminance(ground) > 127 else (245, 245, 245)
