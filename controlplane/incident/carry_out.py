"""Carry cuts out: take in what is selected, save that it ends, riskiest first, and ask Vault; proof is the worker's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from controlplane.grants.ask_to_end import AskToEnd
from controlplane.grants.finish import ending
from controlplane.model.cut import OPEN, Cut, Outcome
from controlplane.model.entitlement import Risk
from controlplane.model.errors import InvalidSelectionError
from controlplane.model.event import Event, Kind
from controlplane.model.grant import Grant, State, Why
from controlplane.model.selection import Selection
from controlplane.ports import Clock, Recorder, Store
from controlplane.selectors import selection

_BATCH = 100
"""Ends that one transaction saves: others write in between."""
_RANK = {Risk.HIGH: timedelta(seconds=2), Risk.MEDIUM: timedelta(seconds=1), Risk.LOW: timedelta(0)}
"""By how much sooner it is due than others: the worker takes what is due longest."""
_TO_END = timedelta(milliseconds=11)
"""About what it takes until one login has ended at a database: proofs begin when all have, for each delays an end."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CarryOutCuts:
    """What every replica's worker does at each tick. All of it is in the store: whoever dies, another goes on."""

    clock: Clock
    record: Recorder
    store: Store
    ask: AskToEnd

    def __call__(self) -> int:
        """Bring every cut that runs one step on; how many grants begin to end by it. Several at once are fine.

        Raises: StoreUnavailableError: the next call goes on.
        """
        ended = 0
        for cut in self.store.cuts(running=True):
            try:
                wanted = selection(cut.selection)
            except InvalidSelectionError as error:  # a newer release ordered it, and that one's replicas carry it out
                log.warning("cut_not_understood", cut=cut.id, detail=error.detail)
                continue
            ended += self._carry_out(cut, wanted)
        return ended

    def _carry_out(self, cut: Cut, wanted: Selection) -> int:
        self._take(cut, wanted)
        due = self.clock.now() + _TO_END * self.store.progress(cut.id).of(Outcome.WAITING)
        ended = 0
        while some := self._end_some(cut, due):
            ended += some
        if ended == 0 and not self.store.progress(cut.id).of(*OPEN):
            self._close(cut, wanted)
        return ended

    def _close(self, cut: Cut, wanted: Selection) -> None:
        # Whoever decided before the freeze has saved his grant when this returns: it is taken in, or there is none.
        self.store.settle_freezes()
        if self._take(cut, wanted):
            return
        progress = self.store.progress(cut.id)
        with self.store.transaction() as tx:
            counts = {outcome.value: count for outcome, count in progress.counts.items()}
            at = max(self.clock.now(), cut.ordered_at)
            tx.end_cut(cut.over(at), self.record(Kind.CUT_ENDED, cut=cut.id, incident=cut.incident, **counts))

    def _take(self, cut: Cut, wanted: Selection) -> bool:
        if not self.store.untaken(cut, wanted):
            return False  # most looks end here, and then nobody who writes has to wait
        with self.store.transaction() as tx:
            tx.take(cut, wanted)
        return True

    def _end_some(self, cut: Cut, due: datetime) -> int:
        with self.store.transaction() as tx:
            batch = tx.next_of_cut(cut.id, limit=_BATCH)
            ends = self._ends(cut, batch, due)
            for grant, event in ends:
                tx.save(grant, event)
        self.ask([grant for grant, _ in ends if grant.state is State.REVOKING])
        return len(batch)

    def _ends(self, cut: Cut, batch: Sequence[tuple[Grant, Risk]], due: datetime) -> Sequence[tuple[Grant, Event]]:
        ends: list[tuple[Grant, Event]] = []
        for grant, risk in batch:
            if (step := ending(grant, Why.CUT, at=self.clock.now())) is not None:
                ended, kind = step
                event = self.record(kind, grant.id, why=Why.CUT, cut=cut.id, incident=cut.incident)
                ends.append((_due(ended, due - _RANK[risk]), event))
        return ends


def _due(ended: Grant, at: datetime) -> Grant:
    return replace(ended, due_at=at) if ended.state is State.REVOKING else ended
