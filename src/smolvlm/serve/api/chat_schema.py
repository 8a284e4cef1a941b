"""The body of `POST /v1/chat/completions`. What is not known here is kept, so that `request_fields` can name it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, WithJsonSchema

MOST_MESSAGES, MOST_PARTS = 1024, 512  # far beyond any context; more only costs time

Detail = Literal["auto", "low", "high", "official", "fit"]
# Taken in any form, so that a refusal can say more than "invalid"; documented as what is accepted.
Empty = Annotated[list[Any] | None, WithJsonSchema({"type": ["array", "null"], "maxItems": 0})]
NoTool = Annotated[Any, WithJsonSchema({"enum": ["none", "auto", None]})]
NoBias = Annotated[dict[str, float] | None, WithJsonSchema({"type": ["object", "null"], "maxProperties": 0})]
DATA_URL = "A data URL, bare base64, or an http(s) address if the server allows its host."


class Body(BaseModel):
    """Known fields must have their type. Unknown ones stay in `model_extra`: `request_fields` refuses or names them."""

    model_config = ConfigDict(extra="allow", strict=True, populate_by_name=True)


def tag_of_part(value: Any) -> str | None:
    """The tag of a content part, "(image_url)" for the type "image_url": the brackets tell tags from fields in errors."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"({kind})" if isinstance(kind, str) else None


def tag_of_shape(value: Any) -> str | None:
    """Text, a list or an object. Errors then speak of the shape that was sent, not of the first that a field allows."""
    if isinstance(value, str):
        return "(text)"
    if isinstance(value, list):
        return "(list)"
    return "(object)" if isinstance(value, dict | BaseModel) else None


class TextPartBody(Body):
    type: Literal["text"]
    text: str


class Appearance(Body):
    """How a picture's or a video's pixels are brought to RGB."""

    tone_map: Literal["off", "auto"] | None = Field(None, description="auto: HDR to the colors of a common screen.")
    background: str | None = Field(None, description="Behind transparent parts: white, black or #rrggbb.")


class ImageUrl(Appearance):
    url: str = Field(description=DATA_URL)
    detail: Detail | None = None


class Sampling(Appearance):
    """Which frames of a video are looked at."""

    fps: float | None = None
    max_frames: int | None = None
    start: float | None = Field(default=None, description="Seconds from the first frame.")
    end: float | None = None
    sampling: Literal["official", "time"] | None = Field(None, description="Evenly by frame numbers, or in time.")


class VideoUrl(Sampling):
    url: str = Field(description=DATA_URL)


class ImageUrlPart(Appearance):
    type: Literal["image_url"]
    image_url: Annotated[Annotated[ImageUrl, Tag("(object)")] | Annotated[str, Tag("(text)")], Discriminator(tag_of_shape)]
    detail: Detail | None = Field(None, description="The same as `image_url.detail`.")


class VideoUrlPart(Sampling):
    type: Literal["video_url"]
    video_url: Annotated[Annotated[VideoUrl, Tag("(object)")] | Annotated[str, Tag("(text)")], Discriminator(tag_of_shape)]


class FileOptions(Sampling):
    """Options of an upload: beside `file` or in it."""

    media_kind: Literal["auto", "image", "video"] | None = Field(None, description="auto: an animated picture is a video.")
    detail: Detail | None = None


class FileRef(FileOptions):
    file_id: str = Field(description="The id that `POST /v1/files` gave.")


class FilePart(FileOptions):
    type: Literal["file"]
    file: FileRef


ContentPart = Annotated[
    Annotated[TextPartBody, Tag("(text)")]
    | Annotated[ImageUrlPart, Tag("(image_url)")]
    | Annotated[VideoUrlPart, Tag("(video_url)")]
    | Annotated[FilePart, Tag("(file)")],
    Discriminator(tag_of_part),
]
Content = Annotated[
    Annotated[str, Tag("(text)")] | Annotated[list[ContentPart], Field(max_length=MOST_PARTS), Tag("(list)")], Discriminator(tag_of_shape)
]


class ChatMessage(Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: Content | None = None
    name: str | None = Field(None, description="Ignored.")
    tool_calls: Empty = Field(None, description="Not supported, unless empty.")


class JsonSchemaFormat(Body):
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema", description="The same as `json_schema.schema`.")


class StreamOptions(Body):
    include_usage: bool | None = None


class SamplingFields(Body):
    """What both APIs share, with the fields of ours that they do not have."""

    model: str
    temperature: float | None = Field(None, ge=0, le=2, description="0, the default: the likeliest token each time.")
    top_p: float | None = Field(None, ge=0, le=1)
    stream: bool | None = None
    user: str | None = Field(None, description="Ignored.")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    top_k: int | None = Field(None, ge=0, description="Ours: 0 is off.")
    min_p: float | None = Field(None, ge=0, le=1, description="Ours: 0 is off.")
    repetition_penalty: float | None = Field(None, gt=0, le=100, description="Ours: 1 is off.")
    no_repeat_ngram_size: int | None = Field(None, ge=0, description="Ours: 0 is off.")
    loop_guard: bool | None = Field(None, description="Ours: end answers that only repeat themselves (the default).")
    ignore_eos: bool | None = Field(None, description="Ours: go on to max_tokens, for benchmarks.")
    special_tokens: Literal["strip", "keep"] | None = Field(None, description='Ours: "keep" shows the special tokens of the answer.')


class ChatRequest(SamplingFields):
    """A conversation to be continued."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    n: int | None = Field(None, ge=1)
    stop: Annotated[Annotated[str, Tag("(text)")] | Annotated[list[str], Tag("(list)")], Discriminator(tag_of_shape)] | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    response_format: ResponseFormat | None = None
    tools: Empty = Field(None, description='Not supported, unless empty or with tool_choice "none".')
    tool_choice: NoTool = Field(None, description='"none", or "auto" without tools.')
    functions: Empty = Field(None, description='Not supported, unless empty or with function_call "none".')
    function_call: NoTool = Field(None, description='"none", or "auto" without functions.')
    logit_bias: NoBias = Field(None, description="Not supported, unless empty.")
    modalities: list[Literal["text"]] | None = None
