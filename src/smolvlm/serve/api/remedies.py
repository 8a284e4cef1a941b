"""What to send in place of the fields and parts of other servers and of the other API: a table for each route and level.

A sentence speaks of its own route alone: whatever it tells a client to send, that route takes, or it names the other one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from smolvlm.serve.dialects import CHAT, DIALECTS, RESPONSES, Dialect

Level = Literal["top", "message", "part", "address", "format", "options"]

_NO_TOOLS = "this model calls no tools; leave it out"
_NO_MATCH = "leave it out; there is no replacement"
_OWN_TEMPLATE = "the checkpoint's own template is used; leave it out"
_DECODING = "answers are sampled or greedy; leave it out"
_NO_SOUND = "sound is not understood"
_LINES = "the answer is text; leave it out"

# Hints about billing, storage, caching and effort, and what clients add to the turns they send back: no answer depends on them.
_HARMLESS: Mapping[Level, str] = {
    "top": "store metadata service_tier reasoning_effort reasoning verbosity safety_identifier prompt_cache_key "
    "prompt_cache_retention parallel_tool_calls prediction truncation max_tool_calls cache_control cache_prompt "
    "include_reasoning keep_alive",
    "message": "refusal annotations audio id status cache_control reasoning reasoning_content reasoning_details parsed "
    "provider_specific_fields thinking_blocks",
    "part": "annotations cache_control filename title format mime_type media_type id uuid logprobs",
    "address": "cache_control filename title format mime_type media_type id uuid",
    "format": "name description strict verbosity",
    "options": "include_obfuscation",
}
HARMLESS = {level: frozenset(names.split()) for level, names in _HARMLESS.items()}

# Fields that change nothing with this value, and what is said to any other: even `false` is a wish there.
FIXED: Mapping[str, tuple[Any, str]] = {
    "add_generation_prompt": (True, "an answer is always a turn of its own; leave it out"),
    "continue_final_message": (False, "an answer is always a turn of its own; leave it out, and ask for the rest in words"),
    "add_special_tokens": (False, _OWN_TEMPLATE),
    "skip_special_tokens": (True, 'send special_tokens="keep" in its place'),
    "spaces_between_special_tokens": (True, "special tokens are written as they are; leave it out"),
    "include_stop_str_in_output": (False, "an answer ends before its stop string; leave it out"),
    "detokenize": (True, _LINES),
    "return_tokens_as_token_ids": (False, _LINES),
    "echo": (False, "leave it out; the prompt is not repeated"),
    "return_full_text": (False, "leave it out; the prompt is not repeated"),
    "use_beam_search": (False, _DECODING),
    "early_stopping": (False, _DECODING),
    "num_beams": (1, _DECODING),
    "length_penalty": (1, _DECODING),
    "typical_p": (1, "it is not supported; send top_p, top_k or min_p"),
    "mirostat": (0, "it is not supported; send top_p, top_k or min_p"),
}


def _shared(d: Dialect) -> dict[str, str]:
    """Fields at the top of a request, for both routes."""
    return {
        **dict.fromkeys(("guided_json", "json_schema", "structured_outputs", "format", "output_format", "schema"), f"send {d.a_schema}"),
        **dict.fromkeys(("guided_grammar", "grammar"), f"no grammars are taken, only schemas; send {d.a_schema}"),
        **dict.fromkeys(("guided_choice", "guided_regex"), f"send a schema with an enum or a pattern, such as {d.an_enum}"),
        "extra_body": "extra_body is an argument of the Python client; send its fields at the top level of the body",
        "options": "send its fields at the top level of the body, under the names of this API",
        "parameters": "send its fields at the top level of the body, under the names of this API",
        "mm_processor_kwargs": f"send fps, max_frames, start and end beside the video, {_with(d.a_video, fps=1)}, and detail "
        f"beside the picture, {_with(d.a_picture, detail='low')}",
        "media_io_kwargs": f"send fps, max_frames, start and end beside the video, {_with(d.a_video, fps=1)}",
        "chat_template": _OWN_TEMPLATE,
        "chat_template_kwargs": _OWN_TEMPLATE,
        **dict.fromkeys(("n_predict", "max_new_tokens", "max_length", "num_predict", "max_tokens_to_sample"), f"send {d.limit}"),
        **dict.fromkeys(("repeat_penalty", "rep_pen"), "send repetition_penalty"),
        "bad_words": _NO_MATCH,
        "min_tokens": _NO_MATCH,
        "logit_bias": "it is not supported; leave it out, or send a repetition_penalty",
        **dict.fromkeys(("images", "image", "image_url"), f"send each picture as a part of a message: {d.a_picture}"),
        **dict.fromkeys(("videos", "video", "video_url"), f"send each video as a part of a message: {d.a_video}"),
        **dict.fromkeys(("files", "file", "file_id", "file_ids"), f"send each upload as a part of a message: {d.an_upload}"),
        "system": f"send {d.a_system_message}",
        "system_instruction": f"send {d.a_system_message}",
        **dict.fromkeys(("contents", "question", "query", "inputs"), f"send {d.a_conversation}"),
        "documents": f"send text as a part of a message: {d.a_text}",
        "web_search_options": "this server searches nothing; leave it out",
        "audio": f"{_NO_SOUND}, and answers are text; leave it out",
        "tool_call_id": _NO_TOOLS,
    }


def _with(part: str, **fields: object) -> str:
    """An example of a part with one field more."""
    return f"{part[:-1]}, {json.dumps(fields)[1:]}"


_OF_ONE: dict[str, dict[str, str]] = {
    CHAT.path: {
        "best_of": "send n",
        "prompt": f"send {CHAT.a_conversation}",
        "input": f"{CHAT.path} takes messages; send {CHAT.a_conversation}",
        "instructions": f"{CHAT.path} takes a message of the role system; send {CHAT.a_system_message}",
        "max_output_tokens": f"{CHAT.path} takes max_tokens",
        "text": f"{CHAT.path} takes response_format; send {CHAT.a_schema}",
        "conversation": f"nothing is stored; send the whole conversation in messages, as in {CHAT.a_conversation}",
        "previous_response_id": "nothing is stored; send the whole conversation in messages",
        "background": "nothing is stored; leave it out",
        "include": f'{CHAT.path} takes {{"logprobs": true}}; leave include out',
        "n_probs": 'send {"logprobs": true, "top_logprobs": 5}',
        "stop_token_ids": "send stop, a list of strings",
        **dict.fromkeys(("stop_sequences", "stop_strings"), "send stop"),
    },
    RESPONSES.path: {
        "best_of": f"{RESPONSES.path} gives one answer; leave it out",
        "n": f"{RESPONSES.path} gives one answer; leave it out, or use {CHAT.path}, which takes n",
        "prompt": f"no prompts are stored here; send {RESPONSES.a_conversation}",
        "messages": f"{RESPONSES.path} takes input; send {RESPONSES.a_conversation}",
        **dict.fromkeys(("max_tokens", "max_completion_tokens"), f"{RESPONSES.path} takes max_output_tokens"),
        "response_format": f"{RESPONSES.path} takes text.format; send {RESPONSES.a_schema}",
        "conversation": "nothing is stored; send the whole conversation in input",
        **dict.fromkeys(("logprobs", "n_probs"), 'send {"include": ["message.output_text.logprobs"], "top_logprobs": 5}'),
        **dict.fromkeys(
            ("stop_token_ids", "stop_sequences", "stop_strings", "stop"),
            f"{RESPONSES.path} has no stop; leave it out, or use {CHAT.path}, which takes stop",
        ),
        "modalities": f"{RESPONSES.path} always answers in text; leave it out",
        "functions": _NO_TOOLS,
        "function_call": _NO_TOOLS,
    },
}


def _in_a_message(d: Dialect) -> dict[str, str]:
    content = '{"role": "user", "content": [' + d.a_text + "]}"
    return {
        **dict.fromkeys(("parts", "text", "prompt"), f"a message has content; send {content}"),
        **dict.fromkeys(("images", "image", "image_url"), f"send each picture in content: {d.a_picture}"),
        **dict.fromkeys(("videos", "video", "video_url"), f"send each video in content: {d.a_video}"),
        **dict.fromkeys(("files", "file", "file_id", "attachments"), f"send each upload in content: {d.an_upload}"),
        **dict.fromkeys(("tool_call_id", "tool_calls", "function_call"), _NO_TOOLS),
    }


def _in_a_part(d: Dialect) -> dict[str, str]:
    """Media that stand in a part of another type, or beside what the part is read from."""
    return {
        **dict.fromkeys(("image", "image_url", "source", "inline_data", "inlineData"), f"a picture is a part of its own: {d.a_picture}"),
        **dict.fromkeys(("video", "video_url", "frames"), f"a video is a part of its own: {d.a_video}"),
        **dict.fromkeys(("file", "file_id", "fileData"), f"an upload is a part of its own: {d.an_upload}"),
        "text": f"a text is a part of its own: {d.a_text}",
        "input_audio": _NO_SOUND,
        **dict.fromkeys(
            ("file_data", "file_url"),
            f"send a picture as {d.a_picture}, a video as {d.a_video}, or upload the file with POST /v1/files and send {d.an_upload}",
        ),
    }


def _in_a_format(d: Dialect) -> dict[str, str]:
    return dict.fromkeys(("json_schema", "schema", "type"), f"send {d.a_schema}")


_IN_OPTIONS: dict[str, dict[str, str]] = {
    CHAT.path: {},
    RESPONSES.path: {"include_usage": f"{RESPONSES.path} always ends a stream with its usage; leave it out"},
}
REMEDIES: Mapping[str, Mapping[Level, Mapping[str, str]]] = {
    d.path: {
        "top": _shared(d) | _OF_ONE[d.path],
        "message": _in_a_message(d),
        "part": _in_a_part(d),
        "address": _in_a_part(d),
        "format": _in_a_format(d),
        "options": _IN_OPTIONS[d.path],
    }
    for d in DIALECTS.values()
}


def _parts(d: Dialect) -> dict[str, str]:
    """Types of parts that other APIs have, and what takes their place."""
    picture, clip = f"a picture is {d.a_picture}", f"a video is {d.a_video}, frames are pictures, {d.a_picture}"
    return {
        **dict.fromkeys(("input_audio", "audio", "audio_url"), _NO_SOUND),
        **dict.fromkeys(("image", "image_url", "input_image", "image_file", "image_base64"), picture),
        **dict.fromkeys(("video", "video_url", "input_video", "video_file"), clip),
        **dict.fromkeys(("text", "input_text", "output_text"), f"a text is {d.a_text}"),
        **dict.fromkeys(("file", "input_file", "document"), f"an upload is {d.an_upload}, made by POST /v1/files; {picture}"),
        "refusal": f"send a refusal as text: {d.a_text}",
        **dict.fromkeys(
            (
                "tool_use",
                "tool_result",
                "tool_call",
                "function_call",
                "function_call_output",
                "web_search_call",
                "file_search_call",
                "computer_call",
                "custom_tool_call",
                "mcp_call",
            ),
            "this model calls no tools",
        ),
        "reasoning": "leave out what another model thought",
        "item_reference": "nothing is stored; send the message itself",
    }


PART_TYPES: Mapping[str, Mapping[str, str]] = {d.path: _parts(d) for d in DIALECTS.values()}
