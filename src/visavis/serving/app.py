"""The service: OpenAI's chat and image routes, health, metrics, over one engine."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from visavis.chat.conversation import Message, Picture
from visavis.chat.talker import Answer, Wish
from visavis.chat.talker import Request as ChatToAnswer
from visavis.data.config import Prompts
from visavis.errors import VisavisError
from visavis.serving import messages as incoming
from visavis.serving.engine import ClosedError, DeadlineError, Engine, Job, QueueFullError
from visavis.serving.keys import ApiKey, Keys, LimitError
from visavis.serving.limits import BodyLimit
from visavis.serving.pictures import scaled, to_url
from visavis.serving.provenance import RELEASE, Credentials
from visavis.serving.schemas import (
    ERRORS,
    AnswerMessage,
    ChatRequest,
    ChatResponse,
    Choice,
    ErrorBody,
    ErrorResponse,
    Health,
    ImageData,
    ImagePart,
    ImageRequest,
    ImageResponse,
    ImageUrl,
    ModelCard,
    ModelList,
    Usage,
    Wishes,
)
from visavis.serving.watching import Watcher, log, observed

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}
_POLL_SECONDS = 0.05


@dataclass
class Service:
    """What the routes share.

    Attributes:
        engine: Answers.
        keys: Who may ask.
        credentials: Signs pictures.
        watcher: Counts, and logs.
        name: Of the model, for users.
        deadline: Seconds after which an answer is of no use.
        prompts: The sentences that the model was taught.
        started: When, in seconds since 1970.
    """

    engine: Engine
    keys: Keys = field(default_factory=Keys)
    credentials: Credentials = field(default_factory=Credentials)
    watcher: Watcher = field(default_factory=Watcher)
    name: str = "visavis"
    deadline: float = 60.0
    prompts: Prompts = field(default_factory=Prompts)
    started: int = field(default_factory=lambda: int(time.time()))

    @property
    def model(self) -> str:
        """Name and version of the model that answers now."""
        return f"{self.name}/{self.engine.version}" if self.engine.version else self.name

    def submit(self, request: ChatToAnswer) -> Job:
        """Puts a chat into the queue."""
        if not self.engine.ready.is_set():
            raise HTTPException(503, "the model is not ready yet; ask /readyz")
        return self.engine.submit(request, self.deadline)

    def png(self, picture: Picture, size: str, version: str) -> bytes:
        """Returns a picture as a file that says where it comes from."""
        return self.credentials.png(scaled(picture, size), f"{self.name}/{version}" if version else self.name)


def create_app(service: Service, most_bytes: int = 64 * 2**20) -> FastAPI:
    """Returns the service as an ASGI application.

    Args:
        service: What the routes share.
        most_bytes: Of a request's body.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.engine.close)

    app = FastAPI(
        title="visavis",
        version=RELEASE,
        summary="Talk to a model about a face, in OpenAI's formats.",
        lifespan=lifespan,
    )
    app.add_middleware(BodyLimit, most_bytes=most_bytes)
    observed(app, service.watcher)
    _handle_errors(app)
    _add_state(app, service)
    _add_chat(app, service)
    _add_images(app, service)
    return app


def _handle_errors(app: FastAPI) -> None:
    def say(status: int, message: str, param: str | None = None, after: float | None = None) -> JSONResponse:
        body = ErrorBody(message=message, type=_TYPES.get(status, "server_error"), param=param)
        headers = {} if after is None else {"Retry-After": str(max(1, round(after + 0.5)))}
        return JSONResponse(ErrorResponse(error=body).model_dump(), status, headers)

    @app.exception_handler(RequestValidationError)
    async def wrong_body(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"] if part != "body")
        return say(400, f"{param or 'the body'}: {first['msg']}", param or None)

    @app.exception_handler(VisavisError)
    async def wrong_content(_: Request, error: VisavisError) -> JSONResponse:
        return say(400, f"{error.message}; {error.fix}")

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        response = say(error.status_code, str(error.detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(LimitError)
    async def asks_too_much(_: Request, error: LimitError) -> JSONResponse:
        return say(429, str(error), after=error.seconds)

    @app.exception_handler(QueueFullError)
    async def full(_: Request, error: QueueFullError) -> JSONResponse:
        return say(429, str(error), after=error.seconds)

    @app.exception_handler(ClosedError)
    async def closing(_: Request, error: ClosedError) -> JSONResponse:
        return say(503, "the service is ending", after=5)

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:
        log.error("not answered", exc_info=error)
        return say(500, "the service made a mistake; its log says which")

    @app.exception_handler(DeadlineError)
    async def late(_: Request, error: DeadlineError) -> JSONResponse:
        return say(504, "the answer was not ready in time; ask again, or for fewer pictures")


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", tags=["state"])
    async def healthz() -> Health:
        """Whether the process lives."""
        return Health(status="ok", model=service.model)

    @app.get("/readyz", tags=["state"], responses={503: ERRORS[503]})
    async def readyz() -> Health:
        """Whether a question would be answered; only after a first answer of its own."""
        if not service.engine.ready.is_set():
            raise HTTPException(503, "the model is warming up")
        return Health(status="ready", model=service.model)

    @app.get("/metrics", tags=["state"], response_class=Response)
    async def metrics() -> Response:
        """Figures in Prometheus' format."""
        content, kind = service.watcher.exposition(service.engine)
        return Response(content, media_type=kind)

    @app.get("/v1/models", tags=["models"])
    async def models() -> ModelList:
        """The model that is served."""
        return ModelList(data=[ModelCard(id=service.name, created=service.started)])


def _entered(service: Service) -> Callable[..., AsyncIterator[str]]:
    """Returns the dependency that lets a user in and counts the request; it gives the owner of what is remembered."""
    bearer = HTTPBearer(auto_error=False, description="A key of `visavis key`.")

    async def enter(
        request: Request, given: HTTPAuthorizationCredentials | None = Depends(bearer)
    ) -> AsyncIterator[str]:
        if service.keys.open:
            request.state.owner = ""
            yield ""
            return
        key: ApiKey | None = service.keys.owner(given.credentials if given else None)
        if key is None:
            raise HTTPException(401, "send a valid key as Authorization: Bearer …")
        service.keys.enter(key)
        request.state.owner = key.name
        try:
            yield key.name
        finally:
            service.keys.leave(key)

    return enter


async def _finished(job: Job, request: Request) -> Answer:
    """Waits for an answer; if the client leaves, nobody does."""
    future = asyncio.wrap_future(job.answer)
    try:
        while True:
            left = job.deadline - time.monotonic()
            done, _ = await asyncio.wait({future}, timeout=max(0.0, min(left, 0.5)))
            if done:
                return future.result()
            if left <= 0:
                raise DeadlineError
            if await request.is_disconnected():
                raise ClosedError
    finally:
        job.cancelled.set()


def _wish(body: Wishes, **more: Any) -> Wish:
    return Wish(body.seed, steps=body.steps, guidance=body.guidance, identity=body.identity, **more)


def wish_of(body: ChatRequest) -> Wish:
    """Returns how the answer of a chat is wanted."""
    return _wish(body, candidates=body.n, temperature=body.temperature, pictures=body.pictures)


def _check_model(service: Service, asked: str) -> None:
    if asked and asked != service.name:
        raise HTTPException(404, f"there is no model {asked!r} here; ask for {service.name!r}, or for none")


def _add_chat(app: FastAPI, service: Service) -> None:
    enter = _entered(service)

    streamed: dict[str, Any] = {"content": {"text/event-stream": {}}}

    @app.post(
        "/v1/chat/completions",
        tags=["chat"],
        responses={**ERRORS, 200: streamed},
        response_model=ChatResponse,
    )
    async def chat(body: ChatRequest, request: Request, owner: str = Depends(enter)) -> Any:
        """Answers a chat with words and, where the model shows one, a picture."""
        _check_model(service, body.model)
        said = await run_in_threadpool(incoming.messages_of, body.messages)
        wish = wish_of(body)
        if body.stream:
            return _stream(service, said, wish, body, request, owner)
        job = service.submit(ChatToAnswer(said, wish, owner))
        answer = await _finished(job, request)
        return await run_in_threadpool(completion, service, answer, job.version, said, body.size)


def completion(
    service: Service, answer: Answer, version: str, said: list[Message], size: str
) -> ChatResponse:
    """Returns an answer in OpenAI's format, its pictures as files of a size."""
    shown = answer.message.pictures
    service.watcher.painted(len(shown) + len(answer.others))
    first = [_image(service.png(picture, size, version)) for picture in shown]
    choices = [Choice(index=0, message=AnswerMessage(content=answer.text, images=first))]
    for number, other in enumerate(answer.others, 1):
        images = [*first[:-1], _image(service.png(other, size, version))]
        choices.append(Choice(index=number, message=AnswerMessage(content=answer.text, images=images)))
    template = service.engine.talker.model.template
    asked = incoming.tokens_of(said, template)
    answered = incoming.tokens_of([answer.message], template)
    usage = Usage(prompt_tokens=asked, completion_tokens=answered, total_tokens=asked + answered)
    return ChatResponse(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=service.name,
        choices=choices,
        usage=usage,
    )


def _image(png: bytes) -> ImagePart:
    return ImagePart(type="image_url", image_url=ImageUrl(url=to_url(png)))


def _stream(
    service: Service, said: list[Message], wish: Wish, body: ChatRequest, request: Request, owner: str
) -> StreamingResponse:
    """Streams words as they are said, then the pictures, as server-sent events."""
    loop, events = asyncio.get_running_loop(), asyncio.Queue[tuple[str, Any]]()

    def tell(kind: str) -> Callable[[Any], bool]:
        def send(value: Any) -> bool:
            loop.call_soon_threadsafe(events.put_nowait, (kind, value))
            return True

        return send

    watch = tell("preview") if body.previews else None
    job = service.submit(ChatToAnswer(said, wish, owner, tell("words"), watch))
    job.answer.add_done_callback(lambda _: loop.call_soon_threadsafe(events.put_nowait, ("end", None)))

    async def lines() -> AsyncIterator[str]:
        facts = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": service.name,
        }

        def line(delta: dict[str, Any], index: int = 0, finish: str | None = None) -> str:
            choice = {"index": index, "delta": delta, "finish_reason": finish}
            return f"data: {json.dumps({**facts, 'choices': [choice]})}\n\n"

        heard, late = "", False
        yield line({"role": "assistant", "content": ""})
        try:
            while True:
                try:
                    left = job.deadline - time.monotonic()
                    kind, value = await asyncio.wait_for(events.get(), max(_POLL_SECONDS, left))
                except TimeoutError:
                    late = True
                    break
                if kind == "end":
                    break
                if kind == "words" and value != heard:
                    yield line({"content": value[len(heard) :] if value.startswith(heard) else value})
                    heard = value
                elif kind == "preview":
                    png = await run_in_threadpool(service.png, value, body.size, service.engine.version)
                    yield line({"preview": _image(png).model_dump()})
            error = DeadlineError("the answer was not ready in time") if late else job.answer.exception()
            if error is not None:
                what = error.message if isinstance(error, VisavisError) else str(error) or "not answered"
                yield f"data: {json.dumps({'error': {'message': what, 'type': 'server_error'}})}\n\n"
                return
            done = await run_in_threadpool(
                completion, service, job.answer.result(), job.version, said, body.size
            )
            for choice in done.choices:
                images = [image.model_dump() for image in choice.message.images]
                words = choice.message.content if choice.index else ""
                yield line({"content": words, "images": images}, choice.index)
                yield line({}, choice.index, "stop")
            yield "data: [DONE]\n\n"
        finally:
            job.cancelled.set()

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


def _add_images(app: FastAPI, service: Service) -> None:
    enter = _entered(service)

    @app.post("/v1/images/generations", tags=["images"], responses=ERRORS)
    async def images(body: ImageRequest, request: Request, owner: str = Depends(enter)) -> ImageResponse:
        """Paints what a prompt describes."""
        _check_model(service, body.model)
        words = service.prompts.picture.replace("{caption}", body.prompt)
        said = [incoming.said_by_user(words)]
        job = service.submit(ChatToAnswer(said, _wish(body, candidates=body.n), owner))
        answer = await _finished(job, request)
        if answer.picture is None:
            raise HTTPException(422, f"the model answered without a picture: {answer.text!r}")
        pictures = [answer.picture, *answer.others]
        service.watcher.painted(len(pictures))

        def written() -> list[ImageData]:
            files = [service.png(picture, body.size, job.version) for picture in pictures]
            return [ImageData(b64_json=base64.b64encode(png).decode(), revised_prompt=words) for png in files]

        return ImageResponse(created=int(time.time()), data=await run_in_threadpool(written))
