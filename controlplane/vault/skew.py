"""How far our clock is from the server's, as the `Date` of its answers says (RFC 9110 6.6.1)."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from controlplane.model.errors import ControlPlaneError
from controlplane.ports import Clock
from controlplane.vault.transport import Transport

LOOK_AGAIN: Final = timedelta(seconds=30)
_PATIENCE: Final = timedelta(seconds=2)
_TICK: Final = timedelta(seconds=1)
"""A `Date` has whole seconds, cut off."""


class VaultSkew:
    """Fits the port Skew. The server is asked once in LOOK_AGAIN at most, without a token. Thread-safe."""

    def __init__(self, transport: Transport, clock: Clock, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._transport, self._clock, self._monotonic = transport, clock, monotonic
        self._lock = threading.Lock()
        self._seen: timedelta | None = None
        self._looked_at = float("-inf")

    def __call__(self) -> timedelta | None:
        """How far ahead our clock is, at least; None where the server does not say."""
        with self._lock:
            if self._monotonic() - self._looked_at >= LOOK_AGAIN.total_seconds():
                self._seen = self._look()
                self._looked_at = self._monotonic()
            return self._seen

    def _look(self) -> timedelta | None:
        before = self._clock.now()
        try:
            dated = _instant(self._transport.date("sys/seal-status", timeout=_PATIENCE))
        except ControlPlaneError:
            return None
        if dated is None:
            return None
        after = self._clock.now()
        # It was dated between the two: what the way took, and the rest of its second, is no difference of clocks.
        if after < dated:
            return after - dated
        return max(before - (dated + _TICK), timedelta(0))


def _instant(text: str | None) -> datetime | None:
    try:
        found = None if text is None else parsedate_to_datetime(text)
        return None if found is None or found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
