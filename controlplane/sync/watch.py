"""Watch for drift: a look every so often, by one replica at a time, that tells what is new and what has ended."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol

import structlog

from controlplane.model.drift import Code, Finding
from controlplane.model.event import Event, Kind
from controlplane.model.plan import Compiled
from controlplane.ports import Clock, Entitlements, Recorder, Store
from controlplane.sync.problem import Problem, Severity

log = structlog.stdlib.get_logger(__name__)

ROUND: Final = "drift"
HOLD: Final = timedelta(minutes=10)
"""How long one look may take before another replica begins one."""


class Reviewed(Entitlements, Protocol):
    """The entitlements, and what is wrong with their files."""

    @property
    def problems(self) -> Sequence[Problem]:
        """Every problem of every file."""
        ...


@dataclass(slots=True, kw_only=True)
class _Told:
    """What this process found last, and in which round. Losing it costs an event that is told once more."""

    findings: frozenset[Finding] = frozenset()
    mark: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchDrift:
    """One round: the look, and an event in the audit log for each finding that is new and each that has ended.

    What was told before this process began, or by another replica, is told once more.
    """

    clock: Clock
    record: Recorder
    store: Store
    entitlements: Reviewed
    find: Callable[[Sequence[Compiled]], Sequence[Finding]]
    every: timedelta
    count: Callable[[Mapping[Code, int]], None]
    strict: Callable[[Collection[Finding], Sequence[Compiled]], None] | None = None
    """Refuses grants of what has drifted; None where drift is told and nothing more."""
    _told: _Told = field(default_factory=_Told)

    def __call__(self) -> bool:
        """Do a round if it is time and nobody else does; whether it was done.

        Raises: StoreUnavailableError, VaultUnavailableError, VaultRefusedError: the next round looks again.
        """
        if self._told.mark and self.store.mark(ROUND) > self._told.mark:
            self.count({})  # another replica has looked since: the figure is its now
        if any(problem.severity is Severity.ERROR for problem in self.entitlements.problems):
            log.warning("drift_not_looked_for", why="an entitlement has an error, so nobody knows what is wanted")
            return False
        if not self.store.begin_round(ROUND, self.clock.now(), hold=HOLD):
            return False
        try:
            wanted = self.entitlements.all()
            found = frozenset(self.find(wanted))
            if self.strict is not None:
                self.strict(found, wanted)
            self._tell(found)
        finally:
            mark = int(self.clock.now().timestamp())
            self.store.end_round(ROUND, self.clock.now() + self.every, mark=mark)
        self._told.findings, self._told.mark = found, mark
        self.count(Counter(finding.code for finding in found))
        return True

    def _tell(self, found: frozenset[Finding]) -> None:
        before = self._told.findings
        events = [
            *(self._event(Kind.DRIFT_FOUND, finding) for finding in sorted(found - before)),
            *(self._event(Kind.DRIFT_ENDED, finding) for finding in sorted(before - found)),
        ]
        if events:
            with self.store.transaction() as tx:
                tx.append(*events)
        for finding in sorted(found - before):
            log.error("drift_found", code=finding.code, path=finding.path, detail=finding.detail, repair=finding.repair)

    def _event(self, kind: Kind, finding: Finding) -> Event:
        told = {"code": finding.code, "path": finding.path, "detail": finding.detail, "meaning": finding.meaning}
        return self.record(kind, **told, repair=finding.repair)
