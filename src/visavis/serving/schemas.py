"""What goes in and out of the service: OpenAI's chat and image formats, and what visavis adds to them.

Source: OpenAI's API reference (chat completions, images); generated pictures stand in `message.images`, as OpenRouter
and LiteLLM return them, and may be sent back just so.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_TEXT = 16_000
MOST_MESSAGES = 200
MOST_PICTURES = 32
_Size = Annotated[str, Field(pattern=r"^(auto|[1-9][0-9]{1,3}x[1-9][0-9]{1,3})$")]


class _Lenient(BaseModel):
    """Ignores what it does not know: clients send many settings that have no meaning here."""

    model_config = ConfigDict(extra="ignore")


class ImageUrl(_Lenient):
    """A picture, as data URL."""

    url: str = Field(description="data:image/png;base64,… (or JPEG, WEBP); nothing is fetched.")


class TextPart(_Lenient):
    """Words."""

    type: Literal["text"]
    text: str = Field(max_length=MOST_TEXT)


class ImagePart(_Lenient):
    """A picture in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


ContentPart = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ChatMessage(_Lenient):
    """A message; those of the assistant are sent back as they came."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, Field(max_length=MOST_TEXT)] | list[ContentPart] | None = None
    images: list[ImagePart] | None = Field(None, description="Pictures of an answer.")


class Wishes(_Lenient):
    """How pictures are wanted.

    Attributes:
        seed: Of the picture; equal seeds give equal answers.
        size: `auto` is as painted.
        steps: Evaluations of the detokenizer.
        guidance: Scale of its guidance; needs a model that was tuned for it.
        identity: How closely a picture keeps to those shown before.
    """

    seed: int = Field(0, ge=0, lt=2**31)
    size: _Size = "auto"
    steps: int | None = Field(None, ge=1, le=100)
    guidance: float | None = Field(None, ge=0, le=20)
    identity: float = Field(
        1.0, ge=0, le=2, description="0: by the words only; 1: as learned; above 1: more."
    )

    @model_validator(mode="after")
    def _small_enough(self) -> Wishes:
        if self.size != "auto" and max(map(int, self.size.split("x"))) > 2048:
            raise ValueError(f"size is {self.size}: at most 2048x2048")
        return self


class ChatRequest(Wishes):
    """Body of `/v1/chat/completions`."""

    model: str = Field("", max_length=200, description="Name of the model; the one that is served if empty.")
    messages: list[ChatMessage] = Field(min_length=1, max_length=MOST_MESSAGES)
    stream: bool = False
    n: int = Field(1, ge=1, le=8, description="Candidates: pictures with the seeds from `seed` on.")
    temperature: float = Field(0.0, ge=0, le=2)
    pictures: int = Field(1, ge=1, le=4, description="Most pictures of the answer.")
    previews: bool = Field(False, description="While streaming, show the picture as it is painted.")


class ImageRequest(Wishes):
    """Body of `/v1/images/generations`."""

    model: str = Field("", max_length=200)
    prompt: str = Field(min_length=1, max_length=MOST_TEXT)
    n: int = Field(1, ge=1, le=8)
    response_format: Literal["b64_json"] = "b64_json"


class ErrorBody(BaseModel):
    """What is wrong, and how to mend it."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    """Body of every answer that is an error."""

    error: ErrorBody


class AnswerMessage(BaseModel):
    """The model's message."""

    role: Literal["assistant"] = "assistant"
    content: str
    images: list[ImagePart]


class Choice(BaseModel):
    """One candidate."""

    index: int
    message: AnswerMessage
    finish_reason: Literal["stop"] = "stop"


class Usage(BaseModel):
    """Tokens of the chat and of the answer; a picture has as many as the model reads of it."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatResponse(BaseModel):
    """Answer of `/v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class ImageData(BaseModel):
    """One picture."""

    b64_json: str
    revised_prompt: str | None = None


class ImageResponse(BaseModel):
    """Answer of `/v1/images/generations`."""

    created: int
    data: list[ImageData]


class ModelCard(BaseModel):
    """One model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["visavis"] = "visavis"


class ModelList(BaseModel):
    """Answer of `/v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(BaseModel):
    """State of the service."""

    status: str
    model: str


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": words}
    for status, words in {
        400: "Something in the request is wrong; the message says what.",
        401: "No key, or none of ours.",
        404: "There is no such model.",
        413: "The request is too large.",
        422: "The model answered without a picture.",
        429: "Too much at once; see Retry-After.",
        503: "The service is starting or ending.",
        504: "The answer was not ready in time.",
    }.items()
}
