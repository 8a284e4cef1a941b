"""The body of `POST /v1/responses`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, WithJsonSchema

from smolvlm.serve.api.chat_schema import (
    DATA_URL,
    MOST_MESSAGES,
    MOST_PARTS,
    Body,
    Empty,
    NoTool,
    Sampling,
    SamplingFields,
    Tiling,
    tag_of_part,
    tag_of_shape,
)
from smolvlm.serve.api.option_fields import theirs


class InputText(Body):
    type: Literal["input_text", "output_text"]
    text: str


class InputImage(Tiling):
    type: Literal["input_image"]
    image_url: str | None = Field(None, description=DATA_URL)
    file_id: str | None = None


class InputVideo(Sampling):
    """Ours: OpenAI's API has no videos."""

    type: Literal["input_video"]
    video_url: str | None = Field(None, description=DATA_URL)
    file_id: str | None = None


class InputFile(Sampling, Tiling):
    type: Literal["input_file"]
    file_id: str


InputPart = Annotated[
    Annotated[InputText, Tag("(input_text)")]
    | Annotated[InputText, Tag("(output_text)")]
    | Annotated[InputImage, Tag("(input_image)")]
    | Annotated[InputVideo, Tag("(input_video)")]
    | Annotated[InputFile, Tag("(input_file)")],
    Discriminator(tag_of_part),
]
Content = Annotated[
    Annotated[str, Tag("(text)")] | Annotated[list[InputPart], Field(max_length=MOST_PARTS), Tag("(list)")], Discriminator(tag_of_shape)
]


class InputMessage(Body):
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content


class TextFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextConfig(Body):
    format: TextFormat | None = None


class ResponsesStreamOptions(Body):
    """What a client may say of the stream changes nothing: it always ends with the usage, and nothing in it is padded."""


class ResponsesRequest(SamplingFields):
    """An input to be answered."""

    input: Annotated[
        Annotated[str, Tag("(text)")] | Annotated[list[InputMessage], Field(min_length=1, max_length=MOST_MESSAGES), Tag("(list)")],
        Discriminator(tag_of_shape),
    ]
    instructions: str | None = None
    max_output_tokens: int | None = theirs("max_new_tokens")
    text: TextConfig | None = None
    include: list[str] | None = Field(None, description='Of these, "message.output_text.logprobs" is known.')
    top_logprobs: int | None = theirs("logprobs")
    stream_options: ResponsesStreamOptions | None = None
    metadata: dict[str, str] | None = None
    previous_response_id: Annotated[str | None, WithJsonSchema({"type": "null"})] = Field(
        None, description="Not supported: nothing is stored; send the conversation."
    )
    background: Annotated[bool | None, WithJsonSchema({"enum": [False, None]})] = Field(None, description="Not supported, unless false.")
    tools: Empty = Field(None, description='Not supported, unless empty or with tool_choice "none".')
    tool_choice: NoTool = Field(None, description='"none", or "auto" without tools.')
