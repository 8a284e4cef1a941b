"""`AutoProcessor`: messages or prompts with their media -> what `generate` takes, as the reference makes it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smolvlm.compat.arguments import UNUSED_ON_LOADING, local_folder, refuse_unknown, report_unused
from smolvlm.compat.call_options import CallOptions, longest_edge_of, with_longest_edge
from smolvlm.compat.features import BatchFeature, as_features, stack_tiles
from smolvlm.compat.image_processor import PixelSettings, Size
from smolvlm.compat.media_lists import split_texts
from smolvlm.compat.saving import refuse_upload, save_processor_files
from smolvlm.compat.tokenizer import CompatTokenizer
from smolvlm.config import ProcessorConfig
from smolvlm.errors import ParamsError, PromptError
from smolvlm.families.grammar import IMAGE_TOKEN, VIDEO_MARKER
from smolvlm.media.sources import SourcePolicy
from smolvlm.processor import MediaInfo, ModelInputs, Processor
from smolvlm.prompt.messages import ImagePart, Message, VideoPart, parse_messages
from smolvlm.prompt.segments import IdSegment, TextSegment

_PLACEHOLDERS = {"image": ImagePart(None), "video": VideoPart(None)}
_UNSUPPORTED = ("chat_template", "tools", "documents", "continue_final_message", "return_assistant_tokens_mask")


class AutoProcessor:
    """`AutoProcessor.from_pretrained(path)` gives a `ChatProcessor`."""

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | os.PathLike[str], *, policy: SourcePolicy | None = None, **kwargs: Any
    ) -> ChatProcessor:
        """Read a checkpoint's JSON files: a folder, a Hub id, or a short name.

        `size={"longest_edge": N * tile}`, `do_image_splitting` and `padding_side` replace what the files say; `policy`
        limits what media may be opened. Raises ModelNotFoundError, ConfigError, CheckpointError, and ParamsError for an
        unknown argument.
        """
        folder = local_folder(pretrained_model_name_or_path, kwargs)
        report_unused(kwargs, UNUSED_ON_LOADING, "AutoProcessor.from_pretrained")
        size, splitting = kwargs.pop("size", None), kwargs.pop("do_image_splitting", None)
        padding_side = kwargs.pop("padding_side", None)
        refuse_unknown(
            kwargs, "AutoProcessor.from_pretrained", "size, do_image_splitting, padding_side, revision, local_files_only and policy"
        )
        processor = Processor.from_folder(folder, policy=policy)
        config = processor.config
        if size is not None:
            config = with_longest_edge(config, longest_edge_of(size))
        if splitting is not None:
            if not isinstance(splitting, bool):
                raise ParamsError(f"do_image_splitting={splitting!r}: expected True or False.")
            config = dataclasses.replace(config, do_image_splitting=splitting)
        processor = _with_config(processor, config)
        tokenizer = CompatTokenizer.from_folder(folder, processor.tokenizer, processor.model.text)
        if padding_side is not None:
            tokenizer.padding_side = padding_side
        return ChatProcessor(processor, tokenizer, Path(folder))


class ChatProcessor:
    """A checkpoint's processor under the reference's names. Settings of `tokenizer` and `image_processor` may be assigned."""

    def __init__(self, processor: Processor, tokenizer: CompatTokenizer, folder: Path) -> None:
        self._read = processor
        self.tokenizer = tokenizer
        self.image_processor = self.video_processor = PixelSettings(processor.config, processor.policy)
        self.name_or_path = str(folder)
        self.chat_template = processor.template.source
        self.image_token, self.image_token_id = IMAGE_TOKEN, processor.model.image_token_id
        self.image_seq_len = processor.config.image_seq_len
        self.video_token = VIDEO_MARKER

    @property
    def video_size(self) -> Size:
        """What frames are scaled to at first; `max_image_size` is the size of a tile."""
        return Size(longest_edge=self._processor.config.video_longest_edge)

    @property
    def _processor(self) -> Processor:
        """With the settings of `image_processor` as they are now."""
        return _with_config(self._read, self.image_processor.config)

    def apply_chat_template(
        self, conversation: Any, *, add_generation_prompt: bool = False, tokenize: bool = False, return_dict: bool = False, **kwargs: Any
    ) -> Any:
        """A conversation, or a list of them, as a prompt string, as ids, or as everything that `generate` takes.

        `tokenize=False` gives text with one `<image>` or `<video>` for each of the media, which are not opened.
        `tokenize=True` gives `input_ids`; with `return_dict=True` a BatchFeature of input_ids and attention_mask
        (batch, tokens), and with media pixel_values (batch, tiles, 3, side, side) and pixel_attention_mask; pixels have
        one row a conversation, or one a video where there are videos only.

        `kwargs` are those of a call. Raises PromptError for the messages, and what their media raise.
        """
        first = conversation[0] if isinstance(conversation, list | tuple) and conversation else None
        batched = isinstance(first, list | tuple)
        conversations: Sequence[Any] = conversation if batched else [conversation]
        for name in _UNSUPPORTED:
            if kwargs.pop(name, None):
                raise ParamsError(f"apply_chat_template: {name}=... is not supported; leave it out.")
        options = CallOptions.of(kwargs, "apply_chat_template")
        if not tokenize:
            prompts = [self._prompt(messages, add_generation_prompt) for messages in conversations]
            return prompts if batched else prompts[0]
        processor = _with_config(self._processor, options.sized(self._processor.config))
        inputs = []
        for messages in conversations:
            normalized = [
                Message(message.role, tuple(_whole(part, options) for part in message.parts)) for message in parse_messages(messages)
            ]
            inputs.append(processor(normalized, options=options.media, add_generation_prompt=add_generation_prompt))
        features = self._features(inputs, options)
        return features if return_dict else features["input_ids"]

    def __call__(self, images: Any = None, text: Any = None, videos: Any = None, **kwargs: Any) -> BatchFeature:
        """Prompts as `apply_chat_template(tokenize=False)` wrote them, with their media, as a BatchFeature.

        `text` is one prompt or a list; it is trusted, as in the reference: `<image>` and the other control tokens count
        wherever they stand, so nothing that a stranger typed belongs in it (use `tokenize=True` for that).

        Raises PromptError when the markers do not match `images` and `videos`, and what these raise.
        """
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, list | tuple) or not texts or not all(isinstance(item, str) for item in texts):
            raise PromptError(
                f"text is {type(text).__name__}; expected a prompt or a list of prompts, such as apply_chat_template(messages) returns."
            )
        options = CallOptions.of(kwargs, "the processor")
        processor = _with_config(self._processor, options.sized(self._processor.config))
        inputs = []
        for pieces in split_texts(texts, images, videos):
            parts = tuple(_whole(piece, options) for piece in pieces if not isinstance(piece, str))
            prepared = processor.prepare_media([Message("user", parts)], options=options.media) if parts else []
            following = iter(prepared)
            words = [piece if isinstance(piece, str) else processor.placeholder(next(following).info) for piece in pieces]
            ids = processor.tokenizer.encode_segments([TextSegment(word, trusted=True) for word in words])
            expected = sum(media.info.tile_count for media in prepared) * self.image_seq_len
            assert ids.count(self.image_token_id) == expected, f"the prompt must hold {expected} image tokens"
            tiles = processor.stack_tiles(prepared)
            inputs.append(ModelInputs(tuple(ids), tuple(media.info for media in prepared), tiles=tiles, config=processor.config))
        return self._features(inputs, options)

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        """As `tokenizer.decode`."""
        return self.tokenizer.decode(*args, **kwargs)

    def batch_decode(self, *args: Any, **kwargs: Any) -> list[str]:
        """As `tokenizer.batch_decode`."""
        return self.tokenizer.batch_decode(*args, **kwargs)

    def post_process_image_text_to_text(self, generated_outputs: Any, skip_special_tokens: bool = True) -> list[str]:
        """The texts of what `generate` returned."""
        return self.tokenizer.batch_decode(generated_outputs, skip_special_tokens)

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> list[str]:
        """Write the processor's official files into a folder, beside what is there; returns their paths.

        The reference and `smolvlm.load` read them, together with the model's (`model.save_pretrained`).
        """
        if kwargs.get("push_to_hub"):
            self.push_to_hub(save_directory)
        names = save_processor_files(self._processor.config, self._read.family.class_prefix, Path(save_directory), Path(self.name_or_path))
        return [str(Path(save_directory) / name) for name in names]

    def push_to_hub(self, repo_id: Any = None, **_: Any) -> None:
        """Nothing is uploaded from here. Raises ParamsError with the two commands that do it."""
        refuse_upload("the processor", repo_id)

    def _prompt(self, messages: Any, add_generation_prompt: bool) -> str:
        conversation = parse_messages(_with_placeholders(messages))
        rendered = self._processor.template.render(conversation, add_generation_prompt=add_generation_prompt)
        return "".join(self._text_of(piece) for piece in rendered)

    def _text_of(self, piece: Any) -> str:
        if isinstance(piece, ImagePart):
            return IMAGE_TOKEN
        if isinstance(piece, VideoPart):
            return VIDEO_MARKER
        if isinstance(piece, IdSegment):
            return self._processor.tokenizer.decode(piece.ids, skip_special_tokens=False)
        assert isinstance(piece, TextSegment), f"a template renders to text and media, not {type(piece).__name__}"
        return piece.text

    def _features(self, inputs: Sequence[ModelInputs], options: CallOptions) -> BatchFeature:
        rows = [item.input_ids for item in inputs]
        ids, mask = options.padding.apply(rows, self.tokenizer.pad_token_id, self.tokenizer.padding_side)
        groups = _tile_groups(inputs)
        arrays = stack_tiles(groups, self._processor.config) if groups else {}
        return as_features({"input_ids": ids, "attention_mask": mask}, arrays, options.return_tensors)


def _tile_groups(inputs: Sequence[ModelInputs]) -> list[npt.NDArray[np.uint8]]:
    """The rows of `pixel_values`: one a conversation, or one a video where there are no pictures."""
    media: list[MediaInfo] = [info for item in inputs for info in item.media]
    if not media:
        return []
    if any(info.kind == "image" for info in media):
        return [item.tiles for item in inputs]
    groups: list[npt.NDArray[np.uint8]] = []
    for item in inputs:
        start = 0
        for info in item.media:
            groups.append(item.tiles[start : start + info.tile_count])
            start += info.tile_count
    return groups


def _with_config(processor: Processor, config: ProcessorConfig) -> Processor:
    """The same processor with other pixel settings; itself where they are its own."""
    if config == processor.config:
        return processor
    return Processor(config, processor.model, processor.tokenizer, processor.template, processor.prompt_style, processor.policy)


def _whole(part: Any, options: CallOptions) -> Any:
    """With `do_sample_frames=False` a list of frames is taken whole; a file, which would be read whole, is refused."""
    if not options.every_frame or not isinstance(part, VideoPart):
        return part
    is_list = hasattr(part.source, "__len__") and not isinstance(part.source, str | bytes)
    if not is_list or options.media.max_frames is not None:
        raise ParamsError(
            "do_sample_frames=False is for frames given as a list, without num_frames; for a file pass num_frames=... and fps=... instead."
        )
    return VideoPart(part.source, {**part.options, "max_frames": max(1, len(part.source))})


def _with_placeholders(messages: Any) -> Any:
    """Bare `{"type": "image"}` parts as parts without a source: to write a prompt none is needed."""
    if not isinstance(messages, list | tuple):
        return messages  # refused, with its reason, by `parse_messages`
    result = []
    for message in messages:
        if isinstance(message, Mapping) and isinstance(message.get("content"), list | tuple):
            message = {**message, "content": [_placeholder(part) for part in message["content"]]}
        result.append(message)
    return result


def _placeholder(part: Any) -> Any:
    if isinstance(part, Mapping) and not [key for key, value in part.items() if key != "type" and value is not None]:
        kind = part.get("type")
        return _PLACEHOLDERS.get(kind, part) if isinstance(kind, str) else part
    return part
