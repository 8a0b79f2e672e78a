"""How many grants are worked on at a time: fewer while Vault is overloaded or away, more again when it recovers."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import Final

from controlplane.ports import Clock

_BETWEEN: Final = timedelta(seconds=1)
"""Whatever fails within it tells of the same trouble once."""
_MORE: Final = 1 / 64
"""By what part of all threads each good answer lets more work at a time."""
_LEAST: Final = 1 / 64
_LOOK: Final = 0.2


class Pace:
    """The part of its threads that a worker may use: halved by trouble, a little more with each good answer.

    Source: additive increase, multiplicative decrease, as TCP does it (RFC 5681 3.1).
    """

    def __init__(self, clock: Clock) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._part, self._troubled = 1.0, clock.now() - _BETWEEN

    def saw(self, status: int | None) -> None:
        """Vault answered so; None: not at all."""
        trouble = status is None or status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        if not trouble and self._part >= 1.0:
            return  # as nearly always
        now = self._clock.now()
        with self._lock:
            if not trouble:
                self._part = min(self._part + _MORE, 1.0)
            elif now - self._troubled >= _BETWEEN:
                self._part, self._troubled = max(self._part / 2, _LEAST), now

    def of(self, threads: int) -> int:
        """So many of these threads may work now; one always may."""
        return max(int(threads * self._part), 1)


class Turns:
    """Lets only so many threads work at a time as the pace allows now."""

    def __init__(self, threads: int, pace: Pace) -> None:
        self._threads, self._pace = threads, pace
        self._free, self._working = threading.Condition(), 0

    @contextmanager
    def turn(self) -> Generator[None]:
        """Wait for a turn, and have it for the block."""
        with self._free:
            while self._working >= self._pace.of(self._threads):
                self._free.wait(_LOOK)  # it may become faster while nobody ends his turn
            self._working += 1
        try:
            yield
        finally:
            with self._free:
                self._working -= 1
                self._free.notify()
