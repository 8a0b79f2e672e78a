"""Plays one schedule on a site, lets the fault be over and the worker run, and asks the oracle."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from controlplane.dev.process import until
from controlplane.model.errors import ControlPlaneError
from tests.chaos import oracle
from tests.chaos.agents import Told, at_work, client
from tests.chaos.faults import deal
from tests.chaos.schedule import Blow, Schedule
from tests.chaos.site import Site

SETTLED_WITHIN: Final = timedelta(minutes=3)
"""After the last fault, for everything to be as it was decided; seconds do, but the machine may have other work."""
RECONCILED_WITHIN: Final = timedelta(minutes=4)
"""For what only the reconciler finds: whoever dies amid its round keeps the next one waiting for half a minute."""
_LINES: Final = 30
_MOVING: Final = {"issuing", "revoking", "irrevocable"}
_OVER: Final = {"revoked", "lapsed", "denied"}
_SOON: Final = timedelta(seconds=2)


class AmissError(AssertionError):
    """The claim does not hold."""


class LateError(AssertionError):
    """Something is still on its way. Where the machine had too much to do that says nothing; repeat it alone."""


@dataclass
class Report:
    """How it went. `deaths` are those of control planes by kill -9, those by their own hand among them."""

    seed: int
    grants: int = 0
    deaths: int = 0
    by_own_hand: int = 0
    lost: int = 0
    zombies: int = 0
    seconds: float = 0.0
    blows: list[str] = field(default_factory=list[str])
    refused: Counter[str] = field(default_factory=Counter[str])
    """Moves of agents that were refused for good, with the code."""


def play(site: Site, schedule: Schedule) -> Report:
    """Raises: AmissError: the claim does not hold after it. LateError. Their notes say what was played."""
    report, began = Report(schedule.seed), time.monotonic()
    before = {grant["id"] for grant in oracle.grants(site)}
    told = Told()
    for plane in site.planes:
        plane.kill()
        plane.deaths.clear()
    try:
        _disturb(site, schedule, told)
        site.calm()
        _settle(site, lambda: _settled(site, told))
        _judge(site, told, report)
        _settle(site, lambda: _all_ended(site, told))
        _judge(site, told, report)
    except Exception as error:
        log = site.planes[0].log.read_text(encoding="utf-8", errors="replace").splitlines()
        error.add_note(
            "\n".join(
                [
                    f"again: make chaos SEED={schedule.seed} STORE={site.kind}",
                    f"{schedule}",
                    "The end of its log:",
                    *log[-_LINES:],
                ]
            )
        )
        raise
    deaths = sum((plane.deaths for plane in site.planes), Counter[str]())
    report.deaths, report.by_own_hand = deaths.total(), deaths["by its own hand"]
    report.grants = len({grant["id"] for grant in oracle.grants(site)} - before)
    site.granted += report.grants
    report.seconds = time.monotonic() - began
    report.refused = told.refused
    report.blows = [blow.kind for blow in schedule.blows]
    return report


def _disturb(site: Site, schedule: Schedule, told: Told) -> None:
    """Let agents work and things break, until the agents have made all their moves."""
    storm = _Storm(site, schedule)
    agents = [
        at_work(
            site.planes[number % len(site.planes)],
            f"system:serviceaccount:agents:s{schedule.seed}-{number // 2}",  # two of them are the same workload
            f"S{schedule.seed}-{number}",
            moves,
            told,
        )
        for number, moves in enumerate(schedule.agents)
    ]
    while storm.goes_on() or any(agent.is_alive() for agent in agents):
        storm.blow()
        threading.Event().wait(0.01)
    storm.born()


class _Storm:
    """The blows of a schedule, each when it is due, and what ends them; and the next life of whoever died."""

    def __init__(self, site: Site, schedule: Schedule) -> None:
        self._site, self._back_after = site, schedule.back_after
        self._lives = [list(lives) for lives in schedule.lives]
        self._dead: set[int] = set()
        self._births: list[threading.Thread] = []
        for number in range(len(site.planes)):
            self._bear(number)
        self.born()
        began = time.monotonic()
        self._due: list[tuple[float, Callable[[], object]]] = [
            (began + blow.at / 1000, partial(self._deal, blow)) for blow in schedule.blows
        ]

    def born(self) -> None:
        """Wait until whoever was started serves, or is dead."""
        for birth in self._births:
            birth.join()

    def goes_on(self) -> bool:
        """Whether anything is still to come."""
        return bool(self._due)

    def blow(self) -> None:
        """Do what is due now."""
        now = time.monotonic()
        ready = [do for at, do in self._due if at <= now]
        self._due = [entry for entry in self._due if entry[0] > now]
        for do in ready:
            do()
        for number, plane in enumerate(self._site.planes):
            if not plane.alive and number not in self._dead:
                self._dead.add(number)
                self._later(self._back_after, partial(self._bear, number))

    def _deal(self, blow: Blow) -> None:
        if end := deal(self._site, blow):
            self._later(blow.lasts, end)

    def _bear(self, number: int) -> None:
        own = self._lives[number]
        self._births.append(self._site.planes[number].begin(own.pop(0) if own else 0))
        self._dead.discard(number)

    def _later(self, milliseconds: int, do: Callable[[], object]) -> None:
        self._due.append((time.monotonic() + milliseconds / 1000, do))


def _settle(site: Site, settled: Callable[[], bool]) -> None:
    """Let the workers run until it is so; who dies by its own hand meanwhile is started again."""

    def tried() -> bool:
        site.revive()
        return settled()

    if not until(tried, SETTLED_WITHIN, every=0.1):
        left = [(g["id"], g["state"], g["failing"]) for g in oracle.grants(site) if g["state"] not in _OVER]
        raise LateError(f"after {SETTLED_WITHIN.seconds} s it is still not settled: {left}")


def _settled(site: Site, told: Told) -> bool:
    """Whether nothing is on its way: every grant waits for a person, is active as it should be, or is over."""
    grants = {str(grant["id"]): grant for grant in oracle.grants(site)}
    now = datetime.now(UTC)
    return not any(
        grant["state"] in _MOVING
        or (
            grant["state"] == "active"
            and (
                ends_by_itself(grant) <= now
                or id in told.ended
                or (grant["subject"], grant["task"].partition("/")[0]) in told.finished
                or (grant["under"] is not None and grants[grant["under"]]["state"] != "active")
                or grant["renewing_to"] is not None
            )
        )
        for id, grant in grants.items()
    )


def ends_by_itself(grant: "oracle.Row") -> datetime:
    """When it does, if nobody renews it, and nobody says that it goes on."""
    ends = (grant[name] for name in ("expires_at", "heartbeat_due_at"))
    return min(oracle.instant(at) for at in ends if at is not None)


def _all_ended(site: Site, told: Told) -> bool:
    """Whether everything is over; what does not end by itself soon is ended by its owner, until somebody heard it."""
    left = [grant for grant in oracle.grants(site) if grant["state"] not in _OVER]
    for grant in left:
        waits = grant["state"] in {"pending", "approved"}
        if waits or (grant["state"] == "active" and ends_by_itself(grant) > datetime.now(UTC) + _SOON):
            with client(site.planes[0], grant["subject"]) as agent, suppress(ControlPlaneError):
                agent.finish(grant["id"])
                told.ended.add(grant["id"])
    return not left


def _judge(site: Site, told: Told, report: Report) -> None:
    """Ask the oracle until it is content; what only the reconciler finds takes a round or two."""
    found = oracle.Finding()

    def content() -> bool:
        nonlocal found
        site.revive()
        found = oracle.compare(site, oracle.look(site), told)
        return not found.amiss

    if not until(content, RECONCILED_WITHIN, every=0.2):
        raise AmissError("\n".join(found.amiss))
    report.zombies = max(report.zombies, found.zombies)
    if found.lost:
        report.lost += len(found.lost)
        site.seer.drop(found.lost)
