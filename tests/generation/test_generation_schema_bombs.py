"""Schemas that are made to cost much: each is refused by one sentence or compiled, within 2 s of a processor and 300 MB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from helpers_generation import SmallEngine, decode, eos_id, small_tokenizer, vocab_size
from helpers_schemas import hostile_schemas
from smolvlm.errors import GrammarError
from smolvlm.generation import GenerationParams, GrammarCompiler, Request, collect, generate

_SCRIPT = Path(__file__).resolve().parents[1] / "helpers_schemas_apart.py"


def compile_apart(kind: str, stop: int, step: int = 1) -> list[tuple[str, str, str, float]]:
    """What became of each schema; a process that the system ended leaves its schema out."""
    command = [sys.executable, str(_SCRIPT), kind, "0", str(stop), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{done.returncode} after {lines[-1] if lines else None}: {done.stderr[-500:]}"
    return [(name, verdict, message, seconds) for name, verdict, message, seconds in lines]


def check(results: list[tuple[str, str, str, float]]) -> None:
    for name, verdict, message, seconds in results:
        assert seconds < 2, name
        if verdict != "compiled":
            assert message.endswith("."), f"{name}: {message}"
            assert "\n" not in message, name
            assert len(message) < 500, f"{name}: {message}"


def test_one_hostile_schema_in_seven() -> None:
    count = sum(1 for _ in hostile_schemas())
    assert count >= 200
    results = compile_apart("hostile", count, 7)
    assert len(results) == (count + 6) // 7
    check(results)


@pytest.mark.slow
def test_every_hostile_schema() -> None:
    count = sum(1 for _ in hostile_schemas())
    results = compile_apart("hostile", count)
    assert len(results) == count
    check(results)
    refused = sum(verdict != "compiled" for _, verdict, _, _ in results)
    print(f"{count} hostile schemas: {refused} refused, {count - refused} compiled, slowest {max(r[3] for r in results):.2f} s")


def test_fifty_random_schemas_compile_or_say_why_not() -> None:
    results = compile_apart("random", 50)
    check(results)
    assert sum(verdict == "compiled" for _, verdict, _, _ in results) >= 40


def test_an_error_of_the_grammar_never_passes_for_its_end() -> None:
    """Its lexer drowns in states once an `a` was written: an error of ours, or a whole document."""
    schema = {"type": "string", "pattern": "^.*a.{12}$"}
    compiler = GrammarCompiler(small_tokenizer().to_str(), vocab_size(), [eos_id()])
    likes_a = np.array([5.0 * ("a" in decode([i])) for i in range(vocab_size())], dtype=np.float32)
    failed = 0
    for seed in range(10):
        engine = SmallEngine(lambda _: likes_a)
        seq = engine.open(100)
        params = GenerationParams(temperature=1.0, seed=seed, max_new_tokens=90)
        request = Request(seq, engine.prefill(seq, [1])[0], [1], params, compiler.json_schema(schema))
        try:
            answer = collect(generate(engine, [request], decode, [eos_id()]))[0]
        except GrammarError:
            failed += 1
            continue
        assert answer.finish_reason == "stop"
        jsonschema.validate(json.loads(answer.text), schema)
    assert failed
