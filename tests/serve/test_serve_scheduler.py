"""Continuous batching on a real engine, watched call by call."""

from __future__ import annotations

import functools
import queue
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers_serve import MEDIA
from smolvlm import SmolVLM
from smolvlm.errors import EngineError
from smolvlm.generation import GenerationParams
from smolvlm.inference.cached_sequence import common_prefix
from smolvlm.inference.tiles import Tile, tile_key
from smolvlm.inference.vision_cache import VisionCache
from smolvlm.media import normalize
from smolvlm.serve.api.quotas import Quotas
from smolvlm.serve.engine.fair_queue import FairQueue
from smolvlm.serve.engine.job import Failed, Job, Progressed, Started, Update
from smolvlm.serve.engine.pace import Pace
from smolvlm.serve.engine.scheduler import BatchLimits, Scheduler
from smolvlm.serve.errors import ServeError
from smolvlm.serve.metrics import Metrics

FREE = {"ignore_eos": True, "loop_guard": False}


class Watched:
    """The engine itself, with a list of what was asked of it, and a call that can be made to fail."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.calls: list[tuple[str, int]] = []
        self.open_sequences: set[int] = set()
        self.poison: int | None = None  # a token that decode chokes on

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def open(self, max_tokens: int) -> int:
        seq = self._engine.open(max_tokens)
        self.open_sequences.add(seq)
        return int(seq)

    def fork(self, seq: int) -> int:
        made = self._engine.fork(seq)
        self.open_sequences.add(made)
        return int(made)

    def close(self, seq: int) -> None:
        self.open_sequences.discard(seq)
        self._engine.close(seq)

    def encode_images(self, pixels: Any) -> Any:
        self.calls.append(("encode", len(pixels)))
        return self._engine.encode_images(pixels)

    def prefill(self, seq: int, ids: Sequence[int], embeds: Any = (), **options: Any) -> Any:
        self.calls.append(("prefill", len(ids)))
        return self._engine.prefill(seq, ids, embeds, **options)

    def decode(self, seqs: Sequence[int], tokens: Sequence[int]) -> Any:
        if self.poison is not None and len(tokens) and seqs[-1] == self.poison:
            raise EngineError("this sequence cannot be decoded.")
        self.calls.append(("decode", len(seqs)))
        return self._engine.decode(seqs, tokens)


class Bench:
    """A scheduler over nano whose jobs are all queued before its thread starts, so that runs are repeatable."""

    def __init__(
        self, model: SmolVLM, *, chunk: int = 64, tiles: int = 2, stall_ratio: float = 1e6, patience_s: float = 0.0, **limits: int
    ) -> None:
        self.model, self.engine = model, Watched(model.engine)
        self.metrics = Metrics()
        encodable = lambda pixels: normalize(np.stack(pixels), model.processor.config)  # noqa: E731
        sizes = {"max_waiting": 64, "max_waiting_bytes": 1 << 30, "max_running": 8, "kv_tokens": 20_000} | limits
        self.scheduler = Scheduler(
            self.engine,
            encodable,
            functools.partial(model.processor.tokenizer.decode, skip_special_tokens=True),
            BatchLimits(**sizes),
            Pace(chunk=chunk, tiles=tiles, stall_ratio=stall_ratio, patience_s=patience_s),
            VisionCache(1 << 26, 1 << 14),
            self.metrics,
        )
        self.order: list[str] = []

    def job(self, media: Any, question: str, owner: str = "a", limit_s: float = 60, **params: Any) -> tuple[Job, Any]:
        messages = self.model.messages(media, question)
        inputs = self.model.processor(messages)
        tiles = [Tile(tile_key(tile), tile) for tile in inputs.tiles]
        updates: queue.Queue[Update] = queue.Queue()

        def listen(update: Update) -> None:
            if isinstance(update, Started):
                self.order.append(owner)
            updates.put(update)

        return Job(owner, tuple(inputs.input_ids), tiles, (GenerationParams(**params),), (None,), listen, limit_s), updates

    def answer(self, updates: Any) -> str:
        """The text of a job. Raises what it failed of."""
        text = ""
        while True:
            update = updates.get(timeout=30)
            if isinstance(update, Failed):
                raise update.error
            if isinstance(update, Progressed):
                text += "".join(event.text_delta for event in update.events)
                if update.events[-1].finish_reason is not None:
                    return text

    def run(self, *jobs: tuple[Job, Any]) -> list[str]:
        for job, _ in jobs:
            self.scheduler.submit(job)
        self.scheduler.start()
        try:
            return [self.answer(updates) for _, updates in jobs]
        finally:
            self.scheduler.close()


def longest_gap(calls: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """The calls between two decode steps that came with most work."""
    gaps: list[list[tuple[str, int]]] = [[]]
    for call in calls:
        if call[0] == "decode":
            gaps.append([])
        else:
            gaps[-1].append(call)
    return max(gaps[1:-1], key=len)


def test_a_long_prompt_is_read_in_chunks_between_decode_steps(nano: SmolVLM) -> None:
    bench = Bench(nano, chunk=64)
    prompt = "word " * 500
    expected = [nano.ask(None, "Hi.", max_new_tokens=40, **FREE).text, nano.ask(None, prompt, max_new_tokens=6, **FREE).text]
    assert bench.run(bench.job(None, "Hi.", max_new_tokens=40, **FREE), bench.job(None, prompt, max_new_tokens=6, **FREE)) == expected
    chunks = [size for name, size in bench.engine.calls if name == "prefill"]
    assert len(chunks) > 8
    assert max(chunks) <= 64
    assert len(longest_gap(bench.engine.calls)) == 1
    assert ("decode", 2) in bench.engine.calls


def test_tiles_go_in_one_a_step_or_wait(nano: SmolVLM) -> None:
    question = "What happens in this video?"
    expected = nano.ask(MEDIA / "clip.mp4", question).text
    eager = Bench(nano, patience_s=0.0)
    assert eager.run(eager.job(None, "Hi.", max_new_tokens=30, **FREE), eager.job(MEDIA / "clip.mp4", question))[1] == expected
    assert [call for call in eager.engine.calls if call[0] == "encode"] == [("encode", 1)] * 4
    assert len(longest_gap(eager.engine.calls)) == 1
    patient = Bench(nano, patience_s=60.0)
    assert patient.run(patient.job(None, "Hi.", max_new_tokens=30, **FREE), patient.job(MEDIA / "clip.mp4", question))[1] == expected
    names = [name for name, _ in patient.engine.calls]
    assert names[: names.index("encode")].count("decode") == 29  # the first answer was let to its end
    assert [call for call in patient.engine.calls if call[0] == "encode"] == [("encode", 2)] * 2


def test_chunks_never_cut_a_tile(nano: SmolVLM) -> None:
    """Chunks of 16 tokens over tiles of 36: every prefill holds whole tiles, and the answer is the same."""
    bench = Bench(nano, chunk=16)
    assert bench.run(bench.job(MEDIA / "clip.mp4", "When does the butterfly fall?")) == [
        nano.ask(MEDIA / "clip.mp4", "When does the butterfly fall?").text
    ]


def test_the_same_picture_is_encoded_and_read_once(nano: SmolVLM) -> None:
    bench = Bench(nano)
    questions = ["Describe this picture.", "Is there a ring?", "How many things are there?"]
    expected = [nano.ask(MEDIA / "scene.png", question).text for question in questions]
    assert bench.run(*(bench.job(MEDIA / "scene.png", question) for question in questions)) == expected
    assert sum(size for name, size in bench.engine.calls if name == "encode") == 1
    prefilled = sum(size for name, size in bench.engine.calls if name == "prefill")
    assert prefilled < sum(len(nano.processor(nano.messages(MEDIA / "scene.png", q)).input_ids) for q in questions) - 60


def test_prefixes_are_each_owners_own(nano: SmolVLM) -> None:
    """What somebody else has asked neither answers sooner nor shows in the count of cached tokens."""
    bench = Bench(nano, max_running=1)
    jobs = [bench.job(None, "word " * 100 + "?", owner, max_new_tokens=2) for owner in ("a", "b", "a")]
    length = len(jobs[0][0].input_ids)
    bench.run(*jobs)
    prefilled = [size for name, size in bench.engine.calls if name == "prefill"]
    assert sum(prefilled) == 2 * length + 1  # the third is the first once more


def test_another_picture_in_the_same_place_is_not_the_same_prefix(nano: SmolVLM) -> None:
    bench = Bench(nano)
    names = ["scene.png", "sign.png", "scene.png"]
    expected = [nano.ask(MEDIA / name, "Describe this picture.").text for name in names]
    assert bench.run(*(bench.job(MEDIA / name, "Describe this picture.") for name in names)) == expected


def test_owners_take_turns(nano: SmolVLM) -> None:
    bench = Bench(nano, max_running=1)
    jobs = [bench.job(None, f"Question {i}.", owner, max_new_tokens=2) for i, owner in enumerate("aaaabb")]
    bench.run(*jobs)
    assert bench.order == list("ababaa")


def test_a_small_kv_budget_delays_and_loses_nothing(nano: SmolVLM) -> None:
    bench = Bench(nano, kv_tokens=120)
    questions = [f"Question {i}." for i in range(5)]
    expected = [nano.ask(None, question, max_new_tokens=50, **FREE).text for question in questions]
    assert bench.run(*(bench.job(None, question, max_new_tokens=50, **FREE) for question in questions)) == expected
    assert max(size for name, size in bench.engine.calls if name == "decode") == 1
    kept = bench.scheduler._prefixes
    assert kept.tokens <= 120
    assert len(bench.engine.open_sequences) == len(kept)


def test_the_culprit_fails_and_the_others_go_on(nano: SmolVLM) -> None:
    bench = Bench(nano)
    jobs = [bench.job(None, question, max_new_tokens=20, **FREE) for question in ("One.", "Two.", "Three.")]
    for job, _ in jobs:
        bench.scheduler.submit(job)
    really_open = bench.engine.open

    def open_and_poison(max_tokens: int) -> int:
        seq = really_open(max_tokens)
        bench.engine.poison = seq if len(bench.engine.open_sequences) == len(jobs) else None  # the third: last in a batch
        return seq

    bench.engine.open = open_and_poison  # type: ignore[method-assign]
    bench.scheduler.start()
    outcomes: list[Any] = []
    for _, updates in jobs:
        try:
            outcomes.append(bench.answer(updates))
        except EngineError as error:
            outcomes.append(error)
    bench.engine.poison = None
    later = bench.job(None, "Four.", max_new_tokens=5, **FREE)
    bench.engine.open = really_open  # type: ignore[method-assign]
    bench.scheduler.submit(later[0])
    assert bench.answer(later[1]) == nano.ask(None, "Four.", max_new_tokens=5, **FREE).text
    bench.scheduler.close()
    expected = [nano.ask(None, question, max_new_tokens=20, **FREE).text for question in ("One.", "Two.")]
    assert outcomes[:2] == expected
    assert isinstance(outcomes[2], EngineError)


def test_time_limits_hold_in_the_queue_and_while_writing(nano: SmolVLM) -> None:
    bench = Bench(nano, max_running=1)
    jobs = [bench.job(None, "One.", limit_s=0.3, max_new_tokens=1900, **FREE), bench.job(None, "Two.", limit_s=0.1, max_new_tokens=5)]
    for job, _ in jobs:
        bench.scheduler.submit(job)
    bench.scheduler.start()
    for _, updates in jobs:
        with pytest.raises(ServeError) as caught:
            bench.answer(updates)
        assert (caught.value.status, caught.value.code) == (503, "deadline_exceeded")
    bench.scheduler.close()


def test_closing_answers_those_who_wait(nano: SmolVLM) -> None:
    bench = Bench(nano, max_running=1, max_waiting=2)
    jobs = [bench.job(None, "One.", max_new_tokens=1900, **FREE), bench.job(None, "Two.", max_new_tokens=5)]
    for job, _ in jobs:
        bench.scheduler.submit(job)
    with pytest.raises(ServeError) as caught:
        bench.scheduler.submit(bench.job(None, "Three.")[0])
    assert (caught.value.status, caught.value.code) == (429, "queue_full")
    bench.scheduler.start()
    bench.scheduler.close()
    for _, updates in jobs:
        with pytest.raises(ServeError) as caught:
            bench.answer(updates)
        assert (caught.value.status, caught.value.code) == (503, "shutting_down")


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_turns(owners: list[str]) -> None:
    """Within an owner first come, first served; nobody is served twice while another waits since then."""

    class Item:
        def __init__(self, owner: str, number: int) -> None:
            self.owner, self.number = owner, number

    line: FairQueue[Item] = FairQueue()
    for number, owner in enumerate(owners):
        line.push(Item(owner, number))
    served = [line.pop() for _ in range(len(line))]
    for owner in set(owners):
        mine = [item.number for item in served if item.owner == owner]
        assert mine == sorted(mine)
    rounds = [owners[: i + 1].count(owners[i]) for i in range(len(owners))]  # the how-many-th of its owner each is
    assert [rounds[item.number] for item in served] == sorted(rounds)


def test_a_picture_does_not_wait_for_the_whole_of_anothers_prompt(nano: SmolVLM) -> None:
    pictures = [Image.new("RGB", (64, 64), (40 * i, 100, 200)) for i in range(6)]
    alone = [
        nano.ask(pictures, "What is this?", max_new_tokens=4, **FREE).text,
        nano.ask(pictures[5], "What is this?", max_new_tokens=4, **FREE).text,
    ]
    bench = Bench(nano, tiles=1)
    many = bench.job(pictures, "What is this?", "a", max_new_tokens=4, **FREE)
    again = bench.job(pictures[0], "What is this?", "a", max_new_tokens=4, **FREE)
    one = bench.job(pictures[5], "What is this?", "b", max_new_tokens=4, **FREE)
    answers = bench.run(many, again, one)
    assert [answers[0], answers[2]] == alone
    assert bench.order == ["b", "a", "a"]
    first_text = next(i for i, call in enumerate(bench.engine.calls) if call[0] == "decode")
    assert bench.engine.calls[:first_text].count(("encode", 1)) <= 3


def test_pace_keeps_gaps_under_the_ratio() -> None:
    pace = Pace(chunk=256, tiles=2, stall_ratio=3.0, patience_s=2.0)
    assert pace.chunk(decoding=True) == 256  # nothing measured yet
    for _ in range(50):
        pace.decoded(1, 0.010)
        pace.prefilled(100, 0.050)
    for _ in range(50):
        pace.decoded(8, 0.012)
    chunk = pace.chunk(decoding=True)
    assert 0.012 + chunk * 0.0005 <= 3.0 * 0.010 + 1e-9
    assert chunk > 30
    assert pace.chunk(decoding=False) == 256
    assert (pace.tiles(False, 0.0), pace.tiles(True, 1.9), pace.tiles(True, 2.0)) == (2, 0, 1)
    for _ in range(50):
        pace.encoded(2, 0.2)  # answers that wait 0.1 s for a tile need not be spared for two seconds
    assert (pace.tiles(True, 0.09), pace.tiles(True, 0.11)) == (0, 1)


def test_quotas_refill_with_time() -> None:
    now = [0.0]
    quotas = Quotas(rate=2, concurrency=0, clock=lambda: now[0])

    def allowed() -> bool:
        try:
            with quotas.request("a"):
                return True
        except ServeError:
            return False

    assert [allowed() for _ in range(3)] == [True, True, False]
    now[0] = 30.0
    assert [allowed() for _ in range(2)] == [True, False]
    with quotas.request("b"):
        pass


IDS = st.lists(st.sampled_from([1, 2, 9]), max_size=14)  # 9: the image token, two of them a tile
KEYS = st.lists(st.sampled_from("xy"), min_size=7, max_size=7)


@given(IDS, KEYS, IDS, KEYS)
def test_common_prefix_token_by_token(held: list[int], held_keys: list[str], wanted: list[int], keys: list[str]) -> None:
    """The rule as one would say it, against the one that is fast."""
    safe, images = (0, 0), 0
    for keep, (ours, theirs) in enumerate(zip(held, wanted[:-1], strict=False), start=1):
        if ours != theirs or (ours == 9 and held_keys[images // 2] != keys[images // 2]):
            break
        images += ours == 9
        if images % 2 == 0:
            safe = keep, images // 2
    assert common_prefix(held, held_keys, wanted, keys, 9, 2) == safe
