"""The body of `POST /v1/chat/completions`. What OpenAI's API has and a model like ours cannot do is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_MOST_MESSAGES, _MOST_PARTS = 1024, 512  # far beyond any context; more only costs time


class Body(BaseModel):
    """Unknown fields are ignored, as other servers of this API do; known ones must have their type."""

    model_config = ConfigDict(extra="ignore", strict=True, populate_by_name=True)


class TextPartBody(Body):
    type: Literal["text"]
    text: str


class ImageUrl(Body):
    url: str = Field(description="A data URL, or an http(s) address if the server allows its host.")
    detail: Literal["auto", "low", "high", "official", "fit"] | None = None


class ImageUrlPart(Body):
    type: Literal["image_url"]
    image_url: ImageUrl | str


class VideoUrl(Body):
    url: str = Field(description="A data URL, or an http(s) address if the server allows its host.")


class Sampling(Body):
    """Which frames of a video are looked at."""

    fps: float | None = None
    max_frames: int | None = None
    start: float | None = Field(None, description="Seconds from the first frame.")
    end: float | None = None
    sampling: Literal["official", "time"] | None = Field(None, description="Evenly by frame numbers, or in time.")
    tone_map: Literal["off", "auto"] | None = Field(None, description="auto: HDR to the colors of a common screen.")


class VideoUrlPart(Sampling):
    type: Literal["video_url"]
    video_url: VideoUrl | str


class FileRef(Body):
    file_id: str = Field(description="The id that `POST /v1/files` gave.")


class FilePart(Sampling):
    type: Literal["file"]
    file: FileRef
    detail: Literal["auto", "low", "high", "official", "fit"] | None = None


ContentPart = Annotated[TextPartBody | ImageUrlPart | VideoUrlPart | FilePart, Field(discriminator="type")]


class ChatMessage(Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[ContentPart], Field(max_length=_MOST_PARTS)] | None = None
    name: str | None = Field(None, description="Ignored.")
    tool_calls: list[Any] | None = Field(None, max_length=0)


class JsonSchemaFormat(Body):
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


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


class ChatRequest(SamplingFields):
    """A conversation to be continued."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=_MOST_MESSAGES)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    n: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    response_format: ResponseFormat | None = None
    tools: list[Any] | None = Field(None, max_length=0, description="Not supported.")
    functions: list[Any] | None = Field(None, max_length=0, description="Not supported.")
    logit_bias: dict[str, float] | None = Field(None, max_length=0, description="Not supported.")
    modalities: list[Literal["text"]] | None = None
