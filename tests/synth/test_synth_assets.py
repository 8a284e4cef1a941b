"""The pictures of objects and the fonts: all there, told apart, and licensed."""

from __future__ import annotations

import itertools
from importlib import resources

import numpy as np
import pytest

from smolvlm.errors import SynthError
from smolvlm.synth.fonts import FONTS, fonts, load_font
from smolvlm.synth.objects import OBJECTS, SMALL_OBJECTS, SPRITE_PX, sprite
from smolvlm.synth.palette import COLOURS
from smolvlm.synth.sample import SPLITS
from smolvlm.synth.world import SHAPES

PRINTABLE = "".join(map(chr, range(0x21, 0x7F))) + "£€"


def _drawn(font_name: str, text: str, size_px: int = 40) -> bytes:
    mask = load_font(font_name, size_px).getmask(text)
    return bytes(mask) + bytes(mask.size)


def test_there_are_enough_objects_and_no_name_means_two_things() -> None:
    assert len(OBJECTS) >= 110
    assert len(set(OBJECTS)) == len(OBJECTS)
    assert OBJECTS[:30] == SMALL_OBJECTS
    assert not set(OBJECTS) & (set(COLOURS) | set(SHAPES))
    assert all(name.isalpha() and name.islower() for name in OBJECTS)


@pytest.mark.parametrize("name", OBJECTS)
def test_a_sprite_fills_its_square(name: str) -> None:
    picture = sprite(name)
    assert picture.mode == "RGBA"
    assert picture.size == (SPRITE_PX, SPRITE_PX)
    seen = np.asarray(picture)[..., 3] > 40
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    # Tight in one direction at least: what is told as the box is where the object is.
    assert max(np.ptp(rows), np.ptp(columns)) >= SPRITE_PX - 4
    assert seen.mean() > 0.10


def test_no_two_objects_look_alike() -> None:
    """At 32 px on grey, as a model sees them: the nearest two differ by at least 12 levels on average."""
    small = []
    for name in OBJECTS:
        picture = sprite(name).resize((32, 32))
        pixels = np.asarray(picture, dtype=np.float32)
        alpha = pixels[..., 3:] / 255
        small.append(pixels[..., :3] * alpha + 128 * (1 - alpha))
    nearest = min((float(np.abs(a - b).mean()), OBJECTS[i], OBJECTS[j]) for (i, a), (j, b) in itertools.combinations(enumerate(small), 2))
    print(f"the two objects most alike: {nearest}")
    assert nearest[0] > 12


def test_a_sprite_is_the_callers_own_copy() -> None:
    sprite("dog").paste((0, 0, 0, 255), (0, 0, SPRITE_PX, SPRITE_PX))
    assert np.asarray(sprite("dog"))[0, 0, 3] == 0


def test_splits_share_no_font_and_no_letter_shape() -> None:
    counts = {split: len(fonts(split)) for split in SPLITS}
    assert counts["train"] >= 8
    assert counts["validation"] >= 2
    assert counts["test"] >= 3
    assert sum(counts.values()) == len(set(FONTS)) == len(FONTS)
    shapes = {split: {_drawn(name, "Rag7") for name in fonts(split)} for split in SPLITS}
    for first, second in itertools.combinations(SPLITS, 2):
        assert not shapes[first] & shapes[second]


@pytest.mark.parametrize("name", FONTS)
def test_a_font_draws_every_character_differently(name: str) -> None:
    missing = _drawn(name, "\u2603")  # a snowman: none of the subsets has it, so this is the box for "missing"
    drawn = {character: _drawn(name, character) for character in PRINTABLE}
    assert missing not in drawn.values()
    same = [a + b for a, b in itertools.combinations(PRINTABLE, 2) if drawn[a] == drawn[b]]
    assert not [pair for pair in same if pair != "Il"], f"{name} cannot tell {same} apart"


@pytest.mark.parametrize("name", FONTS)
def test_a_font_is_renamed_and_its_licence_is_told(name: str) -> None:
    assert load_font(name, 12).getname()[0] == f"SmolVLM Synth {name[:2]}"
    licences = (resources.files("smolvlm.synth") / "assets" / "LICENSES.md").read_text(encoding="utf-8")
    row = next(line for line in licences.splitlines() if line.startswith(f"| {name} |"))
    assert "OFL-1.1" in row or "Apache-2.0" in row


def test_assets_stay_small() -> None:
    folder = resources.files("smolvlm.synth") / "assets"
    atlas = len((folder / "objects.png").read_bytes())
    letters = sum(len((folder / "fonts" / name).read_bytes()) for name in FONTS)
    print(f"objects.png {atlas} bytes, fonts {letters} bytes")
    assert atlas < 1.5e6
    assert letters < 0.4e6


def test_bad_names_are_told() -> None:
    with pytest.raises(SynthError, match="'unicorn'"):
        sprite("unicorn")
    with pytest.raises(SynthError, match="'Arial'"):
        load_font("Arial", 12)
    with pytest.raises(SynthError, match="size_px=0"):
        load_font(FONTS[0], 0)
    with pytest.raises(SynthError, match="split='dev'"):
        fonts("dev")  # type: ignore[arg-type]
