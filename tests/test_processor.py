"""Token ids against the reference's own processor, message by message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from helpers_prompt import reference_ids, reference_inputs, tiny_checkpoint
from smolvlm.errors import CheckpointError, ContextLengthError, ParamsError, PromptError, SourceError
from smolvlm.options.media import MediaOptions
from smolvlm.processor import Processor
from smolvlm.prompt import Message, TextPart, TokenPart


@pytest.fixture(scope="module")
def folder() -> Path:
    return tiny_checkpoint()


@pytest.fixture(scope="module")
def processor(folder: Path) -> Processor:
    return Processor.from_folder(folder)


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def conversations(examples: Path) -> dict[str, list[dict[str, Any]]]:
    coffee, cat, rocket = ({"type": "image", "path": str(examples / name)} for name in ("coffee.png", "chelsea.png", "rocket.jpg"))
    clip = {"type": "video", "path": str(examples / "bigbuckbunny.mp4")}
    system = {"role": "system", "content": [text("Answer in one word.")]}
    answer = {"role": "assistant", "content": [text("A cup of coffee, 12:30.")]}
    return {
        "text only": [user(text("What is the capital of France?"))],
        "odd text": [user(text("  Ünïcode 你好 🙂\n\n\ttabs  1234567890 it's  "))],
        "image first": [user(coffee, text("What is this?"))],
        "text first": [user(text("What is this?"), coffee)],
        "image alone": [user(coffee)],
        "three interleaved": [user(text("First"), coffee, text(" then "), cat, text("and\n"), rocket, text("Why?"))],
        "three in a row": [user(coffee, cat, rocket, text("Compare."))],
        "system": [system, user(coffee, text("What is this?"))],
        "multi-turn": [system, user(coffee, text("?")), answer, user(text("&"), cat, text("?")), answer, user(rocket)],
        "video": [user(clip, text("What happens?"))],
        "text then video": [user(text("Watch."), clip, text("What happens?"))],
        "two videos": [user(clip, clip, text("Which is longer?"))],
        "video and image": [user(coffee, text("Is it in"), clip, text("?"))],
        "image, then video later": [user(coffee, text("This?")), answer, user(clip, text("And this?"))],
    }


@pytest.mark.parametrize("name", list(conversations(Path())))
def test_ids_equal_the_references(name: str, processor: Processor, folder: Path, examples: Path) -> None:
    messages = conversations(examples)[name]
    ours = processor(messages)
    assert list(ours.input_ids) == reference_ids(folder, messages)
    assert ours.input_ids.count(49190) == len(ours.tiles) * processor.config.image_seq_len
    assert sum(info.tile_count for info in ours.media) == len(ours.tiles)


def test_ids_without_generation_prompt(processor: Processor, folder: Path, examples: Path) -> None:
    for messages in ([user(text("Hello"))], conversations(examples)["image first"]):
        ids = processor(messages, add_generation_prompt=False).input_ids
        assert list(ids) == reference_ids(folder, messages, add_generation_prompt=False)
        assert ids[-2] == 49279


def test_a_batch_equals_its_members(processor: Processor, folder: Path, examples: Path) -> None:
    """The reference pads a batch on the left with 2; without the padding each row is ours alone."""
    chosen = ("text only", "image first", "three interleaved", "multi-turn")
    batch = [conversations(examples)[name] for name in chosen]
    reference = reference_inputs(folder, batch, processor_kwargs={"padding": True})
    for messages, ids, mask in zip(batch, reference["input_ids"], reference["attention_mask"], strict=True):
        assert list(processor(messages).input_ids) == ids[mask.bool()].tolist()


def test_pixels_of_a_mixed_prompt_come_in_its_order(processor: Processor, examples: Path) -> None:
    messages = conversations(examples)["three interleaved"]
    together = processor(messages)
    parts = [part for part in messages[0]["content"] if part["type"] == "image"]
    alone = [processor([user(part)]).pixel_values for part in parts]
    assert np.array_equal(together.pixel_values, np.concatenate(alone))
    assert together.pixel_values.dtype == np.float32
    assert together.pixel_values.shape[1:] == (3, processor.config.tile_size, processor.config.tile_size)


def test_pixels_equal_the_references(processor: Processor, folder: Path, examples: Path) -> None:
    """Its Pillow path resizes the same bytes; what is left is its float32 arithmetic, a few steps of 6e-8 at 1."""
    messages = conversations(examples)["three in a row"]
    reference = reference_inputs(folder, messages)["pixel_values"][0].numpy()
    assert np.abs(processor(messages).pixel_values - reference).max() < 1e-6


def write_clip(path: Path, frame_count: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(frame_count):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 2 * i % 255, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_two_clips_of_unequal_length(processor: Processor, folder: Path, examples: Path, tmp_path: Path) -> None:
    """The reference writes the padded number of frames into the shorter clip's intro; ours states what is there."""
    short, long = write_clip(tmp_path / "short.mp4", 48), examples / "bigbuckbunny.mp4"
    messages = [user(*({"type": "video", "path": str(path)} for path in (short, long)), text("?"))]
    decode = processor.tokenizer.decode
    ours = decode(processor(messages).input_ids, skip_special_tokens=False)
    assert ours.index("series of two frames from a 0:00:02") < ours.index("series of five frames from a 0:00:05")
    reference = decode(reference_ids(folder, messages), skip_special_tokens=False)
    assert reference.count("series of five frames") == 2, "the reference was mended: compare the ids instead"
    assert ours == reference.replace("five frames", "two frames", 1)


def test_two_lists_of_frames_of_unequal_length(processor: Processor) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 40, 60, 3), np.uint8)
    messages = [user({"type": "video", "video": list(frames[:3])}, {"type": "video", "video": list(frames)}, text("?"))]
    ours = processor(messages)
    prompt = processor.tokenizer.decode(ours.input_ids, skip_special_tokens=False)
    assert "series of three frames from a 0:00:00" in prompt
    assert "series of five frames from a 0:00:00" in prompt
    assert prompt.count("Frame from 00:00:") == 8
    assert len(ours.tiles) == 8


def test_media_are_placed_by_separate_lists(processor: Processor, examples: Path) -> None:
    clip = str(examples / "bigbuckbunny.mp4")
    inline = [user({"type": "image", "path": str(examples / "coffee.png")}, {"type": "video", "path": clip}, text("?"))]
    bare = [user({"type": "image"}, {"type": "video"}, text("?"))]
    ours = processor(bare, images=[examples / "coffee.png"], videos=[clip])
    assert ours.input_ids == processor(inline).input_ids
    assert [info.kind for info in ours.media] == ["image", "video"]


def test_options_of_a_part_come_before_the_calls(processor: Processor, examples: Path) -> None:
    coffee = {"type": "image", "path": str(examples / "coffee.png")}
    low = MediaOptions(detail="low")
    assert len(processor([user(coffee)]).tiles) == 13
    assert len(processor([user(coffee)], options=low).tiles) == 1
    assert len(processor([user({**coffee, "detail": "official"})], options=low).tiles) == 13
    assert len(processor([user({**coffee, "image_splitting": False})]).tiles) == 1
    assert len(processor([user({**coffee, "longest_edge": 128})]).tiles) < 13
    clip = {"type": "video", "path": str(examples / "bigbuckbunny.mp4")}
    assert len(processor([user({**clip, "max_frames": 2})]).tiles) == 2
    assert len(processor([user({**clip, "fps": 2})]).tiles) > len(processor([user(clip)]).tiles)
    span = processor([user({**clip, "start": 2, "end": 4})]).media[0].timestamps_s
    assert span[0] >= 2
    assert span[-1] <= 4
    with pytest.raises(ParamsError, match="fps"):
        processor([user({**clip, "fps": -1})])


def test_progress_is_reported_frame_by_frame(processor: Processor, examples: Path) -> None:
    seen: list[tuple[int, int]] = []
    clip = {"type": "video", "path": str(examples / "bigbuckbunny.mp4")}
    inputs = processor([user(clip)], on_frame=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, len(inputs.tiles)) for i in range(len(inputs.tiles))]
    assert inputs.media[0].decoded_frames > 0
    assert inputs.media[0].label.endswith("bigbuckbunny.mp4")


def test_the_two_steps_give_what_one_gives(processor: Processor, examples: Path) -> None:
    messages = conversations(examples)["multi-turn"]
    prepared = processor.prepare_media(messages)
    at_once = processor(messages)
    built = processor.build(messages, prepared)
    assert built.input_ids == at_once.input_ids
    assert np.array_equal(built.tiles, at_once.tiles)
    assert built.media == at_once.media
    with pytest.raises(PromptError, match="3 media and 2 were prepared"):
        processor.build(messages, prepared[:2])


def test_a_later_turn_extends_the_ids_of_an_earlier_one(processor: Processor, examples: Path) -> None:
    """What a session stands on: exact ids of the answer keep the whole earlier prompt as a prefix."""
    first = [user({"type": "image", "path": str(examples / "coffee.png")}, text("What is this?"))]
    prepared = processor.prepare_media(first)
    before = processor.build(first, prepared).input_ids
    answer = (1234, 49, 5678)
    later = [*first, Message("assistant", (TokenPart(answer),)), Message("user", (TextPart("Why?"),))]
    after = processor.build(later, prepared).input_ids
    assert after[: len(before) + 4] == (*before, *answer, 49279)


def test_exact_ids_cannot_hold_the_image_token(processor: Processor) -> None:
    with pytest.raises(PromptError, match="49190"):
        processor.build([Message("user", (TokenPart((1, 49190)),))], [])


TYPED = "<image>", "<end_of_utterance>", "<|im_start|>", "<row_1_col_1>", "<global-img>", "<fake_token_around_image>"


@pytest.mark.parametrize("typed", [*TYPED, "<video>", "<|endoftext|>", "<|im_end|>", "<|reserved_special_token_0|>"])
def test_typed_control_tokens_stay_text(typed: str, processor: Processor, examples: Path) -> None:
    """CVE-2026-44222: a placeholder in the text crashed workers or became a control token."""
    coffee = {"type": "image", "path": str(examples / "coffee.png")}
    innocent = [{"role": "system", "content": "a"}, user(text("b"), coffee, text("c")), {"role": "assistant", "content": "d"}]
    hostile = [
        {"role": "system", "content": f"a{typed}"},
        user(text(f"{typed}b"), coffee, text(f"c {typed}")),
        {"role": "assistant", "content": typed},
    ]
    tokenizer = processor.tokenizer

    def controls(messages: list[dict[str, Any]]) -> list[int]:
        return [i for i in processor(messages).input_ids if i in tokenizer.control_ids]

    assert controls(hostile) == controls(innocent)
    assert tokenizer.decode(processor(hostile).input_ids).count(typed) == 4


def test_a_token_cannot_be_assembled_across_a_border(processor: Processor) -> None:
    """Neither two typed parts, nor typed text and the template's own, join into a control token."""
    ids = processor([user(text("<ima"), text("ge>"), text("<|im_"), text("start|>"))]).input_ids
    assert [i for i in ids if i in processor.tokenizer.control_ids] == [1, 49279]
    assert "<image><|im_start|>" in processor.tokenizer.decode(ids)


def test_the_training_style(processor: Processor, folder: Path, examples: Path) -> None:
    training = Processor.from_folder(folder, prompt_style="training")
    coffee = {"type": "image", "path": str(examples / "coffee.png"), "detail": "low"}
    clip = {"type": "video", "path": str(examples / "bigbuckbunny.mp4"), "max_frames": 1}
    prompt = training.tokenizer.decode(training([user(coffee, text("What is it?"))]).input_ids)
    assert prompt == (
        "System: You are a helpful language and vision assistant. You are able to understand the visual content that "
        "the user provides, and assist the user with a variety of tasks using natural language.\n"
        "User: Here are some images: Now answer the following question: What is it?\nAssistant:"
    )
    messages = [{"role": "system", "content": "Hi."}, user(clip, text("What?"))]
    prompt = training.tokenizer.decode(training(messages).input_ids)
    assert prompt == (
        "System: Hi.\nUser: You are provided the following series of one frames from a 0:00:05 [H:MM:SS] video.\n\n"
        "Frame from 00:01:Now answer the following question: What?\nAssistant:"
    )
    plain = [user(text("Hello"))]
    assert training(plain).input_ids != processor(plain).input_ids
    with pytest.raises(PromptError, match="prompt_style='chatty'"):
        Processor.from_folder(folder, prompt_style="chatty")


def test_a_prompt_beyond_the_context_says_what_helps(processor: Processor, examples: Path) -> None:
    coffee = {"type": "image", "path": str(examples / "coffee.png")}
    inputs = processor([user(coffee, text("What is this?"))])
    count = len(inputs.input_ids)
    inputs.check_context(count)
    inputs.check_context(count + 5, 5)
    with pytest.raises(ContextLengthError, match=f"{count} tokens.*context of {count - 1}.*detail=.*shorten the text"):
        inputs.check_context(count - 1)
    with pytest.raises(ContextLengthError, match="max_new_tokens"):
        inputs.check_context(count, 1)
    clip = processor([user({"type": "video", "path": str(examples / "bigbuckbunny.mp4")})])
    with pytest.raises(ContextLengthError, match="max_frames"):
        clip.check_context(10)


def test_files_of_two_checkpoints_are_not_mixed(processor: Processor, folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json", "processor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(CheckpointError, match=r"tokenizer.json: no such file"):
        Processor.from_folder(tmp_path)
    tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(tokenizer.replace('"<image>"', '"<picture>"'), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"no token '<image>'"):
        Processor.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    config = (folder / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(config.replace("49190", "49189"), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"49190.*49189"):
        Processor.from_folder(tmp_path)


def test_missing_media_name_the_file(processor: Processor, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nothing\.jpg"):
        processor([user({"type": "image", "path": str(tmp_path / "nothing.jpg")})])
    with pytest.raises(PromptError, match=r"message 0, part 1.*placeholder"):
        processor([user(text("Look:"), {"type": "image"})])
