"""Threads are what requests compete for: some are kept for what ends access, so that it never waits for what asks."""

from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar, cast

import anyio.to_thread
from fastapi import FastAPI, Request

from controlplane.http.refusals import BusyError

ENDING: Final = "ending"
"""The tag of a route that ends or forbids access: it has threads and a rate of its own, and is never `busy`."""

_RESERVED: Final = 8
_LONGEST_QUEUE: Final = 200

_P = ParamSpec("_P")
_T = TypeVar("_T")


def reserve(app: FastAPI) -> None:
    """Give `app` its own threads for the routes with the tag `ENDING`."""
    app.state.ending_threads = anyio.CapacityLimiter(_RESERVED)


def is_ending(request: Request) -> bool:
    """Whether the request's route ends access."""
    tags: object = getattr(request.scope.get("route"), "tags", ())
    return ENDING in cast("list[str]", tags)


async def in_thread(request: Request, call: Callable[_P, _T], *args: _P.args, **options: _P.kwargs) -> _T:
    """What `call` returns, from a thread that its kind of route may have.

    Raises: BusyError: the route ends nothing, and too many wait for a thread already.
    """

    def ready() -> _T:
        return call(*args, **options)

    if is_ending(request):
        kept: Any = request.app.state.ending_threads
        return await anyio.to_thread.run_sync(ready, limiter=kept)
    if anyio.to_thread.current_default_thread_limiter().statistics().tasks_waiting >= _LONGEST_QUEUE:
        raise BusyError("too many requests wait already")
    return await anyio.to_thread.run_sync(ready)
