"""One clock for all replicas: the database's, carried on by our monotonic clock from one look to the next."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from controlplane.model.errors import ControlPlaneError
from controlplane.ports import Clock, Meanwhile

LOOK_AGAIN: Final = timedelta(seconds=10)
SLOWEST: Final = timedelta(seconds=1)
"""A look that took longer tells too little: it may be wrong by half of that."""
_FIRST_LOOKS: Final = 3
_SINCE_BOOT: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux' monotonic clock stands still while the machine is suspended, and tokens do not live longer for that."""


def _since_boot() -> float:
    return time.clock_gettime(_SINCE_BOOT)


class StoreClock:
    """Fits the port Clock: this machine's clock, until it follows a database's. Thread-safe; asking it never waits.

    Once it follows, stepping this machine's clock changes nothing; while the database is away it goes on as it went.
    """

    def __init__(self, own: Clock, beside: Meanwhile, *, monotonic: Callable[[], float] = _since_boot) -> None:
        self._own, self._beside, self._monotonic = own, beside, monotonic
        self._ask: Callable[[], datetime] | None = None
        self._seen: _Look | None = None
        self._again_at = 0.0
        self._looking = threading.Lock()

    def now(self) -> datetime:
        """The instant, aware UTC."""
        seen, monotonic = self._seen, self._monotonic()  # read once: another thread may replace it
        if seen is None:
            return self._own.now()
        if monotonic >= self._again_at and self._looking.acquire(blocking=False):
            self._look_again()
        return seen.instant + timedelta(seconds=monotonic - seen.at)

    def ahead(self) -> timedelta:
        """Fits the port Skew: how far this machine's own clock is ahead of the one that all replicas follow."""
        return self._own.now() - self.now()

    def follow(self, ask: Callable[[], datetime]) -> None:
        """Be from now on the clock that `ask` tells of. Raises: StoreUnavailableError: it tells nothing."""
        # The first look may also have opened a connection; there is no clock yet that a slow one would spoil.
        self._seen = min((self._look(ask) for _ in range(_FIRST_LOOKS)), key=lambda look: look.took)
        self._again_at = self._monotonic() + LOOK_AGAIN.total_seconds()
        self._ask = ask

    def _look_again(self) -> None:
        try:
            self._beside(self._renew)
        except RuntimeError:  # the process is ending, and takes on nothing new
            self._looking.release()

    def _renew(self) -> None:
        try:
            with suppress(ControlPlaneError):  # whoever needs the database will say that it is away
                if self._ask is not None and (look := self._look(self._ask)).took <= SLOWEST:
                    self._seen = look
        finally:
            self._again_at = self._monotonic() + LOOK_AGAIN.total_seconds()
            self._looking.release()

    def _look(self, ask: Callable[[], datetime]) -> "_Look":
        before = self._monotonic()
        instant = ask().astimezone(UTC)
        after = self._monotonic()
        return _Look(instant=instant, at=(before + after) / 2, took=timedelta(seconds=after - before))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    instant: datetime
    at: float
    """On our monotonic clock: halfway between question and answer, and so wrong by half of `took` at most."""
    took: timedelta
