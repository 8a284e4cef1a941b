"""A child of fork() has one thread. An engine either works there, or says at once that it cannot."""

from __future__ import annotations

import sys

import pytest

from helpers_processes import run_script

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux")

BEGIN = """
import multiprocessing, os, signal, sys, threading, time
from concurrent.futures import ProcessPoolExecutor
import numpy as np
import smolvlm

model = smolvlm.load("nano", engine=sys.argv[1], device="cpu")
picture = np.zeros((64, 64, 3), np.uint8)

def ask(_=None):
    return model.ask(picture, "Describe this picture.", max_new_tokens=4).text

def child(work, leave=os._exit):
    # what `work` says in a child that may live for 60 s
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        try:
            said = work()
        except smolvlm.SmolVLMError as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        leave(0)
        return
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    status = os.waitpid(pid, 0)[1]
    assert status == 0, (status, said)
    return said
"""

WORKS = """
expected = ask()
session = model.session(picture, max_new_tokens=4)
first = session.ask("Describe this picture.").text
assert child(ask) == expected
assert child(ask, sys.exit) == expected  # the interpreter ends, and the engine with it
assert child(lambda: session.ask("Describe this picture.", remember=False).text) == session.ask("Describe this picture.").text
assert child(lambda: child(ask)) == expected  # a child's child

def several():  # threads of the child
    said = []
    threads = [threading.Thread(target=lambda: said.append(ask())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return " ".join(set(said))
assert child(several) == expected

answers = []
for leave in (os._exit, *([sys.exit] if sys.argv[1] == "native" else [])):  # torch: the dying thread aborts in PyTorch
    thread = threading.Thread(target=lambda: answers.append(child(ask, leave)))
    thread.start()
    thread.join()
assert set(answers) == {expected}, answers

context = multiprocessing.get_context("fork")
with context.Pool(2) as pool:
    assert pool.map(ask, range(4)) == [expected] * 4
with ProcessPoolExecutor(2, mp_context=context) as pool:
    assert list(pool.map(ask, range(4))) == [expected] * 4
assert ask() == expected
print("works")
"""

INTERRUPTED = """
engine = model.engine
seq, long = engine.open(8), engine.open(model.config.text.max_position_embeddings)
expected = ask()
ended = threading.Event()

def work():  # one call after the other, nearly without a pause
    while not ended.is_set():
        engine.prefill(long, [5] * (model.config.text.max_position_embeddings - 1))
        engine.rewind(long, 0)

other = threading.Thread(target=work)
other.start()
time.sleep(0.5)

def refused():
    began, said = time.perf_counter(), set()
    for call in (ask, lambda: engine.open(8), lambda: engine.length(seq), lambda: engine.decode([seq], [3])):
        try:
            call()
        except smolvlm.SmolVLMError as error:
            said.add(f"{type(error).__name__}: {error}")
    engine.close(seq)  # harmless, as it is after every other error
    return f"{' '.join(said)} {'at once' if time.perf_counter() - began < 10 else 'late'}"

for leave in (os._exit, sys.exit):
    said = ""
    while "Error" not in said:  # a fork that fell between two calls is tried again
        said = child(refused, leave)
    assert said.startswith("EngineError: this process was forked while another thread was in a call") and said.endswith("at once"), said
    assert said.count("Error") == 1, said
ended.set()
other.join()
assert child(ask) == ask() == expected  # and between calls it works
print("refused")
"""


@pytest.mark.parametrize("engine", ["native", pytest.param("torch", marks=pytest.mark.slow)])
def test_a_forked_child_answers(engine: str) -> None:
    assert run_script(BEGIN + WORKS, engine, forks=True) == "works\n"


@pytest.mark.parametrize("engine", ["native", pytest.param("torch", marks=pytest.mark.slow)])
def test_a_child_forked_during_a_call_says_so_at_once(engine: str) -> None:
    assert run_script(BEGIN + INTERRUPTED, engine, forks=True) == "refused\n"
