"""What every store keeps to: the one in memory, SQLite on a file, PostgreSQL."""

import re
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, insert, inspect, make_url

import controlplane.stores
from controlplane.audit.chain import GENESIS, Broken, Checkpoint, Fault, Intact, seal_head, verify
from controlplane.audit.verify import verify_trail
from controlplane.model.approval import Approver, Denial, GivenApproval, Narrowing
from controlplane.model.errors import (
    IllegalTransitionError,
    InvalidRequestError,
    LostRaceError,
    StoreUnavailableError,
    TokenReplayedError,
)
from controlplane.model.event import Kind
from controlplane.model.grant import INITIAL, TERMINAL, TRANSITIONS, Grant, GrantId, State, Step, TaskId, Why
from controlplane.model.identity import IssuerName, SingleUse, WorkloadId
from controlplane.model.lease import Accessor, Ended, LeaseId, Receipt
from controlplane.model.rotation import Made, Rotation
from controlplane.model.situation import Usage
from controlplane.ports import Store
from controlplane.stores.rows import grant_row, lease_row
from controlplane.stores.schema import audit_head, grants, leases, metadata
from controlplane.stores.sql import open_store
from controlplane.stores.trail import open_trail
from controlplane.stores.upgrade import LATEST
from controlplane.testing.clock import START
from controlplane.testing.store import AUDIT_KEY, sample_event, sample_grant, sample_lease

HOLD = timedelta(seconds=60)
SECOND = timedelta(seconds=1)


def add(store: Store, *grants: Grant) -> None:
    for grant in grants:
        with store.transaction() as tx:
            tx.add(grant, sample_event(grant=grant.id))


def save(store: Store, grant: Grant) -> Grant:
    with store.transaction() as tx:
        tx.save(grant)
    return grant


def together(*jobs: Callable[[], object]) -> list[object]:
    """Run all jobs at the same time; what each gave, or the error it raised."""
    start, results = threading.Barrier(len(jobs)), list[object]([None] * len(jobs))

    def run(number: int, job: Callable[[], object]) -> None:
        start.wait()
        try:
            results[number] = job()
        except Exception as error:  # noqa: BLE001 # the outcome is what is tested
            results[number] = error

    threads = [threading.Thread(target=run, args=(number, job)) for number, job in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def chain(store: Store) -> Intact:
    found = verify(store.links(limit=10_000), store.head(), AUDIT_KEY)
    assert isinstance(found, Intact), found
    return found


def revoked(grant: Grant, *, at: datetime = START) -> Grant:
    ended = Ended(
        lease=LeaseId("database/creds/a/1"),
        principal="v-1",
        method="task token revoked",
        at=at + timedelta(microseconds=1),
        verified=True,
        evidence="no such user — and no session",
    )
    return grant.after(
        Step.CONFIRM_GONE, revoked_at=at, receipt=Receipt(ended=(ended,)), due_at=None, failing=None, attempts=3
    )


def life(grant: Grant) -> list[Grant]:
    """Every version of a grant from `issuing` to `revoked`."""
    known = grant.but(accessor=Accessor("acc-1"))
    active = known.after(Step.DELIVER, issued_at=START, wrap_accessor=Accessor("acc-2"), settles_at=None)
    ending = active.after(Step.END, why=Why.COMPLETED, revoking_at=START, due_at=START)
    stuck = ending.after(Step.STRAND, failing="Vault gave it up", attempts=2)
    healed = stuck.after(Step.HEAL)
    return [known, active, ending, stuck, healed, revoked(healed)]


# Grants -----------------------------------------------------------------------------------------------------------


def test_every_version_of_a_grant_reads_back_exactly_as_it_was_saved(store: Store) -> None:
    grant = sample_grant(
        idempotency_key="key-1",
        reason='who "ordered"? \';--\n✓ café 東京',
        at=datetime(2026, 1, 5, 9, 30, 0, 123_456, tzinfo=UTC),
        ttl=timedelta(minutes=5, microseconds=1),
        paths=("a/b", "c/d"),
    )
    add(store, grant)
    assert store.grant(grant.id) == grant
    for version in life(grant):
        assert save(store, version) == store.grant(grant.id)
    assert {found.requested_at.tzinfo for found in store.grants()} == {UTC}


def test_a_grant_that_is_not_there_is_none(store: Store) -> None:
    assert store.grant(GrantId("gr_none")) is None


def test_an_id_is_used_once(store: Store) -> None:
    add(store, sample_grant())
    with pytest.raises(LostRaceError):
        add(store, sample_grant(task=TaskId("T-2")))


def test_a_grant_is_found_by_workload_and_idempotency_key_and_only_by_both(store: Store) -> None:
    mine = sample_grant(1, idempotency_key="same")
    other = sample_grant(2, idempotency_key="same", workload=WorkloadId("wl_other"))
    add(store, mine, other, sample_grant(3))
    assert store.asked_before(mine.workload, "same") == mine
    assert store.asked_before(other.workload, "same") == other
    assert store.asked_before(mine.workload, "else") is None
    assert store.asked_before(WorkloadId("wl_none"), "same") is None


def test_an_idempotency_key_is_used_once_by_a_workload(store: Store) -> None:
    add(store, sample_grant(1, idempotency_key="key"))
    with pytest.raises(LostRaceError):
        add(store, sample_grant(2, idempotency_key="key"))
    add(store, sample_grant(3), sample_grant(4))
    assert store.grant(sample_grant(2).id) is None


def test_a_save_of_an_old_version_loses_the_race(store: Store) -> None:
    grant = sample_grant()
    add(store, grant)
    save(store, grant.but(attempts=1))
    with pytest.raises(LostRaceError):
        save(store, grant.but(attempts=9))
    with pytest.raises(LostRaceError):
        save(store, grant.but().but().but())
    with pytest.raises(LostRaceError):
        save(store, sample_grant(7).but())
    found = store.grant(grant.id)
    assert found is not None
    assert (found.version, found.attempts) == (2, 1)


def test_two_steps_of_a_grant_can_be_saved_at_once(store: Store) -> None:
    grant = sample_grant()
    add(store, grant)
    one, two = grant.but(attempts=1), grant.but(attempts=1).but(accessor=Accessor("acc"))
    with store.transaction() as tx:
        tx.save(one, sample_event(2))
        tx.save(two, sample_event(3))
    assert store.grant(grant.id) == two


def test_what_was_asked_never_changes(store: Store) -> None:
    grant = sample_grant()
    add(store, grant)
    save(store, grant.but(subject="mallory", task=TaskId("T-9"), issuer=IssuerName("other"), attempts=4))
    found = store.grant(grant.id)
    assert found is not None
    assert (found.subject, found.task, found.issuer, found.attempts) == (grant.subject, grant.task, grant.issuer, 4)


@pytest.mark.parametrize("state", sorted(set(State) - INITIAL))
def test_no_grant_begins_in_the_middle(store: Store, state: State) -> None:
    with pytest.raises(IllegalTransitionError):
        add(store, sample_grant(state=state))
    assert chain(store).records == 0


@pytest.mark.parametrize(
    ("sentence", "changes"),
    [
        ("an active grant was issued with a known token", {"state": State.ACTIVE, "accessor": None}),
        ("a grant that ends says why and since when", {"state": State.REVOKING, "revoking_at": START}),
        ("a grant is revoked when it says since when", {"revoked_at": START, "revoking_at": START}),
        ("a grant has a length", {"ttl": timedelta(0)}),
    ],
)
def test_a_grant_that_contradicts_itself_is_refused(store: Store, sentence: str, changes: dict[str, Any]) -> None:
    grant = sample_grant()
    add(store, grant)
    with pytest.raises(IllegalTransitionError, match=sentence):
        save(store, grant.but(**changes))
    assert store.grant(grant.id) == grant


def test_a_grant_is_never_revoked_before_it_began_revoking_or_without_a_receipt(store: Store) -> None:
    grant = sample_grant()
    add(store, grant)
    ending = save(store, grant.after(Step.END, why=Why.EXPIRED, revoking_at=START))
    with pytest.raises(IllegalTransitionError, match="only after it began revoking"):
        save(store, revoked(ending, at=START - SECOND))
    with pytest.raises(IllegalTransitionError, match="has its receipt"):
        save(store, ending.after(Step.CONFIRM_GONE, revoked_at=START, due_at=None))
    with pytest.raises(IllegalTransitionError, match="never due"):
        save(store, ending.after(Step.CONFIRM_GONE, revoked_at=START, receipt=Receipt(ended=()), due_at=START))
    assert store.grant(grant.id) == ending


def test_a_tombstone_never_changes(store: Store) -> None:
    grant = sample_grant()
    add(store, grant)
    last = [save(store, version) for version in life(grant)][-1]
    for change in ({"attempts": 9}, {"state": State.REVOKING}, {"failing": "x"}):
        with pytest.raises(IllegalTransitionError):
            save(store, last.but(**change))
    assert store.grant(grant.id) == last


@pytest.mark.parametrize("state", [State.PENDING, State.APPROVED, State.DENIED, State.LAPSED, State.IRREVOCABLE])
def test_a_move_that_the_table_does_not_know_is_refused(store: Store, state: State) -> None:
    grant = sample_grant()
    add(store, grant)
    with pytest.raises(IllegalTransitionError):
        save(store, grant.but(state=state, due_at=None, why=Why.FAILED, revoking_at=START))
    assert store.grant(grant.id) == grant


# Tokens -----------------------------------------------------------------------------------------------------------


def token(name: str = "jti:1", issuer: str = "dev", *, until: datetime = START) -> SingleUse:
    return SingleUse(issuer=IssuerName(issuer), id=name, until=until)


def spend(store: Store, grant: Grant, spent: SingleUse) -> Grant:
    with store.transaction() as tx:
        tx.add(grant, sample_event(grant=grant.id))
        tx.spend(spent, grant.id)
    return grant


def test_j40_a_token_is_spent_once_and_a_second_grant_is_not_added(store: Store) -> None:
    spend(store, sample_grant(1), token())
    with pytest.raises(TokenReplayedError):
        spend(store, sample_grant(2), token())
    assert store.grant(sample_grant(2).id) is None
    assert chain(store).records == 1
    spend(store, sample_grant(3), token("jti:2"))
    spend(store, sample_grant(4), token(issuer="other"))


def test_c14_a_token_is_known_to_be_spent_and_another_is_not(store: Store) -> None:
    assert not store.spent(token())
    spend(store, sample_grant(1), token())
    assert store.spent(token())
    assert not store.spent(token("jti:2"))
    assert not store.spent(token(issuer="other"))


def test_a_token_is_spent_on_a_grant_that_is_there_or_not_at_all(store: Store) -> None:
    with pytest.raises(LostRaceError), store.transaction() as tx:
        tx.spend(token(), sample_grant(1).id)
    with pytest.raises(LostRaceError):  # the key was used before: the token is not burnt by it
        spend(store, spend(store, sample_grant(1), token("jti:2")), token())
    spend(store, sample_grant(3), token())


def test_j40_one_token_at_two_replicas_at_once_makes_one_grant(replicas: Callable[[], Store]) -> None:
    stores = [replicas(), replicas()]
    for turn in range(20):
        spent = token(f"jti:{turn}")
        grants = [sample_grant(10 * turn + number) for number in range(4)]
        jobs = [partial(spend, stores[number % 2], grant, spent) for number, grant in enumerate(grants)]
        results = together(*jobs)
        assert sum(isinstance(result, TokenReplayedError) for result in results) == 3, results
        assert sum(stores[0].grant(grant.id) is not None for grant in grants) == 1


def test_j42_a_spent_token_is_kept_to_its_end_and_forgotten_then(store: Store) -> None:
    for number in range(5):
        spend(store, sample_grant(number), token(f"jti:{number}", until=START + number * SECOND))
    assert store.forget_tokens(START - SECOND) == 0
    assert store.forget_tokens(START + 2 * SECOND) == 3
    assert store.forget_tokens(START + 2 * SECOND) == 0
    for number in (3, 4):
        with pytest.raises(TokenReplayedError):
            spend(store, sample_grant(10 + number), token(f"jti:{number}"))
    assert store.grant(sample_grant(0).id) is not None


# Approvals --------------------------------------------------------------------------------------------------------


def yes(subject: str = "ann", *, after: timedelta = SECOND, **changes: Any) -> GivenApproval:
    by = Approver(
        issuer=IssuerName("dev"),
        subject=subject,
        person="ann@acme.example",
        groups=("billing-oncall", "café"),
        claims={"role": "approver", "groups": ["billing-oncall", "café"]},
    )
    plain: dict[str, Any] = {"by": by, "digest": "d" * 64, "reason": "asked for by phone", "at": START + after}
    return GivenApproval(**(plain | changes))


def no(subject: str = "bob") -> Denial:
    by = Approver(issuer=IssuerName("dev"), subject=subject, person="bob@acme.example")
    return Denial(by=by, reason="not today", at=START)


def waits(number: int = 1, **changes: Any) -> Grant:
    return sample_grant(number, state=State.PENDING, entitlement="orders-refund", **changes)


def agree(store: Store, grant: Grant, given: GivenApproval, *, enough: bool = False) -> Grant:
    after = grant.after(Step.APPROVE) if enough else grant.but()
    with store.transaction() as tx:
        tx.save(after, sample_event(kind=Kind.APPROVAL_GIVEN, grant=grant.id))
        tx.approve(grant.id, given)
    return after


def refuse(store: Store, grant: Grant, said: Denial) -> Grant:
    after = grant.after(Step.DENY, due_at=None)
    with store.transaction() as tx:
        tx.save(after, sample_event(kind=Kind.GRANT_DENIED, grant=grant.id))
        tx.deny(grant.id, said)
    return after


def test_c17_every_yes_and_the_no_read_back_exactly_as_they_were_said(store: Store) -> None:
    grant = waits(person="Rob@acme.example", unusual=("first time", "ttl — longer"))
    add(store, grant)
    assert store.grant(grant.id) == grant
    assert (store.approvals(grant.id), store.denial(grant.id)) == ([], None)
    late, early = yes("ann", after=2 * SECOND), yes("eve", narrow=Narrowing(ttl=SECOND, scopes=("orders",)), reason="")
    grant = agree(store, agree(store, grant, late), early, enough=True)
    assert store.approvals(grant.id) == [early, late]
    narrowed = grant.after(Step.ISSUE, ttl=SECOND, scopes=("orders",), paths=("a/b",))
    assert save(store, narrowed) == store.grant(grant.id)
    assert store.approvals(GrantId("gr_none")) == []
    denied = waits(2)
    add(store, denied)
    assert refuse(store, denied, no()) == store.grant(denied.id)
    assert store.denial(denied.id) == no()


def test_a08_one_person_is_one_approval_of_one_grant(store: Store) -> None:
    add(store, waits(1), waits(2))
    grant = agree(store, waits(1), yes())
    with pytest.raises(LostRaceError):
        agree(store, grant, yes(reason="again"))
    assert store.grant(grant.id) == grant
    agree(store, waits(2), yes())
    agree(store, grant, yes(by=Approver(issuer=IssuerName("other"), subject="ann")))


def test_an_approval_and_a_denial_are_of_a_grant_that_is_there(store: Store) -> None:
    with pytest.raises(LostRaceError), store.transaction() as tx:
        tx.approve(GrantId("gr_none"), yes())
    with pytest.raises(LostRaceError), store.transaction() as tx:
        tx.deny(GrantId("gr_none"), no())


def test_a12_two_approvals_and_a_denial_at_once_end_denied_once(replicas: Callable[[], Store]) -> None:
    stores = replicas(), replicas()

    def until_said(store: Store, id: GrantId, say: Callable[[Store, Grant], Grant]) -> State:
        while True:
            grant = store.grant(id)
            assert grant is not None
            try:
                return say(store, grant).state
            except (LostRaceError, StoreUnavailableError):
                continue  # the second: another process had SQLite's file for too long, and one asks again

    def approve(store: Store, grant: Grant, subject: str) -> Grant:
        return agree(store, grant, yes(subject), enough=len(store.approvals(grant.id)) == 1)

    for turn in range(6):
        add(stores[0], waits(turn))
        id = waits(turn).id
        sayings: list[Callable[[Store, Grant], Grant]] = [
            partial(approve, subject="ann"),
            partial(approve, subject="eve"),
            partial(refuse, said=no()),
        ]
        jobs = [partial(until_said, stores[number % 2], id, saying) for number, saying in enumerate(sayings)]
        results = together(*jobs)
        found = stores[1].grant(id)
        assert found is not None
        assert found.state is State.DENIED, results
        kinds = [link.event.kind for link in stores[0].links(limit=1000) if link.event.grant == id]
        assert kinds.count(Kind.GRANT_DENIED) == 1
        # Whoever came after the no was told that nothing is left to agree to.
        assert all(isinstance(result, State | IllegalTransitionError) for result in results), results


def test_g14_of_two_replicas_that_collect_at_once_one_issues(replicas: Callable[[], Store]) -> None:
    stores = replicas(), replicas()
    for turn in range(6):
        add(stores[0], waits(turn))
        approved = agree(stores[0], waits(turn), yes(), enough=True)

        def collect(store: Store, grant: Grant = approved) -> Grant:
            return save(store, grant.after(Step.ISSUE))

        results = together(*[partial(collect, store) for store in (*stores, *stores)])
        assert sum(isinstance(result, LostRaceError) for result in results) == 3, results


def test_a18_what_waits_is_counted_by_workload_up_to_what_is_enough(store: Store) -> None:
    mine = waits().workload
    add(store, *[waits(number) for number in range(4)], waits(7, workload=WorkloadId("wl_other")), sample_grant(8))
    agree(store, waits(0), yes(), enough=True)
    with store.transaction() as tx:
        assert tx.waiting(mine, enough=10) == 3
        assert tx.waiting(mine, enough=2) == 2
        assert tx.waiting(WorkloadId("wl_none"), enough=10) == 0
        tx.add(waits(9), sample_event())
        assert tx.waiting(mine, enough=10) == 4


def test_a18_requests_at_once_never_exceed_what_may_wait(replicas: Callable[[], Store]) -> None:
    stores = replicas(), replicas()

    def ask(number: int) -> bool:
        with stores[number % 2].transaction() as tx:
            if tx.waiting(waits().workload, enough=3) >= 3:
                return False
            tx.add(waits(number), sample_event())
            return True

    assert sorted(map(bool, together(*[partial(ask, number) for number in range(8)]))) == [False] * 5 + [True] * 3


def test_what_waits_is_listed_newest_first_in_pages_by_entitlement(store: Store) -> None:
    grants = [waits(number, at=START + number * SECOND) for number in range(5)]
    add(store, *grants, sample_grant(6, state=State.PENDING, entitlement="other"), sample_grant(7))
    agree(store, grants[2], yes(), enough=True)
    newest = [grants[number] for number in (4, 3, 1, 0)]
    assert store.pending(["orders-refund", "none"]) == newest
    assert store.pending(iter(["orders-refund"]), limit=2) == newest[:2]
    assert store.pending(["orders-refund"], before=newest[1].id, limit=2) == newest[2:]
    assert [grant.entitlement for grant in store.pending(["other"])] == ["other"]
    assert store.pending([]) == []
    assert store.pending(["orders-refund"], before=GrantId("gr_none")) == []


# Pages ------------------------------------------------------------------------------------------------------------


def test_pages_of_grants_are_newest_first_and_complete(store: Store) -> None:
    grants = [sample_grant(number, at=START + number // 3 * SECOND) for number in range(10)]  # three of each instant
    add(store, *grants)
    newest = sorted(grants, key=lambda grant: (grant.requested_at, grant.id), reverse=True)
    assert store.grants() == newest
    seen: list[Grant] = []
    while page := store.grants(before=seen[-1].id if seen else None, limit=4):
        assert len(page) <= 4
        seen += page
    assert seen == newest


def test_pages_of_grants_are_of_what_was_asked_for(store: Store) -> None:
    plain = sample_grant(1)
    others = [
        sample_grant(2, workload=WorkloadId("wl_other")),
        sample_grant(3, task=TaskId("T-2")),
        sample_grant(4, entitlement="orders-refund"),
        sample_grant(5, state=State.PENDING),
    ]
    add(store, plain, *others)
    assert [grant.id for grant in store.grants(workload=WorkloadId("wl_other"))] == [others[0].id]
    assert [grant.id for grant in store.grants(task=TaskId("T-2"))] == [others[1].id]
    assert [grant.id for grant in store.grants(entitlement="orders-refund")] == [others[2].id]
    assert [grant.id for grant in store.grants(states=[State.PENDING])] == [others[3].id]
    assert len(store.grants(states=[State.PENDING, State.ISSUING])) == 5
    assert store.grants(states=[State.ACTIVE]) == []
    both = store.grants(workload=plain.workload, task=TaskId("T-2"), states=iter([State.ISSUING]))
    assert [grant.id for grant in both] == [others[1].id]


def test_a_page_after_a_grant_that_is_not_there_is_empty(store: Store) -> None:
    add(store, sample_grant())
    assert store.grants(before=GrantId("gr_none")) == []


# Leases -----------------------------------------------------------------------------------------------------------


def test_leases_come_back_in_the_order_of_their_issue(store: Store) -> None:
    grant, other = sample_grant(1), sample_grant(2)
    add(store, grant, other)
    with store.transaction() as tx:
        tx.add_leases(grant.id, [sample_lease(3), sample_lease(1)])
    with store.transaction() as tx:
        tx.add_leases(grant.id, iter([sample_lease(2)]))
        tx.add_leases(other.id, [sample_lease(4)])
    assert store.leases(grant.id) == [sample_lease(3), sample_lease(1), sample_lease(2)]
    assert store.leases(other.id) == [sample_lease(4)]
    assert store.leases(GrantId("gr_none")) == []


def test_the_end_of_a_grant_s_leases_moves_and_nobody_elses(store: Store) -> None:
    add(store, sample_grant(1), sample_grant(2))
    for number in (1, 2):
        with store.transaction() as tx:
            tx.add_leases(sample_grant(number).id, [sample_lease(number)])
    later = START + timedelta(minutes=9)
    with store.transaction() as tx:
        tx.move_leases(sample_grant(1).id, later)
    assert [lease.expires_at for lease in store.leases(sample_grant(1).id)] == [later]
    assert store.leases(sample_grant(2).id) == [sample_lease(2)]


def test_what_a_lease_ends_with_reads_back_and_how_far_that_is_is_saved_with_its_event(store: Store) -> None:
    rotation = Rotation(fields=("api_key", "b"), length=40, reread=timedelta(seconds=1.5))
    add(store, sample_grant())
    with store.transaction() as tx:
        tx.add_leases(sample_grant().id, [replace(sample_lease(), rotation=rotation), sample_lease(2)])
    assert [lease.rotation for lease in store.leases(sample_grant().id)] == [rotation, None]
    done = replace(rotation, made=Made(version=8, at=START + SECOND))
    told = sample_event()
    with store.transaction() as tx:
        tx.rotate_lease(sample_lease().id, done, told)
    assert store.leases(sample_grant().id) == [replace(sample_lease(), rotation=done), sample_lease(2)]
    assert [link.event.id for link in store.links()][-1] == told.id
    with pytest.raises(LostRaceError), store.transaction() as tx:
        tx.rotate_lease(LeaseId("nobody's"), done)


def test_a_beat_and_a_renewal_that_is_under_way_read_back_and_decide_when_a_grant_is_due(store: Store) -> None:
    grant = sample_grant(due_at=START + timedelta(minutes=1))
    add(store, grant)
    known = save(store, grant.but(accessor=Accessor("acc-1")))
    active = save(store, known.after(Step.DELIVER, issued_at=START, settles_at=None))
    beating = save(store, active.watched(heartbeat_due_at=START + 30 * SECOND))
    renewing = save(store, beating.watched(renewing_to=START + timedelta(minutes=9), renewing_by=START + 20 * SECOND))
    assert store.grant(grant.id) == renewing
    assert renewing.due_at == START + 20 * SECOND
    assert store.claim_due(START + 19 * SECOND, limit=9, hold=HOLD) == []
    assert [found.id for found in store.claim_due(START + 20 * SECOND, limit=9, hold=HOLD)] == [grant.id]
    done = save(store, renewing.watched(renewing_to=None, renewing_by=None, heartbeat_due_at=None))
    assert done.due_at == grant.expires_at
    assert store.grant(grant.id) == done


def test_r07_of_an_end_and_a_renewal_at_two_replicas_at_once_exactly_one_is_saved(
    replicas: Callable[[], Store],
) -> None:
    first, second = replicas(), replicas()
    for number in range(10):
        grant = sample_grant(number)
        add(first, grant)
        known = save(first, grant.but(accessor=Accessor(f"acc-{number}")))
        active = save(first, known.after(Step.DELIVER, issued_at=START, settles_at=None))
        ending = active.after(Step.END, why=Why.COMPLETED, revoking_at=START, due_at=START)
        renewed = active.watched(expires_at=START + timedelta(minutes=9), ttl=timedelta(minutes=9))
        results = together(partial(save, first, ending), partial(save, second, renewed))
        assert sum(isinstance(result, LostRaceError) for result in results) == 1
        assert first.grant(grant.id) in {ending, renewed}


def test_saving_a_lease_again_changes_nothing(store: Store) -> None:
    grant = sample_grant()
    add(store, grant)
    for _ in range(3):
        with store.transaction() as tx:
            tx.add_leases(grant.id, [sample_lease()], sample_event(2, Kind.LEASE_ISSUED, grant.id))
    assert store.leases(grant.id) == [sample_lease()]
    assert [link.event.kind for link in store.links()] == [Kind.GRANT_ALLOWED, Kind.LEASE_ISSUED]


def test_a_lease_belongs_to_one_grant_that_is_there(store: Store) -> None:
    add(store, sample_grant(1), sample_grant(2))
    with store.transaction() as tx:
        tx.add_leases(sample_grant(1).id, [sample_lease()])
    with pytest.raises(LostRaceError), store.transaction() as tx:
        tx.add_leases(sample_grant(2).id, [sample_lease()])
    with pytest.raises(LostRaceError), store.transaction() as tx:
        tx.add_leases(sample_grant(3).id, [sample_lease(2)])
    assert store.leases(sample_grant(1).id) == [sample_lease()]
    assert store.known_leases([sample_lease(2).id]) == frozenset()


def test_known_leases_are_those_that_some_grant_holds_however_many_are_asked_for(store: Store) -> None:
    add(store, sample_grant(1), sample_grant(2))
    with store.transaction() as tx:
        tx.add_leases(sample_grant(1).id, [sample_lease(1)])
        tx.add_leases(sample_grant(2).id, [sample_lease(1_100)])
    asked = [sample_lease(number).id for number in range(1_201)]
    assert store.known_leases(iter(asked)) == {sample_lease(1).id, sample_lease(1_100).id}
    assert store.known_leases([]) == frozenset()


# Transactions and the chain ---------------------------------------------------------------------------------------


def test_events_are_chained_with_the_changes_they_tell_of(store: Store) -> None:
    assert chain(store).records == 0
    grant = sample_grant()
    with store.transaction() as tx:
        tx.add(grant, sample_event(1, Kind.GRANT_ALLOWED, grant.id))
        tx.add_leases(grant.id, [sample_lease()], sample_event(2, Kind.LEASE_ISSUED, grant.id))
        tx.append(sample_event(3, Kind.TOKEN_REJECTED), sample_event(4, Kind.GRANT_REFUSED))
    links = store.links()
    assert [link.event for link in links] == [
        sample_event(1, Kind.GRANT_ALLOWED, grant.id),
        sample_event(2, Kind.LEASE_ISSUED, grant.id),
        sample_event(3, Kind.TOKEN_REJECTED),
        sample_event(4, Kind.GRANT_REFUSED),
    ]
    assert chain(store).upto == Checkpoint(seq=4, mac=links[-1].mac)


def test_links_are_read_in_pages(store: Store) -> None:
    for number in range(7):
        with store.transaction() as tx:
            tx.append(sample_event(number))
    assert [link.seq for link in store.links(limit=3)] == [1, 2, 3]
    assert [link.seq for link in store.links(after=3, limit=3)] == [4, 5, 6]
    assert [link.seq for link in store.links(after=6)] == [7]
    assert store.links(after=7) == []


def test_an_error_inside_the_block_leaves_nothing(store: Store) -> None:
    grant = sample_grant()
    add(store, grant)
    before = store.head()

    def everything() -> None:
        with store.transaction() as tx:
            tx.save(grant.but(attempts=1), sample_event(2))
            tx.add(sample_grant(2, idempotency_key="key"), sample_event(3))
            tx.add_leases(grant.id, [sample_lease()], sample_event(4))
            tx.append(sample_event(5))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        everything()
    assert store.grants() == [grant]
    assert store.leases(grant.id) == []
    assert store.head() == before
    assert chain(store).records == 1
    add(store, sample_grant(2, idempotency_key="key"))


def test_a_lost_race_voids_the_whole_transaction_even_if_it_is_caught(store: Store) -> None:
    grant = sample_grant(1)
    add(store, grant)

    def swallow() -> None:
        with store.transaction() as tx:
            tx.add(sample_grant(2), sample_event(2))
            for _ in range(2):
                with pytest.raises(LostRaceError):
                    tx.save(grant.but().but(), sample_event(3))
            with pytest.raises(LostRaceError):
                tx.append(sample_event(4))

    with pytest.raises(LostRaceError):
        swallow()
    assert store.grants() == [grant]
    assert chain(store).records == 1


def test_nobody_sees_a_change_before_it_is_whole(store: Store) -> None:
    with store.transaction() as tx:
        tx.add(sample_grant(), sample_event())
        assert together(lambda: store.grant(sample_grant().id), store.links) == [None, []]
    assert store.grant(sample_grant().id) is not None


def test_transactions_of_a_thread_do_not_nest_and_say_so(store: Store) -> None:
    def nested() -> None:
        with store.transaction() as outer:
            outer.append(sample_event(1))
            with store.transaction() as inner:
                inner.append(sample_event(2))

    with pytest.raises(RuntimeError, match="do not nest"):
        nested()
    assert chain(store).records == 0


# Races ------------------------------------------------------------------------------------------------------------


def test_of_many_threads_that_save_the_same_version_exactly_one_wins(replicas: Callable[[], Store]) -> None:
    one, other = replicas(), replicas()
    for number in range(5):
        grant = sample_grant(number)
        add(one, grant)
        before = chain(one).records

        def move(store: Store, grant: Grant = grant) -> None:
            with store.transaction() as tx:
                ending = grant.after(Step.END, why=Why.COMPLETED, revoking_at=START)
                tx.save(ending, sample_event(kind=Kind.GRANT_ENDED, grant=grant.id))

        outcomes = together(*[lambda store=store: move(store) for store in (one, other) for _ in range(4)])
        assert outcomes.count(None) == 1
        assert sum(isinstance(outcome, LostRaceError) for outcome in outcomes) == 7, outcomes
        assert chain(one).records == before + 1


def test_of_many_threads_that_use_the_same_idempotency_key_exactly_one_wins(replicas: Callable[[], Store]) -> None:
    stores = replicas(), replicas()

    def ask(number: int) -> None:
        add(stores[number % 2], sample_grant(number, idempotency_key="once"))

    outcomes = together(*[lambda number=number: ask(number) for number in range(8)])
    assert outcomes.count(None) == 1
    assert sum(isinstance(outcome, LostRaceError) for outcome in outcomes) == 7, outcomes
    winner = stores[0].asked_before(sample_grant().workload, "once")
    assert stores[0].grants() == [winner]
    assert chain(stores[1]).records == 1


def test_many_threads_write_one_unbroken_chain(replicas: Callable[[], Store]) -> None:
    stores = replicas(), replicas()

    def live(number: int) -> None:
        store = stores[number % 2]
        for each in range(5):
            grant = sample_grant(number * 10 + each)
            add(store, grant)
            for version in life(grant):
                with store.transaction() as tx:
                    tx.save(version, sample_event(grant=grant.id))

    assert together(*[lambda number=number: live(number) for number in range(6)]) == [None] * 6
    assert chain(stores[0]).records == 6 * 5 * 7
    assert {grant.state for grant in stores[1].grants(limit=1_000)} == {State.REVOKED}


# Claims -----------------------------------------------------------------------------------------------------------


def test_only_what_is_due_is_claimed_oldest_first(store: Store) -> None:
    due = [sample_grant(number, due_at=START - (number % 3) * SECOND) for number in range(6)]
    add(store, *due, sample_grant(7, due_at=START + SECOND), sample_grant(8, due_at=None))
    oldest = sorted(due, key=lambda grant: (grant.due_at, grant.id))
    assert store.claim_due(START, limit=4, hold=HOLD) == oldest[:4]
    assert store.claim_due(START, limit=4, hold=HOLD) == oldest[4:]
    assert store.claim_due(START, limit=4, hold=HOLD) == []


def test_nothing_is_claimed_from_an_empty_store(store: Store) -> None:
    assert store.claim_due(START, limit=10, hold=HOLD) == []


def test_claiming_does_not_change_the_grant(store: Store) -> None:
    grant = sample_grant(due_at=START)
    add(store, grant)
    assert store.claim_due(START, limit=1, hold=HOLD) == [grant]
    assert store.grant(grant.id) == grant
    save(store, grant.but(attempts=1))


def test_claimers_never_get_the_same_grant(replicas: Callable[[], Store]) -> None:
    stores = replicas(), replicas()
    add(stores[0], *[sample_grant(number, due_at=START) for number in range(40)])

    def claim(store: Store) -> list[GrantId]:
        mine: list[GrantId] = []
        while found := store.claim_due(START, limit=3, hold=HOLD):
            mine += [grant.id for grant in found]
        return mine

    claimed: list[GrantId] = []
    for outcome in together(*[lambda store=store: claim(store) for store in stores for _ in range(3)]):
        assert isinstance(outcome, list), outcome
        claimed += outcome
    # With SKIP LOCKED a claimer may give up while another still holds the last ones: none twice, and none lost.
    claimed += [grant.id for grant in stores[0].claim_due(START, limit=100, hold=HOLD)]
    assert sorted(claimed) == [sample_grant(number).id for number in range(40)]


def test_a_hold_that_ran_out_is_taken_over(replicas: Callable[[], Store]) -> None:
    one, other = replicas(), replicas()
    grant = sample_grant(due_at=START)
    add(one, grant)
    assert one.claim_due(START, limit=1, hold=HOLD) == [grant]
    assert other.claim_due(START + HOLD - SECOND, limit=1, hold=HOLD) == []
    assert other.claim_due(START + HOLD, limit=1, hold=HOLD) == [grant]
    assert one.claim_due(START + HOLD, limit=1, hold=HOLD) == []


def test_a_released_grant_can_be_claimed_again_at_once(store: Store) -> None:
    grant = sample_grant(due_at=START)
    add(store, grant)
    store.claim_due(START, limit=1, hold=HOLD)
    store.release(grant.id)
    store.release(grant.id)
    store.release(GrantId("gr_none"))
    assert store.claim_due(START, limit=1, hold=HOLD) == [grant]


def test_a_late_release_does_not_free_what_another_process_took_over(replicas: Callable[[], Store]) -> None:
    one, other = replicas(), replicas()
    if one is other:
        pytest.skip("the store in memory has one process only")
    grant = sample_grant(due_at=START)
    add(one, grant)
    one.claim_due(START, limit=1, hold=HOLD)
    other.claim_due(START + HOLD, limit=1, hold=HOLD)
    one.release(grant.id)
    assert one.claim_due(START + HOLD, limit=1, hold=HOLD) == []


def test_a_grant_stays_held_while_its_holder_saves_it(store: Store) -> None:
    grant = sample_grant(due_at=START)
    add(store, grant)
    store.claim_due(START, limit=1, hold=HOLD)
    save(store, grant.after(Step.END, why=Why.EXPIRED, revoking_at=START, due_at=START))
    assert store.claim_due(START, limit=1, hold=HOLD) == []


def test_a_tombstone_is_never_claimed_and_its_release_is_no_error(store: Store) -> None:
    grant = sample_grant(due_at=START)
    add(store, grant)
    store.claim_due(START, limit=1, hold=HOLD)
    for version in life(grant):
        save(store, version)
    store.release(grant.id)
    assert store.claim_due(START + 100 * HOLD, limit=1, hold=HOLD) == []


# Budgets ----------------------------------------------------------------------------------------------------------


def used(store: Store, grant: Grant, *, since: datetime = START, enough: int = 1000) -> Usage:
    with store.transaction() as tx:
        return tx.usage(grant.entitlement, grant.workload, since=since, enough=enough)


def test_c22_a_store_counts_what_has_not_ended_and_what_was_asked_for_since(store: Store) -> None:
    mine, other = sample_grant(1), WorkloadId("wl_other")
    ended = sample_grant(2, at=START + 2 * SECOND)
    add(store, mine, ended, sample_grant(3, at=START + 3 * SECOND), sample_grant(4, workload=other))
    add(store, sample_grant(5, state=State.PENDING), sample_grant(6, entitlement="orders-refund"))
    for version in life(ended):
        save(store, version)
    assert used(store, mine) == Usage(active_of_subject=3, active=4, requested=2, oldest=START + 2 * SECOND)
    assert used(store, mine, since=START - SECOND) == Usage(active_of_subject=3, active=4, requested=4, oldest=START)
    assert used(store, mine, since=START + 3 * SECOND) == Usage(active_of_subject=3, active=4)
    assert used(store, sample_grant(workload=WorkloadId("wl_none"))) == Usage(active=4)


def test_c22_a_store_counts_no_further_than_it_is_asked_to(store: Store) -> None:
    add(store, *[sample_grant(number, at=START + number * SECOND) for number in range(1, 6)])
    newest_two = Usage(active_of_subject=2, active=2, requested=2, oldest=START + 4 * SECOND)
    assert used(store, sample_grant(), enough=2) == newest_two


def test_c22_what_a_transaction_added_counts_in_it_and_after_a_rollback_no_more(store: Store) -> None:
    grant = sample_grant()

    def add_and_fail() -> None:
        with store.transaction() as tx:
            tx.add(grant)
            assert tx.usage(grant.entitlement, grant.workload, since=START, enough=9).active == 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        add_and_fail()
    assert used(store, grant) == Usage()


def test_c22_requests_that_race_never_exceed_a_budget(replicas: Callable[[], Store]) -> None:
    stores, limit = (replicas(), replicas()), 5

    def ask(store: Store, number: int) -> bool:
        grant = sample_grant(number, workload=WorkloadId(f"wl_{number % 3}"))
        with store.transaction() as tx:
            free = tx.usage(grant.entitlement, grant.workload, since=START, enough=limit).active < limit
            if free:
                tx.add(grant, sample_event(number, grant=grant.id))
            else:
                tx.append(sample_event(number, Kind.GRANT_REFUSED))
        return free

    jobs = [
        lambda store=store, first=10 * place: [ask(store, first + number) for number in range(5)]
        for place, store in enumerate([*stores, *stores, *stores])
    ]
    answers: list[bool] = []
    for outcome in together(*jobs):
        assert isinstance(outcome, list), outcome
        answers += outcome
    assert sum(answers) == limit
    assert len(stores[0].grants(limit=100)) == limit
    assert chain(stores[0]).records == len(answers)


# What only a server shows ------------------------------------------------------------------------------------------


@pytest.mark.servers
def test_on_postgresql_the_versions_make_the_tables_that_the_code_knows(url: str) -> None:
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


@pytest.mark.servers
@pytest.mark.parametrize("released", [f"{number:04}" for number in range(1, int(LATEST))])
def test_on_postgresql_a_store_of_every_earlier_release_is_brought_forward_with_what_it_holds(
    empty_url: str, released: str
) -> None:
    url = empty_url
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    config = Config()
    config.set_main_option("script_location", str(Path(controlplane.stores.__file__).with_name("migrations")))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, released)
        head = seal_head(AUDIT_KEY, GENESIS.seq, GENESIS.mac)
        connection.execute(insert(audit_head).values(place=1, seq=head.seq, mac=head.mac, seal=head.seal))
        lease = lease_row(sample_grant().id, sample_lease())
        for table, row in ((grants, grant_row(sample_grant())), (leases, lease)):
            then = {column["name"] for column in inspect(connection).get_columns(table.name)}
            connection.execute(table.insert().values({name: row[name] for name in row if name in then}))
    engine.dispose()
    with closing(open_store(url, audit_key=AUDIT_KEY)) as store:
        assert store.grant(sample_grant().id) == sample_grant()
        assert store.leases(sample_grant().id) == [sample_lease()]
        last = life(sample_grant())[-1]
        for step in life(sample_grant()):
            save(store, step)
        assert store.grant(last.id) == last
        add(store, sample_grant(2))
        assert chain(store).records == 1
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


@pytest.mark.servers
def test_on_postgresql_the_database_knows_the_moves_of_the_model_and_makes_no_other(url: str) -> None:
    """Against raw SQL, without our code before it; `unit/test_grant_transitions.py` does the same on SQLite."""
    moves = {(before, after) for (before, _), after in TRANSITIONS.items()}
    with psycopg.connect(url) as owner:
        rows = owner.execute("SELECT before, after FROM grant_transitions").fetchall()
        assert {(State(before), State(after)) for before, after in rows} == moves
        for state in State:
            assert _takes(owner, "INSERT", _INSERT, state) == (state in INITIAL), state
        for before, after in product(State, State):
            with owner.transaction(force_rollback=True):
                first, *rest = _way(before, moves)
                owner.execute(_INSERT, {"state": first})
                for state in rest:
                    owner.execute(_PUT, _standing(state))
                legal = (before, after) in moves or (before is after and before not in TERMINAL)
                assert _takes(owner, "UPDATE", _PUT, after) == legal, (before, after)
        with owner.transaction(force_rollback=True):
            owner.execute(_INSERT, {"state": State.PENDING})
            with pytest.raises(psycopg.errors.CheckViolation, match="a_grant_is_never_deleted"), owner.transaction():
                owner.execute("DELETE FROM grants")


_INSERT: LiteralString = """
INSERT INTO grants (id, state, version, entitlement, revision, issuer, subject, workload, task, intent, reason, ttl,
                    request_digest, paths, requested_at, expires_at, attempts)
VALUES ('gr_1', %(state)s, 1, 'e', 'r', 'i', 's', 'w', 't', 'i', '', 1, '', '[]', now(), now(), 0)
"""
_PUT: LiteralString = """
UPDATE grants SET state = %(state)s, due_at = %(due_at)s, accessor = 'acc', issued_at = %(at)s, why = 'completed',
                  revoking_at = %(at)s, revoked_at = %(revoked_at)s, receipt = %(receipt)s
"""


def _standing(state: State) -> dict[str, object]:
    """What every other constraint wants of a grant in that state: only the move itself is left to refuse."""
    gone = state is State.REVOKED
    due_at = None if state in TERMINAL else START
    return {"state": state, "at": START, "due_at": due_at, "revoked_at": START if gone else None,
            "receipt": "{}" if gone else None}  # fmt: skip


def _takes(owner: psycopg.Connection, verb: str, statement: LiteralString, state: State) -> bool:
    refused = {"INSERT": "a_grant_begins", "UPDATE": "a_grant_moves_along|a_tombstone_never_changes"}[verb]
    try:
        with owner.transaction(force_rollback=True):
            owner.execute(statement, _standing(state))
    except psycopg.errors.CheckViolation as error:
        if re.match(refused, error.diag.constraint_name or "") is None:
            raise  # something else was wrong with it
        return False
    return True


def _way(goal: State, moves: set[tuple[State, State]]) -> list[State]:
    ways = [[state] for state in sorted(INITIAL)]
    while True:
        way = ways.pop(0)
        if way[-1] is goal:
            return way
        ways += [[*way, after] for before, after in sorted(moves) if before is way[-1] and after not in way]


@pytest.mark.servers
def test_l03_on_postgresql_a_changed_record_is_found_by_one_who_only_reads(url: str) -> None:
    store = open_store(url, audit_key=AUDIT_KEY)
    for number in range(1, 6):
        with store.transaction() as tx:
            tx.append(sample_event(number))
    store.close()
    with closing(open_trail(url)) as trail:
        found = verify_trail(trail, AUDIT_KEY)
        assert isinstance(found, Intact)
        assert found.records == 5
    with psycopg.connect(url, autocommit=True) as owner:
        with pytest.raises(psycopg.errors.CheckViolation, match="an_event_never_changes"):
            owner.execute("UPDATE events SET body = '{}' WHERE seq = 3")
        owner.execute("ALTER TABLE events DISABLE TRIGGER USER")
        owner.execute("UPDATE events SET at = at + interval '1 microsecond' WHERE seq = 3")
    with closing(open_trail(url)) as trail:
        changed = verify_trail(trail, AUDIT_KEY)
        assert isinstance(changed, Broken)
        assert (changed.seq, changed.fault) == (3, Fault.CHANGED)
        assert [link.seq for link in trail.newest(2)] == [4, 5]


@pytest.mark.servers
def test_on_postgresql_a_text_with_nul_is_refused_and_the_next_transaction_works(url: str) -> None:
    with closing(open_store(url, audit_key=AUDIT_KEY)) as store:
        with pytest.raises(InvalidRequestError):
            add(store, sample_grant(1, reason="a\x00b"))
        add(store, sample_grant(2))
        assert [grant.id for grant in store.grants()] == [sample_grant(2).id]


_END_OURS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'shorthold'"


@pytest.mark.servers
def test_on_postgresql_a_broken_connection_refuses_once_and_heals(url: str) -> None:
    def cut_off(store: Store) -> None:
        with store.transaction() as tx:
            tx.add(sample_grant(2), sample_event(2))
            with psycopg.connect(url, autocommit=True) as owner:
                owner.execute(_END_OURS)

    with closing(open_store(url, audit_key=AUDIT_KEY)) as store:
        add(store, sample_grant(1))
        with pytest.raises(StoreUnavailableError):
            cut_off(store)
        add(store, sample_grant(3))
        assert [grant.id for grant in store.grants()] == [sample_grant(3).id, sample_grant(1).id]
        assert chain(store).records == 2


@pytest.mark.servers
def test_c22_on_postgresql_budgets_of_different_entitlements_do_not_wait_for_each_other(url: str) -> None:
    with closing(open_store(url, audit_key=AUDIT_KEY)) as store, store.transaction() as tx:
        tx.usage("orders-read", WorkloadId("wl_1"), since=START, enough=1)
        assert together(lambda: used(store, sample_grant(entitlement="orders-refund"))) == [Usage()]


@pytest.mark.servers
def test_on_postgresql_open_grants_are_counted_by_their_index(url: str) -> None:
    with closing(open_store(url, audit_key=AUDIT_KEY)) as store:
        add(store, sample_grant())
    with psycopg.connect(url) as owner:
        owner.execute("SET enable_seqscan = off")
        plan = owner.execute(
            "EXPLAIN SELECT id FROM grants WHERE entitlement = 'orders-read'"
            " AND state NOT IN ('denied', 'lapsed', 'revoked') LIMIT 3"
        ).fetchall()
    assert "open_grants_by_entitlement" in str(plan)
