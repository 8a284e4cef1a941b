"""Backgrounds: muted, different from split to split, the same for the same seed, fast."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from smolvlm.errors import SynthError
from smolvlm.synth.backgrounds import KINDS, background, plain
from smolvlm.synth.sample import SPLITS, Split

ALL = [(split, kind) for split in SPLITS for kind in KINDS[split]]


@pytest.mark.parametrize(("split", "kind"), ALL, ids=[f"{split}-{kind.__name__}" for split, kind in ALL])
def test_a_background_is_muted_and_has_the_asked_size(split: Split, kind: object) -> None:
    assert callable(kind)
    for seed in range(12):
        picture = kind(np.random.default_rng(seed), 90, 70)
        assert picture.size == (90, 70)
        pixels = np.asarray(picture, dtype=np.float32)
        chroma = pixels.max(axis=2) - pixels.min(axis=2)
        # The named colours have a chroma of 75 (pink) to 255; black and white are kept apart by outlines.
        assert chroma.mean() < 78, f"seed {seed}"


def test_splits_share_only_the_flat_kind() -> None:
    for first, second in itertools.combinations(SPLITS, 2):
        assert set(KINDS[first]) & set(KINDS[second]) == {plain}


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_seed_is_the_same_picture(split: Split) -> None:
    pictures = [np.asarray(background(np.random.default_rng(7), 64, 64, split)) for _ in range(2)]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    other = np.asarray(background(np.random.default_rng(8), 64, 64, split))
    assert (pictures[0] != other).any()


def test_a_background_takes_well_under_a_millisecond() -> None:
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for split in SPLITS:
        for _ in range(60):
            background(rng, 160, 160, split)
    mean_ms = (time.perf_counter() - start) / 180 * 1000
    print(f"{mean_ms:.3f} ms a background of 160 x 160")
    assert mean_ms < 3  # measured 0.11 alone on one core; a busy machine may be slower


def test_bad_arguments_are_told() -> None:
    with pytest.raises(SynthError, match="split='dev'"):
        background(np.random.default_rng(0), 64, 64, "dev")  # type: ignore[arg-type]
    with pytest.raises(SynthError, match="4 x 64"):
        background(np.random.default_rng(0), 4, 64, "train")
