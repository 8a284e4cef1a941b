"""The text that a picture, or a video's frames, become in the prompt. One function for each rule.

Source: `processing_smolvlm.py` of the reference and the facts that the published checkpoints were trained with.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from num2words import num2words

from smolvlm.errors import PromptError

IMAGE_TOKEN = "<image>"  # noqa: S105
GLOBAL_IMAGE_TOKEN = "<global-img>"  # noqa: S105
FAKE_IMAGE_TOKEN = "<fake_token_around_image>"  # noqa: S105
VIDEO_MARKER = "<video>"  # in no vocabulary: only the chat template and this package know it

VIDEO_INTRO = "You are provided the following series of {count} frames from a {duration} [H:MM:SS] video.\n"
VIDEO_OUTRO = "\n\n"


def image_prompt(rows: int, cols: int, image_seq_len: int) -> str:
    """A picture of rows x cols tiles and its overview; 0 x 0 for one that was not split."""
    tokens = IMAGE_TOKEN * image_seq_len
    overview = f"{FAKE_IMAGE_TOKEN}{GLOBAL_IMAGE_TOKEN}{tokens}{FAKE_IMAGE_TOKEN}"
    if rows == 0 and cols == 0:
        return overview
    lines = []
    for row in range(1, rows + 1):
        lines.append("".join(f"{FAKE_IMAGE_TOKEN}<row_{row}_col_{col}>{tokens}" for col in range(1, cols + 1)) + "\n")
    return "".join(lines) + "\n" + overview


def timestamp(seconds: float) -> str:
    """MM:SS, both cut down to whole numbers; an hour is 60:00."""
    return f"{int(seconds // 60):02d}:{int(seconds % 60):02d}"


def video_prompt(timestamps_s: Sequence[float], duration_s: float | None, image_seq_len: int, *,
                 outro: str = VIDEO_OUTRO) -> str:  # fmt: skip
    """A video's frames, each behind its time in seconds; a duration of None is the last frame's time.

    The reference writes the padded number of frames when clips of a batch differ; this is always the clip's own.
    """
    if not timestamps_s:
        raise PromptError("a video without frames cannot be described; expected at least one sampled frame.")
    duration = timedelta(seconds=int(timestamps_s[-1] if duration_s is None else duration_s))
    frame = image_prompt(0, 0, image_seq_len)
    intro = VIDEO_INTRO.format(count=num2words(len(timestamps_s)), duration=duration)
    return intro + "".join(f"\nFrame from {timestamp(t)}:{frame}" for t in timestamps_s) + outro
