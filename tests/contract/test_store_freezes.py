"""Freezes in every store: at once for whoever asks, and waited for where somebody asked before (P8, A10, I04)."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controlplane.model.errors import IllegalTransitionError, LostRaceError, StoreUnavailableError
from controlplane.model.event import Kind
from controlplane.model.freeze import Freeze, FreezeId, Thaw
from controlplane.model.grant import GrantId, State, Step
from controlplane.model.identity import IssuerName
from controlplane.model.lease import Accessor
from controlplane.ports import Store
from controlplane.testing.clock import START
from controlplane.testing.store import sample_event, sample_grant

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
Stores = Callable[[], Store]


def sample(number: int = 1, **changes: Any) -> Freeze:
    plain = Freeze(
        id=FreezeId(f"fz_{number:024}"),
        selection='label.team=billing,task="a \\"b\\""',
        message="Stop: Ünïcode.",
        reason="key leaked",
        issuer=IssuerName("people"),
        subject="ann",
        created_at=START + number * SECOND,
    )
    return replace(plain, **changes)


def thaw(number: int = 1, person: str | None = None) -> Thaw:
    return Thaw(issuer=IssuerName("people"), subject=f"p-{number}", person=person, at=START + HOUR, reason="over")


def add(store: Store, *freezes: Freeze) -> None:
    for freeze in freezes:
        with store.transaction() as tx:
            tx.freeze(freeze, sample_event(kind=Kind.SELECTION_FROZEN))


def active(store: Store, at: timedelta) -> list[int]:
    with store.transaction() as tx:
        return [int(freeze.id[3:]) for freeze in tx.freezes(START + at)]


def test_a_freeze_is_read_back_as_it_was_saved_with_its_event(store: Store) -> None:
    plain, full = sample(1), sample(2, expires_at=START + HOUR)
    add(store, plain, full)
    assert (store.freeze(plain.id), store.freeze(full.id)) == (plain, full)
    assert store.freeze(FreezeId("fz_none")) is None
    with store.transaction() as tx:
        assert tx.freezes(START) == [plain, full]
    assert [link.event.kind for link in store.links()] == [Kind.SELECTION_FROZEN] * 2


def test_only_those_are_active_that_have_neither_expired_nor_been_thawed(store: Store) -> None:
    add(store, sample(1), sample(2, expires_at=START + HOUR), sample(3))
    with store.transaction() as tx:
        tx.thaw(sample(3), sample(3).agreed(thaw(), enough=True))
    assert active(store, HOUR - SECOND) == [1, 2]
    assert active(store, HOUR) == [1]
    assert active(store, 1000 * HOUR) == [1]
    assert [freeze.id for freeze in store.freezes(active_at=START + HOUR)] == [sample(1).id]
    assert [freeze.id for freeze in store.freezes()] == [sample(number).id for number in (3, 2, 1)]


def test_freezes_are_paged_newest_first(store: Store) -> None:
    add(store, *(sample(number, created_at=START) for number in range(1, 6)))
    first = store.freezes(limit=2)
    second = store.freezes(limit=2, before=first[-1].id)
    third = store.freezes(limit=2, before=second[-1].id)
    assert [int(freeze.id[3:]) for freeze in (*first, *second, *third)] == [5, 4, 3, 2, 1]
    assert store.freezes(before=FreezeId("fz_none")) == []


def test_a_thaw_is_saved_once_and_by_whoever_saw_it_last(store: Store) -> None:
    before = sample()
    add(store, before)
    first = before.agreed(thaw(1, "Ann"), enough=False)
    with store.transaction() as tx:
        tx.thaw(before, first, sample_event(kind=Kind.THAW_AGREED))
    assert store.freeze(before.id) == first
    with pytest.raises(LostRaceError), store.transaction() as tx:
        tx.thaw(before, before.agreed(thaw(2), enough=True))
    second = first.agreed(thaw(2), enough=True)
    with store.transaction() as tx:
        tx.thaw(first, replace(second, message="something else", selection="all"))
    assert store.freeze(before.id) == second  # nothing else of it ever changes
    with pytest.raises(LostRaceError), store.transaction() as tx:
        tx.thaw(second, second.agreed(thaw(3), enough=True))
    with pytest.raises(LostRaceError), store.transaction() as tx:
        tx.thaw(sample(9), sample(9).agreed(thaw(), enough=True))


def test_what_contradicts_itself_is_refused(store: Store) -> None:
    add(store, sample())
    with pytest.raises(LostRaceError):
        add(store, sample())
    with pytest.raises(IllegalTransitionError, match="expires after it was made"):
        add(store, sample(2, expires_at=START + 2 * SECOND))
    with pytest.raises(IllegalTransitionError, match="says who thawed it"), store.transaction() as tx:
        tx.thaw(sample(), replace(sample(), thawed_at=START + HOUR))
    assert store.freezes() == [sample()]


def test_a_freeze_of_a_transaction_that_fails_never_was(store: Store) -> None:
    seen: list[Freeze] = []

    def fails() -> None:
        with store.transaction() as tx:
            tx.freeze(sample())
            seen.extend(tx.freezes(START))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert seen == [sample()]
    assert (store.freezes(), store.links()) == ([], [])


def test_p8_a_freeze_of_one_replica_is_seen_by_the_next_transaction_of_another(replicas: Stores) -> None:
    one, other = replicas(), replicas()
    assert active(other, HOUR) == []
    add(one, sample())
    one.settle_freezes()
    assert active(other, HOUR) == [1]


def test_a10_a_freeze_settles_only_when_those_who_asked_before_it_have_ended(replicas: Stores) -> None:
    one, other = replicas(), replicas()
    asked, go_on, order = threading.Event(), threading.Event(), list[str]()

    def grants() -> None:
        with one.transaction() as tx:
            assert tx.freezes(START + HOUR) == []
            asked.set()
            assert go_on.wait(30)
            order.append("granted")
            tx.add(sample_grant())

    def freezes() -> None:
        add(other, sample())
        other.settle_freezes()
        order.append("settled")

    threads = [threading.Thread(target=job) for job in (grants, freezes)]
    threads[0].start()
    assert asked.wait(30)
    threads[1].start()
    threads[1].join(0.3)  # where it need not wait, it would have settled by now
    assert order == []
    go_on.set()
    for thread in threads:
        thread.join()
    assert order == ["granted", "settled"]
    assert active(one, HOUR) == [1]


def test_a10_once_a_freeze_has_settled_no_grant_becomes_active_at_any_replica(replicas: Stores) -> None:
    stores = (replicas(), replicas())
    count, per = 4, 50
    begun, under_way, settled, late = threading.Barrier(count + 1), threading.Event(), threading.Event(), list[str]()
    outcomes: list[State] = []
    numbers = [sample_grant(number) for number in range(count * per)]

    def deliver(worker: int) -> None:
        store = stores[worker % 2]
        begun.wait()
        for grant in numbers[worker * per : (worker + 1) * per]:
            with store.transaction() as tx:
                tx.add(grant)
            active = grant.after(Step.DELIVER, accessor=Accessor("a"), issued_at=START)
            was_settled = settled.is_set()
            with store.transaction() as tx:
                frozen = bool(tx.freezes(START + HOUR))
                if not frozen:
                    tx.save(active)
            outcomes.append(State.ISSUING if frozen else State.ACTIVE)
            if len(outcomes) > count * per // 4:
                under_way.set()
            if was_settled and not frozen:
                late.append(grant.id)

    def freeze() -> list[GrantId]:
        begun.wait()
        assert under_way.wait(60)
        add(stores[0], sample())
        stores[0].settle_freezes()
        active = [grant.id for grant in stores[1].grants(states=[State.ACTIVE], limit=1000)]
        settled.set()
        return active

    with ThreadPoolExecutor(count + 1) as pool:
        at_that_moment = pool.submit(freeze)
        for delivered in [pool.submit(deliver, worker) for worker in range(count)]:
            delivered.result()
    assert len(outcomes) == count * per
    assert late == []
    assert [grant.id for grant in stores[0].grants(states=[State.ACTIVE], limit=1000)] == at_that_moment.result()
    assert outcomes.count(State.ISSUING) > 0  # the race took place


@pytest.mark.servers
@pytest.mark.parametrize("replicas", ["postgresql"], indirect=True)
def test_i04_a_transaction_that_hangs_is_told_of_and_the_freeze_stands(replicas: Stores) -> None:
    one, other = replicas(), replicas()
    asked, go_on = threading.Event(), threading.Event()

    def hangs() -> None:
        with one.transaction() as tx:
            tx.freezes(START)
            asked.set()
            go_on.wait(60)

    thread = threading.Thread(target=hangs)
    thread.start()
    try:
        assert asked.wait(30)
        add(other, sample())
        with pytest.raises(StoreUnavailableError, match="something keeps it locked"):
            other.settle_freezes()
        assert active(other, HOUR) == [1]
    finally:
        go_on.set()
        thread.join()
    other.settle_freezes()
