"""Wait for something without holding a thread: look, sleep a little longer each time, look again."""

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Final, TypeVar

import anyio
from pydantic import WithJsonSchema
from starlette.concurrency import run_in_threadpool

from controlplane.model.duration import PATTERN, Duration

Seen = TypeVar("Seen")

Span = Annotated[Duration, WithJsonSchema({"type": "string", "pattern": PATTERN, "examples": ["5m", "PT5M"]})]
"""A duration in a body or a query, described exactly."""

_LONGEST_WAIT: Final = 60.0
_FIRST_PAUSE: Final = 0.02  # seconds: most ends are proved within a few of these
_LONGEST_PAUSE: Final = 0.5
_LONGER: Final = 1.2


def seconds(wait: timedelta | None) -> float:
    """How long to wait: a minute at most; not at all without it."""
    return 0.0 if wait is None else min(wait.total_seconds(), _LONGEST_WAIT)


async def until(look: Callable[[], Seen], done: Callable[[Seen], bool], *, patience: float) -> Seen:
    """What `look` sees once it is `done`, or when `patience` seconds are over. `look` runs in a thread of the pool."""
    seen, pause = await run_in_threadpool(look), _FIRST_PAUSE
    with anyio.move_on_after(patience):
        while patience and not done(seen):
            await anyio.sleep(pause)
            pause = min(pause * _LONGER, _LONGEST_PAUSE)
            seen = await run_in_threadpool(look)
    return seen
