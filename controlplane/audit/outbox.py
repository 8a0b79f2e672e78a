"""Tell a sink of every audit event, in the order of the chain, at least once each.

A cursor in the store says how far a sink was told. It moves only after the sink has taken the event, so that a crash
repeats events and never loses one; their ids tell a repetition. Whoever tells holds the cursor, so that of several
replicas one tells, and a hold that its replica did not survive runs out.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from controlplane.model.cursor import SinkCursor
from controlplane.model.errors import (
    ControlPlaneError,
    LostRaceError,
    SinkUnavailableError,
    StoreUnavailableError,
)
from controlplane.model.event import Kind
from controlplane.ports import Clock, Cursors, Sink, Store

HOLD: Final = timedelta(minutes=2)
"""How long a cursor is left to its teller. Half of it is for telling: no single event may take longer than the rest."""
LONGEST: Final = timedelta(seconds=30)
"""How long a sink may take for one event."""
_PAGE: Final = 100
_FIRST_RETRY, _LAST_RETRY = timedelta(seconds=1), timedelta(minutes=5)

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TellSink:
    """One sink by its name, told of `kinds`, None being all; `everything` begins with the chain, not with now."""

    name: str
    sink: Sink
    kinds: frozenset[Kind] | None
    everything: bool
    clock: Clock
    store: Store
    cursors: Cursors

    def __call__(self, stopping: Callable[[], bool] = lambda: False) -> bool:
        """Tell what is new; whether more waits and the sink takes it. Repeating it is what it is made for.

        Raises: StoreUnavailableError: the cursor or the chain cannot be read or written; what was told is told again.
        """
        head, seen = self.store.head(), self.cursors.at(self.name)
        if head is None or (seen is not None and seen.seq >= head.seq):
            return False
        claimed = self.cursors.claim(self.name, self.clock.now(), hold=HOLD, start=0 if self.everything else head.seq)
        if claimed is None:
            return False
        seq, error = self._tell(claimed, stopping)
        try:
            self.cursors.save(claimed, self._after(claimed, seq, error))
        except LostRaceError:
            log.warning("sink_taken_over", sink=self.name)
            return False
        if error is None and claimed.attempts:
            log.info("sink_recovered", sink=self.name, attempts=claimed.attempts)
        return error is None and claimed.seq < seq < head.seq and not stopping()

    def _tell(self, claimed: SinkCursor, stopping: Callable[[], bool]) -> tuple[int, ControlPlaneError | None]:
        """The last event that was told or is not for this sink, and what stopped it there."""
        until, seq = self.clock.now() + HOLD / 2, claimed.seq
        try:
            for link in self.store.links(after=claimed.seq, limit=_PAGE):
                if stopping() or self.clock.now() >= until:
                    break
                if self.kinds is None or link.event.kind in self.kinds:
                    self.sink.tell(link)
                seq = link.seq
        except (SinkUnavailableError, StoreUnavailableError) as error:
            return seq, error  # also a record that cannot be read: perhaps another replica can
        return seq, None

    def _after(self, claimed: SinkCursor, seq: int, error: ControlPlaneError | None) -> SinkCursor:
        now = self.clock.now()
        if error is None:
            return replace(claimed, seq=seq, attempts=0, due_at=now, held_until=None)
        attempts = 1 + (claimed.attempts if seq == claimed.seq else 0)
        again = now + _back_off(f"{self.name}{seq}", attempts)
        said = {"sink": self.name, "seq": seq + 1, "attempts": attempts, "again_at": _second(again)}
        log.warning("sink_not_told", **said, code=error.code, detail=error.detail)
        return replace(claimed, seq=seq, attempts=attempts, due_at=again, held_until=None)


def _back_off(what: str, attempts: int) -> timedelta:
    """Doubling from a second to five minutes, give or take a quarter that differs from sink to sink."""
    span = min(_FIRST_RETRY * 2 ** min(attempts - 1, 10), _LAST_RETRY)
    jitter = hashlib.sha256(f"{what}{attempts}".encode()).digest()[0] / 255
    return span * (0.75 + jitter / 2)


def _second(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
