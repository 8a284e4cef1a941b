"""Fields of a request that this server does not act on: harmless, refused with what to send instead, or named in the answer.

Nothing is ignored in silence. A field that would change the answer elsewhere is a 400 that names it. A field that nobody
here knows is named in the answer's `warnings`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from smolvlm.serve.chat_schema import ChatRequest, Sampling, SamplingFields
from smolvlm.serve.errors import ServeError
from smolvlm.serve.responses_schema import ResponsesRequest

# Hints about billing, storage, caching and effort, and what clients add to the turns they send back: no answer depends on them.
_HARMLESS = frozenset(
    "store metadata service_tier reasoning_effort reasoning verbosity safety_identifier prompt_cache_key prompt_cache_retention "
    "parallel_tool_calls prediction truncation max_tool_calls cache_control cache_prompt refusal annotations audio id status "
    "obfuscation include_obfuscation include_reasoning filename format mime_type media_type title keep_alive".split()
)
_NO_TOOLS = "this model calls no tools; leave it out, or send tool_choice=\"none\""
_AS_RESPONSE_FORMAT = 'send response_format={"type": "json_schema", "json_schema": {"schema": ...}}'
_AS_A_SCHEMA = f"{_AS_RESPONSE_FORMAT} with an enum or a pattern"
_REFUSED = {
    "guided_json": _AS_RESPONSE_FORMAT,
    "json_schema": _AS_RESPONSE_FORMAT,
    "structured_outputs": _AS_RESPONSE_FORMAT,
    "guided_choice": _AS_A_SCHEMA,
    "guided_regex": _AS_A_SCHEMA,
    "guided_grammar": _AS_RESPONSE_FORMAT,
    "grammar": _AS_RESPONSE_FORMAT,
    "extra_body": "extra_body is an argument of the Python client; send its fields at the top level of the body",
    "mm_processor_kwargs": "send fps, max_frames, start and end beside the video's part, detail beside the picture's",
    "media_io_kwargs": "send fps, max_frames, start and end beside the video's part",
    "chat_template": "the checkpoint's own template is used; leave it out",
    "chat_template_kwargs": "the checkpoint's own template is used; leave it out",
    "n_predict": "send max_tokens",
    "max_new_tokens": "send max_tokens",
    "max_length": "send max_tokens",
    "num_predict": "send max_tokens",
    "num_beams": "answers are sampled or greedy; leave it out",
    "use_beam_search": "answers are sampled or greedy; leave it out",
    "best_of": "send n",
    "stop_token_ids": "send stop, a list of strings",
    "bad_words": "leave it out; there is no replacement",
    "min_tokens": "leave it out; there is no replacement",
    "echo": "leave it out; the prompt is not repeated",
    "prompt": "send messages",
    "images": "send each picture as a part of a message: {\"type\": \"image_url\", \"image_url\": {\"url\": ...}}",
    "videos": "send each video as a part of a message: {\"type\": \"video_url\", \"video_url\": {\"url\": ...}}",
    "web_search_options": "this server searches nothing; leave it out",
    "conversation": "nothing is stored; send the whole conversation in input",
    "documents": "send text as a part of a message",
    "tool_call_id": _NO_TOOLS,
    "function_call": _NO_TOOLS,
}
_OF_CHAT = {
    "messages": "/v1/responses takes input",
    "max_tokens": "/v1/responses takes max_output_tokens",
    "max_completion_tokens": "/v1/responses takes max_output_tokens",
    "response_format": "/v1/responses takes text.format",
}
_OF_RESPONSES = {
    "input": "/v1/chat/completions takes messages",
    "instructions": "/v1/chat/completions takes a message of the role system",
    "max_output_tokens": "/v1/chat/completions takes max_tokens",
    "text": "/v1/chat/completions takes response_format",
    "previous_response_id": "nothing is stored; send the whole conversation in messages",
    "background": "nothing is stored; leave it out",
    "include": "/v1/chat/completions takes logprobs",
}
_PARTS_ONLY = frozenset(Sampling.model_fields) | {"detail"}
_TOP_ONLY = (frozenset(ChatRequest.model_fields) | frozenset(SamplingFields.model_fields)) - {"messages", "user"}


def check_fields(body: ChatRequest | ResponsesRequest) -> tuple[str, ...]:
    """One sentence for each unknown field that changes nothing here. Raises ServeError 400 that names a field to mend."""
    _check_tools(body)
    unknown: list[str] = []
    for where, name, value in _unknown(body, ""):
        if _says_nothing(value) or name in _HARMLESS or (where and name == "logprobs"):
            continue
        if remedy := _remedy(body, where, name):
            raise _refused(f"{where}{name}", remedy)
        unknown.append(f"{where}{name}"[:200])
    return tuple(f"{path}: this field is unknown here and changed nothing." for path in dict.fromkeys(unknown))[:32]


def _remedy(body: ChatRequest | ResponsesRequest, where: str, name: str) -> str | None:
    """What to send instead of a field that would change the answer elsewhere; None for one that nobody knows."""
    if not where:
        others = _OF_RESPONSES if isinstance(body, ChatRequest) else _OF_CHAT
        if name in others:
            return others[name]
        if name in _TOP_ONLY:
            return "/v1/responses does not have it; use /v1/chat/completions, or leave it out"
    elif name in _TOP_ONLY:
        return f"{name} belongs at the top level of the request"
    if name in _REFUSED:
        return _REFUSED[name]
    if name in _PARTS_ONLY and ".content." not in where:
        return f"{name} belongs in the part that holds the picture or the video"
    return None


def _check_tools(body: ChatRequest | ResponsesRequest) -> None:
    for name, choice in (("tools", "tool_choice"), ("functions", "function_call")):
        wanted = getattr(body, choice, None)
        if wanted == "none":
            continue
        if getattr(body, name, None):
            raise _refused(name, f'this model calls no {name}; leave {name} out, or send {choice}="none"')
        if wanted not in (None, "auto"):
            raise _refused(choice, f'this model calls no {name}; leave {choice} out, or send "none"')
    if isinstance(body, ChatRequest):
        if body.logit_bias:
            raise _refused("logit_bias", "it is not supported; leave it out, or send a repetition_penalty")
        for i, message in enumerate(body.messages):
            if message.tool_calls:
                raise _refused(f"messages.{i}.tool_calls", "this model calls no tools; say what was called as text")
        return
    if body.previous_response_id is not None:
        raise _refused("previous_response_id", "nothing is stored; send the whole conversation in input")
    if body.background:
        raise _refused("background", "nothing is stored; leave it out and read the answer, or its stream")


def _says_nothing(value: Any) -> bool:
    """Whether a field is there without a wish: clients fill what they do not use with null, false or empty values."""
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)


def _refused(path: str, remedy: str) -> ServeError:
    path = "".join(c if c.isprintable() else "?" for c in path[:200])
    return ServeError(400, f"{path}: {remedy}.", param=path, code="unsupported_parameter")


def _unknown(body: BaseModel, where: str) -> Iterator[tuple[str, str, Any]]:
    """Every field that its model does not have: the path to it, its name, its value."""
    for name, value in (body.model_extra or {}).items():
        yield where, name, value
    for name in type(body).model_fields:
        value = getattr(body, name)
        label = type(body).model_fields[name].alias or name
        if isinstance(value, BaseModel):
            yield from _unknown(value, f"{where}{label}.")
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from _unknown(item, f"{where}{label}.{i}.")
