"""The worker: everything due is worked through, by one worker at a time, whatever happens to the grant before it."""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest
from structlog.testing import capture_logs
from typing_extensions import override

from controlplane.model.errors import StoreUnavailableError, VaultUnavailableError
from controlplane.model.grant import Grant, GrantId
from controlplane.model.identity import IssuerName, SingleUse
from controlplane.ports import Clock, Store
from controlplane.testing.clock import START, FakeClock
from controlplane.testing.store import FakeStore, sample_grant
from controlplane.worker import pool
from controlplane.worker.pool import Worker

NEVER = timedelta(hours=1)
"""A tick that no test lives to see: what happens was woken."""
SOON = timedelta(milliseconds=10)
PATIENCE = 10.0


@pytest.fixture
def clock() -> FakeClock:
    clock = FakeClock()
    clock.advance(timedelta(minutes=2))  # every sample grant is due
    return clock


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


def test_what_became_due_while_nobody_ran_comes_first_oldest_first(store: FakeStore, clock: FakeClock) -> None:
    for number in (3, 1, 2):
        _add(store, number, due_in=timedelta(seconds=number))
    reaped = _Reaped(store)
    with _running(store, clock, reaped, threads=1):
        _until(lambda: len(reaped.ids) == 3)
    assert reaped.ids == [_id(1), _id(2), _id(3)]


def test_a_grant_that_is_due_again_is_taken_again_at_once(store: FakeStore, clock: FakeClock) -> None:
    _add(store, 1)
    reaped = _Reaped(store)
    with _running(store, clock, reaped) as worker:
        _until(lambda: reaped.done == 1)
        watched = store.grant(_id(1))
        assert watched is not None
        with store.transaction() as tx:
            tx.save(watched.but(due_at=clock.now()))
        _until(lambda: worker.wake() is None and reaped.done == 2)


def test_what_is_not_due_is_left_alone(store: FakeStore, clock: FakeClock) -> None:
    _add(store, 1, due_in=timedelta(hours=1))
    _add(store, 2)
    reaped = _Reaped(store)
    with _running(store, clock, reaped):
        _until(lambda: reaped.ids == [_id(2)])
    assert reaped.ids == [_id(2)]


def test_whoever_wakes_it_need_not_wait_for_the_next_tick(store: FakeStore, clock: FakeClock) -> None:
    reaped = _Reaped(store)
    with _running(store, clock, reaped, tick=NEVER) as worker:
        for number in (1, 2, 3):
            _add(store, number)
            worker.wake()
            _until(lambda: reaped.ids[-1:] == [_id(number)])  # noqa: B023 # looked at before the next round


def test_a_tick_finds_what_nobody_told_of(store: FakeStore, clock: FakeClock) -> None:
    reaped = _Reaped(store)
    with _running(store, clock, reaped, tick=SOON):
        _add(store, 1)
        _until(lambda: reaped.ids == [_id(1)])


@pytest.mark.parametrize("error", [VaultUnavailableError("sealed"), RuntimeError("a fault of ours")])
def test_an_error_in_one_grant_stops_no_other_and_is_told(store: FakeStore, clock: FakeClock, error: Exception) -> None:
    for number in (1, 2, 3):
        _add(store, number)
    reaped = _Reaped(store, {_id(1): error})
    with capture_logs() as logged, _running(store, clock, reaped, threads=1):
        _until(lambda: len(reaped.ids) == 3)
    assert [(line["event"], line["grant"]) for line in logged] == [("grant_not_reaped", _id(1))]


def test_a_grant_whose_end_failed_is_left_for_its_hold_and_then_tried_again(store: FakeStore, clock: FakeClock) -> None:
    _add(store, 1)
    reaped = _Reaped(store, {_id(1): StoreUnavailableError("the disk is full")})
    with capture_logs(), _running(store, clock, reaped, tick=SOON):
        _until(lambda: reaped.ids == [_id(1)])
        reaped.errors.clear()
        clock.advance(timedelta(minutes=1))
        _until(lambda: reaped.ids == [_id(1), _id(1)])


@pytest.mark.parametrize("error", [StoreUnavailableError("the disk is full"), RuntimeError("a fault of ours")])
def test_a_store_that_fails_does_not_end_the_worker(clock: FakeClock, error: Exception) -> None:
    store = _Failing(error)
    _add(store, 1)
    reaped = _Reaped(store)
    with capture_logs() as logged, _running(store, clock, reaped, tick=SOON):
        _until(lambda: store.failed > 2)
        assert reaped.ids == []
        store.error = None
        _until(lambda: reaped.ids == [_id(1)])
    assert {(line["event"], line.get("code")) for line in logged} == {
        ("worker_cannot_claim", getattr(error, "code", None))
    }


def test_g16_while_nothing_can_be_claimed_vault_is_asked_all_the_same(clock: FakeClock) -> None:
    store = _Failing(StoreUnavailableError("the disk is full"))
    asked: list[bool] = []
    worker = Worker(
        store=store, clock=clock, reap=_Reaped(store), tick=SOON, threads=1, hold=timedelta(minutes=1),
        end_unclaimed=lambda: asked.append(True),
    )  # fmt: skip
    worker.start()
    try:
        _until(lambda: len(asked) > 2)
    finally:
        worker.stop()


def test_p6_what_could_not_be_saved_is_saved_first_and_tried_again_at_every_tick(
    store: FakeStore, clock: FakeClock
) -> None:
    _add(store, 1)
    reaped, tries = _Reaped(store), list[int]()

    def save_unsaved() -> bool:
        tries.append(len(reaped.ids))
        raise StoreUnavailableError("the disk is full")

    worker = Worker(
        store=store, clock=clock, reap=reaped, tick=SOON, threads=1, hold=timedelta(minutes=1),
        save_unsaved=save_unsaved,
    )  # fmt: skip
    worker.start()
    try:
        _until(lambda: len(tries) > 2 and reaped.ids == [_id(1)])
    finally:
        worker.stop()
    assert tries[0] == 0


def test_while_it_cannot_ask_ahead_it_proves_all_the_same_and_asks_at_the_next_tick(
    store: FakeStore, clock: FakeClock
) -> None:
    _add(store, 1)
    reaped, tries = _Reaped(store), list[int]()

    def ask_ahead() -> int:
        tries.append(1)
        raise StoreUnavailableError("the disk is full")

    worker = Worker(
        store=store, clock=clock, reap=reaped, tick=SOON, threads=1, hold=timedelta(minutes=1), ask_ahead=ask_ahead,
    )  # fmt: skip
    with capture_logs():
        worker.start()
        try:
            _until(lambda: len(tries) > 2 and reaped.ids == [_id(1)])
        finally:
            worker.stop()


def test_two_workers_never_act_on_the_same_grant(store: FakeStore, clock: FakeClock) -> None:
    numbers = range(1, 41)
    for number in numbers:
        _add(store, number)
    reaped = _Reaped(store)
    with _running(store, clock, reaped, tick=SOON), _running(store, clock, reaped, tick=SOON):
        _until(lambda: len(reaped.ids) >= len(numbers))
    assert sorted(reaped.ids) == [_id(number) for number in numbers]


def test_no_more_grants_are_held_than_there_are_threads(store: FakeStore, clock: FakeClock) -> None:
    for number in range(1, 6):
        _add(store, number)
    reaped = _Reaped(store, gate=threading.Event())
    with _running(store, clock, reaped, threads=2):
        _until(lambda: len(reaped.begun) == 2)
        rest = store.claim_due(clock.now(), limit=10, hold=timedelta(seconds=1))
        assert [grant.id for grant in rest] == [_id(3), _id(4), _id(5)]
        clock.advance(timedelta(seconds=1))  # what this test took is free again
        reaped.gate.set()
        _until(lambda: len(reaped.ids) == 5)


def test_a_slow_grant_does_not_keep_the_others_waiting(store: FakeStore, clock: FakeClock) -> None:  # R04
    for number in range(1, 6):
        _add(store, number)
    reaped = _Reaped(store, gate=threading.Event(), slow=_id(1))
    with _running(store, clock, reaped, threads=2):
        _until(lambda: len(reaped.ids) == 4)
        assert _id(1) not in reaped.ids
        reaped.gate.set()


def test_stopping_finishes_what_is_at_hand_and_leaves_the_rest_in_the_store(store: FakeStore, clock: FakeClock) -> None:
    for number in range(1, 6):
        _add(store, number)
    reaped = _Reaped(store, gate=threading.Event())
    worker = _worker(store, clock, reaped, tick=NEVER, threads=1)
    worker.start()
    _until(lambda: len(reaped.begun) == 1)
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    reaped.gate.set()
    stopping.join(PATIENCE)
    assert not stopping.is_alive()
    assert reaped.ids == [_id(1)]
    assert len(store.claim_due(clock.now(), limit=10, hold=SOON)) == 4


def test_stopping_waits_for_a_round_that_is_under_way_because_the_store_is_closed_next(
    store: FakeStore, clock: FakeClock
) -> None:
    begun, gate, ended = threading.Event(), threading.Event(), threading.Event()

    def reconcile() -> None:
        begun.set()
        assert gate.wait(PATIENCE)
        ended.set()

    worker = Worker(
        store=store, clock=clock, reap=_Reaped(store), tick=NEVER, threads=1, hold=timedelta(minutes=1),
        reconcile=reconcile, every=SOON,
    )  # fmt: skip
    worker.start()
    assert begun.wait(PATIENCE)
    threading.Timer(0.2, gate.set).start()
    worker.stop()
    assert ended.is_set()


def test_a_worker_with_nothing_to_do_stops_at_once(store: FakeStore, clock: FakeClock) -> None:
    worker = _worker(store, clock, _Reaped(store), tick=NEVER, threads=4)
    worker.start()
    worker.stop()
    assert [thread for thread in threading.enumerate() if thread.name.startswith("shorthold-")] == []


def test_j42_spent_tokens_are_forgotten_to_the_last_batch_once_no_clock_takes_them_any_more(clock: FakeClock) -> None:
    store = _Forgetting(3)
    _worker(store, clock, _Reaped(store), tick=NEVER, threads=1).forget()
    assert store.asked == [clock.now() - timedelta(minutes=5)] * 4


def test_j42_what_cannot_be_forgotten_now_is_told_and_left_for_the_next_time(clock: FakeClock) -> None:
    store = _Forgetting(3, StoreUnavailableError("the disk is full"))
    worker = _worker(store, clock, _Reaped(store), tick=NEVER, threads=1)
    with capture_logs() as logged:
        worker.forget()
    assert [(line["event"], line["code"]) for line in logged] == [("worker_cannot_forget_tokens", "store-unavailable")]
    store.error = None
    worker.forget()
    assert len(store.asked) == 5


def test_j42_a_worker_that_stops_forgets_no_further(clock: FakeClock) -> None:
    many = _Forgetting(1_000_000)
    with _running(many, clock, _Reaped(many)) as worker:
        pass
    worker.forget()
    assert many.asked == []


def test_j42_a_running_worker_forgets_by_itself(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_FORGET_EVERY", SOON)
    store = FakeStore()
    spent = SingleUse(issuer=IssuerName("dev"), id="jti:1", until=START)
    with store.transaction() as tx:
        tx.add(sample_grant(1, due_at=START + timedelta(hours=9)))
        tx.spend(spent, _id(1))
    with _running(store, clock, _Reaped(store)):
        assert store.spent(spent)  # no clock that is five minutes behind may still take it
        clock.advance(timedelta(minutes=5))
        _until(lambda: not store.spent(spent))


class _Reaped:
    """Fits what a worker calls: makes a grant a tombstone, and remembers in which order it was asked to."""

    def __init__(
        self,
        store: FakeStore,
        errors: dict[GrantId, Exception] | None = None,
        *,
        gate: threading.Event | None = None,
        slow: GrantId | None = None,
    ) -> None:
        self.store, self.errors, self.gate, self.slow = store, errors or {}, gate or threading.Event(), slow
        if gate is None:
            self.gate.set()
        self.begun: list[GrantId] = []
        self.ids: list[GrantId] = []
        self.done = 0

    def __call__(self, grant: Grant) -> Grant:
        self.begun.append(grant.id)
        if self.slow in {None, grant.id}:
            assert self.gate.wait(PATIENCE)
        self.ids.append(grant.id)
        if error := self.errors.get(grant.id):
            raise error
        done = grant.but(due_at=None)
        with self.store.transaction() as tx:
            tx.save(done)
        self.done += 1
        return done


class _Forgetting(FakeStore):
    """Has so many batches of spent tokens to forget, and notes which instants it is asked about."""

    def __init__(self, batches: int, error: Exception | None = None) -> None:
        super().__init__()
        self.left, self.error = batches, error
        self.asked = list[datetime]()

    @override
    def forget_tokens(self, now: datetime) -> int:
        self.asked.append(now)
        if self.error is not None:
            raise self.error
        self.left -= 1
        return 500 if self.left >= 0 else 0


class _Failing(FakeStore):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error: Exception | None = error
        self.failed = 0

    @override
    def claim_due(self, now: datetime, *, limit: int, hold: timedelta, again: bool = False) -> Sequence[Grant]:
        if self.error is not None:
            self.failed += 1
            raise self.error
        return super().claim_due(now, limit=limit, hold=hold, again=again)


def _worker(store: Store, clock: Clock, reap: Callable[[Grant], Grant], *, tick: timedelta, threads: int) -> Worker:
    return Worker(store=store, clock=clock, reap=reap, tick=tick, threads=threads, hold=timedelta(minutes=1))


@contextmanager
def _running(
    store: Store, clock: Clock, reap: Callable[[Grant], Grant], *, tick: timedelta = NEVER, threads: int = 4
) -> Generator[Worker]:
    worker = _worker(store, clock, reap, tick=tick, threads=threads)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def _id(number: int) -> GrantId:
    return sample_grant(number).id


def _add(store: FakeStore, number: int, *, due_in: timedelta = timedelta(0)) -> None:
    with store.transaction() as tx:
        tx.add(sample_grant(number, due_at=START + due_in))


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)
