"""nano's training rows against the processor that will prompt it, and against one row a question."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from smolvlm.config import ModelConfig, TextConfig, VisionConfig
from smolvlm.processor import MediaInfo, PreparedMedia, Processor
from smolvlm.prompt.template import ChatTemplate
from smolvlm.prompt.tokenizer import PromptTokenizer
from smolvlm.synth import SMALL, generate
from smolvlm.train.nano.dense import FIELDS, UNKNOWN, dense_labels
from smolvlm.train.nano.export import nano_processor
from smolvlm.train.nano.rows import PAD_SEGMENT, RowMaker, row_mask
from smolvlm.train.nano.tokenizer import VOCAB


@pytest.fixture(scope="module")
def tokenizer(nano_tokenizer: Path) -> PromptTokenizer:
    return PromptTokenizer(nano_tokenizer.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def config(tokenizer: PromptTokenizer) -> ModelConfig:
    """nano's prompt with a graph small enough for a unit test: 36 tokens a tile of 96."""
    return ModelConfig(
        text=TextConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            vocab_size=VOCAB,
            eos_token_id=VOCAB - 1,
        ),
        vision=VisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=96, patch_size=8),
        scale_factor=2,
        image_token_id=tokenizer.id_of("<image>"),
        eos_token_ids=(VOCAB - 1,),
    )


@pytest.mark.parametrize("name", ["scene", "writing", "clip", "pair"])
def test_a_row_is_what_the_processor_prompts(name: str, tokenizer: PromptTokenizer, config: ModelConfig) -> None:
    maker = RowMaker(config, tokenizer)
    processor = Processor(nano_processor(config), config, tokenizer, ChatTemplate())
    for index in range(5):
        sample = generate(name, "validation", index)
        tiles = np.zeros((len(sample.frames), 96, 96, 3), np.uint8)
        if sample.kind == "video":
            prepared = [
                PreparedMedia(MediaInfo("video", "", len(tiles), timestamps_s=sample.timestamps_s, duration_s=sample.duration_s), tiles)
            ]
            media = [{"type": "video", "path": "-"}]
        else:
            prepared = [PreparedMedia(MediaInfo("image", "", 1), tile[None]) for tile in tiles]
            media = [{"type": "image", "path": "-"}] * len(tiles)
        for question in sample.questions:
            row = maker.row(sample, [question], 600)
            messages = [{"role": "user", "content": [*media, {"type": "text", "text": question.text}]}]
            asked = processor.build(messages, prepared).input_ids
            messages.append({"role": "assistant", "content": [{"type": "text", "text": question.answer}]})
            told = processor.build(messages, prepared, add_generation_prompt=False).input_ids
            length = int((row.segments != PAD_SEGMENT).sum())
            ids = tuple(row.input_ids[:length].tolist())
            assert ids[: len(asked)] == asked
            assert told[: len(ids)] == ids  # the template ends the turn with a line break, which is not learned
            assert tokenizer.decode(told[len(ids) :]) == "\n"
            learned = np.flatnonzero(row.weights)
            assert learned[0] == len(asked)
            assert tokenizer.decode(row.input_ids[learned].tolist()) == f" {question.answer}"


def test_turns_are_what_the_processor_prompts(tokenizer: PromptTokenizer, config: ModelConfig) -> None:
    processor = Processor(nano_processor(config), config, tokenizer, ChatTemplate())
    sample = generate("scene", "validation", 3)
    row = RowMaker(config, tokenizer).row(sample, sample.questions, 600, conversation=True)
    messages: list[dict[str, object]] = []
    for number, question in enumerate(sample.questions):
        media = [{"type": "image", "path": "-"}] if number == 0 else []
        messages.append({"role": "user", "content": [*media, {"type": "text", "text": question.text}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": question.answer}]})
    prepared = [PreparedMedia(MediaInfo("image", "", 1), np.zeros((1, 96, 96, 3), np.uint8))]
    told = processor.build(messages, prepared, add_generation_prompt=False).input_ids
    length = int((row.segments != PAD_SEGMENT).sum())
    assert tuple(row.input_ids[:length].tolist()) == told[:length]
    assert tokenizer.decode(told[length:]) == "\n"
    assert row.positions[:length].tolist() == list(range(length))


def test_the_vocabulary_spells_capitals_and_digits(tokenizer: PromptTokenizer) -> None:
    assert [tokenizer.decode([i]) for i in tokenizer.encode_text(" WORLD")] == [" W", "O", "R", "L", "D"]
    assert [tokenizer.decode([i]) for i in tokenizer.encode_text(" 407")] == [" ", "4", "0", "7"]
    assert len(tokenizer.encode_text(" elephant")) == 1
    assert tokenizer.vocab_size == VOCAB


def test_questions_of_a_row_see_the_media_and_nothing_of_each_other(config: ModelConfig, tokenizer: PromptTokenizer) -> None:
    """Loss and gradients of one shared row equal those of a row a question: the mask and the positions are right."""
    from smolvlm.train.nano.objective import Nano, rows_to_batch

    sample = next(s for i in range(50) if len((s := generate("scene", "train", i)).questions) > 6)
    maker = RowMaker(config, tokenizer)
    nano = Nano(config, tokenizer, seed=3)
    questions = sample.questions[:5]
    shared = rows_to_batch([maker.row(sample, questions, 300)])
    apart = rows_to_batch([maker.row(sample, [q], 120) for q in questions])
    losses = []
    for batch in (shared, apart):
        nano.zero_grad()
        loss = nano.answer_loss(batch, nano.image_embeds(batch)).answers
        loss.backward()
        losses.append((loss.item(), nano.model.model.text_model.layers[0].self_attn.k_proj.weight.grad.clone()))
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)
    torch.testing.assert_close(losses[0][1], losses[1][1], rtol=1e-3, atol=1e-6)


def test_mask_by_hand() -> None:
    segments = np.array([[0, 0, 1, 1, 2, PAD_SEGMENT]])
    expected = np.array(
        [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]], bool
    )
    np.testing.assert_array_equal(row_mask(segments, np.array([False]))[0, 0], expected)
    expected[4, 2:4] = True  # the second turn of a conversation sees the first
    np.testing.assert_array_equal(row_mask(segments, np.array([True]))[0, 0], expected)


def test_dense_labels_by_hand() -> None:
    from smolvlm.synth.sample import CharacterTruth, FrameTruth, ItemTruth
    from smolvlm.train.nano.dense import CHARACTERS, COLOURS, NAMES

    star = ItemTruth("star", "red", (0.0, 0.4, 0.2, 0.6))  # centre (0.1, 0.5): column 0, row 3 of six; bins 2 and 1
    characters = (CharacterTruth("B", (0.99, 0.02)), CharacterTruth("A", (0.9, 0.02)))
    labels = dense_labels(FrameTruth((star,), characters), 36)
    assert labels[3 * 6].tolist() == [NAMES["star"], COLOURS["red"], 2, 1, 0, 0, 0]
    assert labels[5].tolist() == [0, 0, 0, 0, CHARACTERS["A"], CHARACTERS["B"], 0]
    assert (labels != 0).any(1).sum() == 2
    washer = FrameTruth((ItemTruth("washer", None, (0.1, 0.1, 0.5, 0.5)),))
    assert (dense_labels(washer, 36) == UNKNOWN).all()
    assert len(FIELDS) == labels.shape[1]


def test_frames_come_as_square_tiles(config: ModelConfig, tokenizer: PromptTokenizer) -> None:
    wide = next(s for i in range(50) if (s := generate("scene", "train", i, replace(SMALL, side_px=120))).frames[0].shape[0] < 120)
    row = RowMaker(config, tokenizer).row(wide, wide.questions, 200)
    assert row.frames.shape == (1, 96, 96, 3)
