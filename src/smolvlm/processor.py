"""Messages and their media -> what an engine needs: `ModelInputs(input_ids, tiles, ...)`.

Two steps that a session can take apart: `prepare_media` opens, samples and tiles; `build` words the prompt around what
was prepared. A second question about the same media calls `build` alone.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smolvlm import known_world
from smolvlm.config import ModelConfig, ProcessorConfig, load_configs
from smolvlm.errors import CheckpointError, PromptError
from smolvlm.families import Family, family_of
from smolvlm.families.grammar import IMAGE_TOKEN
from smolvlm.media.images import load_image
from smolvlm.media.labels import short_path
from smolvlm.media.pixels import normalize
from smolvlm.media.prepared import MediaInfo as MediaInfo
from smolvlm.media.prepared import PreparedMedia as PreparedMedia
from smolvlm.media.sources import Source, SourcePolicy
from smolvlm.media.tiling import split_image
from smolvlm.media.video import Video, sample_video
from smolvlm.options.media import MediaOptions
from smolvlm.prompt.context import check_context
from smolvlm.prompt.messages import ImagePart, Message, TextPart, TokenPart, VideoPart, parse_messages
from smolvlm.prompt.segments import Segment, TextSegment
from smolvlm.prompt.style import apply_style, check_style
from smolvlm.prompt.template import ChatTemplate
from smolvlm.prompt.tokenizer import PromptTokenizer

logger = logging.getLogger(__name__)

OnFrame = Callable[[int, int], None]


@dataclass(frozen=True)
class Worded:
    """The tokens of a conversation, image tokens standing for the tiles of its media."""

    input_ids: tuple[int, ...]
    media: tuple[MediaInfo, ...]
    world_warning: str | None = None  # whether the prompt lies in the world of a model that knows a small one

    @property
    def tile_count(self) -> int:
        """Tiles of all media."""
        return sum(info.tile_count for info in self.media)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the media's readers want to be known, each sentence with the medium's label before it, and what the model
        does not know."""
        told = () if self.world_warning is None else (self.world_warning,)
        return (*(sentence for info in self.media for sentence in info.sentences), *told)


@dataclass(frozen=True)
class ModelInputs(Worded):
    """A prompt with the tiles of all media in its order, uint8 (tiles, side, side, 3)."""

    tiles: npt.NDArray[np.uint8] = field(kw_only=True, compare=False)
    config: ProcessorConfig = field(kw_only=True)

    @property
    def pixel_values(self) -> npt.NDArray[np.float32]:
        """All tiles normalized, float32 (tiles, 3, side, side): made anew at each call, 3 MiB a tile of 512."""
        return normalize(self.tiles, self.config)

    def check_context(self, context_length: int, max_new_tokens: int = 0) -> None:
        """Raise ContextLengthError, with what would help, when prompt and answer do not fit in `context_length`."""
        check_context(len(self.input_ids), context_length, max_new_tokens, self.media)


class Processor:
    """Turns conversations into `ModelInputs` exactly as the checkpoint's files say. Holds no state between calls.

    Raises CheckpointError when tokenizer and model disagree, PromptError for an unknown `prompt_style`.
    """

    def __init__(
        self,
        config: ProcessorConfig,
        model: ModelConfig,
        tokenizer: PromptTokenizer,
        template: ChatTemplate,
        prompt_style: str = "official",
        policy: SourcePolicy | None = None,
    ) -> None:
        check_style(prompt_style)
        self.config = config
        self.model = model
        self.tokenizer = tokenizer
        self.template = template
        self.prompt_style = prompt_style
        self.family: Family = family_of(model.model_type, tokenizer.added_tokens)
        self.policy = policy or SourcePolicy()
        self.knows_drawn_only = False  # set for nano, whose answers say so: `known_world`
        image_token_id = tokenizer.id_of(IMAGE_TOKEN)
        if image_token_id != model.image_token_id:
            raise CheckpointError(
                f"{tokenizer.label}: {IMAGE_TOKEN} is {image_token_id}, but config.json says "
                f"image_token_id={model.image_token_id}; take both from one checkpoint."
            )
        if tokenizer.vocab_size > model.text.vocab_size:
            raise CheckpointError(
                f"{tokenizer.label}: it has ids up to {tokenizer.vocab_size - 1}, but the model has "
                f"{model.text.vocab_size} embeddings; take both from one checkpoint."
            )

    @classmethod
    def from_folder(cls, folder: Path | str, *, prompt_style: str = "official", policy: SourcePolicy | None = None) -> Processor:
        """Read a checkpoint folder's JSON files. Raises ConfigError or CheckpointError naming the file at fault."""
        folder = Path(folder)
        model, config = load_configs(folder)
        tokenizer = PromptTokenizer.from_folder(folder, model.model_type, model.text.vocab_size)
        _check_stops(tokenizer, model, folder)
        grammar = family_of(model.model_type, tokenizer.added_tokens).prompt
        return cls(config, model, tokenizer, ChatTemplate.from_folder(folder, grammar), prompt_style, policy)

    def __call__(
        self,
        messages: Any,
        *,
        images: Any = (),
        videos: Any = (),
        options: MediaOptions | None = None,
        add_generation_prompt: bool = True,
        on_frame: OnFrame | None = None,
    ) -> ModelInputs:
        """Both steps at once. `images` and `videos` fill bare `{"type": "image"}` placeholders, in order.

        `on_frame(done, total)` is called as a video's frames come. Raises PromptError for the messages, and
        SourceError, ImageError, VideoError or ParamsError for their media.
        """
        conversation = parse_messages(messages, images=images, videos=videos)
        prepared = self.prepare_media(conversation, options=options, on_frame=on_frame)
        return self.build(conversation, prepared, add_generation_prompt=add_generation_prompt)

    def prepare_media(self, messages: Any, *, options: MediaOptions | None = None, on_frame: OnFrame | None = None) -> list[PreparedMedia]:
        """Open, sample and tile every picture and video of the messages, in order. A part's own options come first."""
        options = options or MediaOptions()
        parts = _media_parts(parse_messages(messages))
        if any(isinstance(part, VideoPart) for part in parts):
            self.family.prompt.video_wording()  # a family without videos refuses one before it is opened
        return [self.looked_at(self._prepare(part, dataclasses.replace(options, **part.options), on_frame)) for part in parts]

    def build(self, messages: Any, prepared: Sequence[PreparedMedia], *, add_generation_prompt: bool = True) -> ModelInputs:
        """The prompt for `messages`, whose media were prepared before, with all pixels."""
        worded = self.word(messages, [media.info for media in prepared], add_generation_prompt=add_generation_prompt)
        tiles = self.stack_tiles(prepared)
        return ModelInputs(worded.input_ids, worded.media, worded.world_warning, tiles=tiles, config=self.config)

    def word(self, messages: Any, media: Sequence[MediaInfo], *, add_generation_prompt: bool = True) -> Worded:
        """The tokens of `messages`, whose media were read before. Raises PromptError when the two disagree."""
        conversation = parse_messages(messages)
        kinds = ["image" if isinstance(part, ImagePart) else "video" for part in _media_parts(conversation)]
        if kinds != [info.kind for info in media]:
            raise PromptError(
                f"the messages hold {len(kinds)} media and {len(media)} were prepared, or their kinds "
                "differ; pass what prepare_media returned for the same messages."
            )
        image_token_id = self.model.image_token_id
        if any(isinstance(p, TokenPart) and image_token_id in p.ids for m in conversation for p in m.parts):
            raise PromptError(f"exact token ids hold the image token {image_token_id}, which stands for pixels; leave it out.")
        rendered = self.template.render(apply_style(conversation, self.prompt_style), add_generation_prompt=add_generation_prompt)
        following = iter(media)
        segments: list[Segment] = [
            TextSegment(self.placeholder(next(following)), trusted=True) if isinstance(piece, ImagePart | VideoPart) else piece
            for piece in rendered
        ]
        input_ids = tuple(self.tokenizer.encode_segments(segments))
        expected = sum(info.tile_count for info in media) * self.config.image_seq_len
        assert input_ids.count(image_token_id) == expected, f"the prompt must hold {expected} image tokens"
        return Worded(input_ids, tuple(media), self._world_warning(conversation, media))

    def _world_warning(self, conversation: Sequence[Message], infos: Sequence[MediaInfo]) -> str | None:
        if not self.knows_drawn_only:
            return None
        asked = next((m for m in reversed(conversation) if m.role == "user"), None)
        question = " ".join(p.text for p in asked.parts if isinstance(p, TextPart)) if asked is not None else ""
        return known_world.warning(question, [info.label for info in infos if info.looks_drawn is False])

    def looked_at(self, media: PreparedMedia) -> PreparedMedia:
        """The same, with what its pixels tell a model that knows drawn scenes only."""
        if not self.knows_drawn_only:
            return media
        return PreparedMedia(dataclasses.replace(media.info, looks_drawn=known_world.looks_drawn(media.tiles)), media.tiles)

    def _prepare(self, part: ImagePart | VideoPart, options: MediaOptions, on_frame: OnFrame | None) -> PreparedMedia:
        label = _label(part.source)
        if isinstance(part, ImagePart):
            found: list[str] = []
            image = load_image(part.source, self.policy, options=options, on_warning=found.append)
            picture = split_image(image, self.config, options)
            info = MediaInfo("image", label, len(picture.tiles), picture.rows, picture.cols, warnings=tuple(found))
            return PreparedMedia(info, picture.tiles)
        video = sample_video(part.source, self.config, options, self.policy, on_frame)
        info = MediaInfo(
            "video",
            label,
            len(video.frames),
            timestamps_s=video.timestamps_s,
            duration_s=video.duration_s,
            decoded_frames=video.decoded_frames,
            warnings=video.warnings,
        )
        return PreparedMedia(info, video.frames)

    def placeholder(self, info: MediaInfo) -> str:
        """The words and image tokens that stand for one picture or video in the prompt."""
        if info.kind == "image":
            return self.family.prompt.image_text(info.rows, info.cols, self.config.image_seq_len)
        # In the training form the question marker takes the place of what follows the last frame.
        outro = None if self.prompt_style == "official" else ""
        return self.family.prompt.video_text(info.timestamps_s, info.duration_s, self.config.image_seq_len, outro=outro)

    def stack_tiles(self, prepared: Sequence[PreparedMedia]) -> npt.NDArray[np.uint8]:
        """The tiles of all media in order, uint8 (tiles, side, side, 3)."""
        if len(prepared) == 1:
            return prepared[0].tiles  # no copy: a video's frames are 50 MB
        side = self.config.tile_size
        return np.concatenate([np.empty((0, side, side, 3), np.uint8), *(media.tiles for media in prepared)])


def _check_stops(tokenizer: PromptTokenizer, model: ModelConfig, folder: Path) -> None:
    """Raise CheckpointError unless each stop token is a token; say when one of them is an ordinary word."""
    if absent := [token for token in model.eos_token_ids if not tokenizer.has_id(token)]:
        raise CheckpointError(
            f"{folder}: eos_token_id={absent[0]} is no token of tokenizer.json, so that no answer would "
            "end there; take both files from one checkpoint."
        )
    if words := [token for token in model.eos_token_ids if token not in tokenizer.control_ids]:
        ends = family_of(model.model_type, tokenizer.added_tokens).prompt.end_of_turn
        known = " or ".join(f"{token} ({tokenizer.id_of(token)})" for token in ends if tokenizer.has(token))
        logger.warning(
            "%s: eos_token_id=%d is an ordinary token (%r): answers end where it is written. This family's end at %s; "
            "correct generation_config.json.",
            folder,
            words[0],
            tokenizer.token_of(words[0]),
            known or ends[0],
        )


def _media_parts(messages: Sequence[Message]) -> list[ImagePart | VideoPart]:
    return [part for message in messages for part in message.parts if isinstance(part, ImagePart | VideoPart)]


def _label(source: Any) -> str:
    """A short name for what came in: a path or address, or else the kind of object."""
    if isinstance(source, Source | Video):
        return source.label
    if isinstance(source, str | os.PathLike):
        return short_path(os.fspath(source) if isinstance(os.fspath(source), str) else repr(source))
    return f"<{type(source).__name__}>"
