"""The compiled module by itself: whatever it is given, it raises or answers, and never ends or harms its process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers_processes import run_script
from smolvlm.config import load_configs
from smolvlm.engines.base import Engine
from smolvlm.engines.select import make_engine
from smolvlm.errors import ContextLengthError, EngineError, SmolVLMError

BEGIN = """
import copy, random, sys
import numpy as np
from dataclasses import asdict
from pathlib import Path
from smolvlm.config import load_configs
from smolvlm.engines import _native
from smolvlm.engines.native_engine import NativeEngine

folder = Path(sys.argv[1])
config, _ = load_configs(folder)
rng = random.Random(int(sys.argv[2]))
INTEGERS = [-2**70, -2**63, -2**31 - 1, -2**31, -1, 0, 1, 2, 3, 5, 7, 31, 64, 1000, 2**20, 2**31 - 1, 2**31, 2**63, 2**70, True]
OTHERS = [None, "x", "", b"x", 1.5, float("nan"), float("inf"), -1e308, [], [1], [[1]], {}, (), object(), np.float32(1), np.int64(3)]
"""

METHODS = """
model = NativeEngine(folder, config, dtype="q8", threads=2)
engine, text, side = model.packed, config.text, config.vision.image_size
ids, nothing = np.array([5, 6, 7], np.int32), np.empty((0, text.hidden_size), np.float32)

def logits():
    seq, out = engine.open(10), np.empty((3, text.vocab_size), np.float32)
    engine.prefill(seq, ids, nothing, 3, out)
    engine.close(seq)
    return out

before = logits()

def array():
    kind = rng.choice([np.int32, np.int64, np.float32, np.float64, np.uint8, np.bool_, np.complex64, np.int32, np.float32])
    shape = rng.choice([(0,), (1,), (3,), (3, 1), (1, text.vocab_size), (3, text.vocab_size), (text.vocab_size,), (1, 3, side, side),
                        (2, 3, side, side), (config.image_seq_len, text.hidden_size), (1, config.image_seq_len, text.hidden_size), ()])
    made = np.zeros(shape, kind)
    if kind not in (np.bool_, np.complex64) and rng.random() < 0.7:
        made[...] = rng.choice([0, 1, 5, 7, 96, 127] if kind == np.uint8 else [-1, 0, 5, 7, 1000, 2**30])
    elif kind in (np.float32, np.float64):
        made[...] = rng.choice([np.nan, np.inf, 1e30])
    if rng.random() < 0.2:
        made = np.asfortranarray(made)
    if rng.random() < 0.1:
        made.flags.writeable = False
    return made[::-1] if made.ndim and rng.random() < 0.1 else made

def value():
    draw = rng.random()
    return rng.choice(INTEGERS) if draw < 0.4 else array() if draw < 0.8 else rng.choice(OTHERS) if draw < 0.9 else rng.choice(
        ["head", "text.norm", "vision.patch", "F32", "BF16", [np.zeros(4, np.uint8)], ["F32"], [-1], [2**31 - 1]])

names = [name for name in dir(engine) if not name.startswith("_") and callable(getattr(engine, name))]
arity = {"prefill": 5, "decode": 3, "encode": 2, "rewind": 2, "set_matrix": 5, "attach_matrix": 3, "set_vector": 2, "set_embedding": 4}
raised = 0
for _ in range(6000):
    name = rng.choice(names)
    count = arity.get(name, 1) if rng.random() < 0.95 else rng.randrange(6)
    if name in ("embedding", "finish", "cancel"):
        count = 0
    try:
        getattr(engine, name)(*(value() for _ in range(count)))
    except (ValueError, TypeError, RuntimeError, IndexError, OverflowError, MemoryError):
        raised += 1
assert np.array_equal(logits(), before)
for wrong in (copy.copy, lambda e: type(e).__new__(type(e)).open(3), lambda e: type(e)(), lambda e: type(e).open(3, 3)):
    try:
        wrong(engine)
    except (TypeError, RuntimeError, ValueError):
        raised += 1
print("calls", raised > 3000)
"""

# Prefills and decodes that are nearly right: each number may be off, and what is accepted must have been right.
NEARLY = """
model = NativeEngine(folder, config, dtype="q8", threads=2)
engine, text = model.packed, config.text
held = {}
for _ in range(3000):
    action = rng.randrange(5)
    seq = rng.choice([*held, 0, -1, 10**6]) if held else engine.open(20)
    held.setdefault(seq, 0) if seq > 0 and seq < 10**6 else None
    length = rng.choice([-1, 0, 1, 3, 19, 20, 21])
    token = rng.choice([0, 5, text.vocab_size - 1, text.vocab_size, -1, config.image_token_id])
    try:
        if action == 0:
            keep = rng.choice([0, 1, length, length + 1, -1])
            rows = rng.choice([0, 0, 0, 1, length])
            out = np.empty((max(keep, 0) if rng.random() < 0.9 else 2, text.vocab_size), np.float32)
            engine.prefill(seq, np.full(max(length, 0), token, np.int32), np.zeros((max(rows, 0), text.hidden_size), np.float32), keep, out)
            assert 0 <= token < text.vocab_size and 0 <= keep <= length and 0 < length <= 20 - held[seq]
            assert (rows if rows > 0 else 0) == (length if token == config.image_token_id else 0)
            held[seq] += length
        elif action == 1:
            group = np.array([seq, *rng.sample(list(held), rng.randrange(min(3, len(held) + 1)))], np.int32)
            engine.decode(group, np.full(len(group), token, np.int32), np.empty((len(group), text.vocab_size), np.float32))
            assert 0 <= token < text.vocab_size and len(set(group.tolist())) == len(group)
            for each in group.tolist():
                held[each] += 1
                assert held[each] <= 20
        elif action == 2:
            engine.rewind(seq, length)
            assert 0 <= length <= held[seq]
            held[seq] = length
        elif action == 3 and len(held) < 8:
            made = engine.fork(seq)
            held[made] = held[seq]
        elif rng.random() < 0.3:
            engine.close(seq)
            held.pop(seq, None)
    except ValueError:
        pass
    for each, count in held.items():
        assert engine.length(each) == count
for each in list(held):
    engine.close(each)
assert engine.pages_in_use == 0
print("sequences")
"""

SHAPES = """
good = (asdict(config.vision), asdict(config.text), config.scale_factor, config.image_token_id, "q8", "q8", "q8", "bf16", 1, "")
_native.Engine(*good)
used = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size", "layer_norm_eps",
        "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings", "rms_norm_eps", "rope_theta")
raised = 0
for _ in range(1500):
    arguments = [dict(part) if isinstance(part, dict) else part for part in good]
    for _ in range(rng.choice([1, 1, 2])):
        at, bad = rng.randrange(len(arguments)), rng.choice([rng.choice(INTEGERS), rng.choice(OTHERS)])
        if at < 2 and isinstance(arguments[at], dict):
            key = rng.choice([key for key in arguments[at] if key in used])
            arguments[at][key] = bad
            if rng.random() < 0.1:
                del arguments[at][key]
        else:
            arguments[at] = bad
    if isinstance(arguments[1], dict) and isinstance(arguments[1].get("vocab_size"), int) and arguments[1]["vocab_size"] >= 2**20:
        continue  # right, and 1 GB
    try:
        engine = _native.Engine(*arguments)
    except (ValueError, TypeError, RuntimeError, OverflowError, MemoryError):
        raised += 1
        continue
    for call in (engine.finish, lambda: engine.open(3), lambda: engine.encode(np.zeros(0, np.float32), np.zeros(0, np.float32)),
                 lambda: engine.decode(np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros((1, 100), np.float32))):
        try:
            call()
            raise SystemExit("an engine without weights answered")
        except ValueError:
            pass
print("shapes", raised > 900)
"""


@pytest.mark.parametrize(
    ("script", "said"), [(METHODS, "calls True"), (NEARLY, "sequences"), (SHAPES, "shapes True")], ids=["calls", "sequences", "shapes"]
)
def test_the_raw_binding_raises_and_never_crashes(script: str, said: str, tiny_checkpoint: Path) -> None:
    assert run_script(BEGIN + script, str(tiny_checkpoint), "1") == f"{said}\n"


@pytest.fixture(params=["native", pytest.param("torch", marks=pytest.mark.slow)], scope="module")
def engine(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Engine:
    config, _ = load_configs(tiny_checkpoint)
    return make_engine(tiny_checkpoint, config, engine=request.param, device="cpu")


BAD_IDS = [
    [2**70],
    [float("nan")],
    [1.0],
    [[1, 2], [3, 4]],
    [[1], [2, 3]],
    ["5"],
    "5",
    None,
    5,
    {5: 6},
    [None],
    [True],
    [-1],
    [10**7],
    [2**63],
    np.array([1.0]),
    np.array([[5]]),
    np.array(5),
    np.array([5], dtype=object),
    b"\x05",
    [5j],
]


@pytest.mark.parametrize("ids", BAD_IDS, ids=repr)
def test_token_ids_that_are_none(engine: Engine, ids: object) -> None:
    seq = engine.open(20)
    for call in (lambda: engine.prefill(seq, ids), lambda: engine.decode([seq], ids)):  # type: ignore[arg-type]
        with pytest.raises(EngineError):
            call()
    assert engine.length(seq) == 0
    engine.close(seq)


GOOD_IDS = [[5, 6], (5, 6), range(5, 7), np.array([5, 6]), np.array([5, 6], np.uint8), np.array([6, 5])[::-1]]


@pytest.mark.parametrize("ids", GOOD_IDS, ids=repr)
def test_token_ids_of_every_integer_kind(engine: Engine, ids: object) -> None:
    seq = engine.open(20)
    assert engine.prefill(seq, ids).shape == (1, engine.config.text.vocab_size)  # type: ignore[arg-type]
    assert engine.length(seq) == 2
    engine.close(seq)


@pytest.mark.parametrize("bad", [None, "1", 1.0, float("nan"), [1], True, -1, 2**70, -(2**70), np.float32(2)], ids=repr)
def test_numbers_that_are_none(engine: Engine, bad: object) -> None:
    seq = engine.open(20)
    engine.prefill(seq, [5, 6, 7])
    with pytest.raises(ContextLengthError if type(bad) is int else EngineError):
        engine.open(bad)  # type: ignore[arg-type]
    for call in (
        lambda: engine.length(bad),
        lambda: engine.fork(bad),
        lambda: engine.prefill(bad, [5]),  # type: ignore[arg-type]
        lambda: engine.decode([bad], [5]),
        lambda: engine.rewind(seq, bad),
        lambda: engine.rewind(bad, 0),
    ):  # type: ignore[arg-type,list-item]
        with pytest.raises(EngineError):
            call()
    if bad != 2**70:
        with pytest.raises(EngineError, match="logits_to_keep"):
            engine.prefill(seq, [5], logits_to_keep=bad)  # type: ignore[arg-type]
    assert engine.length(seq) == 3
    engine.close(seq)
    for call in (lambda: engine.length(seq), lambda: engine.prefill(seq, [5]), lambda: engine.decode([seq], [5]), lambda: engine.fork(seq)):
        with pytest.raises(EngineError, match=f"sequence {seq} is not open"):
            call()
    engine.close(seq)


@pytest.mark.parametrize("bad", ["shape", "list", "nan", "infinity", "beyond float32", "complex", "words", None], ids=str)
def test_pixels_that_are_none(engine: Engine, bad: str | None) -> None:
    side = engine.config.vision.image_size
    pixels: object
    spoiled = {"nan": np.nan, "infinity": np.inf, "beyond float32": 1e300}
    if bad in spoiled:
        pixels = np.full((1, 3, side, side), spoiled[bad])
    else:
        pixels = {
            "shape": np.zeros((3, side, side)),
            "list": [[1], [2, 3]],
            "complex": np.zeros((1, 3, side, side), complex),
            "words": np.full((1, 3, side, side), "x"),
            None: None,
        }[bad]
    with pytest.raises(EngineError, match="pixel_values"):
        engine.encode_images(pixels)  # type: ignore[arg-type]


@pytest.mark.parametrize("embeds", [None, 5, [5], [None], ["x"], [np.zeros((1, 2))]], ids=repr)
def test_embeddings_that_are_none(engine: Engine, embeds: object) -> None:
    seq = engine.open(20)
    with pytest.raises(SmolVLMError):
        engine.prefill(seq, [5], embeds)  # type: ignore[arg-type]
    engine.close(seq)
