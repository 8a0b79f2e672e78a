"""Thousands of steps in memory: crashes, outages, clock jumps, two replicas that interleave, and the claim after each.

Seeded walks do most of it, and `make chaos SEED=n STORE=memory` repeats one; hypothesis looks for the shortest way to
what it finds itself (P2-P4, P6; G01-G18, R01-R29).
"""

import os
from datetime import timedelta
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from typing_extensions import override

from tests.chaos.deeds import DEEDS
from tests.chaos.memory import TRAPS, TROUBLES, Machine, Trap
from tests.chaos.walk import KEYS, NAMES, SECONDS, TTLS, walk

SEEDS: Final = int(os.environ.get("CHAOS_WALKS", "300"))


@pytest.mark.parametrize("block", range(10))
def test_after_each_of_many_seeded_walks_what_lives_is_what_is_active(block: int) -> None:
    for seed in range(block * SEEDS // 10, (block + 1) * SEEDS // 10):
        try:
            walk(seed)
        except BaseException as error:
            error.add_note(f"again: make chaos SEED={seed} STORE=memory")
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

    @rule(number=replicas, deed=st.sampled_from(sorted(DEEDS)), which=st.integers(0, 3), trap=trapped)
    def do(self, number: int, deed: str, which: int, trap: Trap) -> None:
        self.machine.do(number, deed, which, trap)

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
