"""The body of `POST /v1/chat/completions`. What is not known here is kept, so that `request_fields` can name it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, WithJsonSchema

from smolvlm.options.generation import SpecialTokens
from smolvlm.options.media import Sampling as SamplingRule
from smolvlm.options.media import ToneMap, WantedKind
from smolvlm.serve.api.option_fields import media, ours, theirs

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

    tone_map: ToneMap | None = media("tone_map")
    background: str | None = media("background")


class Tiling(Appearance):
    """How a picture is scaled and cut."""

    detail: Detail | None = media("detail")
    image_splitting: bool | None = media("image_splitting")
    longest_edge: int | None = media("longest_edge")


class ImageUrl(Tiling):
    url: str = Field(description=DATA_URL)


class Sampling(Appearance):
    """Which frames of a video are looked at."""

    fps: float | None = media("fps")
    max_frames: int | None = media("max_frames")
    start: float | None = media("start")
    end: float | None = media("end")
    sampling: SamplingRule | None = media("sampling")


class VideoUrl(Sampling):
    url: str = Field(description=DATA_URL)


class ImageUrlPart(Tiling):
    type: Literal["image_url"]
    image_url: Annotated[Annotated[ImageUrl, Tag("(object)")] | Annotated[str, Tag("(text)")], Discriminator(tag_of_shape)]


class VideoUrlPart(Sampling):
    type: Literal["video_url"]
    video_url: Annotated[Annotated[VideoUrl, Tag("(object)")] | Annotated[str, Tag("(text)")], Discriminator(tag_of_shape)]


class FileOptions(Sampling, Tiling):
    """Options of an upload: beside `file` or in it."""

    media_kind: WantedKind | None = media("media_kind")


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
    temperature: float | None = theirs("temperature")
    top_p: float | None = theirs("top_p")
    stream: bool | None = None
    user: str | None = Field(None, description="Ignored.")
    seed: int | None = theirs("seed")
    top_k: int | None = ours("top_k")
    min_p: float | None = ours("min_p")
    repetition_penalty: float | None = ours("repetition_penalty")
    no_repeat_ngram_size: int | None = ours("no_repeat_ngram_size")
    loop_guard: bool | None = ours("loop_guard")
    ignore_eos: bool | None = ours("ignore_eos")
    special_tokens: SpecialTokens | None = ours("special_tokens")


class ChatRequest(SamplingFields):
    """A conversation to be continued."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_tokens: int | None = theirs("max_new_tokens")
    max_completion_tokens: int | None = theirs("max_new_tokens")
    n: int | None = Field(None, ge=1)
    stop: Annotated[Annotated[str, Tag("(text)")] | Annotated[list[str], Tag("(list)")], Discriminator(tag_of_shape)] | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = theirs("logprobs")
    presence_penalty: float | None = theirs("presence_penalty")
    frequency_penalty: float | None = theirs("frequency_penalty")
    response_format: ResponseFormat | None = None
    tools: Empty = Field(None, description='Not supported, unless empty or with tool_choice "none".')
    tool_choice: NoTool = Field(None, description='"none", or "auto" without tools.')
    functions: Empty = Field(None, description='Not supported, unless empty or with function_call "none".')
    function_call: NoTool = Field(None, description='"none", or "auto" without functions.')
    logit_bias: NoBias = Field(None, description="Not supported, unless empty.")
    modalities: list[Literal["text"]] | None = None
