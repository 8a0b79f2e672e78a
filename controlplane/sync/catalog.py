"""The entitlements as they stand in a directory now, compiled: what the control plane grants from."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import structlog

from controlplane.engines import engines
from controlplane.model.access import AccessRule
from controlplane.model.identity import KnownIssuer
from controlplane.model.plan import Compiled, Layout
from controlplane.ports import Clock
from controlplane.sync.files import Fresh, stamps
from controlplane.sync.problem import Problem, Severity
from controlplane.sync.review import review

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Snapshot:
    by_name: Mapping[str, Compiled]
    problems: tuple[Problem, ...]


class Catalog:
    """Fits `ports.Entitlements`. Looks for changed files once a second at most; safe for threads.

    What has an error is not in it, and when the directory itself cannot be read, nothing is: it fails closed.
    """

    def __init__(
        self,
        directory: Path,
        layout: Layout,
        clock: Clock,
        *,
        issuers: Mapping[str, KnownIssuer] | None = None,
        access: Sequence[AccessRule] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuers, self._access = issuers, access
        self._told: frozenset[Problem] = frozenset()
        self._directory, self._layout, self._clock = directory, layout, clock
        self._fresh = Fresh(
            # Exceptions expire at midnight UTC although no file changes.
            lambda: (self._today(), stamps(directory)),
            self._reviewed,
            self._unreadable,
            monotonic=monotonic,
        )

    def get(self, name: str) -> Compiled | None:
        """The entitlement of that name, None where there is none or it has an error."""
        return self._fresh.now().by_name.get(name)

    def all(self) -> Sequence[Compiled]:
        """Every sound entitlement, by name."""
        return tuple(self._fresh.now().by_name.values())

    @property
    def problems(self) -> Sequence[Problem]:
        """What is wrong with the files as they stand."""
        return self._fresh.now().problems

    def _today(self) -> date:
        return self._clock.now().date()

    def _reviewed(self) -> _Snapshot:
        found = review(
            self._directory,
            self._layout,
            engines(),
            today=self._today(),
            issuers=self._issuers,
            access=self._access,
        )
        self._tell(found.problems)
        return _Snapshot(by_name={item.entitlement.name: item for item in found.compiled}, problems=found.problems)

    def _unreadable(self, error: Exception) -> _Snapshot:
        problem = Problem(str(self._directory), 1, 1, "unreadable", str(error), Severity.ERROR)
        self._tell((problem,))
        return _Snapshot(by_name={}, problems=(problem,))

    def _tell(self, problems: Sequence[Problem]) -> None:
        """Log what is wrong now and was not before: nobody else would say why an entitlement is not there."""
        for problem in problems:
            if problem not in self._told:
                refused = problem.severity is Severity.ERROR
                event = "entitlement_left_out" if refused else "entitlement_doubtful"
                place = f"{problem.file}:{problem.line}:{problem.column}"
                (log.error if refused else log.warning)(event, place=place, rule=problem.rule, message=problem.message)
        self._told = frozenset(problems)
