"""At least eighty pictures of every kind: the pixels that were drawn, upright, with a warning where one is due.

`python -m pytest tests/media/test_media_picture_set.py -s` prints how many there are.
"""

from __future__ import annotations

import io
import re

import av
import numpy as np
import pytest
from picture_set import Case, all_cases

from smolvlm.media import MediaOptions, load_image

CASES = all_cases()


def test_the_set_is_large_enough() -> None:
    print(f"{len(CASES)} pictures, {sum(case.libav for case in CASES)} of them compared with libav as well")
    assert len(CASES) >= 80
    assert sum(case.libav for case in CASES) >= 25


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_pixels_and_warnings(case: Case) -> None:
    warnings: list[str] = []
    got = np.asarray(load_image(case.data, options=MediaOptions(**case.options), on_warning=warnings.append)).astype(int)
    assert got.shape == case.expected.shape
    difference = np.abs(got - case.expected)
    assert difference.mean() <= case.within
    assert difference.max() <= 0 or case.within > 0
    if case.warning is None:
        assert not warnings
    else:
        assert len(warnings) == 1, warnings
        assert re.search(re.escape(case.warning), warnings[0])
    if case.libav:
        other = _libav(case.data)
        assert other.shape == got.shape
        assert np.abs(got - other).mean() <= (2 if case.within else 0), "an independent decoder sees other pixels"


def _libav(data: bytes) -> np.ndarray:
    with av.open(io.BytesIO(data)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
