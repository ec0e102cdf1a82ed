"""KServe's predictor: its v1 and v2 protocols, and OpenAI's routes under /openai, on the engine of `visavis serve`.

An instance of v1, and an element of v2's tensor of JSON texts, is the body of `/v1/chat/completions` without `stream`;
what comes back for it is what that route answers. Who may ask is decided before this process, by the mesh or gateway.

Source: KServe 0.21 (`kserve.Model`, `kserve.ModelServer`), Open Inference Protocol v2.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kserve
import kserve.model_server
import yaml
from fastapi import Request
from fastapi.responses import JSONResponse
from kserve import InferOutput, InferRequest, InferResponse
from kserve.errors import InvalidInput
from prometheus_client import REGISTRY, Metric
from prometheus_client.registry import Collector
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from visavis.chat.model import MODEL_FILE, ChatModel
from visavis.chat.talker import Request as ChatToAnswer
from visavis.chat.talker import Talker
from visavis.chat.weights import check_weights
from visavis.errors import VisavisError
from visavis.serving.app import Service, completion, create_app, wish_of
from visavis.serving.engine import ClosedError, DeadlineError, Engine, Job, QueueFullError, warm_up
from visavis.serving.limits import BodyLimit
from visavis.serving.messages import messages_of
from visavis.serving.provenance import Credentials
from visavis.serving.schemas import ChatRequest, ChatResponse
from visavis.serving.watching import Watcher, log_lines, send_traces

MOST_CHATS = 32
"""Most chats of one request: all wait in the queue at once, which others need too."""
MOST_BYTES = 64 * 2**20
INPUT, OUTPUT = "chats", "answers"


class WrongRequestError(InvalidInput):  # type: ignore[misc]
    """A request that is wrong; of KServe's own kind, so that gRPC says so as well."""


class Predictor(kserve.Model):  # type: ignore[misc]
    """Answers chats for KServe.

    Args:
        name: Of the model, in addresses and in pictures.
        folder: Model folder, or a version as MLflow stores it.
        version: Of the model, for pictures and health.
        credentials: Signs pictures.
        deadline: Seconds after which an answer is of no use.
        memory_mib: Room for what was read of chats.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        version: str = "",
        credentials: Credentials | None = None,
        deadline: float = 60.0,
        memory_mib: int = 512,
    ) -> None:
        super().__init__(name)
        self.folder, self.version, self.memory_mib = folder, version, memory_mib
        self.credentials, self.deadline = credentials or Credentials(), deadline
        self._service: Service | None = None

    @property
    def service(self) -> Service:
        """What answers, once it is loaded."""
        assert self._service is not None, "load() comes first"
        return self._service

    def load(self) -> bool:
        """Loads the model and answers once with it; its hash (`VISAVIS_WEIGHTS_SHA256`) and its pack's are checked.

        Raises:
            VisavisError: If the folder holds no model, or weights are not those that were registered.
        """
        folder = model_folder(self.folder)
        check_weights(folder, os.environ.get("VISAVIS_WEIGHTS_SHA256", ""), self.name)
        talker, watcher = Talker(ChatModel.from_pretrained(folder), self.memory_mib), Watcher()
        warm_up(talker)  # here already, where a failure ends the start
        engine = Engine(talker, self.version, seen=watcher.batch)
        self._service = Service(
            engine, credentials=self.credentials, watcher=watcher, name=self.name, deadline=self.deadline
        )
        self.ready = engine.ready.wait(self.deadline)
        return bool(self.ready)

    def close(self) -> None:
        """Answers what waits, and takes no more."""
        self.ready = False
        if self._service is not None:
            self._service.engine.close()

    def get_input_types(self) -> list[dict[str, Any]]:
        """What v2 takes."""
        return [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """What v2 gives."""
        return [{"name": OUTPUT, "datatype": "BYTES", "shape": [-1]}]

    async def predict(
        self, payload: dict[str, Any] | InferRequest, headers: dict[str, str] | None = None
    ) -> dict[str, Any] | InferResponse:
        """Answers all chats of a request, together where they fit.

        Args:
            payload: `{"instances": [chat, ...]}` of v1, or v2's tensor of JSON texts.
            headers: Of the request; not used.

        Raises:
            WrongRequestError: If a chat is not one, or cannot be answered.
            QueueFullError: If too many wait.
            DeadlineError: If an answer was not ready in time.
        """
        if isinstance(payload, InferRequest):
            answers = await self._answers([_parsed(text, at) for at, text in enumerate(_texts(payload))])
            return _response(payload, self.name, self.version, [a.model_dump_json() for a in answers])
        chats = payload.get("instances") if isinstance(payload, dict) else None
        if not isinstance(chats, list):
            raise WrongRequestError('the body is not {"instances": [{"messages": [...]}, ...]}')
        answers = await self._answers([_checked(chat, at) for at, chat in enumerate(chats)])
        return {"predictions": [answer.model_dump() for answer in answers]}

    async def _answers(self, bodies: list[ChatRequest]) -> list[ChatResponse]:
        if not 1 <= len(bodies) <= MOST_CHATS:
            raise WrongRequestError(f"there are {len(bodies)} chats; send 1 to {MOST_CHATS}")
        jobs: list[Job] = []
        try:
            said = [await run_in_threadpool(messages_of, self._known(body).messages) for body in bodies]
            for body, messages in zip(bodies, said, strict=True):
                jobs.append(self.service.submit(ChatToAnswer(messages, wish_of(body))))
            return [
                await run_in_threadpool(
                    completion, self.service, await _finished(job), job.version, messages, body.size
                )
                for job, body, messages in zip(jobs, bodies, said, strict=True)
            ]
        except VisavisError as error:
            raise WrongRequestError(f"{error.message}; {error.fix}") from None
        finally:
            for job in jobs:  # whoever does not get one answer gets none
                job.cancelled.set()

    def _known(self, body: ChatRequest) -> ChatRequest:
        if body.model not in ("", self.name):
            raise WrongRequestError(
                f"there is no model {body.model!r} here; ask for {self.name!r}, or for none"
            )
        return body


async def _finished(job: Job) -> Any:
    """Waits for an answer; its future is not cancelled, for the engine still holds it."""
    future = asyncio.wrap_future(job.answer)
    done, _ = await asyncio.wait({future}, timeout=max(0.0, job.deadline - time.monotonic()))
    if not done:
        raise DeadlineError
    return future.result()


def _checked(chat: Any, at: int) -> ChatRequest:
    try:
        body = ChatRequest.model_validate(chat)
    except ValidationError as error:
        raise _not_a_chat(error, at) from None
    return _whole(body, at)


def _parsed(text: str | bytes, at: int) -> ChatRequest:
    try:
        body = ChatRequest.model_validate_json(text)
    except ValidationError as error:
        raise _not_a_chat(error, at) from None
    return _whole(body, at)


def _whole(body: ChatRequest, at: int) -> ChatRequest:
    if body.stream:
        raise WrongRequestError(f"{at}.stream: answers come whole here; /openai/v1/chat/completions streams")
    return body


def _not_a_chat(error: ValidationError, at: int) -> WrongRequestError:
    first = error.errors()[0]
    return WrongRequestError(f"{'.'.join(str(part) for part in (at, *first['loc']))}: {first['msg']}")


def _texts(request: InferRequest) -> list[str | bytes]:
    """Returns the elements of v2's tensor."""
    given = request.inputs[0] if len(request.inputs) == 1 else request.get_input_by_name(INPUT)
    if given is None or given.datatype != "BYTES":
        raise WrongRequestError(
            f"send one input, {INPUT!r}, of the datatype BYTES: a JSON text for each chat"
        )
    try:
        elements = given.as_numpy().ravel().tolist()
    except Exception as error:  # whatever NumPy and KServe make of a shape that does not fit
        raise WrongRequestError(f"the input {given.name!r} cannot be read: {error}") from None
    if wrong := [element for element in elements if not isinstance(element, str | bytes)]:
        raise WrongRequestError(f"the input {given.name!r} holds {type(wrong[0]).__name__}, not JSON texts")
    return elements


def _response(request: InferRequest, name: str, version: str, texts: list[str]) -> InferResponse:
    # gRPC knows no text: its contents are bytes.
    data = [text.encode() for text in texts] if request.from_grpc else texts
    return InferResponse(
        response_id=request.id or uuid.uuid4().hex,  # v2 lets requests have none, answers must have one
        model_name=name,
        model_version=version or None,
        infer_outputs=[InferOutput(OUTPUT, [len(texts)], "BYTES", data)],
        use_binary_outputs=request.use_binary_outputs,
        requested_outputs=request.request_outputs,
        from_grpc=request.from_grpc,
    )


def model_folder(given: Path) -> Path:
    """Returns the model folder, which may be inside a version as MLflow stores it.

    Raises:
        VisavisError: If there is none.
    """
    if (given / MODEL_FILE).is_file():
        return given
    try:
        described = yaml.safe_load((given / "MLmodel").read_text())
        inside = given / described["flavors"]["python_function"]["artifacts"]["model"]["path"]
    except (OSError, yaml.YAMLError, LookupError, TypeError):
        inside = given
    if not (inside / MODEL_FILE).is_file():
        raise VisavisError(
            f"{given} holds no {MODEL_FILE}",
            fix="let storageUri, or --model_dir, name a model folder, or a version that MLflow stored",
        )
    return inside


class _Figures(Collector):
    """Puts the service's figures beside KServe's, on /metrics."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def collect(self) -> Iterator[Metric]:
        """Returns the figures as they are now."""
        self.service.watcher.exposition(self.service.engine)
        yield from self.service.watcher.registry.collect()


def extend_server(service: Service) -> None:
    """Adds to KServe's application: OpenAI's routes, figures, errors that say what to do, a limit of bodies."""
    app = kserve.model_server.app
    app.mount("/openai", create_app(service, MOST_BYTES))
    app.add_middleware(BodyLimit, most_bytes=MOST_BYTES)
    REGISTRY.register(_Figures(service))

    def say(status: int, message: str, after: float | None = None) -> JSONResponse:
        headers = {} if after is None else {"Retry-After": str(max(1, round(after + 0.5)))}
        return JSONResponse({"error": message}, status, headers)

    @app.exception_handler(WrongRequestError)
    async def wrong(_: Request, error: WrongRequestError) -> JSONResponse:
        return say(400, str(error))  # KServe's own handler would log what the user said

    @app.exception_handler(QueueFullError)
    async def full(_: Request, error: QueueFullError) -> JSONResponse:
        return say(429, str(error), error.seconds)

    @app.exception_handler(ClosedError)
    async def closing(_: Request, error: ClosedError) -> JSONResponse:
        return say(503, "the service is ending", 5)

    @app.exception_handler(DeadlineError)
    async def late(_: Request, error: DeadlineError) -> JSONResponse:
        return say(504, "the answer was not ready in time; ask again, or for fewer chats or pictures")


def arguments() -> argparse.ArgumentParser:
    """Returns what the command line takes: KServe's own options and ours."""
    parser = argparse.ArgumentParser(
        prog="python -m visavis.serving.kserve_predictor",
        description="Serves a model to KServe.",
        parents=[kserve.model_server.parser],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--model_dir", type=Path, default=Path("/mnt/models"), help="Where KServe put what storageUri names.")
    add("--model_version", default="", help="Version of the model, for pictures.")
    add("--deadline", type=float, default=60.0, help="Seconds after which an answer is given up.")
    add("--memory_mib", type=int, default=512, help="Room for what was read of chats, in MiB.")
    add("--certificate", type=Path, help="PEM chain that signs content credentials (ES256).")
    add("--certificate_key", type=Path, help="PEM key of the certificate.")
    parser.set_defaults(model_name="visavis")
    return parser


def main() -> None:
    """Loads the model and serves until SIGTERM; the port opens when the model answers."""
    parser = arguments()
    given = parser.parse_args()
    if given.workers != 1:
        parser.error("--workers must be 1: one process holds one model; add replicas instead")
    log_lines()
    send_traces()
    try:
        predictor = Predictor(
            given.model_name,
            given.model_dir,
            given.model_version,
            Credentials(given.certificate, given.certificate_key),
            given.deadline,
            given.memory_mib,
        )
        predictor.load()
    except VisavisError as error:
        raise SystemExit(f"error: {error.message}\n  fix: {error.fix}") from None
    extend_server(predictor.service)
    try:
        kserve.ModelServer(workers=1).start([predictor])
    finally:
        predictor.close()


if __name__ == "__main__":
    main()
