"""Fields of a request -> `GenerationParams`, one for each choice, and the schema that the answer must fit."""

from __future__ import annotations

from typing import Any

from smolvlm.generation import GenerationParams
from smolvlm.options.declare import at_door
from smolvlm.serve.api.chat_schema import ChatRequest, ResponseFormat, SamplingFields
from smolvlm.serve.api.responses_schema import TextFormat
from smolvlm.serve.config import ServeConfig
from smolvlm.serve.dialects import CHAT, RESPONSES, Dialect
from smolvlm.serve.errors import ServeError

# What both APIs call as the library does; the others have names or meanings of their own.
_SHARED = tuple(name for name in at_door(GenerationParams, "http") if name in SamplingFields.model_fields and name != "seed")


def chat_params(body: ChatRequest, config: ServeConfig) -> tuple[GenerationParams, ...]:
    """One set of parameters a choice: with a seed, each choice has its own. Raises ServeError or ParamsError."""
    choices = body.n or 1
    if choices > config.max_choices:
        raise ServeError(400, f"n={choices}: this server gives at most {config.max_choices} choices.", param="n", code="invalid_value")
    if body.top_logprobs and not body.logprobs:
        raise ServeError(400, "top_logprobs needs logprobs=true.", param="top_logprobs", code="invalid_value")
    if None not in (given := {body.max_tokens, body.max_completion_tokens}) and len(given) > 1:
        raise ServeError(
            400,
            f"max_completion_tokens={body.max_completion_tokens} and max_tokens={body.max_tokens} disagree; send one of them.",
            param="max_tokens",
            code="invalid_value",
        )
    values = shared_params(body, body.max_completion_tokens or body.max_tokens, config, limit_of(body))
    if body.stop is not None:
        values["stop"] = body.stop
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(body, name) is not None:
            values[name] = getattr(body, name)
    if body.logprobs:
        values["logprobs"] = body.top_logprobs or 0
    return tuple(GenerationParams(**values, seed=seed_of(body.seed, i)) for i in range(choices))


def limit_of(body: ChatRequest) -> str:
    """The field by which the client bounds its answer."""
    return "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"


def shared_params(body: SamplingFields, max_tokens: int | None, config: ServeConfig, name: str) -> dict[str, Any]:
    """What both APIs share, as keyword arguments; what was left out keeps the default of `GenerationParams`."""
    values: dict[str, Any] = {key: getattr(body, key) for key in _SHARED if getattr(body, key) is not None}
    if max_tokens is not None and max_tokens > config.max_answer_tokens:
        raise ServeError(
            400,
            f"{name}={max_tokens}: this server writes at most {config.max_answer_tokens} tokens an answer.",
            param=name,
            code="invalid_value",
        )
    # Who names no number gets the default, but never more than may be asked for.
    values["max_new_tokens"] = max_tokens or min(GenerationParams.max_new_tokens, config.max_answer_tokens)
    if values.get("top_p") == 0:  # OpenAI's smallest nucleus: the likeliest token alone
        values["top_p"], values["temperature"] = 1.0, 0.0
    return values


def seed_of(seed: int | None, choice: int) -> int | None:
    """OpenAI's seeds are signed, ours are not."""
    return None if seed is None else (seed + choice) % 2**64


def schema_of(body: ResponseFormat | TextFormat | None) -> dict[str, Any] | None:
    """The schema of a response_format or a text.format: {} for any JSON object, None for free text.

    In a response_format it may stand in `json_schema`, as in OpenAI's API, or beside `type`, as llama.cpp's server takes it.
    """
    if body is None:
        return None
    if isinstance(body, TextFormat):
        return _schema_of(body.type, body.schema_, RESPONSES)
    inner = body.json_schema.schema_ if body.json_schema else None
    if inner is not None and body.schema_ is not None and inner != body.schema_:
        raise _schema_error("has two schemas, in json_schema and beside type; send one", CHAT)
    if body.type == "json_object" and body.json_schema is not None:
        raise _schema_error('has json_schema and the type "json_object"; send the type "json_schema"', CHAT)
    return _schema_of(body.type, body.schema_ if inner is None else inner, CHAT)


def _schema_of(kind: str, schema: dict[str, Any] | None, dialect: Dialect) -> dict[str, Any] | None:
    if kind == "text":
        if schema is not None:
            raise _schema_error(f'has a schema and the type "text"; send {dialect.a_schema}', dialect)
        return None
    if kind == "json_object":
        return schema or {}
    if not schema:
        raise _schema_error(f'has the type "json_schema" and no schema, or an empty one; send {dialect.a_schema}', dialect)
    return schema


def _schema_error(problem: str, dialect: Dialect) -> ServeError:
    return ServeError(400, f"{dialect.schema} {problem}.", param=dialect.schema, code="invalid_schema")
