"""Refuses a body that is too large before it is read whole."""

from __future__ import annotations

import contextlib
import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """ASGI middleware that answers 413 as soon as a body is known to be too large.

    Args:
        app: The application.
        most_bytes: Of a body.
    """

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self.app, self.most_bytes = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request whose body is small enough."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self.most_bytes:
            await self._refuse(send)
            return
        read, too_large = 0, False

        async def counted() -> Message:
            nonlocal read, too_large
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.most_bytes:
                too_large = True
                raise _TooLargeError
            return message

        async def sent(message: Message) -> None:
            if not too_large:  # whatever the application makes of its broken body is of no interest
                await send(message)

        with contextlib.suppress(_TooLargeError):
            await self.app(scope, counted, sent)
        if too_large:
            await self._refuse(send)

    async def _refuse(self, send: Send) -> None:
        words = f"the body has more than {self.most_bytes} bytes"
        body = json.dumps({"error": {"message": words, "type": "invalid_request_error"}}).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class _TooLargeError(Exception):
    pass
