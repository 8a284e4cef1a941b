"""How a family words a prompt: its control tokens, the text of a picture and of a video, and its chat templates.

Source: `processing_smolvlm.py` and `processing_idefics3.py` of the reference, and the published chat templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from smolvlm.errors import PromptError

IMAGE_TOKEN = "<image>"  # noqa: S105
GLOBAL_IMAGE_TOKEN = "<global-img>"  # noqa: S105
FAKE_IMAGE_TOKEN = "<fake_token_around_image>"  # noqa: S105
VIDEO_MARKER = "<video>"  # in no vocabulary: only the chat template and this package know it

_BEGIN = "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
_ITEM = "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
_END = "{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
_PROMPT = "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
# The `chat_template.json` of the published checkpoints of both generations.
OFFICIAL_TEMPLATE = (
    _BEGIN
    + "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    + _ITEM
    + "{% elif line['type'] == 'image' %}{{ '<image>' }}"
    + _END
    + _PROMPT
)
# What that template writes around media, questions and answers, for training rows that are made without it.
USER_WITH_MEDIA, NEXT_USER, ASSISTANT = "<|im_start|>User:", "\nUser: ", "<end_of_utterance>\nAssistant:"
# What the reference puts in its place as soon as a video is present.
VIDEO_TEMPLATE = OFFICIAL_TEMPLATE.replace(
    "{{ '<image>' }}{% endif %}", "{{ '<image>' }}{% elif line['type'] == 'video' %}{{ '<video>' }}{% endif %}"
)


@dataclass(frozen=True)
class VideoWording:
    """The text around a video's frames, and the template that the reference uses for prompts with a video."""

    template: str
    intro: str
    frame: str
    outro: str


@dataclass(frozen=True)
class PromptGrammar:
    """The wording of prompts. `template` holds where a checkpoint's files have none; `video` is None for a family that
    was not trained on videos."""

    template: str = OFFICIAL_TEMPLATE
    video: VideoWording | None = None
    end_of_turn: tuple[str, ...] = ("<end_of_utterance>",)

    def image_text(self, rows: int, cols: int, image_seq_len: int) -> str:
        """A picture of rows x cols tiles and its overview; 0 x 0 for one that was not split."""
        tokens = IMAGE_TOKEN * image_seq_len
        overview = f"{FAKE_IMAGE_TOKEN}{GLOBAL_IMAGE_TOKEN}{tokens}{FAKE_IMAGE_TOKEN}"
        if rows == 0 and cols == 0:
            return overview
        lines = [
            "".join(f"{FAKE_IMAGE_TOKEN}<row_{row}_col_{col}>{tokens}" for col in range(1, cols + 1)) + "\n" for row in range(1, rows + 1)
        ]
        return "".join(lines) + "\n" + overview

    def video_text(self, timestamps_s: Sequence[float], duration_s: float | None, image_seq_len: int, *, outro: str | None = None) -> str:
        """A video's frames, each behind its time in seconds; a duration of None is the last frame's time.

        The reference writes the padded number of frames when clips of a batch differ; this is always the clip's own.
        `outro` replaces the family's own text after the last frame. Raises PromptError for a family without videos.
        """
        from num2words import num2words  # 50 languages: not for those who only read a configuration

        video = self.video_wording()
        if not timestamps_s:
            raise PromptError("a video without frames cannot be described; expected at least one sampled frame.")
        duration = timedelta(seconds=int(timestamps_s[-1] if duration_s is None else duration_s))
        picture = self.image_text(0, 0, image_seq_len)
        frames = (video.frame.format(time=timestamp(time)) + picture for time in timestamps_s)
        intro = video.intro.format(count=num2words(len(timestamps_s)), duration=duration)
        return intro + "".join(frames) + (video.outro if outro is None else outro)

    def video_wording(self) -> VideoWording:
        """`video`. Raises PromptError for a family that was not trained on videos."""
        if self.video is None:
            raise PromptError(
                "this model was not trained on videos and its prompts have no words for one; pass the frames "
                "that matter as pictures, or use a SmolVLM2 checkpoint."
            )
        return self.video

    def is_control(self, token: str) -> bool:
        """Whether an added token belongs to the prompt itself: turns, roles, pictures. Others are what a model writes."""
        return token in (IMAGE_TOKEN, GLOBAL_IMAGE_TOKEN, FAKE_IMAGE_TOKEN, *self.end_of_turn) or token.startswith(("<|", "<row_"))


def timestamp(seconds: float) -> str:
    """MM:SS, both cut down to whole numbers; an hour is 60:00."""
    return f"{int(seconds // 60):02d}:{int(seconds % 60):02d}"
