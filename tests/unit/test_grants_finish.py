"""Finishing a grant: the end is on disk at once, once, for its owner only (A02, A05)."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from typing_extensions import override

from controlplane.model.errors import LostRaceError, NotFoundError, StoreUnavailableError
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State, Why
from controlplane.model.identity import IssuerName
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane
from controlplane.testing.store import FakeStore

ANYBODY = [{"issuer": "dev", "subject": {"glob": "agent-*"}}]


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement())


@pytest.mark.parametrize("why", [Why.COMPLETED, Why.FAILED])
def test_finishing_saves_the_end_and_wakes_the_worker_before_anything_is_asked_of_vault(
    plane: FakePlane, why: Why
) -> None:
    id = plane.ask().grant.id
    steps = len(plane.journal.steps)
    ended = plane.finish(plane.agent(), id, why)
    assert ended == plane.grant(id)
    now = plane.clock.now()
    assert (ended.state, ended.why, ended.revoking_at, ended.due_at) == (State.REVOKING, why, now, now)
    assert plane.journal.steps[steps:] == ["commit grant.ended"]
    assert plane.woken == 1
    (event,) = plane.events(Kind.GRANT_ENDED, id)
    assert event.body["why"] == why


def test_finishing_again_changes_nothing_whatever_it_says(plane: FakePlane) -> None:
    id = plane.ask().grant.id
    first = plane.finish(plane.agent(), id, Why.COMPLETED)
    assert plane.finish(plane.agent(), id, Why.FAILED) == first
    plane.work()
    revoked = plane.grant(id)
    assert revoked.state is State.REVOKED
    assert plane.finish(plane.agent(), id, Why.FAILED) == revoked
    assert [event.body["why"] for event in plane.events(Kind.GRANT_ENDED, id)] == ["completed"]


def test_finishing_what_waits_for_approval_lapses_it_without_a_call_to_vault() -> None:
    plane = FakePlane(compiled_entitlement(risk="high", approval={"quorum": 1, "from": ["group:oncall"]}))
    id = plane.ask().grant.id
    lapsed = plane.finish(plane.agent(), id, Why.COMPLETED)
    assert (lapsed.state, lapsed.why, lapsed.due_at) == (State.LAPSED, Why.COMPLETED, None)
    assert plane.journal.steps == ["commit grant.requested", "commit grant.lapsed"]
    assert plane.finish(plane.agent(), id, Why.COMPLETED) == lapsed
    plane.wait(timedelta(hours=1))
    assert plane.grant(id) == lapsed


def test_another_workload_s_grant_and_one_that_never_was_are_refused_in_the_same_words() -> None:
    plane = FakePlane(compiled_entitlement(eligibility=ANYBODY))
    id = plane.ask(plane.agent("agent-1")).grant.id
    none = GrantId("gr_" + "z" * 24)
    with pytest.raises(NotFoundError) as foreign:
        plane.finish(plane.agent("agent-2"), id, Why.COMPLETED)
    with pytest.raises(NotFoundError) as unknown:
        plane.finish(plane.agent("agent-2"), none, Why.COMPLETED)
    assert foreign.value.detail.replace(id, none) == unknown.value.detail
    assert plane.grant(id).state is State.ACTIVE


def test_the_same_subject_of_another_issuer_is_another_workload(plane: FakePlane) -> None:
    mine = plane.agent()
    id = plane.ask(mine).grant.id
    with pytest.raises(NotFoundError):
        plane.finish(replace(mine, issuer=IssuerName("elsewhere")), id, Why.COMPLETED)


def test_a_hundred_at_once_end_it_once_and_are_told_the_same(plane: FakePlane) -> None:
    who, id, ready = plane.agent(), plane.ask().grant.id, threading.Barrier(20)
    told: list[Grant] = []

    def finish() -> None:
        ready.wait(60)
        told.extend(plane.finish(who, id, Why.COMPLETED) for _ in range(5))

    threads = [threading.Thread(target=finish) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(told) == 100
    assert {(grant.version, grant.state) for grant in told} == {(4, State.REVOKING)}
    assert len(plane.events(Kind.GRANT_ENDED)) == 1


def test_a_race_lost_to_somebody_who_moved_the_grant_is_run_again() -> None:
    store = _Moving()
    plane = FakePlane(compiled_entitlement(), store=store)
    grant = plane.ask().grant

    def watch() -> None:
        with store.transaction() as tx:
            tx.save(grant.but(due_at=grant.expires_at, wrap_accessor=None))

    store.after_look = [watch]
    ended = plane.finish(plane.agent(), grant.id, Why.COMPLETED)
    assert (ended.state, ended.version) == (State.REVOKING, grant.version + 2)


def test_a_grant_that_keeps_moving_is_told_to_be_asked_again_for() -> None:
    store = _Moving()
    plane = FakePlane(compiled_entitlement(), store=store)
    id = plane.ask().grant.id

    def move() -> None:
        with store.transaction() as tx:
            tx.save(store.now(id).but(attempts=0))

    store.after_look = [move] * 50
    with pytest.raises(LostRaceError):
        plane.finish(plane.agent(), id, Why.COMPLETED)
    assert len(store.after_look) > 40  # it gave up after a few tries


def test_when_the_end_cannot_be_saved_the_caller_is_told_and_nothing_has_changed(plane: FakePlane) -> None:
    grant = plane.ask().grant
    plane.journal.fail("before", "commit grant.ended", StoreUnavailableError)
    with pytest.raises(StoreUnavailableError):
        plane.finish(plane.agent(), grant.id, Why.COMPLETED)
    assert plane.grant(grant.id) == grant
    assert plane.woken == 0


class _Moving(FakeStore):
    """A store in which something happens right after somebody looked at a grant."""

    def __init__(self) -> None:
        super().__init__()
        self.after_look: list[Callable[[], None]] = []

    def now(self, id: GrantId) -> Grant:
        found = super().grant(id)
        assert found is not None
        return found

    @override
    def grant(self, id: GrantId) -> Grant | None:
        found = super().grant(id)
        if self.after_look:
            self.after_look.pop()()
        return found
