"""What is learned of a conversation: the answers and their stop tokens, to the token; and what does not fit."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import oracle  # noqa: F401  (before transformers)
import pytest
from transformers import AutoTokenizer

from helpers_train import record, text_record, write_pictures
from smolvlm.errors import MixtureError
from smolvlm.options.media import MediaOptions
from smolvlm.processor import Processor
from smolvlm.prompt.style import MEDIA_OUTRO
from smolvlm.train.batching import IGNORE
from smolvlm.train.conversation import ConversationEncoder, Encoded, Skipped
from smolvlm.train.record import Record

EOS = 49279


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    write_pictures(folder, 2)
    return folder


@functools.cache
def processor_of(checkpoint: Path, style: str = "official") -> Processor:
    """Read once: the tokenizer's file has 3.5 MB."""
    return Processor.from_folder(checkpoint, prompt_style=style)


def encode(checkpoint: Path, raw: dict[str, Any], media: Path = Path(), seq_len: int = 8192, style: str = "official") -> Encoded | Skipped:
    processor = processor_of(checkpoint, style)
    return ConversationEncoder(processor, seq_len, MediaOptions(detail="low"))(Record(raw, "cats, record 1", media))


def example(outcome: Encoded | Skipped) -> Any:
    assert isinstance(outcome, Encoded)
    return outcome.example


def test_only_answers_and_stop_tokens_are_learned(tiny_checkpoint: Path) -> None:
    """The reference's ids of the whole text; the answers' places found by searching for their own ids in it."""
    raw = {
        "conversations": [
            {"from": "human", "value": "What is two and two?"},
            {"from": "gpt", "value": "It is four."},
            {"from": "human", "value": "Sure?"},
            {"from": "gpt", "value": "Yes, 4."},
        ]
    }
    found = example(encode(tiny_checkpoint, raw))
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    text = (
        "<|im_start|>User: What is two and two?<end_of_utterance>\nAssistant: It is four.<end_of_utterance>\n"
        "User: Sure?<end_of_utterance>\nAssistant: Yes, 4.<end_of_utterance>"
    )
    assert found.input_ids.tolist() == tokenizer(text).input_ids
    learned = found.labels != IGNORE
    assert found.labels[learned].tolist() == tokenizer(" It is four.<end_of_utterance> Yes, 4.<end_of_utterance>").input_ids
    assert (found.labels[learned] == found.input_ids[learned]).all()
    runs = np.flatnonzero(np.diff(learned.astype(int)) == 1)
    assert len(runs) == 2
    assert all(tokenizer.decode(found.input_ids[: at + 1]).endswith("\nAssistant:") for at in runs.tolist())


def test_nothing_of_frames_and_time_stamps_is_learned(tiny_checkpoint: Path) -> None:
    frames = [np.full((32, 32, 3), value, np.uint8) for value in (0, 90, 180)]
    raw = {
        "video": [frames],
        "conversations": [{"from": "human", "value": "<video>What happens?"}, {"from": "gpt", "value": "It brightens."}],
    }
    processor = processor_of(tiny_checkpoint)
    found = example(encode(tiny_checkpoint, raw | {"video": [frames]}))
    text = processor.tokenizer.decode(found.input_ids[found.labels != IGNORE], skip_special_tokens=False)
    assert text == " It brightens.<end_of_utterance>"
    assert "Frame from 00:00:" in processor.tokenizer.decode(found.input_ids)
    assert len(found.tiles) >= 1
    per_tile = processor.config.image_seq_len
    assert (found.input_ids == processor.model.image_token_id).sum() == len(found.tiles) * per_tile


def test_the_prompt_is_what_the_model_will_be_asked_with(tiny_checkpoint: Path, media: Path) -> None:
    processor = processor_of(tiny_checkpoint)
    found = example(encode(tiny_checkpoint, record(0), media))
    content = [{"type": "image", "path": str(media / "0.png"), "detail": "low"}, {"type": "text", "text": "What is it?"}]
    asked = processor([{"role": "user", "content": content}])
    start = int(np.flatnonzero(found.labels != IGNORE)[0])
    assert found.input_ids[:start].tolist() == list(asked.input_ids)
    assert (found.tiles == asked.tiles).all()


def test_control_tokens_typed_in_data_stay_text(tiny_checkpoint: Path) -> None:
    raw = {
        "conversations": [
            {"from": "human", "value": "Say <end_of_utterance> <row_1_col_1>"},
            {"from": "gpt", "value": "No <image> and no <end_of_utterance>."},
        ]
    }
    found = example(encode(tiny_checkpoint, raw))
    assert (found.input_ids == EOS).sum() == 2
    assert not ((found.input_ids >= 49152) & (found.input_ids != EOS)).any()
    assert found.labels[-1] == EOS


def test_the_training_style_words_media_as_the_authors_did(tiny_checkpoint: Path, media: Path) -> None:
    processor = processor_of(tiny_checkpoint)
    text = processor.tokenizer.decode(example(encode(tiny_checkpoint, record(0), media, style="training")).input_ids)
    assert MEDIA_OUTRO in text
    assert "Here are some images: " in text
    assert "System: You are a helpful language and vision assistant." in text


def test_what_does_not_fit_is_cut_after_an_answer_or_skipped(tiny_checkpoint: Path) -> None:
    whole = example(encode(tiny_checkpoint, text_record(turns=4)))
    turn_ends = [i + 1 for i in np.flatnonzero(whole.labels == EOS)]
    cut = encode(tiny_checkpoint, text_record(turns=4), seq_len=turn_ends[2] - 1)
    assert isinstance(cut, Encoded)
    assert cut.cut
    assert cut.example.input_ids.tolist() == whole.input_ids[: turn_ends[1]].tolist()
    exact = encode(tiny_checkpoint, text_record(turns=4), seq_len=turn_ends[3])
    assert isinstance(exact, Encoded)
    assert not exact.cut
    nothing = encode(tiny_checkpoint, text_record(turns=4), seq_len=turn_ends[0] - 1)
    assert isinstance(nothing, Skipped)
    assert nothing.kind == "too long"


def test_a_picture_of_a_cut_turn_is_left_out_with_it(tiny_checkpoint: Path, media: Path) -> None:
    raw = {
        "image": ["0.png", "1.png"],
        "conversations": [
            {"from": "human", "value": "<image>What?"},
            {"from": "gpt", "value": "A."},
            {"from": "human", "value": "<image>And?"},
            {"from": "gpt", "value": "B."},
        ],
    }
    whole = encode(tiny_checkpoint, raw, media)
    cut = encode(tiny_checkpoint, raw, media, seq_len=len(example(whole)) - 1)
    assert isinstance(cut, Encoded)
    assert cut.cut
    assert len(example(whole).tiles) == 2
    assert (cut.example.tiles == example(whole).tiles[:1]).all()
    assert len(cut.example.tiles) == 1


def test_unreadable_media_skip_the_record_and_say_why(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"no picture at all")
    for number in (0, 1):  # broken, and missing
        outcome = encode(tiny_checkpoint, record(number), tmp_path)
        assert isinstance(outcome, Skipped)
        assert outcome.kind == "unreadable"
        assert f"{number}.png" in outcome.reason
        assert outcome.reason.startswith("cats, record 1: ")


def test_a_template_without_stop_tokens_is_refused(tiny_checkpoint: Path) -> None:
    from smolvlm.prompt.template import ChatTemplate

    processor = Processor.from_folder(tiny_checkpoint)
    processor.template = ChatTemplate(processor.template.source.replace("<end_of_utterance>", ""))
    with pytest.raises(MixtureError, match="without the stop token"):
        ConversationEncoder(processor, 100)(Record(text_record(), "cats, record 1"))
