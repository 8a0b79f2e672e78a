"""The entitlements as they stand in a directory now, compiled: what the control plane grants from."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import structlog

from controlplane.engines import engines
from controlplane.model.access import AccessRule
from controlplane.model.errors import ConfigurationError
from controlplane.model.identity import KnownIssuer
from controlplane.model.plan import Compiled, Layout
from controlplane.ports import Clock
from controlplane.sync.problem import Problem, Severity
from controlplane.sync.review import review

_LOOK_AGAIN = 1.0  # seconds

log = structlog.stdlib.get_logger(__name__)

_Stamp = tuple[date, tuple[tuple[str, int, int, int], ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Snapshot:
    stamp: _Stamp | None
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
        self._directory, self._layout, self._clock, self._monotonic = directory, layout, clock, monotonic
        self._lock = threading.Lock()
        self._snapshot = _Snapshot(stamp=None, by_name={}, problems=())
        self._looked_at = float("-inf")

    def get(self, name: str) -> Compiled | None:
        """The entitlement of that name, None where there is none or it has an error."""
        return self._now().by_name.get(name)

    def all(self) -> Sequence[Compiled]:
        """Every sound entitlement, by name."""
        return tuple(self._now().by_name.values())

    @property
    def problems(self) -> Sequence[Problem]:
        """What is wrong with the files as they stand."""
        return self._now().problems

    def _now(self) -> _Snapshot:
        if self._monotonic() - self._looked_at < _LOOK_AGAIN:
            return self._snapshot
        with self._lock:
            if self._monotonic() - self._looked_at >= _LOOK_AGAIN:  # nobody else has looked while we waited
                known, self._snapshot = self._snapshot, self._look(self._snapshot)
                _tell(known.problems, self._snapshot.problems)
                self._looked_at = self._monotonic()
            return self._snapshot

    def _look(self, known: _Snapshot) -> _Snapshot:
        today = self._clock.now().date()  # exceptions expire at midnight UTC although no file changes
        stamp = None
        try:
            stamp = (today, _files(self._directory))
            if stamp == known.stamp:
                return known
            found = review(
                self._directory,
                self._layout,
                engines(),
                today=today,
                issuers=self._issuers,
                access=self._access,
            )
        except (OSError, ConfigurationError) as error:
            problem = Problem(str(self._directory), 1, 1, "unreadable", str(error), Severity.ERROR)
            return _Snapshot(stamp=None, by_name={}, problems=(problem,))
        by_name = {item.entitlement.name: item for item in found.compiled}
        return _Snapshot(stamp=stamp, by_name=by_name, problems=found.problems)


def _tell(known: Sequence[Problem], found: Sequence[Problem]) -> None:
    """Log what is wrong now and was not before: nobody else would say why an entitlement is not there."""
    for problem in found:
        if problem not in known:
            refused = problem.severity is Severity.ERROR
            event = "entitlement_left_out" if refused else "entitlement_doubtful"
            place = f"{problem.file}:{problem.line}:{problem.column}"
            (log.error if refused else log.warning)(event, place=place, rule=problem.rule, message=problem.message)


def _files(directory: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Name, inode, size and time of every file: whatever is written changes one of them."""
    with os.scandir(directory) as entries:
        found = [(entry.name, _stat(entry)) for entry in entries]
    return tuple(sorted((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found if stat))


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError:
        return None  # a dangling link, or gone while we looked
