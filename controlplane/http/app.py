"""The HTTP application: routes, problems and the worker's life."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane import __version__
from controlplane.http import approvals, audit, entitlements, freezes, grants, health, problems, reviews
from controlplane.wiring import ControlPlane

_LARGEST_BODY: Final = 64 * 1024


def create_app(plane: ControlPlane, *, worker: bool = True) -> FastAPI:
    """The application over `plane`; with `worker` its worker and its outbox live as long as it does."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncGenerator[None]:
        del app
        if worker:
            plane.worker.start()
            plane.outbox.start()
        yield
        if worker:
            await run_in_threadpool(plane.worker.stop)
            await run_in_threadpool(plane.outbox.stop)
        await run_in_threadpool(plane.close)

    app = FastAPI(
        title="Shorthold",
        version=__version__,
        summary="Access that is let to one task, and provably gone afterwards.",
        lifespan=life,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # it would send a bearer token wherever the Host header says
    )
    app.state.plane = plane
    for part in (grants, approvals, reviews, entitlements, freezes, audit, health):
        app.include_router(part.router)
    problems.install(app)
    app.add_middleware(_SmallBodies)
    app.add_middleware(_NoStore)
    return app


class _SmallBodies:
    """Refuses a body over 64 KiB while it arrives, whatever its headers promise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > _LARGEST_BODY:
                # FastAPI makes a 400 of whatever else is raised while it reads a body.
                raise HTTPException(413, f"the body is larger than {_LARGEST_BODY} bytes")
            return message

        await self._app(scope, counted, send)


class _NoStore:
    """No answer is kept by anybody on its way: some hold what opens a door, and all are soon out of date."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Cache-Control"] = "no-store"
            await send(message)

        await self._app(scope, receive, marked)
