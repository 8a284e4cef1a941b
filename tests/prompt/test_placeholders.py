"""What pictures and videos become in the prompt: by hand, and against the reference's own functions."""

from __future__ import annotations

import pytest

from smolvlm.errors import PromptError
from smolvlm.families import SMOLVLM
from smolvlm.families.grammar import timestamp


def test_an_unsplit_picture() -> None:
    assert SMOLVLM.prompt.image_text(0, 0, 2) == "<fake_token_around_image><global-img><image><image><fake_token_around_image>"


def test_a_split_picture_by_hand() -> None:
    fake, i = "<fake_token_around_image>", "<image>"
    assert SMOLVLM.prompt.image_text(2, 1, 1) == (f"{fake}<row_1_col_1>{i}\n{fake}<row_2_col_1>{i}\n\n{fake}<global-img>{i}{fake}")


@pytest.mark.parametrize(("rows", "cols"), [(0, 0), (1, 1), (1, 4), (4, 1), (3, 4), (6, 6), (7, 2)])
def test_pictures_equal_the_references(rows: int, cols: int) -> None:
    from oracle import transformers

    module = transformers.models.smolvlm.processing_smolvlm
    names = ("<fake_token_around_image>", "<image>", "<global-img>")
    assert SMOLVLM.prompt.image_text(rows, cols, 64) == module.get_image_prompt_string(rows, cols, 64, *names)


def test_a_video_by_hand() -> None:
    frame = "<fake_token_around_image><global-img><image><fake_token_around_image>"
    assert SMOLVLM.prompt.video_text([0.0, 61.99], 3725.9, 1) == (
        "You are provided the following series of two frames from a 1:02:05 [H:MM:SS] video.\n"
        f"\nFrame from 00:00:{frame}\nFrame from 01:01:{frame}\n\n"
    )


def test_a_video_of_unknown_length_ends_at_its_last_frame() -> None:
    assert "from a 0:00:09 [H:MM:SS]" in SMOLVLM.prompt.video_text([0.0, 9.9], None, 1)
    assert "sixty-four frames" in SMOLVLM.prompt.video_text([0.0] * 64, 1.0, 1)
    with pytest.raises(PromptError, match="without frames"):
        SMOLVLM.prompt.video_text([], 1.0, 1)


def test_times_are_cut_down_not_rounded() -> None:
    assert [timestamp(t) for t in (0.999, 59.999, 60.0, 3599.9, 3600, 360000)] == ["00:00", "00:59", "01:00", "59:59", "60:00", "6000:00"]
