"""Any thread may call an engine at any time: no pair of calls waits for each other for ever, and each does what it does alone."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from helpers_processes import run_script
from smolvlm.engines.turns import Turns
from smolvlm.hub import resolve

# Every method of the compiled engine against those that hold it long enough to look for Ctrl-C (100 ms), and against each other.
PAIRS = """
import sys, threading, time
import numpy as np
from pathlib import Path
from smolvlm.config import load_configs
from smolvlm.engines.native_engine import NativeEngine

config, _ = load_configs(Path(sys.argv[1]))
model = NativeEngine(Path(sys.argv[1]), config, dtype="q8")
engine, text, side = model.packed, config.text, config.vision.image_size
pixels = np.zeros((1, 3, side, side), np.float32)
rows = np.empty((1, config.image_seq_len, text.hidden_size), np.float32)
ids, nothing = np.full(200, 5, np.int32), np.empty((0, text.hidden_size), np.float32)

def fresh():
    return engine.open(400)

def filled():
    seq = fresh()
    engine.prefill(seq, ids[:3], nothing, 1, np.empty((1, text.vocab_size), np.float32))
    return seq

def refused(call, *arguments):
    try:
        call(*arguments)
    except ValueError:
        return
    raise SystemExit(f"{call} was not refused")

def rewound():
    engine.rewind(filled(), 1)

def cut(call):
    try:
        call()
    except RuntimeError as error:  # `cancel` of another pair's thread
        assert "cancelled" in str(error), error

CALLS = {
    "encode": lambda: engine.encode(pixels, rows.copy()),
    "open": fresh,
    "length": lambda: engine.length(kept),
    "capacity": lambda: engine.capacity(kept),
    "prefill": lambda: engine.prefill(fresh(), ids, nothing, 1, np.empty((1, text.vocab_size), np.float32)),
    "decode": lambda: engine.decode(np.array([filled()], np.int32), ids[:1], np.empty((1, text.vocab_size), np.float32)),
    "hidden": lambda: engine.hidden(
        np.array([filled()], np.int32), ids[:9], np.array([9], np.int32), nothing, np.zeros(1, np.int32), np.ones(1, np.int32),
        np.empty((1, text.hidden_size), np.float32),
    ),
    "fork": lambda: engine.close(engine.fork(kept)),
    "rewind": rewound,
    "close": lambda: engine.close(filled()),
    "cancel": engine.cancel,
    "bytes": lambda: engine.bytes,
    "pages_in_use": lambda: engine.pages_in_use,
    "threads": lambda: engine.threads,
    "instructions": lambda: engine.instructions,
    "matrices": lambda: engine.matrices,
    "vectors": lambda: engine.vectors,
    "matrix": lambda: engine.matrix("head"),
    "vector": lambda: engine.vector("text.norm"),
    "embedding": engine.embedding,
    "finish": lambda: refused(engine.finish),
    "set_vector": lambda: refused(engine.set_vector, "text.norm", np.zeros(text.hidden_size, np.float32)),
    "set_matrix": lambda: refused(engine.set_matrix, "head", [], [], [], []),
    "set_embedding": lambda: refused(engine.set_embedding, np.zeros(0, np.uint8), "F32", 0, 0),
    "attach_matrix": lambda: refused(engine.attach_matrix, "head", np.zeros(0, np.uint8), np.zeros(0, np.uint8)),
    "attach_embedding": lambda: refused(engine.attach_embedding, np.zeros(0, np.uint8)),
}
known = {name for name in dir(engine) if not name.startswith("_")}
assert known == set(CALLS), known ^ set(CALLS)
kept = filled()

def join(threads, what):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        if thread.is_alive():
            raise SystemExit(f"frozen: {what}")

started = time.perf_counter()
CALLS["encode"]()
tiles = max(1, int(0.35 / (time.perf_counter() - started)))
many, room = np.zeros((tiles, 3, side, side), np.float32), np.empty((tiles, *rows.shape[1:]), np.float32)

def for_a_while(call):
    def run():
        end = time.perf_counter() + 0.35
        while time.perf_counter() < end:
            call()
    return run

LONG = {"encode": lambda: engine.encode(many, room), "prefill": for_a_while(CALLS["prefill"]), "decode": for_a_while(CALLS["decode"])}
for name, long in LONG.items():
    join([threading.Thread(target=cut, args=(long,), daemon=True)]
         + [threading.Thread(target=cut, args=(call,), daemon=True) for call in CALLS.values()], name)
names = sorted(CALLS)
for i, first in enumerate(names):
    for second in names[i:]:
        ready = threading.Barrier(2)
        def both(call):
            ready.wait()
            for _ in range(3):
                cut(call)
        join([threading.Thread(target=both, args=(CALLS[name],), daemon=True) for name in (first, second)], f"{first}, {second}")
assert engine.length(kept) == 3
print(len(names) * (len(names) + 1) // 2, "pairs")
"""

SAME = """
import sys, threading
import numpy as np
from pathlib import Path
from smolvlm.config import load_configs
from smolvlm.engines.select import make_engine

folder = Path(sys.argv[1])
config, _ = load_configs(folder)
engine = make_engine(folder, config, engine=sys.argv[2], device="cpu")
side = config.vision.image_size

def work(seed):
    rng = np.random.default_rng(seed)
    embeds = engine.encode_images(rng.normal(size=(2, 3, side, side)).astype(np.float32))
    image = [config.image_token_id] * config.image_seq_len
    ids = rng.integers(3, 200, 30).tolist()
    seq = engine.open(400)
    out = [engine.prefill(seq, [*ids, *image, *ids, *image], [embeds], logits_to_keep=2)]
    other = engine.fork(seq)
    for token in ids[:6]:
        out.append(engine.decode([seq, other], [token, token + 1]))
    engine.rewind(other, 20)
    out.append(engine.prefill(other, ids[:7]))
    assert engine.length(other) == 27 and engine.length(seq) == 66 + 2 * len(image)
    engine.close(seq)
    engine.close(other)
    return np.concatenate([embeds.numpy().ravel(), *(each.ravel() for each in out)])

expected = [work(seed) for seed in range(6)]
wrong = []

def again(seed):
    for _ in range(3):
        if not np.array_equal(work(seed), expected[seed]):
            wrong.append(seed)

threads = [threading.Thread(target=again, args=(seed,)) for seed in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("wrong", wrong)
"""


def test_no_pair_of_calls_freezes(tiny_checkpoint: Path) -> None:
    assert run_script(PAIRS, str(tiny_checkpoint)) == "351 pairs\n"


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_threads_get_the_bits_that_one_thread_gets(engine: str, tiny_checkpoint: Path) -> None:
    assert run_script(SAME, str(tiny_checkpoint), engine) == "wrong []\n"


def test_turns_come_in_order() -> None:
    turns = Turns()
    order: list[int] = []

    def wait(number: int) -> None:
        with turns:
            order.append(number)

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(8)]
    with turns:
        for number, thread in enumerate(threads):
            thread.start()
            while len(turns._waiting) <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join(30)
    assert order == list(range(8))
    assert not turns.taken


@pytest.mark.slow
def test_ctrl_c_ends_a_call_that_waits_for_another_thread() -> None:
    script = """
import os, signal, sys, threading, time
import numpy as np
from pathlib import Path
from smolvlm.config import load_configs
from smolvlm.engines.native_engine import NativeEngine

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
config, _ = load_configs(Path(sys.argv[1]))
engine = NativeEngine(Path(sys.argv[1]), config)
side = config.vision.image_size
tokens, width = config.image_seq_len, config.text.hidden_size

def encode(tiles):
    pixels, rows = np.zeros((tiles, 3, side, side), np.float32), np.empty((tiles, tokens, width), np.float32)
    return lambda: engine.packed.encode(pixels, rows)  # one call, that holds the engine from its first moment on

encode(8)()
other = threading.Thread(target=encode(min(400, 2**29 // (12 * side * side))))  # some seconds, in at most 0.5 GB
other.start()
time.sleep(0.3)
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    engine.open(8)
    print("not interrupted")
except KeyboardInterrupt:
    print("interrupted while the other", "works" if other.is_alive() else "is done")
other.join()
seq = engine.open(8)
engine.prefill(seq, [5])
print("then", engine.length(seq))
"""
    assert run_script(script, str(resolve("nano"))) == "interrupted while the other works\nthen 1\n"
