"""The page on which people vote: blind, by keyboard or touch, on a phone too; it asks no other host for anything."""

from __future__ import annotations

import secrets
from importlib.resources import files
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from visavis.errors import VisavisError
from visavis.study.questions import QUESTIONS
from visavis.study.votes import Progress, Task, Votes

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; style-src 'nonce-{nonce}'; "
    "script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_AHEAD = 2
"""Pairs whose pictures are loaded before they are shown."""


class Join(BaseModel):
    """Who wants to vote."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=200)


class Ballot(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid")
    item: str = Field(max_length=64)
    question: str = Field(max_length=32)
    answer: str = Field(max_length=8)


def create_app(votes: Votes) -> FastAPI:
    """Returns the page as an application.

    Args:
        votes: The study, and where its votes go. The caller closes it.
    """
    app = FastAPI(title="visavis study", docs_url=None, redoc_url=None, openapi_url=None)
    page = (files("visavis.study") / "page.html").read_text(encoding="utf-8")
    plan = votes.study.plan
    pictures = {
        picture for item in plan.by_id().values() for picture in (item.a, item.b, item.face) if picture
    }
    _explain_errors(app)

    def state(token: str) -> dict[str, Any]:
        progress = votes.progress(token)
        if progress is None:
            raise HTTPException(401, "this code is not known here")
        return _state(progress)

    @app.get("/", response_class=HTMLResponse)
    def show() -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        content = page.replace("{{nonce}}", nonce).replace("{{study}}", plan.id)
        policy = {"Content-Security-Policy": _POLICY.format(nonce=nonce)}
        return HTMLResponse(content, headers=_HEADERS | policy)

    @app.post("/api/join")
    def join(body: Join) -> JSONResponse:
        return JSONResponse({"token": votes.join(body.name)}, headers=_HEADERS)

    @app.get("/api/state")
    def get_state(token: Annotated[str, Depends(_token)]) -> JSONResponse:
        return JSONResponse(state(token), headers=_HEADERS)

    @app.post("/api/vote")
    def vote(body: Ballot, token: Annotated[str, Depends(_token)]) -> JSONResponse:
        state(token)
        votes.cast(token, body.item, body.question, body.answer)
        return JSONResponse(state(token), headers=_HEADERS)

    @app.post("/api/undo")
    def undo(token: Annotated[str, Depends(_token)]) -> JSONResponse:
        votes.undo(token)
        return JSONResponse(state(token), headers=_HEADERS)

    @app.get("/pictures/{picture}")
    def get_picture(picture: str) -> Response:
        if picture not in pictures:
            raise HTTPException(404, "there is no such picture")
        # Not as a file: its time stamp would tell which system's picture was written first.
        headers = _HEADERS | {"Cache-Control": "private, max-age=86400, immutable"}
        return Response(votes.study.picture(picture).read_bytes(), media_type="image/png", headers=headers)

    return app


def _token(authorization: Annotated[str, Header()] = "") -> str:
    return authorization.removeprefix("Bearer ").strip()


def _state(progress: Progress) -> dict[str, Any]:
    """Returns what the browser may know: nothing in it tells a system, or an attention check, from another."""
    left = progress.left
    pairs = list({task.item.id: task for task in left}.values())
    ahead = [
        picture for task in pairs[1 : 1 + _AHEAD] for picture in (*_sides(task), task.item.face) if picture
    ]
    return {
        "name": progress.name,
        "done": progress.done,
        "total": progress.total,
        "task": _told(left[0]) if left else None,
        "ahead": ahead,
    }


def _told(task: Task) -> dict[str, Any]:
    left, right = _sides(task)
    return {
        "item": task.item.id,
        "question": task.question,
        "words": QUESTIONS[task.question].words,
        "prompt": task.item.prompt,
        "face": task.item.face,
        "left": left,
        "right": right,
    }


def _sides(task: Task) -> tuple[str, str]:
    a, b = task.item.a, task.item.b
    return (a, b) if task.a_is_left else (b, a)


def _explain_errors(app: FastAPI) -> None:
    def say(status: int, message: str) -> JSONResponse:
        return JSONResponse({"message": message}, status, headers=_HEADERS)

    @app.exception_handler(VisavisError)
    async def wrong(_: Request, error: VisavisError) -> JSONResponse:
        return say(409, f"{error.message}; {error.fix}")

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return say(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def wrong_body(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return say(422, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")
