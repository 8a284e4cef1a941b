"""`POST /v1/chat/completions`."""

from __future__ import annotations

import dataclasses
import functools
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from smolvlm.serve.api.asking import ask_of
from smolvlm.serve.api.chat_params import chat_params, limit_of, schema_of
from smolvlm.serve.api.chat_parts import conversation
from smolvlm.serve.api.chat_schema import ChatRequest
from smolvlm.serve.api.choices import Choice, openai_reason
from smolvlm.serve.api.json_route import JsonRoute, release_body
from smolvlm.serve.api.request_fields import check_fields
from smolvlm.serve.api.services import dialect_of, note_usage, owner_of, services, speak
from smolvlm.serve.api.sse import HUNG_UP, STREAMED, EventStream, PlainJSON, event, until_hung_up
from smolvlm.serve.dialects import CHAT
from smolvlm.serve.engine.backend import Asked
from smolvlm.serve.engine.job import Progressed
from smolvlm.serve.errors import ServeError, as_serve_error

router = APIRouter(prefix="/v1", tags=["chat"], route_class=JsonRoute)


@router.post("/chat/completions", summary="Continue a conversation about pictures, videos and text", responses=STREAMED)
async def create(request: Request, body: ChatRequest) -> Response:
    """OpenAI's chat completions. With `stream`, server-sent events that end with `[DONE]`."""
    found = services(request)
    speak(request, dataclasses.replace(CHAT, limit=limit_of(body)))
    found.require_model(body.model)
    warnings = check_fields(body)
    owner = owner_of(request)
    params = chat_params(body, found.config)
    schema = schema_of(body.response_format)
    if schema is not None and body.stop:
        raise ServeError(
            400,
            "stop: an answer to response_format ends with its document; leave stop out, or response_format.",
            param="stop",
            code="invalid_value",
        )
    messages = await conversation(body.messages, functools.partial(found.find_file, owner))
    asked = await found.backend.ask(ask_of(messages, params, owner, schema, CHAT))
    asked.warnings = (*warnings, *asked.warnings)
    del messages
    body.messages.clear()
    release_body(request)
    answer = _Completion(request, body, asked, len(params))
    if body.stream:
        await answer.begin()
        return EventStream(answer.stream(), asked.cancel)
    return await answer.whole()


class _Completion:
    """One request's answer in OpenAI's shapes."""

    def __init__(self, request: Request, body: ChatRequest, asked: Asked, choices: int) -> None:
        self._request, self._body, self._asked = request, body, asked
        backend = services(request).backend
        self._choices = [Choice(backend.token_text, bool(body.logprobs)) for _ in range(choices)]
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": backend.name,
            "system_fingerprint": f"{backend.model.engine.name}-{backend.model.engine.dtype}",
        }

    async def whole(self) -> Response:
        try:
            async with until_hung_up(self._request.receive, self._asked.cancel):
                async for update in self._asked:
                    if isinstance(update, Progressed):
                        for token in update.events:
                            self._choices[token.request_index].take(token)
        finally:
            self._asked.cancel()
            self._note()
        if any(choice.finish_reason is None for choice in self._choices):
            return Response(status_code=HUNG_UP)
        return PlainJSON(
            {
                **self._head,
                "object": "chat.completion",
                "usage": self._usage(),
                "choices": [self._choice(i) for i in range(len(self._choices))],
                **self._warnings(),
            }
        )

    async def begin(self) -> None:
        """Wait until the prompt is read: what is wrong with it is still an ordinary error then."""
        try:
            async with until_hung_up(self._request.receive, self._asked.cancel):
                await anext(self._asked, None)  # Started
        except BaseException:
            self._asked.cancel()
            raise

    async def stream(self) -> AsyncIterator[bytes]:
        for i in range(len(self._choices)):
            yield self._chunk(i, {"role": "assistant", "content": ""}, more=self._warnings())
        try:
            async for update in self._asked:
                if isinstance(update, Progressed):
                    for token in update.events:
                        choice = self._choices[token.request_index]
                        delta, entries = choice.take(token)
                        if delta or entries:
                            yield self._chunk(token.request_index, {"content": delta}, entries)
                        if choice.finish_reason is not None:
                            yield self._chunk(token.request_index, {}, reason=choice.finish_reason)
        except Exception as error:
            yield event(as_serve_error(error, dialect_of(self._request)).body())
            return
        finally:
            self._note()
        options = self._body.stream_options
        if options is not None and options.include_usage:
            yield event({**self._head, "object": "chat.completion.chunk", "choices": [], "usage": self._usage()})
        yield event("[DONE]")

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        entries: list[dict[str, Any]] | None = None,
        reason: str | None = None,
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> bytes:
        choice: dict[str, Any] = {
            "index": index,
            "delta": delta,
            "logprobs": {"content": entries} if entries else None,
            "finish_reason": None if reason is None else openai_reason(reason),
        }
        if reason == "repetition":
            choice["stop_reason"] = reason
        chunk: dict[str, Any] = {**self._head, "object": "chat.completion.chunk", "choices": [choice], **more}
        if self._body.stream_options is not None and self._body.stream_options.include_usage:
            chunk["usage"] = None
        return event(chunk)

    def _choice(self, index: int) -> dict[str, Any]:
        choice = self._choices[index]
        reason = choice.finish_reason or "stop"
        made = {
            "index": index,
            "finish_reason": openai_reason(reason),
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": {"content": choice.entries, "refusal": None} if self._body.logprobs else None,
        }
        return made | ({"stop_reason": reason} if reason == "repetition" else {})

    def _warnings(self) -> dict[str, Any]:
        """A field of ours, there only when the media gave rise to it."""
        return {"warnings": list(self._asked.warnings)} if self._asked.warnings else {}

    def _usage(self) -> dict[str, Any]:
        started = self._asked.started
        completion = sum(choice.tokens for choice in self._choices)
        return {
            "prompt_tokens": self._asked.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self._asked.prompt_tokens + completion,
            "prompt_tokens_details": {"cached_tokens": started.cached_tokens if started else 0, "image_tokens": self._asked.image_tokens},
        }

    def _note(self) -> None:
        note_usage(self._request, self._asked, sum(choice.tokens for choice in self._choices))
