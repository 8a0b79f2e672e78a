"""`python -m tests.chaos`: the long run of the fault machine, unattended.

Each failure is printed with the command that repeats it, and it ends with 1 if there was one. First every
seed is walked in memory; then half of the seeds are played on SQLite, half on PostgreSQL with two replicas.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import structlog

from controlplane.dev.stack import Stack
from controlplane.settings import forget_environment
from tests.chaos.play import Report, play
from tests.chaos.schedule import schedule
from tests.chaos.site import Site, site
from tests.chaos.walk import walk

STORES: Final = ("sqlite", "postgresql")
MEMORY: Final = "memory"
_AT_ONCE: Final = 100
"""Schedules on one stack; then everything begins anew."""


@dataclass
class Tally:
    """What the whole run came to."""

    reports: list[Report] = field(default_factory=list[Report])
    walks: int = 0
    failed: list[str] = field(default_factory=list[str])

    def tell(self) -> None:
        """Say it."""
        reports = self.reports
        blows = Counter(blow for report in reports for blow in report.blows)
        say(
            f"{self.walks} walks in memory and {len(reports)} schedules on real servers, {len(self.failed)} failed; "
            f"{sum(report.grants for report in reports)} grants, "
            f"{sum(report.deaths for report in reports)} deaths of control planes by kill -9, "
            f"{sum(report.by_own_hand for report in reports)} of them at a chosen instruction; "
            f"{sum(report.lost for report in reports)} logins that OpenBao lost and a receipt owned up to"
        )
        say("blows: " + ", ".join(f"{kind} {number}" for kind, number in sorted(blows.items())))
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
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--store", choices=(MEMORY, *STORES), help="on this store only")
    given = parser.parse_args()
    forget_environment()
    signal.signal(signal.SIGTERM, _stop)
    seeds = range(given.first, given.first + given.seeds) if given.seed is None else [given.seed]
    tally = Tally()
    began = time.monotonic()
    if given.store == MEMORY or (given.store is None and given.seed is None):
        _walk(seeds, tally)
    for kind in STORES if given.store is None else {given.store} - {MEMORY}:
        mine = [seed for seed in seeds if given.seed is not None or given.store or STORES[seed % 2] == kind]
        while mine:
            mine = _run(kind, mine, tally)
    tally.tell()
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


def _run(kind: str, seeds: Sequence[int], tally: Tally) -> Sequence[int]:
    """Play on new servers until one fails or it is time for others; the seeds that are left."""
    project = Path(tempfile.mkdtemp(prefix="shorthold-chaos-"))
    stack = Stack(project=project, say=lambda _: None)
    try:
        stack.up()
        stack.serve.stop()
        (project / "store").mkdir()
        with site(stack, project / "store", kind) as made:
            for number, seed in enumerate(seeds[:_AT_ONCE], start=1):
                if not _one(made, kind, seed, tally):
                    return seeds[number:]
    finally:
        stack.destroy()
        shutil.rmtree(project, ignore_errors=True)
    return seeds[_AT_ONCE:]


def _one(made: Site, kind: str, seed: int, tally: Tally) -> bool:
    try:
        report = play(made, schedule(seed, replicas=len(made.planes)))
    except Exception:  # noqa: BLE001 # whatever it is, the run goes on and tells
        _told(tally, seed, kind)
        return False
    tally.reports.append(report)
    say(f"{kind} {report}")
    return True


if __name__ == "__main__":
    sys.exit(main())
