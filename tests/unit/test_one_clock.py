"""Replicas whose machines' clocks are 30 s apart keep every deadline to the second, by the store's clock (A28)."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest
from typing_extensions import override

from controlplane.model.access import Role, Standing
from controlplane.model.errors import DeniedError, NotAuthenticatedError, StoreUnavailableError
from controlplane.model.grant import Grant, State, Why
from controlplane.ports import Meanwhile
from controlplane.stores.clock import LOOK_AGAIN, SLOWEST, StoreClock
from controlplane.testing.clock import START, FakeClock
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.issuer import trusting
from controlplane.testing.meanwhile import at_once
from controlplane.testing.plane import AGENT, FakePlane

T = TypeVar("T")

HALF = timedelta(seconds=15)
SECOND = timedelta(seconds=1)
STEP = timedelta(milliseconds=250)


class Machine(FakeClock):
    """The clock of a machine that is off by `ahead`; `world` is the database's and Vault's, and turns them all."""

    def __init__(self, world: FakeClock, ahead: timedelta) -> None:
        super().__init__()
        self.world, self.ahead = world, ahead

    @override
    def now(self) -> datetime:
        return self.world.now() + self.ahead


def turning(world: FakeClock) -> Callable[[], float]:
    """The monotonic clock of any machine in that world."""

    def monotonic() -> float:
        return (world.now() - START).total_seconds()

    return monotonic


class Followed(FakeClock):
    """What a plane has: the machine's clock, following the database's."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine
        self.shared = StoreClock(machine, at_once, monotonic=turning(machine.world))
        self.shared.follow(machine.world.now)
        self.world = machine.world

    @override
    def now(self) -> datetime:
        return self.shared.now()

    @override
    def advance(self, span: timedelta) -> datetime:
        return self.world.advance(span)


class Two:
    """One control plane whose machine is 15 s ahead, and one whose is 15 s behind, over one store and one Vault."""

    def __init__(self) -> None:
        self.world = FakeClock()
        waits: dict[str, Any] = {"risk": "high", "approval": {"quorum": 1, "from": ["group:oncall"], "within": "1m"}}
        entitlements = (
            compiled_entitlement(ttl={"default": "1m", "max": "2m"}),
            compiled_entitlement(entitlement="orders-beat", heartbeat="30s"),
            compiled_entitlement(entitlement="orders-refund", **waits),
            compiled_entitlement(entitlement="orders-once", context={"max_requests": {"per_subject": "1/m"}}),
        )
        self.behind = FakePlane(*entitlements, clock=Followed(Machine(self.world, -HALF)))
        self.ahead = FakePlane(
            *entitlements,
            clock=Followed(Machine(self.world, HALF)),
            store=self.behind.store,
            vault=self.behind.vault,
            ids=self.behind.ids,
        )

    def ask(self, entitlement: str = "orders-read") -> Grant:
        """A grant of the one that is behind, opened by its agent."""
        delivered = self.behind.ask(entitlement=entitlement)
        if delivered.wrapping_token is not None:
            self.behind.vault.unwrap(delivered.wrapping_token)
        return delivered.grant

    def until(self, over: Callable[[], bool], *, working: bool = True) -> datetime:
        """Let time pass, with both workers at work, until it is `over`; when that was."""
        limit = self.world.now() + timedelta(minutes=10)
        while not over():
            assert self.world.advance(STEP) < limit
            for plane in (self.ahead, self.behind) if working else ():
                plane.work()
        return self.world.now()


def on_time(happened: datetime | None, deadline: datetime) -> bool:
    return happened is not None and timedelta(0) <= happened - deadline <= SECOND


def goes(call: Callable[[], object]) -> bool:
    try:
        call()
    except (DeniedError, NotAuthenticatedError):
        return False
    return True


@pytest.fixture
def two() -> Two:
    return Two()


@pytest.mark.parametrize(("entitlement", "why"), [("orders-read", Why.EXPIRED), ("orders-beat", Why.HEARTBEAT_LOST)])
def test_a28_whichever_worker_comes_first_ends_what_is_over_and_nothing_before(
    two: Two, entitlement: str, why: Why
) -> None:
    grant = two.ask(entitlement)
    deadline = grant.heartbeat_due_at or grant.expires_at
    two.until(lambda: two.behind.grant(grant.id).state is not State.ACTIVE)
    ended = two.behind.grant(grant.id)
    assert ended.why is why
    assert on_time(ended.revoking_at, deadline)


def test_a28_what_waits_for_people_waits_as_long_as_they_were_told(two: Two) -> None:
    grant = two.ask("orders-refund")
    lapsed = two.until(lambda: two.behind.grant(grant.id).state is State.LAPSED)
    assert on_time(lapsed, grant.requested_at + timedelta(minutes=1))


def test_a28_a_freeze_that_one_made_ends_at_the_other_when_it_says(two: Two) -> None:
    responder = Standing(roles=frozenset({Role.RESPONDER}))
    made = two.behind.freeze(
        two.behind.agent("ann"), responder, "all", message="Stop.", reason="leak", expires_in=timedelta(minutes=1)
    ).freeze
    assert made.expires_at is not None
    assert on_time(two.until(lambda: goes(two.ahead.ask)), made.expires_at)


def test_a28_a_budget_that_was_used_up_at_one_is_full_again_at_the_other_when_its_window_is_over(two: Two) -> None:
    grant = two.ask("orders-once")
    again = two.until(lambda: goes(lambda: two.ahead.ask(entitlement="orders-once")), working=False)
    assert on_time(again, grant.requested_at + timedelta(minutes=1))


def test_a28_what_one_holds_is_taken_over_when_the_hold_is_over(two: Two) -> None:
    grant, hold = two.ask(), timedelta(seconds=20)
    two.world.advance(grant.ttl)
    claimed_at = two.world.now()
    assert two.ahead.store.claim_due(two.ahead.clock.now(), limit=9, hold=hold)
    over = two.until(
        lambda: bool(two.behind.store.claim_due(two.behind.clock.now(), limit=9, hold=hold)), working=False
    )
    assert on_time(over, claimed_at + hold)


def test_a28_a_workloads_token_is_good_for_as_long_at_one_as_at_the_other(two: Two) -> None:
    lives = timedelta(minutes=1)
    token = two.behind.issuer.mint(AGENT, ttl=lives)
    until = two.world.now() + lives + two.behind.issuer.configured.options.leeway
    for plane in (two.ahead, two.behind):
        plane.identify = replace(plane.identify, issuers=trusting(two.behind.issuer, clock=plane.clock))
    ends = two.until(lambda: not goes(lambda: two.ahead.identify(token)), working=False)
    assert on_time(ends, until)
    assert not goes(lambda: two.behind.identify(token))


def test_t01_stepping_the_clock_of_a_machine_moves_nothing(two: Two) -> None:
    clock = two.ahead.clock
    assert isinstance(clock, Followed)
    for step in (timedelta(hours=1), timedelta(hours=-2), timedelta(days=1)):
        clock.machine.ahead += step
        assert clock.now() == two.world.now()
    assert clock.shared.ahead() == clock.machine.ahead


class Asked:
    """A database's clock that can be away, and slow, on the way back only."""

    def __init__(self, world: FakeClock) -> None:
        self.world, self.ahead = world, timedelta(0)
        self.away, self.slow, self.times = False, timedelta(0), 0

    def __call__(self) -> datetime:
        self.times += 1
        if self.away:
            raise StoreUnavailableError("it is away")
        told = self.world.now() + self.ahead
        self.world.advance(self.slow)
        return told


@pytest.fixture
def asked() -> Asked:
    return Asked(FakeClock())


def following(asked: Asked, beside: Meanwhile = at_once) -> StoreClock:
    clock = StoreClock(Machine(asked.world, HALF), beside, monotonic=turning(asked.world))
    clock.follow(asked)
    return clock


def test_until_it_follows_another_one_it_is_the_machines_own() -> None:
    machine = Machine(FakeClock(), HALF)
    assert StoreClock(machine, at_once).now() == machine.now()


def test_it_goes_on_while_the_database_is_away_and_asks_no_oftener(asked: Asked) -> None:
    clock, before = following(asked), asked.times
    asked.away = True
    for _ in range(100):
        asked.world.advance(SECOND)
        assert clock.now() == asked.world.now()
    assert asked.times - before <= 100 * SECOND // LOOK_AGAIN
    asked.away, asked.ahead = False, timedelta(seconds=-3)
    asked.world.advance(LOOK_AGAIN)
    clock.now()
    assert clock.now() == asked.world.now() + asked.ahead


def test_it_is_wrong_by_half_the_way_at_most_and_believes_no_answer_that_took_long(asked: Asked) -> None:
    asked.slow = SECOND / 2
    clock = following(asked)
    assert abs(clock.now() - asked.world.now()) <= asked.slow / 2
    asked.slow = timedelta(0)
    asked.world.advance(LOOK_AGAIN)
    clock.now()
    asked.slow = SLOWEST + SECOND
    asked.world.advance(LOOK_AGAIN)
    clock.now()
    assert clock.now() == asked.world.now()


def test_a_look_that_hangs_keeps_nobody_waiting_and_nobody_looks_beside_it(asked: Asked) -> None:
    begun: list[Callable[[], object]] = []

    def later(call: Callable[[], T]) -> Callable[[], T]:
        begun.append(call)
        return call

    clock = following(asked, later)
    for _ in range(5):
        asked.world.advance(LOOK_AGAIN)
        assert clock.now() == asked.world.now()
    (look,) = begun
    look()
    asked.world.advance(LOOK_AGAIN)
    clock.now()
    assert len(begun) == 2


def test_a_store_that_tells_no_time_is_no_store(asked: Asked) -> None:
    asked.away = True
    with pytest.raises(StoreUnavailableError):
        following(asked)


def test_a_process_that_is_ending_still_knows_the_time(asked: Asked) -> None:
    def refuse(call: Callable[[], T]) -> Callable[[], T]:
        del call
        raise RuntimeError("cannot schedule new futures after shutdown")

    clock = following(asked, refuse)
    asked.world.advance(LOOK_AGAIN * 2)
    assert clock.now() == clock.now() == asked.world.now()
