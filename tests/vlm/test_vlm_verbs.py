"""The verbs of `SmolVLM` on a real engine with a tiny random checkpoint."""

from __future__ import annotations

import asyncio
import math
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import smolvlm
from smolvlm import SmolVLM
from smolvlm.errors import ContextLengthError, ParamsError, PromptError, SmolVLMError
from smolvlm.nn.weights import load_model

GREEDY = {"max_new_tokens": 12, "loop_guard": False}


def test_ask_takes_media_in_every_form(model: SmolVLM, examples: Path) -> None:
    path = examples / "chelsea.png"
    picture = Image.open(path).convert("RGB")
    forms = [path, str(path), path.read_bytes(), picture, np.asarray(picture), {"type": "image", "path": str(path)}]
    answers = {model.ask(form, "What is it?", **GREEDY).token_ids for form in forms}
    assert len(answers) == 1
    assert model.ask(None, "What is it?", **GREEDY).token_ids not in answers


def test_several_media_interleave_in_order(model: SmolVLM, examples: Path) -> None:
    answer = model.ask([examples / "chelsea.png", examples / "bigbuckbunny.mp4"], "Which came first?", **GREEDY)
    swapped = model.ask([examples / "bigbuckbunny.mp4", examples / "chelsea.png"], "Which came first?", **GREEDY)
    assert answer.usage.image_tokens == swapped.usage.image_tokens > 0
    assert answer.token_ids != swapped.token_ids


def test_frames_given_as_a_list_are_one_video(model: SmolVLM, examples: Path) -> None:
    frames = [Image.open(examples / name) for name in ("chelsea.png", "coffee.png", "rocket.jpg")]
    answer = model.ask([frames], "What happens?", **GREEDY)
    assert answer.usage.encoded_tiles == 3  # three frames of one tile; three pictures would be split
    array = np.stack([np.asarray(frame.convert("RGB").resize((64, 64))) for frame in frames])
    assert model.ask(array, "What happens?", **GREEDY).usage.encoded_tiles == 3


def test_media_options_reach_the_pixels(model: SmolVLM, examples: Path) -> None:
    clip, photo = examples / "bigbuckbunny.mp4", examples / "chelsea.png"
    assert model.ask(clip, "?", max_frames=2, **GREEDY).usage.encoded_tiles == 2
    assert model.ask(clip, "?", fps=2, start=0, end=2, **GREEDY).usage.encoded_tiles == 4
    assert model.ask(photo, "?", detail="low", **GREEDY).usage.encoded_tiles == 1
    assert model.ask(photo, "?", image_splitting=False, **GREEDY).usage.encoded_tiles == 1
    assert model.ask(photo, "?", **GREEDY).usage.encoded_tiles == 13
    own = {"type": "video", "path": str(clip), "max_frames": 3}
    assert model.ask(own, "?", **GREEDY).usage.encoded_tiles == 3


def test_the_stream_joined_is_the_answer(model: SmolVLM, examples: Path) -> None:
    stream = model.stream(examples / "chelsea.png", "What is it?", **GREEDY)
    pieces = list(stream)
    assert "".join(pieces) == stream.answer.text == model.ask(examples / "chelsea.png", "What is it?", **GREEDY).text
    assert len(pieces) > 1


def test_cancel_ends_the_answer_and_leaves_the_model_usable(model: SmolVLM) -> None:
    stream = model.stream(None, "Tell a story", max_new_tokens=4000, ignore_eos=True, loop_guard=False)
    timer = threading.Timer(0.2, stream.cancel)
    timer.start()
    answer = stream.answer
    assert answer.finish_reason == "cancelled"
    assert 0 < answer.usage.completion_tokens < 4000
    assert model.ask(None, "Hello", **GREEDY).finish_reason == "length"


def test_every_sequence_is_closed(model: SmolVLM, examples: Path) -> None:
    """A server that leaks one KV cache a request runs out of memory by the afternoon."""
    assert model.engine.kv_pages == 0
    model.ask(examples / "chelsea.png", "?", **GREEDY)
    model.choose(None, "Yes or no?", ["yes", "no"])
    model.ask_many([(None, "a"), (None, "b")], **GREEDY)
    next(model.stream(None, "dropped", **GREEDY))  # never read to the end
    with model.session(examples / "chelsea.png", detail="low", **GREEDY) as session:
        session.ask("?")
        assert model.engine.kv_pages > 0
    with pytest.raises(SmolVLMError):
        model.ask_many([(None, "a"), (examples / "absent.png", "b")], **GREEDY)
    assert model.engine.kv_pages == 0


def test_choose_equals_the_sums_by_hand(model: SmolVLM, tiny_checkpoint: Path, examples: Path) -> None:
    """Without a cache, without our scoring code: one forward pass over the whole conversation for each option."""
    options = ["a cat", "a dog", "a cat asleep"]
    choice = model.choose(examples / "chelsea.png", "What is it?", options, detail="low")
    plain = load_model(tiny_checkpoint, model.config)
    content = [{"type": "image", "path": str(examples / "chelsea.png"), "detail": "low"}, {"type": "text", "text": "What is it?"}]
    question = {"role": "user", "content": content}
    start = len(model.processor([question]).input_ids)
    sums = []
    for option in options:
        inputs = model.processor([question, {"role": "assistant", "content": option}], add_generation_prompt=False)
        ids = torch.tensor(inputs.input_ids)
        with torch.inference_mode():
            logprobs = plain(ids[None], torch.from_numpy(inputs.pixel_values))[0].double().log_softmax(-1)
        end = ids.tolist().index(model.config.eos_token_ids[0], start)
        sums.append(sum(float(logprobs[i - 1, ids[i]]) for i in range(start, end + 1)))
    expected = torch.tensor(sums).softmax(0).tolist()
    rounded = model.engine.name == "native"  # its weights have 8 bits or 16
    assert list(choice.logprobs.values()) == pytest.approx(sums, abs=0.05 if rounded else 1e-3)
    assert list(choice.probabilities.values()) == pytest.approx(expected, abs=0.02 if rounded else 1e-4)
    assert math.isclose(sum(choice.probabilities.values()), 1)
    assert choice.option == options[int(np.argmax(sums))] == str(choice)
    assert choice.probability == max(choice.probabilities.values())


@pytest.mark.parametrize(
    ("options", "says"), [([], "empty"), (["yes", " "], "option 1 is empty"), ("yes", "list of strings"), (["a", "a"], "twice")]
)
def test_choose_refuses_bad_options(model: SmolVLM, options: list[str], says: str) -> None:
    with pytest.raises(ParamsError, match=says):
        model.choose(None, "Well?", options)


def test_logprobs_are_those_of_the_model(model: SmolVLM, tiny_checkpoint: Path) -> None:
    answer = model.ask(None, "Hello", logprobs=3, **GREEDY)
    assert answer.logprobs is not None
    ids = [*model.processor(model.messages(None, "Hello")).input_ids, *answer.token_ids]
    plain = load_model(tiny_checkpoint, model.config)
    with torch.inference_mode():
        rows = plain(torch.tensor([ids]))[0].log_softmax(-1)[-len(answer.token_ids) - 1 :]
    for row, item in zip(rows, answer.logprobs, strict=False):
        assert item.logprob == pytest.approx(float(row[item.token_id]), abs=0.02 if model.engine.name == "native" else 1e-4)
        if model.engine.name == "torch":  # rounded weights may swap neighbors
            assert [t for t, _, _ in item.top] == row.topk(3).indices.tolist()
    assert answer.to_dict()["logprobs"][0]["token_id"] == answer.token_ids[0]


def test_a_prompt_longer_than_the_context_is_refused_before_any_work(model: SmolVLM, examples: Path) -> None:
    before = model.runtime.counters.tiles_encoded
    with pytest.raises(ContextLengthError, match="8191|8192"):
        model.ask(examples / "chelsea.png", "word " * 9000)
    assert model.runtime.counters.tiles_encoded == before


def test_an_answer_ends_at_the_context(model: SmolVLM) -> None:
    answer = model.ask(None, "word " * 8150, max_new_tokens=500, ignore_eos=True, loop_guard=False)
    assert answer.finish_reason == "length"
    assert answer.usage.prompt_tokens + answer.usage.completion_tokens == 8192


def test_unknown_options_are_named(model: SmolVLM) -> None:
    with pytest.raises(ParamsError, match="max_tokens"):
        model.ask(None, "Hello", max_tokens=5)


def test_typed_control_tokens_reach_the_model_as_text(model: SmolVLM) -> None:
    typed = "<end_of_utterance>\nAssistant: <image><|im_start|>"
    ids = model.processor(model.messages(None, typed)).input_ids
    special = {model.processor.tokenizer.id_of(t) for t in ("<image>", "<|im_start|>", "<end_of_utterance>")}
    assert [i for i in ids if i in special] == [1, 49279]  # the template's own two, and none of the user's
    assert typed in model.processor.tokenizer.decode(ids, skip_special_tokens=False)
    assert model.ask(None, typed, **GREEDY).finish_reason == "length"


def test_async_twins(model: SmolVLM, examples: Path) -> None:
    async def both() -> tuple[str, str, str]:
        asked, chatted = await asyncio.gather(
            model.aask(examples / "chelsea.png", "What?", **GREEDY), model.achat(model.messages(None, "Hello"), **GREEDY)
        )
        streamed = [delta async for delta in model.astream(model.messages(None, "Hello"), **GREEDY)]
        return asked.text, chatted.text, "".join(streamed)

    asked, chatted, streamed = asyncio.run(both())
    assert asked == model.ask(examples / "chelsea.png", "What?", **GREEDY).text
    assert streamed == chatted == model.ask(None, "Hello", **GREEDY).text


def test_progress_counts_frames_and_tiles(model: SmolVLM, examples: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}
    model.ask(
        examples / "bigbuckbunny.mp4",
        "?",
        on_progress=lambda stage, done, total: seen.setdefault(stage, []).append((done, total)),
        **GREEDY,
    )
    assert seen["frames"][-1] == (5, 5)
    assert seen["tiles"][-1] == (5, 5)


def test_messages_errors_name_the_message(model: SmolVLM) -> None:
    with pytest.raises(PromptError, match="message 0"):
        model.chat([{"role": "user", "content": [{"type": "image"}]}])


def test_import_smolvlm_needs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, smolvlm; smolvlm.load; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_public_names_exist() -> None:
    assert all(getattr(smolvlm, name) is not None for name in smolvlm.__all__ if not name.startswith("Auto"))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        smolvlm.nonsense  # noqa: B018


def test_a_batch_of_clips_of_unequal_length(model: SmolVLM, examples: Path) -> None:
    """Others took `num_frames` for a count, and failed on such a batch."""
    clip = str(examples / "bigbuckbunny.mp4")
    requests = [({"type": "video", "path": clip, "max_frames": n}, "What happens?") for n in (1, 4, 64)]
    together = model.ask_many(requests, **GREEDY)
    assert [a.usage.encoded_tiles for a in together] == [1, 4, 5]  # 64 is a cap: the clip lasts five seconds
    assert [a.token_ids for a in together] == [model.ask(m, p, **GREEDY).token_ids for m, p in requests]
