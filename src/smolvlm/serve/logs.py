"""Logs as JSON, one object a line. What a client wrote or sent is never in them."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

_LONGEST = 20_000  # characters of a message or a traceback
_NAMES = ("smolvlm", "uvicorn", "uvicorn.error", "uvicorn.access", "asyncio")


class JsonFormatter(logging.Formatter):
    """`extra={"facts": {...}}` becomes fields of the object."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _clipped(record.getMessage()),
        }
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["traceback"] = _clipped(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=True, default=str).replace("\x7f", "\\u007f")


def _clipped(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text)} characters)"


def log_as_json(level: str) -> None:
    """Send the server's loggers to stderr as JSON. For a process that is the server; a library must not do this."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in _NAMES:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler] if name in ("smolvlm", "uvicorn", "asyncio") else []
        logger.propagate = name not in ("smolvlm", "uvicorn", "asyncio")
        logger.setLevel(level.upper())
    # What other libraries have to say, on the same lines; the parser of uploads would quote what was sent.
    logging.getLogger().handlers[:] = [handler]
    logging.captureWarnings(True)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    logging.getLogger("uvicorn.access").disabled = True  # the gatekeeper's line says more
