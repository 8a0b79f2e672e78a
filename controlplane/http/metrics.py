"""`/metrics` for monitoring, and the measuring of every request by its route's template."""

import time
from typing import Final

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.http.caller import From, Plane
from controlplane.http.description import answers
from controlplane.metrics import Metrics
from controlplane.model.errors import NotFoundError

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    response_description="The figures.",
    responses=answers({}, NotFoundError),
    response_model=None,
)
def metrics(plane: Plane, address: From) -> Response:
    """Figures for Prometheus, to whoever asks from a network of `api.monitoring`; to others there is no such page."""
    if address is None or not any(address in network for network in plane.monitoring):
        raise NotFoundError("there is no such page")
    return Response(plane.metrics.text(), media_type=CONTENT_TYPE)


class Measured:
    """Counts and times every request; what is asked for is never a label, only the template that it matched."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and measure it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, begun = 500, time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            template = getattr(scope.get("route"), "path", None)
            self._metrics.request(scope["method"], template, status, time.perf_counter() - begun)
