"""A clock that stands still until it is told to go on."""

from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
"""A Monday morning."""


class FakeClock:
    """Fits the Clock port: `now` is what it was set to, whatever the world's time is."""

    def __init__(self, now: datetime = START) -> None:
        if now.tzinfo is None:
            raise ValueError("an instant needs a time zone")
        self._now = now.astimezone(UTC)

    def now(self) -> datetime:
        """The instant, aware UTC."""
        return self._now

    def advance(self, span: timedelta) -> datetime:
        """Move the clock by `span`, which may be negative: clocks are stepped back. Gives the new instant."""
        self._now += span
        return self._now
