"""Fields of a request -> `GenerationParams`, one for each choice, and the schema that the answer must fit."""

from __future__ import annotations

from typing import Any

from smolvlm.generation import GenerationParams
from smolvlm.serve.chat_schema import ChatRequest, ResponseFormat, SamplingFields
from smolvlm.serve.config import ServeConfig
from smolvlm.serve.errors import ServeError

_SHARED = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "loop_guard",
    "ignore_eos",
)


def chat_params(body: ChatRequest, config: ServeConfig) -> tuple[GenerationParams, ...]:
    """One set of parameters a choice: with a seed, each choice has its own. Raises ServeError or ParamsError."""
    choices = body.n or 1
    if choices > config.max_choices:
        raise ServeError(
            400,
            f"n={choices}: this server gives at most {config.max_choices} choices.",
            param="n",
            code="invalid_value",
        )
    if body.top_logprobs and not body.logprobs:
        raise ServeError(400, "top_logprobs needs logprobs=true.", param="top_logprobs", code="invalid_value")
    values = shared_params(body, body.max_completion_tokens or body.max_tokens, config, "max_tokens")
    if body.stop is not None:
        values["stop"] = body.stop
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(body, name) is not None:
            values[name] = getattr(body, name)
    if body.logprobs:
        values["logprobs"] = body.top_logprobs or 0
    return tuple(GenerationParams(**values, seed=seed_of(body.seed, i)) for i in range(choices))


def shared_params(body: SamplingFields, max_tokens: int | None, config: ServeConfig, name: str) -> dict[str, Any]:
    """What both APIs share, as keyword arguments; what was left out keeps the default of `GenerationParams`."""
    values: dict[str, Any] = {key: getattr(body, key) for key in _SHARED if getattr(body, key) is not None}
    if max_tokens is not None and max_tokens > config.max_answer_tokens:
        raise ServeError(400, f"{name}={max_tokens}: this server writes at most {config.max_answer_tokens} tokens an answer.",
                         param=name, code="invalid_value")  # fmt: skip
    # Who names no number gets the default, but never more than may be asked for.
    values["max_new_tokens"] = max_tokens or min(GenerationParams.max_new_tokens, config.max_answer_tokens)
    if values.get("top_p") == 0:  # OpenAI's smallest nucleus: the likeliest token alone
        values["top_p"], values["temperature"] = 1.0, 0.0
    return values


def seed_of(seed: int | None, choice: int) -> int | None:
    """OpenAI's seeds are signed, ours are not."""
    return None if seed is None else (seed + choice) % 2**64


def schema_of(body: ResponseFormat | None) -> dict[str, Any] | None:
    """The schema of a response_format: {} for any JSON object, None for free text.

    `schema` may stand in `json_schema`, as in OpenAI's API, or beside `type`, as llama.cpp's server takes it.
    """
    if body is None:
        return None
    inner = body.json_schema.schema_ if body.json_schema else None
    if inner is not None and body.schema_ is not None and inner != body.schema_:
        raise _schema_error("response_format has two schemas, in json_schema and beside type; send one.")
    schema = body.schema_ if inner is None else inner
    if body.type == "text":
        if schema is not None:
            raise _schema_error('response_format has a schema and the type "text"; send the type "json_schema".')
        return None
    if body.type == "json_object":
        if body.json_schema is not None:
            raise _schema_error('response_format has json_schema and the type "json_object"; send the type "json_schema".')
        return schema or {}
    if not schema:
        raise _schema_error("response_format json_schema needs json_schema.schema, a JSON schema that is not empty.")
    return schema


def _schema_error(message: str) -> ServeError:
    return ServeError(400, message, param="response_format", code="invalid_schema")
