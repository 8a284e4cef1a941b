"""`generate` against `transformers`: the same ids for the same arguments, float32 and greedy; and what sampling must obey."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from helpers_compat import CALL, Side, ours, reference
from smolvlm import AutoProcessor
from smolvlm.generation import LoopGuard


def inputs_of(side: Side, messages: list[Any], **extra: Any) -> Any:
    extra = {"padding": True, "padding_side": "left", **extra}
    return side.processor.apply_chat_template(messages, **CALL, **extra, return_tensors="pt")


def both(messages: list[Any], **arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of ours and of the reference from the same inputs.

    The processors are compared elsewhere. Two video frames may differ by a grey level, and random weights come so close to
    a tie within 20 tokens that this decides it in one run out of three.
    """
    inputs = inputs_of(reference(), messages)
    return ours().model.generate(**inputs, **arguments), reference().model.generate(**inputs, **arguments)


@pytest.mark.parametrize(
    ("name", "new"), [("text", 8), ("one image", 64), ("three interleaved", 24), ("system and turns", 8), ("video", 64), ("two videos", 8)]
)
def test_greedy_ids_are_equal(name: str, new: int, talks: dict[str, list[Any]]) -> None:
    mine, theirs = both(talks[name], do_sample=False, max_new_tokens=new)
    assert mine.dtype == theirs.dtype == torch.int64
    assert torch.equal(mine, theirs)
    texts = [side.processor.batch_decode(mine, skip_special_tokens=True) for side in (ours(), reference())]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 1


@pytest.mark.parametrize("name", ["batch", "video batch"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"max_new_tokens": 8, "repetition_penalty": 1.3},
        {"max_new_tokens": 8, "no_repeat_ngram_size": 1},  # 1: the padding of the prompt is banned with the rest
        {"max_new_tokens": 8, "repetition_penalty": 0.7, "no_repeat_ngram_size": 2, "do_sample": False, "num_beams": 1},
        {},  # 20 new tokens
        {"max_length": 600, "max_new_tokens": 3},
    ],
)
def test_arguments_on_batches(name: str, arguments: dict[str, Any], talks: dict[str, list[Any]]) -> None:
    mine, theirs = both(talks[name], **arguments)
    assert torch.equal(mine, theirs)


def test_max_length_counts_the_padded_prompt(talks: dict[str, list[Any]]) -> None:
    width = inputs_of(ours(), talks["batch"])["input_ids"].shape[1]
    mine, theirs = both(talks["batch"], max_length=width + 3)
    assert torch.equal(mine, theirs)
    assert mine.shape[1] == width + 3


def test_the_loop_guard_is_off() -> None:
    """A random model ends up repeating one word; the reference goes on and so does this. The guard looks at the text of an
    answer, which is decoded only where there are stop strings: so one is given that never comes."""
    arguments = {"max_new_tokens": 60, "stop_strings": ["never written"]}
    # The tokenizer of a tiny checkpoint is trained on the standard library, so that which prompts do differs from Python to Python.
    for text in (f"What do you see in picture {number}?" for number in range(100)):
        talk = [{"role": "user", "content": [{"type": "text", "text": text}]}]
        mine = ours().model.generate(**inputs_of(ours(), talk), **arguments)
        guard = LoopGuard(has_words=lambda ids: any(c.isalpha() for c in ours().processor.decode(ids)))
        for token in mine[0, -60:].tolist():
            guard.push(token)
        if guard.loop is not None:  # the guard would have cut this answer
            break
    else:
        pytest.fail("no prompt ended in a loop")
    theirs = reference().model.generate(**inputs_of(reference(), talk), **arguments, tokenizer=reference().processor.tokenizer)
    assert torch.equal(mine, theirs)
    assert mine.shape[1] == inputs_of(ours(), talk)["input_ids"].shape[1] + 60


def test_penalties_count_the_padding_as_the_reference_does(talks: dict[str, list[Any]]) -> None:
    """Padded with the very token that would come first: without repetition it may not come, though it is masked."""
    prompt = inputs_of(ours(), talks["text"])["input_ids"]
    first = ours().model.generate(prompt, max_new_tokens=1)[:, -1:]
    ids = torch.cat([first, first, prompt], dim=1)
    mask = torch.ones_like(ids)
    mask[:, :2] = 0
    mine, theirs = (
        side.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=4, no_repeat_ngram_size=1) for side in (ours(), reference())
    )
    assert torch.equal(mine, theirs)
    assert mine[0, ids.shape[1]] != first


def test_rows_that_stop_are_padded(talks: dict[str, list[Any]]) -> None:
    free, _ = both(talks["batch"], max_new_tokens=10)
    width = inputs_of(ours(), talks["batch"])["input_ids"].shape[1]
    stops = [int(free[0, width + 2]), int(free[1, width + 5])]  # the first row ends at its third token, the second later
    for eos in (stops, torch.tensor(stops), stops[0]):
        for pad in ({}, {"pad_token_id": 7}):
            mine, theirs = both(talks["batch"], max_new_tokens=10, eos_token_id=eos, **pad)
            assert torch.equal(mine, theirs)
    assert (mine[0, width + 3 :] == 7).all()


def test_all_rows_stopping_ends_the_batch_early(talks: dict[str, list[Any]]) -> None:
    free, _ = both(talks["one image"], max_new_tokens=10)
    mine, theirs = both(talks["one image"], max_new_tokens=10, eos_token_id=int(free[0, -5]))
    assert torch.equal(mine, theirs)
    assert mine.shape[1] < free.shape[1]
    never, _ = both(talks["one image"], max_new_tokens=10, eos_token_id=-1)
    assert torch.equal(never, free)


def test_stop_strings(talks: dict[str, list[Any]]) -> None:
    free, _ = both(talks["one image"], max_new_tokens=12)
    words = ours().processor.decode(free[0, -6]).strip()
    assert len(words) > 1
    arguments = {"max_new_tokens": 12, "stop_strings": [words[:-1]]}
    mine = ours().model.generate(**inputs_of(ours(), talks["one image"]), **arguments)
    theirs = reference().model.generate(
        **inputs_of(reference(), talks["one image"]), **arguments, tokenizer=reference().processor.tokenizer
    )
    assert torch.equal(mine, theirs)
    assert mine.shape[1] < free.shape[1]


def test_right_padded_rows_equal_the_rows_alone(talks: dict[str, list[Any]]) -> None:
    """The reference samples from a padding token's logits here; a row of ours is what it is alone."""
    batch = inputs_of(ours(), talks["batch"], padding_side="right")
    width = batch["input_ids"].shape[1]
    mine = ours().model.generate(**batch, max_new_tokens=8)
    for row, messages in enumerate(talks["batch"]):
        alone = inputs_of(reference(), messages)
        theirs = reference().model.generate(**alone, max_new_tokens=8)
        assert torch.equal(mine[row, width:], theirs[0, alone["input_ids"].shape[1] :])


def test_a_missing_mask_is_inferred_from_the_padding(talks: dict[str, list[Any]]) -> None:
    inputs = inputs_of(ours(), talks["batch"])
    with_mask = ours().model.generate(**inputs, max_new_tokens=5)
    del inputs["attention_mask"], inputs["pixel_attention_mask"]
    assert torch.equal(ours().model.generate(inputs.pop("input_ids"), **inputs, max_new_tokens=5), with_mask)


def test_numpy_inputs_and_half_precision_pixels(talks: dict[str, list[Any]]) -> None:
    inputs = inputs_of(ours(), talks["batch"])
    expected = ours().model.generate(**inputs, max_new_tokens=5)
    arrays = {name: value.numpy() for name, value in inputs.items()}
    assert torch.equal(ours().model.generate(**arrays, max_new_tokens=5), expected)
    halves = [inputs_of(side, talks["one image"]).to("cpu", dtype=torch.bfloat16) for side in (ours(), reference())]
    assert halves[0]["pixel_values"].dtype == torch.bfloat16
    assert halves[0]["input_ids"].dtype == torch.int64
    mine, theirs = (side.model.generate(**half, max_new_tokens=16) for side, half in zip((ours(), reference()), halves, strict=True))
    assert torch.equal(mine, theirs)


def test_sampling_keeps_to_the_filters(talks: dict[str, list[Any]]) -> None:
    inputs = inputs_of(ours(), talks["one image"])
    greedy = ours().model.generate(**inputs, max_new_tokens=6)
    certain: list[dict[str, Any]] = [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-4, "top_k": 0}]
    for one in certain:
        assert torch.equal(ours().model.generate(**inputs, max_new_tokens=6, do_sample=True, **one), greedy), one
    with torch.no_grad():
        best = reference().model(**inputs_of(reference(), talks["one image"])).logits[0, -1].topk(50).indices.tolist()
    drawn = set()
    for _ in range(20):
        drawn.add(int(ours().model.generate(**inputs, max_new_tokens=1, do_sample=True)[0, -1]))
    assert drawn <= set(best)  # the reference's default is top_k=50
    assert len(drawn) > 3  # 20 draws of 50 nearly equal tokens: the odds of at most 3 kinds are below 1e-20
    flat = int(ours().model.generate(**inputs, max_new_tokens=1, do_sample=False, top_k=9, temperature=0.5)[0, -1])
    assert flat == int(greedy[0, -6])


def test_sampling_follows_torchs_seed(talks: dict[str, list[Any]]) -> None:
    inputs = inputs_of(ours(), [talks["text"], talks["text"]])
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(ours().model.generate(**inputs, max_new_tokens=12, do_sample=True))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0][0], runs[0][1])  # rows have draws of their own


class Recorder:
    def __init__(self) -> None:
        self.puts: list[torch.Tensor] = []
        self.ended = 0

    def put(self, value: torch.Tensor) -> None:
        self.puts.append(value.clone())

    def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("name", ["text", "batch"])
def test_streamers_get_what_the_reference_gives_them(name: str, talks: dict[str, list[Any]]) -> None:
    free, _ = both(talks[name], max_new_tokens=8)
    recorders = []
    for side in (ours(), reference()):
        recorders.append(Recorder())
        side.model.generate(**inputs_of(side, talks[name]), max_new_tokens=8, streamer=recorders[-1], eos_token_id=int(free[0, -4]))
    mine, theirs = recorders
    assert (mine.ended, theirs.ended) == (1, 1)
    assert len(mine.puts) == len(theirs.puts)
    for a, b in zip(mine.puts, theirs.puts, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_text_iterator_streamer_in_a_thread(talks: dict[str, list[Any]]) -> None:
    from oracle import transformers

    texts = []
    for side in (ours(), reference()):
        streamer = transformers.TextIteratorStreamer(side.processor.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=120)
        arguments = dict(inputs_of(side, talks["one image"]), streamer=streamer, max_new_tokens=16, do_sample=False)
        thread = threading.Thread(target=side.model.generate, kwargs=arguments)
        thread.start()
        texts.append("".join(streamer))
        thread.join()
    assert texts[0] == texts[1] != ""


def test_a_failing_call_ends_its_stream_and_leaves_no_sequence(talks: dict[str, list[Any]]) -> None:
    class Failing(Recorder):
        def put(self, value: torch.Tensor) -> None:
            super().put(value)
            if len(self.puts) == 3:
                raise RuntimeError("the reader went away")

    streamer = Failing()
    with pytest.raises(RuntimeError, match="went away"):
        ours().model.generate(**inputs_of(ours(), talks["batch"]), max_new_tokens=8, streamer=streamer)
    assert streamer.ended == 1
    assert not ours().model.engine._sequences  # the engine's own table of open sequences


def test_checkpoint_defaults_are_read_from_generation_config(tmp_path: Any, talks: dict[str, list[Any]]) -> None:
    import json
    import shutil

    from oracle import transformers

    from helpers_prompt import tiny_checkpoint
    from smolvlm import AutoModelForImageTextToText

    folder = shutil.copytree(tiny_checkpoint(), tmp_path / "model")
    values = json.loads((folder / "generation_config.json").read_text())
    values |= {"max_new_tokens": 7, "repetition_penalty": 1.5, "pad_token_id": 9, "eos_token_id": [49279, 5]}
    (folder / "generation_config.json").write_text(json.dumps(values))
    models = AutoModelForImageTextToText, transformers.AutoModelForImageTextToText
    inputs = inputs_of(ours(), talks["batch"])
    mine, theirs = (kind.from_pretrained(folder).generate(**inputs) for kind in models)
    assert torch.equal(mine, theirs)
    assert mine.shape[1] == inputs["input_ids"].shape[1] + 7
    assert AutoProcessor.from_pretrained(folder).tokenizer.pad_token_id == 2  # the tokenizer's is its own
