"""Run the ways by turns in short slices, so that whatever the machine does meanwhile happens to all of them."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.figures import Lap, Slice
from benchmarks.target import check_gone, check_works
from benchmarks.way import Agent, Held, Watch, Way
from benchmarks.wire import WrongAnswerError
from controlplane.model.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """`iterations` grants a slice, shared out among its threads; `dsn` makes a connection string of a credential.

    Between two grants an agent does something else for `pause` seconds. With 0, the end of one credential competes
    with the making of the next.
    """

    ways: Sequence[Way]
    rounds: int
    iterations: int
    concurrencies: Sequence[int]
    pause: float
    dsn: Callable[[str, Secret], Secret]

    @property
    def slices(self) -> int:
        """How many slices there will be."""
        return self.rounds * len(self.concurrencies) * len(self.ways)

    def run(self, done: Callable[[Slice], None]) -> list[Slice]:
        """Every slice; `done` hears of each. Raises: WrongAnswerError: a way does not work at all."""
        for way in self.ways:
            self._rehearse(way)
        found: list[Slice] = []
        for number in range(self.rounds):
            for concurrency in self.concurrencies:
                for turn in range(len(self.ways)):
                    # Another one begins each round: whatever the one before left behind falls on all alike.
                    way = self.ways[(turn + number) % len(self.ways)]
                    found.append(self._slice(way, concurrency))
                    done(found[-1])
        return found

    def _rehearse(self, way: Way) -> None:
        """One grant whose credential is really used, and really refused afterwards: a fast no-op must not win."""
        agent, watch = way.agent(), way.watch()
        try:
            agent.prepare(1)
            held = agent.ask()
            dsn = self.dsn(held.username, Secret(held.password))
            check_works(dsn)
            watch.expect(held, time.time())
            agent.finish(held)
            watch.seen_gone()
            check_gone(dsn)
        finally:
            agent.close()
            watch.close()

    def _slice(self, way: Way, concurrency: int) -> Slice:
        watch = way.watch()
        share = -(-self.iterations // concurrency)
        runners = [_Runner(way.agent(), watch, share, self.pause) for _ in range(concurrency)]
        try:
            for runner in runners:
                runner.warm_up()
            began = time.time()
            for runner in runners:
                runner.thread.start()
            for runner in runners:
                runner.thread.join()
            ended = time.time()
            errors = [error for runner in runners for error in runner.errors]
            gone: Sequence[tuple[float, float]] = ()
            try:
                gone = watch.seen_gone()
            except WrongAnswerError as error:
                errors.append(str(error))
            timed = [(sent_at, gone_at) for sent_at, gone_at in gone if sent_at >= began]
            return Slice(
                way=way.name,
                concurrency=concurrency,
                laps=[lap for runner in runners for lap in runner.laps],
                gone=[gone_at - sent_at for sent_at, gone_at in timed],
                errors=errors,
                lasted=ended - began,
                cleared=max((gone_at for _, gone_at in timed), default=ended) - began,
            )
        finally:
            for runner in runners:
                runner.agent.close()
            watch.close()


@dataclass(slots=True)
class _Runner:
    """One agent in one thread."""

    agent: Agent
    watch: Watch
    share: int
    pause: float
    laps: list[Lap] = field(default_factory=list[Lap])
    errors: list[str] = field(default_factory=list[str])
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)  # Ctrl-C does not wait for it

    def warm_up(self) -> None:
        """One grant before the clock starts: connections are open, and pages and caches warm."""
        self.agent.prepare(self.share + 1)
        self._finish(self.agent.ask())

    def _run(self) -> None:
        for _ in range(self.share):
            try:
                began = time.perf_counter()
                held = self.agent.ask()
                in_hand = time.perf_counter()
                self._finish(held)
                self.laps.append(Lap(asked=in_hand - began, finished=time.perf_counter() - in_hand))
            except (WrongAnswerError, KeyError) as error:
                self.errors.append(f"{type(error).__name__}: {error}")
            time.sleep(self.pause)

    def _finish(self, held: Held) -> None:
        sent_at = time.time()
        self.agent.finish(held)
        self.watch.expect(held, sent_at)
