"""One model, eight threads, every verb: each answer is the one that a single thread gets. SMOLVLM_SOAK_MINUTES says for how long."""

from __future__ import annotations

import os

import pytest

from helpers_processes import run_script

MINUTES = float(os.environ.get("SMOLVLM_SOAK_MINUTES", "0.25"))

SCRIPT = """
import asyncio, collections, random, sys, threading, time
import numpy as np
from PIL import Image, ImageDraw
import smolvlm

minutes, engine = float(sys.argv[1]), sys.argv[2]
model = smolvlm.load("nano", engine=engine, device="cpu")
few = {"max_new_tokens": 6}

def picture(seed):
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (96, 96), "white")
    color = tuple(int(value) for value in rng.integers(0, 200, 3))
    ImageDraw.Draw(image).ellipse([int(value) for value in (*rng.integers(4, 40, 2), *rng.integers(50, 92, 2))], fill=color)
    return image

pictures = [picture(seed) for seed in range(6)]
questions = ("Describe this picture.", "What color is the circle?", "How many objects are there?")
schema = {"type": "object", "properties": {"color": {"enum": ["red", "blue", "green"]}, "n": {"type": "integer"}},
          "required": ["color", "n"]}

def ask(i): return model.ask(pictures[i], questions[i % 3], **few).token_ids
def sampled(i): return model.ask(pictures[i], questions[i % 3], temperature=0.9, seed=i, **few).token_ids
def stream(i): return "".join(model.stream(pictures[i], questions[i % 3], **few))
def chat(i): return model.chat([{"role": "user", "content": questions[i % 3]}], **few).token_ids
def choose(i): return model.choose(pictures[i], questions[1], ["red", "green", "blue"]).probabilities
def extract(i): return model.extract(pictures[i], schema, max_new_tokens=40)
def many(i): return [answer.token_ids for answer in model.ask_many([(pictures[i], questions[0]), (None, questions[1])], **few)]
def clip(i): return model.ask([pictures[i], pictures[-i]], questions[0], **few).token_ids

def session(i):
    with model.session(pictures[i], **few) as talk:
        return [talk.ask(question).token_ids for question in questions[:2]]

def left(i):  # a stream that is not read to its end
    pieces = model.stream(pictures[i], questions[0], max_new_tokens=20, ignore_eos=True)
    first = next(pieces)
    pieces.close()
    return first

def together(i):
    async def run():
        answers = await asyncio.gather(*(model.aask(pictures[j], questions[0], **few) for j in (i, 0)))
        words = [word async for word in model.astream([{"role": "user", "content": questions[0]}], **few)]
        return [answer.token_ids for answer in answers], words
    return asyncio.run(run())

verbs = [ask, sampled, stream, chat, choose, extract, many, clip, session, left, together]
work = [(verb, i) for verb in verbs for i in range(len(pictures))]
expected = {(verb, i): verb(i) for verb, i in work}
assert expected == {(verb, i): verb(i) for verb, i in work}, "one thread alone gets other answers the second time"
pages = model.engine.packed.pages_in_use if engine == "native" else 0
wrong, done, slowest = [], collections.Counter(), collections.Counter()
end = time.monotonic() + 60 * minutes

def run(number):
    order = random.Random(number)
    while time.monotonic() < end and not wrong:
        verb, i = order.choice(work)
        began = time.monotonic()
        try:
            answer = verb(i)
        except Exception as error:
            answer = error
        if answer != expected[verb, i] or isinstance(answer, Exception):
            wrong.append((verb.__name__, i, answer, expected[verb, i]))
        done[number] += 1
        slowest[verb.__name__] = max(slowest[verb.__name__], round(time.monotonic() - began, 2))

threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(60 * minutes + 120)
    assert not thread.is_alive(), "frozen"
assert not wrong, wrong[:3]
assert min(done.values()) * 4 > max(done.values()), f"a thread starves: {done}"
if engine == "native":
    assert model.engine.packed.pages_in_use == pages, "pages of the KV cache were not given back"
print(f"{minutes:g} minutes, {sum(done.values())} calls of 8 threads ({min(done.values())} to {max(done.values())} each), all equal;",
      f"slowest {dict(slowest)} s")
"""


@pytest.mark.slow
@pytest.mark.timeout(60 * MINUTES + 900)
@pytest.mark.parametrize("engine", ["native", "torch"])
def test_eight_threads_get_the_answers_of_one(engine: str) -> None:
    said = run_script(SCRIPT, str(MINUTES), engine, deadline_s=60 * MINUTES + 600)
    print(said)
    assert "all equal" in said
