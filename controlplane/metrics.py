"""Figures for monitoring: what is open, what ends and does not, how Vault answers; never a label for one grant.

With several processes on one listener each keeps its figures in a file of its own, and whoever is asked adds them up.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.values import ValueClass
from typing_extensions import override

from controlplane.model.drift import Code
from controlplane.model.errors import ControlPlaneError
from controlplane.model.grant import Grant, State
from controlplane.model.orphan import OrphanKind
from controlplane.ports import Clock, Cursors, Store

log = structlog.stdlib.get_logger(__name__)

OPEN: Final = (State.PENDING, State.APPROVED, State.ISSUING, State.ACTIVE, State.REVOKING, State.IRREVOCABLE)
_SPANS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CALLS: Final = (
    ("/login", "login"),
    ("auth/token/", "token"),
    ("sys/leases/", "lease"),
    ("sys/wrapping/", "wrap"),
    ("/creds/", "credential"),
    ("/issue/", "credential"),
)


class Metrics:
    """One for each process. Every label has a handful of values, known before anybody asks for anything (L13)."""

    def __init__(
        self,
        *,
        clock: Clock,
        store: Store,
        cursors: Cursors | None = None,
        sinks: Sequence[str] = (),
        ahead: Callable[[], timedelta] = timedelta,
    ) -> None:
        own = CollectorRegistry()
        self._requests = Histogram(
            "shorthold_http_request_seconds",
            "Requests answered, by route template.",
            ("method", "route", "status"),
            registry=own,
            buckets=_SPANS,
        )
        self._calls = Histogram(
            "shorthold_vault_call_seconds",
            "Calls to Vault, by what they are for and how they ended.",
            ("call", "outcome"),
            registry=own,
            buckets=_SPANS,
        )
        self._claims = Counter("shorthold_claims", "Due grants that a worker took up.", registry=own)
        self._revocations = Counter(
            "shorthold_revocations", "Grants that were proved gone, or not quite.", ("verified",), registry=own
        )
        self._drift = Gauge(
            "shorthold_drift",
            "Findings of the last look for drift, by code; only where the worker looks.",
            ("code",),
            registry=own,
            multiprocess_mode="livesum",
        )
        self._shared = bool(getattr(ValueClass, "_multiprocess", False))
        self._own = own
        self._store = _StoreFigures(clock, store, cursors, sinks, ahead)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        registry = self._own
        if self._shared:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        stored = CollectorRegistry()
        stored.register(self._store)
        return generate_latest(registry) + generate_latest(stored)

    def request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """A request was answered; `route` is its template, None where nothing is there."""
        known = method if method in _METHODS else "other"
        self._requests.labels(known, route or "none", str(status)).observe(seconds)

    def vault_call(self, path: str, status: int | None, seconds: float) -> None:
        """Vault answered with `status`, or None: not at all."""
        call = next((name for part, name in _CALLS if part in path), "other")
        outcome = "none" if status is None else f"{status // 100}xx"
        self._calls.labels(call, outcome).observe(seconds)

    def drift(self, found: Mapping[Code, int]) -> None:
        """The last look for drift found so many of each."""
        for code in Code:
            self._drift.labels(code.value).set(found.get(code, 0))

    def reaping(self, reap: Callable[[Grant], Grant]) -> Callable[[Grant], Grant]:
        """`reap`, counted."""

        def counted(grant: Grant) -> Grant:
            self._claims.inc()
            after = reap(grant)
            if after.state is State.REVOKED and grant.state is not State.REVOKED and after.receipt is not None:
                self._revocations.labels("yes" if after.receipt.verified else "no").inc()
            return after

        return counted


class _StoreFigures(Collector):
    """What the store knows when it is asked: open grants only, over their indexes."""

    def __init__(
        self,
        clock: Clock,
        store: Store,
        cursors: Cursors | None,
        sinks: Sequence[str],
        ahead: Callable[[], timedelta],
    ) -> None:
        self._clock, self._store, self._cursors, self._sinks, self._ahead = clock, store, cursors, sinks, ahead

    @override
    def collect(self) -> Iterator[Metric]:
        ahead = GaugeMetricFamily(
            "shorthold_clock_ahead_seconds",
            "How far this machine's clock is ahead of the one that all replicas follow.",
        )
        ahead.add_metric((), self._ahead().total_seconds())
        yield ahead
        up = GaugeMetricFamily("shorthold_store_up", "Whether the store answers.")
        try:
            figures = list(self._figures())
        except ControlPlaneError as error:
            log.warning("store_not_measured", code=error.code, detail=error.detail)
            up.add_metric((), 0)
            yield up
            return
        up.add_metric((), 1)
        yield up
        yield from figures

    def _figures(self) -> Iterator[Metric]:
        now = self._clock.now()
        found = {tally.state: tally.count for tally in self._store.tallies()}
        grants = GaugeMetricFamily("shorthold_grants", "Open grants, by state.", labels=["state"])
        for state in OPEN:
            grants.add_metric([state.value], found.get(state, 0))
        yield grants
        oldest = GaugeMetricFamily(
            "shorthold_oldest_unconfirmed_revocation_seconds",
            "For how long the oldest revocation has not been confirmed, by state and engine.",
            labels=["state", "engine"],
        )
        for tally in self._store.tallies(engines=True):
            since = 0.0 if tally.oldest is None else max((now - tally.oldest).total_seconds(), 0.0)
            oldest.add_metric([tally.state.value, tally.engine or "none"], since)
        yield oldest
        there = [orphan.kind for orphan in self._store.orphans()]
        orphans = GaugeMetricFamily("shorthold_orphans", "Orphans that have not ended, by kind.", labels=["kind"])
        for kind in OrphanKind:
            orphans.add_metric([kind.value], there.count(kind))
        yield orphans
        head = self._store.head()
        behind = GaugeMetricFamily(
            "shorthold_sink_behind_events", "Audit events that a sink was not told of yet.", labels=["sink"]
        )
        for sink in self._sinks:
            cursor = None if self._cursors is None else self._cursors.at(sink)
            behind.add_metric([sink], head.seq - cursor.seq if head is not None and cursor is not None else 0)
        yield behind
