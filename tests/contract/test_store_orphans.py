"""What every store answers the reconciler: what open grants hold, what was found, whose round it is (G12, G17, R20)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State, Step, Why
from controlplane.model.lease import Accessor, Receipt
from controlplane.model.orphan import Orphan, OrphanKind, Tally
from controlplane.ports import Store
from controlplane.testing.clock import START
from controlplane.testing.store import sample_event, sample_grant, sample_lease

SECOND = timedelta(seconds=1)
HOLD = timedelta(minutes=1)


def add(store: Store, number: int, *, leases: int = 0, **changes: Any) -> Grant:
    grant = sample_grant(number, **changes)
    with store.transaction() as tx:
        tx.add(grant, sample_event(number, grant=grant.id))
        tx.add_leases(grant.id, [sample_lease(number * 10 + count) for count in range(leases)])
    return grant


def save(store: Store, *versions: Grant) -> None:
    for version in versions:
        with store.transaction() as tx:
            tx.save(version)


def active(grant: Grant, accessor: str) -> tuple[Grant, Grant]:
    known = grant.but(accessor=Accessor(accessor))
    return known, known.after(Step.DELIVER, issued_at=START, settles_at=None)


def ended(grant: Grant, *, at: timedelta = SECOND) -> tuple[Grant, Grant]:
    ending = grant.after(Step.END, why=Why.COMPLETED, revoking_at=START + at)
    return ending, ending.after(Step.CONFIRM_GONE, revoked_at=START + at, receipt=Receipt(ended=()), due_at=None)


def begin(store: Store, at: datetime) -> bool:
    return store.begin_round("reconcile", at, hold=HOLD)


def orphan(number: int = 1, kind: OrphanKind = OrphanKind.LEASE, **changes: Any) -> Orphan:
    plain = Orphan(
        kind=kind,
        name=f"database/creds/a/{number}",
        place="database/creds/a",
        grant=None,
        detail="no grant knows it",
        found_at=START + number * SECOND,
    )
    return replace(plain, **changes)


def test_a_token_is_held_by_an_open_grant_only(store: Store) -> None:
    first, second = add(store, 1), add(store, 2)
    save(store, *active(first, "acc-1"))
    running = active(second, "acc-2")
    save(store, *running, *ended(running[-1]))
    asked = [Accessor("acc-1"), Accessor("acc-2"), Accessor("acc-3")]
    assert store.held_tokens(asked) == {"acc-1"}
    assert store.held_tokens([Accessor(f"acc-{number}") for number in range(2_000)]) == {"acc-1"}
    assert store.held_tokens([]) == frozenset()


def test_a_lease_and_its_principal_are_held_by_an_open_grant_only(store: Store) -> None:
    add(store, 1, leases=2)
    over = add(store, 2, leases=1)
    running = active(over, "acc-2")
    save(store, *running, *ended(running[-1]))
    leases = [sample_lease(number) for number in (10, 11, 20, 30)]
    assert store.held_leases(lease.id for lease in leases) == {leases[0].id, leases[1].id}
    assert store.held_principals() == {"v-sh-10", "v-sh-11"}
    assert store.lease(leases[2].id) == (over.id, leases[2])
    assert store.lease(leases[3].id) is None


def test_open_grants_of_which_something_may_still_appear_are_unsettled(store: Store) -> None:
    issuing, settled, interrupted, over = (add(store, number) for number in range(1, 5))
    save(store, *active(settled, "acc-2"))
    save(store, interrupted.after(Step.END, why=Why.INTERRUPTED, revoking_at=START))
    save(store, *ended(over))
    assert {grant.id for grant in store.unsettled()} == {issuing.id, interrupted.id}


def test_an_orphan_is_found_once_and_its_event_written_once(store: Store) -> None:
    found = sample_event(1, Kind.ORPHAN_FOUND)
    for expected in (True, False):
        with store.transaction() as tx:
            assert tx.find(orphan(), found) is expected
    assert store.orphans() == [orphan()]
    assert [link.event for link in store.links()] == [found]


def test_an_orphan_that_ended_is_off_the_list_and_may_be_found_again(store: Store) -> None:
    named = orphan(2, OrphanKind.TOKEN, name="acc-1", grant=GrantId("gr_unknown"))
    with store.transaction() as tx:
        tx.find(named)
        tx.find(orphan(1))
    assert store.orphans() == [orphan(1), named]
    for expected in (True, False):
        with store.transaction() as tx:
            assert tx.lay(named.kind, named.name, sample_event(1, Kind.ORPHAN_ENDED)) is expected
    assert store.orphans() == [orphan(1)]
    assert len(store.links()) == 1
    with store.transaction() as tx:
        assert tx.find(named)


def test_a_round_is_begun_by_one_replica_and_taken_over_when_its_time_is_up(replicas: Callable[[], Store]) -> None:
    one, other = replicas(), replicas()
    assert one.begin_round("reconcile", START, hold=HOLD)
    assert not other.begin_round("reconcile", START + SECOND, hold=HOLD)
    assert other.begin_round("something-else", START, hold=HOLD)
    assert other.begin_round("reconcile", START + HOLD, hold=HOLD)


def test_a_round_that_ended_comes_again_when_it_said(store: Store) -> None:
    store.begin_round("reconcile", START, hold=HOLD)
    store.end_round("reconcile", START + 10 * SECOND, mark=7)
    assert not store.begin_round("reconcile", START + 9 * SECOND, hold=HOLD)
    assert store.begin_round("reconcile", START + 10 * SECOND, hold=HOLD)


def test_a_mark_never_goes_back(store: Store) -> None:
    assert store.mark("reconcile") == 0
    store.begin_round("reconcile", START, hold=HOLD)
    for mark, kept in ((7, 7), (5, 7), (0, 7), (9, 9)):
        store.end_round("reconcile", START, mark=mark)
        assert store.mark("reconcile") == kept


def test_r20_of_many_replicas_exactly_one_begins_a_round(replicas: Callable[[], Store]) -> None:
    stores = [replicas() for _ in range(4)]
    for number in range(10):
        at = START + number * HOLD
        with ThreadPoolExecutor(4) as pool:
            begun = list(pool.map(begin, stores, [at] * len(stores)))
        assert begun.count(True) == 1


def test_open_grants_are_counted_by_state_and_those_that_end_by_engine(store: Store) -> None:
    add(store, 1)
    running = active(add(store, 2, leases=1), "acc-2")
    save(store, *running)
    for number, at in ((3, 5 * SECOND), (4, 3 * SECOND)):
        ending = active(add(store, number, leases=2), f"acc-{number}")
        save(store, *ending, ended(ending[-1], at=at)[0])
    save(store, add(store, 5).after(Step.END, why=Why.REFUSED, revoking_at=START + SECOND))
    over = active(add(store, 6), "acc-6")
    save(store, *over, *ended(over[-1]))
    by_state = {tally.state: (tally.count, tally.oldest) for tally in store.tallies()}
    assert by_state == {
        State.ISSUING: (1, None),
        State.ACTIVE: (1, None),
        State.REVOKING: (3, START + SECOND),
    }
    assert sorted(store.tallies(engines=True), key=lambda tally: str(tally.engine)) == [
        Tally(state=State.REVOKING, engine=None, count=1, oldest=START + SECOND),
        Tally(state=State.REVOKING, engine="database", count=2, oldest=START + 3 * SECOND),
    ]
