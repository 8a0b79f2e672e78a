"""Wait for something without holding a thread: look, sleep a little longer each time, look again."""

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Final, TypeVar

import anyio
import anyio.to_thread
from pydantic import WithJsonSchema

from controlplane.model.duration import PATTERN, Duration
from controlplane.model.identity import WorkloadId

Seen = TypeVar("Seen")

Span = Annotated[Duration, WithJsonSchema({"type": "string", "pattern": PATTERN, "examples": ["5m", "PT5M"]})]
"""A duration in a body or a query, described exactly."""

MOST_OF_ONE: Final = 10
"""How many requests of one workload wait at a time; the next is answered at once."""
MOST_OF_ALL: Final = 400
"""How many requests of all workloads wait at a time, in one process."""

_THREADS: Final = 8
_LONGEST_WAIT: Final = 60.0
_FIRST_PAUSE: Final = 0.02  # seconds: most ends are proved within a few of these
_LONGEST_PAUSE: Final = 0.5
_LONGER: Final = 1.2


def seconds(wait: timedelta | None) -> float:
    """How long to wait: a minute at most; not at all without it."""
    return 0.0 if wait is None else min(wait.total_seconds(), _LONGEST_WAIT)


class Waiters:
    """Who waits in this process: so few, and by threads of their own, that waiting delays nobody who only asks.

    For one event loop. `each` is how many requests of one workload may wait at a time, `most` how many of all.
    """

    def __init__(self, *, each: int = MOST_OF_ONE, most: int = MOST_OF_ALL) -> None:
        self._each, self._most = each, most
        self._waiting: Counter[WorkloadId] = Counter()
        self.threads = anyio.CapacityLimiter(_THREADS)

    def __len__(self) -> int:
        """How many wait."""
        return self._waiting.total()

    @contextmanager
    def enter(self, whose: WorkloadId) -> Generator[bool]:
        """Whether one more request of this workload may wait; it counts until the block is over."""
        if self._waiting[whose] >= self._each or len(self) >= self._most:
            yield False
            return
        self._waiting[whose] += 1
        try:
            yield True
        finally:
            self._waiting[whose] -= 1
            self._waiting += Counter()  # forgets whoever has none left


async def until(
    look: Callable[[], Seen],
    done: Callable[[Seen], bool],
    *,
    seen: Seen,
    waiters: Waiters,
    whose: WorkloadId,
    patience: float,
) -> Seen:
    """What `look` sees once it is `done`, or when `patience` seconds are over; `seen` if too many wait already.

    `look` runs in a thread of the waiters' own, however long the store takes.
    """
    if not patience or done(seen):
        return seen
    pause = _FIRST_PAUSE
    with waiters.enter(whose) as may_wait, anyio.move_on_after(patience):
        while may_wait and not done(seen):
            await anyio.sleep(pause)
            pause = min(pause * _LONGER, _LONGEST_PAUSE)
            seen = await anyio.to_thread.run_sync(look, limiter=waiters.threads)
    return seen
