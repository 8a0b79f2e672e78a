"""What every answer carries, and every log line of its request: an id, and that nobody may keep or guess anything."""

from collections.abc import Callable
from typing import Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from controlplane.http.problems import problem
from controlplane.model.errors import ControlPlaneError

log = structlog.stdlib.get_logger(__name__)

_ALWAYS: Final = {
    "Cache-Control": "no-store",  # some answers hold what opens a door, and all are soon out of date
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Envelope:
    """Names each request, marks each answer, and answers HEAD as GET without its body."""

    def __init__(self, app: ASGIApp, *, new_id: Callable[[str], str]) -> None:
        self._app = app
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. Whatever the application raises ends here, as a problem, and in the log with its id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Ours, never the caller's: what he could choose, he could also make mean another request in the log.
        id, head = self._new_id("rq"), scope["method"] == "HEAD"

        begun = False

        async def marked(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = id
                for name, value in _ALWAYS.items():
                    headers.setdefault(name, value)
            elif head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        with bound_contextvars(request_id=id):
            try:
                await self._app({**scope, "method": "GET"} if head else scope, receive, marked)
            except Exception as error:
                if begun:
                    raise  # the server closes the connection: half an answer cannot be mended
                log.exception("request_failed", path=scope["path"], exc_info=error)
                failure = ControlPlaneError("something went wrong here; the log of the control plane says what")
                await problem(failure)(scope, receive, marked)
