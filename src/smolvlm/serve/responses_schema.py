"""The body of `POST /v1/responses`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from smolvlm.serve.chat_schema import Body, Sampling, SamplingFields

Detail = Literal["auto", "low", "high", "official", "fit"]


class InputText(Body):
    type: Literal["input_text", "output_text"]
    text: str


class InputImage(Body):
    type: Literal["input_image"]
    image_url: str | None = Field(None, description="A data URL, or an http(s) address if the server allows its host.")
    file_id: str | None = None
    detail: Detail | None = None


class InputVideo(Sampling):
    """Ours: OpenAI's API has no videos."""

    type: Literal["input_video"]
    video_url: str | None = None
    file_id: str | None = None


class InputFile(Sampling):
    type: Literal["input_file"]
    file_id: str
    detail: Detail | None = None


InputPart = Annotated[InputText | InputImage | InputVideo | InputFile, Field(discriminator="type")]


class InputMessage(Body):
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[InputPart]


class TextFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextConfig(Body):
    format: TextFormat | None = None


class ResponsesRequest(SamplingFields):
    """An input to be answered."""

    input: str | list[InputMessage]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    text: TextConfig | None = None
    include: list[str] | None = Field(None, description='Of these, "message.output_text.logprobs" is known.')
    top_logprobs: int | None = Field(None, ge=0, le=20)
    metadata: dict[str, str] | None = None
    previous_response_id: None = Field(None, description="Not supported: nothing is stored; send the conversation.")
    background: Literal[False] | None = Field(None, description="Not supported.")
    tools: list[Any] | None = Field(None, max_length=0, description="Not supported.")
