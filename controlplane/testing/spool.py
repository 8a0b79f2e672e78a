"""A spool in memory."""

from collections.abc import Sequence

from controlplane.model.event import Event


class FakeSpool:
    """Fits the port Spool."""

    def __init__(self) -> None:
        self._kept: list[Event] = []

    def put(self, event: Event) -> None:
        """Keep it, once for its kind and grant."""
        if all((kept.kind, kept.grant) != (event.kind, event.grant) for kept in self._kept):
            self._kept.append(event)

    def waiting(self) -> Sequence[Event]:
        """Those that are kept, oldest first."""
        return sorted(self._kept, key=lambda event: event.at)

    def forget(self, event: Event) -> None:
        """Let go of one."""
        self._kept = [kept for kept in self._kept if kept.id != event.id]
