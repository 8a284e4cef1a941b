"""What a client is told when a request cannot be answered: OpenAI's error object, and which status goes with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from smolvlm.errors import (
    CheckpointError,
    ContextLengthError,
    EngineError,
    GrammarError,
    MediaBusyError,
    MediaUnavailableError,
    ParamsError,
    SchemaError,
    SmolVLMError,
)
from smolvlm.serve.dialects import CHAT, Dialect

INVALID = "invalid_request_error"
_LIMIT = re.compile(r"\bmax_new_tokens\b")  # the library's name of what each API calls in its own way
_NAMED = re.compile(r"([a-z_]+)[= ]", re.ASCII)  # how messages of ParamsError begin


class ServeError(SmolVLMError):
    """An error with its HTTP status and the four fields of OpenAI's error object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.code, self.param = status, kind, code, param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """`{"error": {"message", "type", "param", "code"}}`."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


def at_part(error: SmolVLMError, path: str) -> ServeError:
    """What is wrong with the medium at `path`, such as `messages[0].content[1]`."""
    made = as_serve_error(error)
    if made.status != 400:  # the server's trouble, not the part's
        return made
    param = f"{path}.{made.param}" if isinstance(error, ParamsError) and made.param else path
    return ServeError(400, f"{path}: {made}", code=made.code, param=param)


def busy(message: str, retry_after_s: float, code: str = "rate_limit_exceeded") -> ServeError:
    """429 with Retry-After, in whole seconds of at least 1."""
    wait = str(max(1, round(retry_after_s)))
    return ServeError(429, message, kind="rate_limit_error", code=code, headers={"Retry-After": wait})


def unavailable(message: str, code: str, retry_after_s: float = 5.0) -> ServeError:
    """503 with Retry-After: the server cannot answer now, through no fault of the request."""
    wait = str(max(1, round(retry_after_s)))
    return ServeError(503, message, kind="server_error", code=code, headers={"Retry-After": wait})


def deadline_exceeded(limit_s: float) -> ServeError:
    """503 for a request that took longer than the server allows."""
    return unavailable(f"the request was not answered within {limit_s:g} seconds; ask for less, or again later.", "deadline_exceeded")


def as_serve_error(error: BaseException, dialect: Dialect = CHAT) -> ServeError:
    """Any exception as what the client is told, in its API's words: ours by their sentence, others without a word of what
    went wrong."""
    if isinstance(error, ServeError):
        return error
    if isinstance(error, ContextLengthError):
        return ServeError(400, str(error), code="context_length_exceeded", param=dialect.conversation)
    if isinstance(error, GrammarError):  # met while the answer was written: what came is no document
        return ServeError(500, str(error), kind="server_error", code="grammar_error", param=dialect.schema)
    if isinstance(error, SchemaError):
        return ServeError(400, str(error), code="invalid_schema", param=dialect.schema)
    if isinstance(error, ParamsError):
        message = _LIMIT.sub(dialect.limit, str(error))
        named = _NAMED.match(message)
        return ServeError(400, message, code="invalid_value", param=named[1] if named else None)
    if isinstance(error, MediaBusyError):
        return busy(str(error), 5, "too_many_media")
    if isinstance(error, MediaUnavailableError):
        return unavailable(str(error), "media_unavailable")
    if isinstance(error, EngineError | CheckpointError):  # ours to mend, not the client's
        return ServeError(500, str(error), kind="server_error", code="engine_error")
    if isinstance(error, SmolVLMError):
        return ServeError(400, str(error))
    return ServeError(
        500,
        "the server failed to answer this request; its log has the details under the request id.",
        kind="server_error",
        code="internal_error",
    )
