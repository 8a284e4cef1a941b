"""Compiles schemas in a process of its own: `python helpers_schemas_apart.py hostile|random START STOP STEP`.

Each may take 2 s of a processor and 300 MB beside what the process has; the system ends the process where one takes more. A line
a schema comes out: name, "compiled" or the error's class, its message, seconds.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
import time
from itertools import islice

from helpers_generation import eos_id, small_tokenizer, vocab_size
from helpers_schemas import hostile_schemas, random_schema
from smolvlm.errors import SchemaError
from smolvlm.generation import GrammarCompiler

LIMIT_S, LIMIT_BYTES = 2.0, 300 << 20


def used_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def main() -> None:
    kind, *numbers = sys.argv[1:]
    start, stop, step = map(int, numbers)
    named = hostile_schemas() if kind == "hostile" else ((f"random {i}", random_schema(random.Random(i))) for i in range(10**6))
    compiler = GrammarCompiler(small_tokenizer().to_str(), vocab_size(), [eos_id()])
    compiler.json_object()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes() + LIMIT_BYTES, resource.RLIM_INFINITY))
    for name, schema in islice(named, start, stop, step):
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)  # it ends the process by a signal
        began = time.process_time()
        verdict, message = "compiled", ""
        try:
            compiler.json_schema(schema)
        except SchemaError as error:
            verdict, message = "SchemaError", str(error)
        print(json.dumps([name, verdict, message, time.process_time() - began]), flush=True)


if __name__ == "__main__":
    main()
