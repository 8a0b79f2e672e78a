"""Thousands of steps in memory: crashes, outages, clock jumps, two replicas that interleave, and the claim after each.

Seeded walks do most of it, and `SEED=n` repeats one; hypothesis looks for the shortest way to what it finds itself
(P2-P4, P6; G01-G18, R01-R29).
"""

import os
from datetime import timedelta
from random import Random
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from typing_extensions import override

from tests.chaos.memory import ENTITLEMENTS, LONG, SHORT, TRAPS, TROUBLES, Machine, Trap

SEEDS: Final = int(os.environ.get("CHAOS_WALKS", "300"))
STEPS: Final = 60
NAMES: Final = tuple(each.entitlement.name for each in ENTITLEMENTS)
KEYS: Final = (None, None, None, "k-1", "k-2")
TTLS: Final = (None, SHORT, LONG)
SECONDS: Final = (1, 5, 11, 30, 61, 180)


def walk(seed: int) -> None:
    """One schedule: what a seed stands for, whatever the machine or the day."""
    dice = Random(seed)  # noqa: S311 # what happens when, not what to keep secret
    machine = Machine()

    def trap() -> Trap:
        return (dice.choice(TRAPS), dice.randrange(10)) if dice.random() < 0.6 else None

    def replica() -> int:
        return dice.randrange(2)

    actions = (
        (8, lambda: machine.ask(replica(), dice.choice(NAMES), dice.choice(KEYS), dice.choice(TTLS), trap())),
        (3, lambda: machine.open(dice.randrange(9))),
        (4, lambda: machine.finish(replica(), dice.randrange(4), trap())),
        (6, lambda: machine.work(replica(), trap())),
        (3, lambda: machine.reconcile(replica(), trap())),
        (6, lambda: machine.pass_time(dice.choice(SECONDS))),
        (3, lambda: machine.trouble(replica(), dice.choice(TROUBLES))),
        (3, lambda: machine.trouble(0, "repair")),
        (1, machine.settle),
    )
    weights = [weight for weight, _ in actions]
    for _, act in dice.choices(actions, weights, k=STEPS):
        act()
    machine.end()


@pytest.mark.parametrize("block", range(10))
def test_after_each_of_many_seeded_walks_what_lives_is_what_is_active(block: int) -> None:
    named = os.environ.get("SEED")
    for seed in range(block * SEEDS // 10, (block + 1) * SEEDS // 10) if named is None else [int(named)]:
        try:
            walk(seed)
        except BaseException as error:
            error.add_note(f"again: SEED={seed} python -m pytest tests/chaos/test_memory.py -k seeded")
            raise


trapped: Final = st.none() | st.tuples(st.sampled_from(TRAPS), st.integers(0, 9))
replicas: Final = st.integers(0, 1)


class Shrinking(RuleBasedStateMachine):
    """The same machine in the hands of hypothesis."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine()

    @rule(
        number=replicas,
        entitlement=st.sampled_from(NAMES),
        key=st.sampled_from(KEYS),
        ttl=st.sampled_from(TTLS),
        trap=trapped,
    )
    def ask(self, number: int, entitlement: str, key: str | None, ttl: timedelta | None, trap: Trap) -> None:
        self.machine.ask(number, entitlement, key, ttl, trap)

    @rule(number=st.integers(0, 9))
    def open(self, number: int) -> None:
        self.machine.open(number)

    @rule(number=replicas, which=st.integers(0, 3), trap=trapped)
    def finish(self, number: int, which: int, trap: Trap) -> None:
        self.machine.finish(number, which, trap)

    @rule(number=replicas, trap=trapped)
    def work(self, number: int, trap: Trap) -> None:
        self.machine.work(number, trap)

    @rule(number=replicas, trap=trapped)
    def reconcile(self, number: int, trap: Trap) -> None:
        self.machine.reconcile(number, trap)

    @rule(seconds=st.sampled_from(SECONDS))
    def pass_time(self, seconds: int) -> None:
        self.machine.pass_time(seconds)

    @rule(number=replicas, trouble=st.sampled_from(TROUBLES))
    def trouble(self, number: int, trouble: str) -> None:
        self.machine.trouble(number, trouble)

    @rule()
    def settle(self) -> None:
        self.machine.settle()

    @override
    def teardown(self) -> None:
        self.machine.end()


TestShrinking = Shrinking.TestCase
TestShrinking.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
