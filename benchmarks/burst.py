"""Hold some credentials, finish all of them at once, and see when each is gone."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.figures import Lap, Slice
from benchmarks.way import Agent, Held, Watch, Way
from benchmarks.wire import WrongAnswerError

_HANDS = 8
"""Connections that finish; as many as the race uses, so that the client is the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """`rounds` times every size and every way by turns. A slice's `concurrency` is how many ended at once."""

    ways: Sequence[Way]
    rounds: int
    sizes: Sequence[int]

    def run(self, done: Callable[[Slice], None]) -> list[Slice]:
        """Every burst; `done` hears of each. Raises: WrongAnswerError: a credential was not even made."""
        found: list[Slice] = []
        for number in range(self.rounds):
            for size in self.sizes:
                for turn in range(len(self.ways)):
                    found.append(_burst(self.ways[(turn + number) % len(self.ways)], size))
                    done(found[-1])
        return found


def _burst(way: Way, size: int) -> Slice:
    watch = way.watch()
    agents = [way.agent() for _ in range(min(size, _HANDS))]
    try:
        shares = [_asked(agent, len(range(first, size, len(agents)))) for first, agent in enumerate(agents)]
        laps: list[Lap] = []
        errors: list[str] = []
        start = threading.Barrier(len(agents) + 1)
        hands = [
            threading.Thread(target=_finish, args=(agent, share, watch, start, (laps, errors)), daemon=True)
            for agent, share in zip(agents, shares, strict=True)
        ]
        for hand in hands:
            hand.start()
        start.wait()
        began = time.time()
        for hand in hands:
            hand.join()
        ended = time.time()
        gone: Sequence[tuple[float, float]] = ()
        try:
            gone = watch.seen_gone()
        except WrongAnswerError as error:
            errors.append(str(error))
        return Slice(
            way=way.name,
            concurrency=size,
            laps=laps,
            gone=[gone_at - sent_at for sent_at, gone_at in gone],
            errors=errors,
            lasted=ended - began,
            cleared=max((gone_at for _, gone_at in gone), default=ended) - began,
        )
    finally:
        for agent in agents:
            agent.close()
        watch.close()


def _asked(agent: Agent, grants: int) -> list[Held]:
    agent.prepare(grants)
    return [agent.ask() for _ in range(grants)]


def _finish(
    agent: Agent, share: Sequence[Held], watch: Watch, start: threading.Barrier, found: tuple[list[Lap], list[str]]
) -> None:
    laps, errors = found
    start.wait()
    for held in share:
        sent_at = time.time()
        began = time.perf_counter()
        try:
            agent.finish(held)
        except (WrongAnswerError, KeyError) as error:
            errors.append(f"{type(error).__name__}: {error}")
            continue
        laps.append(Lap(asked=0.0, finished=time.perf_counter() - began))
        watch.expect(held, sent_at)
