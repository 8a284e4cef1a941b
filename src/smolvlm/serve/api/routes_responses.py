"""`POST /v1/responses`: the same engine in OpenAI's newer shapes. Nothing is stored."""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from smolvlm.generation import GenerationParams
from smolvlm.options.declare import at_door
from smolvlm.options.media import MediaOptions
from smolvlm.prompt.messages import Message
from smolvlm.serve.api.asking import ask_of
from smolvlm.serve.api.chat_params import schema_of, seed_of, shared_params
from smolvlm.serve.api.chat_parts import FindFile, file_part, image_part, normalized, video_part, wrong
from smolvlm.serve.api.choices import Choice
from smolvlm.serve.api.json_route import JsonRoute, release_body
from smolvlm.serve.api.remedies import PART_TYPES
from smolvlm.serve.api.request_fields import check_fields
from smolvlm.serve.api.responses_schema import InputImage, InputPart, InputText, ResponsesRequest
from smolvlm.serve.api.services import note_usage, owner_of, services, speak
from smolvlm.serve.api.sse import HUNG_UP, STREAMED, EventStream, PlainJSON, event, until_hung_up
from smolvlm.serve.api.wording import path_of
from smolvlm.serve.dialects import RESPONSES
from smolvlm.serve.engine.backend import Asked
from smolvlm.serve.engine.job import Progressed
from smolvlm.serve.errors import ServeError, as_serve_error

router = APIRouter(prefix="/v1", tags=["responses"], route_class=JsonRoute)

_LOGPROBS = "message.output_text.logprobs"


@router.post("/responses", summary="Answer an input of text, pictures and videos", responses=STREAMED)
async def create(request: Request, body: ResponsesRequest) -> Response:
    """OpenAI's responses. With `stream`, typed server-sent events that end with `response.completed`."""
    found = services(request)
    speak(request, RESPONSES)
    found.require_model(body.model)
    warnings = check_fields(body)
    owner = owner_of(request)
    values = shared_params(body, body.max_output_tokens, found.config, "max_output_tokens")
    if _LOGPROBS in (body.include or ()):
        values["logprobs"] = body.top_logprobs or 0
    elif body.top_logprobs:
        raise ServeError(400, f'top_logprobs needs {{"include": ["{_LOGPROBS}"]}}.', param="top_logprobs", code="invalid_value")
    params = GenerationParams(**values, seed=seed_of(body.seed, 0))
    schema = schema_of(body.text.format if body.text else None)
    messages = await _conversation(body, functools.partial(found.find_file, owner))
    asked = await found.backend.ask(ask_of(messages, (params,), owner, schema, RESPONSES, bool(body.instructions)))
    asked.warnings = (*warnings, *asked.warnings)
    del messages
    body.input = ""
    release_body(request)
    answer = _Answer(request, body, asked, params)
    if body.stream:
        await answer.begin()
        return EventStream(answer.stream(), asked.cancel)
    return await answer.whole()


class _Answer:
    """One request's answer in the shapes of the Responses API."""

    def __init__(self, request: Request, body: ResponsesRequest, asked: Asked, params: GenerationParams) -> None:
        self._request, self._body, self._asked, self._params = request, body, asked, params
        self._backend = services(request).backend
        self._choice = Choice(self._backend.token_text, params.logprobs is not None)
        self._id, self._item_id = f"resp_{secrets.token_hex(16)}", f"msg_{secrets.token_hex(16)}"
        self._created_at = int(time.time())
        self._events = 0

    async def whole(self) -> Response:
        try:
            async with until_hung_up(self._request.receive, self._asked.cancel):
                async for update in self._asked:
                    if isinstance(update, Progressed):
                        for token in update.events:
                            self._choice.take(token)
        finally:
            self._asked.cancel()
            self._note()
        if self._choice.finish_reason is None:
            return Response(status_code=HUNG_UP)
        return PlainJSON(self._response(self._status, [self._item(self._status)]))

    async def begin(self) -> None:
        """Wait until the prompt is read: what is wrong with it is still an ordinary error then."""
        try:
            async with until_hung_up(self._request.receive, self._asked.cancel):
                await anext(self._asked, None)
        except BaseException:
            self._asked.cancel()
            raise

    async def stream(self) -> AsyncIterator[bytes]:
        place = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        yield self._event("response.created", response=self._response("in_progress", []))
        yield self._event("response.in_progress", response=self._response("in_progress", []))
        yield self._event("response.output_item.added", output_index=0, item={**self._item("in_progress"), "content": []})
        yield self._event("response.content_part.added", **place, part={**self._part(), "text": ""})
        try:
            async for update in self._asked:
                if isinstance(update, Progressed):
                    for token in update.events:
                        delta, entries = self._choice.take(token)
                        if delta or entries:
                            yield self._event("response.output_text.delta", **place, delta=delta, logprobs=entries)
        except Exception as error:
            told = as_serve_error(error, RESPONSES)
            failed = self._response("failed", []) | {"error": {"code": "server_error", "message": str(told)}}
            yield self._event("response.failed", response=failed)
            return
        finally:
            self._note()
        status, part = self._status, self._part()
        yield self._event("response.output_text.done", **place, text=self._choice.text, logprobs=self._choice.entries)
        yield self._event("response.content_part.done", **place, part=part)
        yield self._event("response.output_item.done", output_index=0, item=self._item(status))
        name = "response.completed" if status == "completed" else "response.incomplete"
        yield self._event(name, response=self._response(status, [self._item(status)]))

    @property
    def _status(self) -> str:
        return "incomplete" if self._choice.finish_reason == "length" else "completed"

    def _event(self, name: str, **fields: Any) -> bytes:
        self._events += 1
        return event({"type": name, "sequence_number": self._events - 1, **fields}, name)

    def _part(self) -> dict[str, Any]:
        return {"type": "output_text", "text": self._choice.text, "annotations": [], "logprobs": self._choice.entries}

    def _item(self, status: str) -> dict[str, Any]:
        return {"id": self._item_id, "type": "message", "role": "assistant", "status": status, "content": [self._part()]}

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        body, params = self._body, self._params
        text = body.text.model_dump(by_alias=True, exclude_none=True) if body.text else {}
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created_at,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": self._backend.name,
            "output": output,
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "text": {"format": {"type": "text"}} | text,
            "tool_choice": "none",
            "tools": [],
            "truncation": "disabled",
            "metadata": body.metadata or {},
            "usage": self._usage() if output else None,
            **({"warnings": list(self._asked.warnings)} if self._asked.warnings else {}),
        }

    def _usage(self) -> dict[str, Any]:
        started = self._asked.started
        return {
            "input_tokens": self._asked.prompt_tokens,
            "output_tokens": self._choice.tokens,
            "total_tokens": self._asked.prompt_tokens + self._choice.tokens,
            "input_tokens_details": {"cached_tokens": started.cached_tokens if started else 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }

    def _note(self) -> None:
        note_usage(self._request, self._asked, self._choice.tokens)


async def _conversation(body: ResponsesRequest, find_file: FindFile) -> list[Message]:
    turns: list[dict[str, Any]] = []
    if body.instructions:
        turns.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        turns.append({"role": "user", "content": body.input})
    else:
        for i, message in enumerate(body.input):
            content: Any = message.content
            if isinstance(content, list):
                content = [await _part(part, path_of(("input", i, "content", j)), find_file) for j, part in enumerate(content)]
            turns.append({"role": "system" if message.role == "developer" else message.role, "content": content})
    return normalized(turns, "input", before=bool(body.instructions))


_KINDS = {"input_image": "image", "input_video": "video"}


async def _part(part: InputPart, path: str, find_file: FindFile) -> dict[str, Any]:
    if isinstance(part, InputText):
        return {"type": "text", "text": part.text}
    options = part.model_dump(include=set(at_door(MediaOptions, "http")), exclude_none=True)
    url = getattr(part, "image_url", None) or getattr(part, "video_url", None)
    if url is None:
        if part.file_id is None:
            raise wrong(path, f"a part of the type {part.type!r} needs an address or a file_id; {PART_TYPES[RESPONSES.path][part.type]}")
        return await file_part(part.file_id, find_file, options, _KINDS.get(part.type), path)
    if part.file_id is not None:
        raise wrong(path, f"a part of the type {part.type!r} has an address and a file_id; send one of them")
    made = image_part if isinstance(part, InputImage) else video_part
    return await made(url, options, path, RESPONSES)
