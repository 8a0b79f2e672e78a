"""`python -m tests.chaos`: the long run of the fault machine, unattended.

Each failure is printed with the command that repeats it, and it ends with 1 if there was one. First every seed is
walked in memory; then the seeds are played on real servers: the even ones on SQLite, the odd ones on PostgreSQL with
two replicas. A run that is ended early says with which seed the next one goes on. Several may run side by side.
"""

import argparse
import signal
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Final, NoReturn

import structlog

from controlplane.dev.stack import Stack
from controlplane.settings import forget_environment
from tests.chaos.play import LateError, Report, play
from tests.chaos.schedule import schedule
from tests.chaos.site import Site, servers, site
from tests.chaos.walk import walk

STORES: Final = ("sqlite", "postgresql")
MEMORY: Final = "memory"
_AT_ONCE: Final = 50
"""Seeds that are played on one stack; then everything begins anew."""
_STUMBLES: Final = 5
"""On a busy machine a server may be too slow to start or to end; by then it is something else."""


@dataclass
class Tally:
    """What the whole run came to."""

    reports: list[Report] = field(default_factory=list[Report])
    walks: int = 0
    failed: list[str] = field(default_factory=list[str])
    late: int = 0
    """How many of those that failed were only not settled in time."""
    stumbled: int = 0
    """How often servers did not come up, or did not end; no schedule was played meanwhile."""

    def tell(self) -> None:
        """Say it."""
        reports = self.reports
        blows = Counter(blow for report in reports for blow in report.blows)
        say(
            f"{self.walks} walks in memory and {len(reports)} schedules on real servers, {len(self.failed)} failed"
            f"{f', {self.late} of them by time alone' if self.late else ''}; "
            f"{sum(report.grants for report in reports)} grants, "
            f"{sum(report.deaths for report in reports)} deaths of control planes by kill -9, "
            f"{sum(report.by_own_hand for report in reports)} of them at a chosen instruction; "
            f"{sum(report.lost for report in reports)} logins that OpenBao lost and a receipt owned up to"
        )
        say("blows: " + ", ".join(f"{kind} {number}" for kind, number in sorted(blows.items())))
        refused = sum((report.refused for report in reports), Counter[str]())
        say("refused: " + ", ".join(f"{what} {number}" for what, number in sorted(refused.items())))
        for again in self.failed:
            say(f"again: {again}")


def say(sentence: str) -> None:
    """Where a terminal or a log sees it at once."""
    sys.stdout.write(sentence + "\n")
    sys.stdout.flush()


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many schedules")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--store", choices=(MEMORY, *STORES), help="on this store only")
    given = parser.parse_args()
    forget_environment()
    signal.signal(signal.SIGTERM, _stop)
    seeds = range(given.first, given.first + given.seeds) if given.seed is None else range(given.seed, given.seed + 1)
    tally, began, left = Tally(), time.monotonic(), seeds
    try:
        if given.store == MEMORY or (given.store is None and given.seed is None):
            _walk(seeds, tally)
        while left and given.store != MEMORY:
            _play(left[:_AT_ONCE], given.store, tally)
            left = left[_AT_ONCE:]
    finally:
        tally.tell()
        if left and given.store != MEMORY:
            store = "" if given.store is None else f" STORE={given.store}"
            say(f"to go on: make chaos FROM={left.start} SEEDS={len(left)}{store}")
        say(f"{time.monotonic() - began:.0f} s")
    return 1 if tally.failed else 0


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    """On the way out everything is stopped and removed: whoever ends the run finds nothing left behind."""
    sys.exit(1)


def _walk(seeds: Iterable[int], tally: Tally) -> None:
    """The same seeds in memory first, for that takes minutes only."""
    structlog.configure(processors=[_dropped])
    for seed in seeds:
        try:
            walk(seed)
        except Exception:  # noqa: BLE001 # whatever it is, the run goes on and tells
            _told(tally, seed, MEMORY)
        tally.walks += 1


def _dropped(*_: object) -> NoReturn:
    raise structlog.DropEvent


def _told(tally: Tally, seed: int, kind: str) -> None:
    tally.failed.append(f"make chaos SEED={seed} STORE={kind}")
    say(f"FAILED {kind} {traceback.format_exc()}\nagain: {tally.failed[-1]}")


def _play(seeds: Sequence[int], only: str | None, tally: Tally) -> None:
    """Play these on one stack; after a failure, what is left of them on another."""
    left = {
        kind: deque(seed for seed in seeds if only is not None or STORES[seed % 2] == kind)
        for kind in STORES
        if only in {None, kind}
    }
    while any(left.values()):
        try:
            with TemporaryDirectory(prefix="shorthold-chaos-") as made, servers(Path(made)) as stack:
                _play_on(stack, left, tally)
        except Exception:
            tally.stumbled += 1
            say(f"the servers did not come up, or did not end: {traceback.format_exc()}")
            if tally.stumbled == _STUMBLES:
                raise


def _play_on(stack: Stack, left: Mapping[str, deque[int]], tally: Tally) -> None:
    for kind, mine in left.items():
        directory = stack.project / f"store-{kind}"
        directory.mkdir()
        with site(stack, directory, kind) as made:
            while mine:
                if not _one(made, kind, mine.popleft(), tally):
                    return


def _one(made: Site, kind: str, seed: int, tally: Tally) -> bool:
    try:
        report = play(made, schedule(seed, replicas=len(made.planes)))
    except Exception as error:  # noqa: BLE001 # whatever it is, the run goes on and tells
        tally.late += isinstance(error, LateError)
        _told(tally, seed, kind)
        return False
    tally.reports.append(report)
    say(f"{kind} {report}")
    return True


if __name__ == "__main__":
    sys.exit(main())
