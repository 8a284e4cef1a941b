"""A process that compiles schemas for the server and may die of them: `python -m smolvlm.serve.engine.schema_worker`.

It reads schemas from its standard input and writes to its standard output what became of each, until the input ends. Before the
first one it gives up what it does not need (confinement.py); each may take some processor time, which the system enforces.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import BinaryIO

from smolvlm.errors import SchemaError
from smolvlm.generation import GrammarCompiler
from smolvlm.media.sandbox.confinement import confine
from smolvlm.media.sandbox.wire import header_length, pack

_UNKNOWN_MB = 512  # taken for the process's own memory where the system does not say


def serve(jobs: BinaryIO, replies: BinaryIO) -> None:
    """Answer jobs until they end. The first message is the setup: the tokenizer, and the limits of one schema."""
    setup = json.loads(_header(jobs) or b"{}")
    if not setup:
        return
    tokenizer = jobs.read(setup["size"]).decode("utf-8")
    compiler = GrammarCompiler(tokenizer, setup["vocab_size"], setup["eos_ids"], remember=0)
    compiler.json_object()  # tables are built, modules loaded
    with open(os.devnull, "wb") as nothing:  # the Rust library writes its panics to stderr
        missing = confine(_used_mb() + setup["memory_mb"])
        replies.write(pack({"ready": True, "missing": missing}))
        replies.flush()
        os.dup2(nothing.fileno(), 2)
        os.dup2(nothing.fileno(), 1)
    while header := _header(jobs):
        size = json.loads(header)["size"]
        schema = jobs.read(size)
        if len(schema) < size:
            return
        _allow_seconds(setup["compile_s"])
        reply, data = _answer(compiler, schema)
        _allow_seconds(0)
        replies.write(pack(reply))
        replies.write(data)
        replies.flush()


def _answer(compiler: GrammarCompiler, schema: bytes) -> tuple[dict[str, object], bytes]:
    """The bounded schema and a shortest answer to it, or why there is none."""
    try:
        text = compiler.bounded(json.loads(schema))
        plan = compiler.vetted(text).plan
    except SchemaError as error:
        return {"error": str(error)}, b""
    except MemoryError:
        return {"out_of_memory": True}, b""
    except Exception as error:  # a gap in ours: its kind is worth a log line
        return {"error": "The schema cannot be compiled; make it simpler.", "detail": type(error).__name__}, b""
    data = text.encode("utf-8")
    return {"plan": plan, "size": len(data)}, data


def _allow_seconds(seconds: float) -> None:
    """From now on this much processor time (0: no limit); the system ends the process when it is spent."""
    if hasattr(signal, "setitimer"):  # Windows has none; there the server's clock is all
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _used_mb() -> int:
    """The address space that this process has taken."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return _UNKNOWN_MB
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def _header(jobs: BinaryIO) -> bytes:
    """The next header, empty at the end of the input."""
    prefix = jobs.read(4)
    return jobs.read(header_length(prefix)) if len(prefix) == 4 else b""


def main() -> None:
    """Take the standard streams for the protocol, so that nothing that a library prints gets between."""
    logging.disable()
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with contextlib.suppress(BrokenPipeError):  # the server is gone
        serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
