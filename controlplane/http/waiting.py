"""Wait for something without holding a thread: look, sleep a little longer each time, look again."""

from collections.abc import Callable
from typing import Final, TypeVar

import anyio
from starlette.concurrency import run_in_threadpool

from controlplane.model.duration import parse_duration
from controlplane.model.errors import InvalidRequestError

Seen = TypeVar("Seen")

_LONGEST_WAIT: Final = 60.0
_FIRST_PAUSE: Final = 0.02  # seconds: most ends are proved within a few of these
_LONGEST_PAUSE: Final = 0.5
_LONGER: Final = 1.2


def seconds(wait: str | None) -> float:
    """How long to wait: `10s`, a minute at most; not at all without it. Raises: InvalidRequestError."""
    if wait is None:
        return 0.0
    try:
        return min(parse_duration(wait).total_seconds(), _LONGEST_WAIT)
    except ValueError as error:
        raise InvalidRequestError(f"wait: {error}") from None


async def until(look: Callable[[], Seen], done: Callable[[Seen], bool], *, patience: float) -> Seen:
    """What `look` sees once it is `done`, or when `patience` seconds are over. `look` runs in a thread of the pool."""
    seen, pause = await run_in_threadpool(look), _FIRST_PAUSE
    with anyio.move_on_after(patience):
        while patience and not done(seen):
            await anyio.sleep(pause)
            pause = min(pause * _LONGER, _LONGEST_PAUSE)
            seen = await run_in_threadpool(look)
    return seen
