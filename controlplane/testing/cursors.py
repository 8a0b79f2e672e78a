"""How far each sink was told, in memory; the contract suite proves that it keeps to what SQL keeps to."""

import threading
from dataclasses import replace
from datetime import datetime, timedelta

from controlplane.model.cursor import SinkCursor
from controlplane.model.errors import LostRaceError


class FakeCursors:
    """Fits the port Cursors."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_sink: dict[str, SinkCursor] = {}

    def at(self, sink: str) -> SinkCursor | None:
        """The cursor as it stands."""
        return self._by_sink.get(sink)

    def claim(self, sink: str, now: datetime, *, hold: timedelta, start: int) -> SinkCursor | None:
        """The cursor, held until `now + hold`; one that is not there yet is made at `start`."""
        with self._lock:
            plain = SinkCursor(sink=sink, seq=start, attempts=0, due_at=now, held_until=None)
            seen = self._by_sink.setdefault(sink, plain)
            if seen.due_at > now or (seen.held_until is not None and seen.held_until > now):
                return None
            self._by_sink[sink] = replace(seen, held_until=now + hold)
            return self._by_sink[sink]

    def save(self, claimed: SinkCursor, now: SinkCursor) -> None:
        """Save how far it has come. Raises: LostRaceError: it was taken over."""
        with self._lock:
            seen = self._by_sink.get(claimed.sink)
            if seen is None or seen.held_until != claimed.held_until or seen.seq > now.seq:
                raise LostRaceError(f"another replica tells the sink {claimed.sink} now")
            self._by_sink[claimed.sink] = now
