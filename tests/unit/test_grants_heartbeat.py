"""Heartbeats: a grant whose agent has gone silent ends; a beat moves only the next beat (C8, C11, C15)."""

from datetime import timedelta

import pytest

from controlplane.model.errors import EndedError, IllegalTransitionError, LostRaceError, StoreUnavailableError
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State, Why
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement(heartbeat="60s"))


def opened(plane: FakePlane) -> Grant:
    """A grant whose wrapping token was opened, as an agent does first."""
    delivered = plane.ask()
    assert delivered.wrapping_token is not None
    plane.vault.unwrap(delivered.wrapping_token)
    return delivered.grant


def beat(plane: FakePlane, id: GrantId) -> Grant:
    return plane.heartbeat(plane.agent(), id)


def test_c11_a_grant_that_never_beats_ends_one_interval_after_it_was_issued(plane: FakePlane) -> None:
    first = opened(plane)
    assert first.heartbeat_due_at == plane.clock.now() + MINUTE
    plane.wait(MINUTE - SECOND)
    assert plane.grant(first.id).state is State.ACTIVE
    plane.wait(2 * SECOND)
    lost = plane.grant(first.id)
    assert (lost.state, lost.why) == (State.REVOKED, Why.HEARTBEAT_LOST)
    assert plane.alive() == []
    (event,) = plane.events(Kind.GRANT_ENDED, first.id)
    assert event.body["why"] == "heartbeat-lost"


def test_c8_each_beat_moves_the_next_one_and_nothing_else(plane: FakePlane) -> None:
    first = opened(plane)
    events = len(plane.events())
    for _ in range(4):
        plane.wait(50 * SECOND)
        alive = beat(plane, first.id)
        assert alive.heartbeat_due_at == plane.clock.now() + MINUTE
        assert (alive.expires_at, alive.ttl) == (first.expires_at, first.ttl)
    assert len(plane.events()) == events
    plane.wait(50 * SECOND)
    beat(plane, first.id)
    plane.wait(MINUTE)
    assert (plane.grant(first.id).state, plane.grant(first.id).why) == (State.REVOKED, Why.EXPIRED)


def test_a_beat_asks_nothing_of_vault(plane: FakePlane) -> None:
    first = opened(plane)
    plane.journal.steps.clear()
    beat(plane, first.id)
    assert plane.journal.steps == []


def test_a_beat_that_comes_too_late_changes_nothing(plane: FakePlane) -> None:
    first = opened(plane)
    plane.clock.advance(MINUTE)
    with pytest.raises(EndedError, match="heartbeat-lost"):
        beat(plane, first.id)
    with pytest.raises(EndedError, match="heartbeat-lost"):
        plane.renew(plane.agent(), first.id)
    assert plane.woken == 2
    plane.work()
    assert plane.grant(first.id).why is Why.HEARTBEAT_LOST
    with pytest.raises(EndedError, match="heartbeat-lost"):
        beat(plane, first.id)


def test_an_entitlement_without_a_heartbeat_needs_none_and_is_told_when_it_ends() -> None:
    plane = FakePlane(compiled_entitlement())
    first = opened(plane)
    alive = beat(plane, first.id)
    assert (alive.heartbeat_due_at, alive.expires_at) == (None, first.expires_at)
    plane.wait(4 * MINUTE)
    assert plane.grant(first.id).state is State.ACTIVE


def test_a_later_end_counts_as_a_beat(plane: FakePlane) -> None:
    first = opened(plane)
    plane.wait(50 * SECOND)
    renewed = plane.renew(plane.agent(), first.id).grant
    assert renewed.heartbeat_due_at == plane.clock.now() + MINUTE
    plane.wait(50 * SECOND)
    assert plane.grant(first.id).state is State.ACTIVE


def test_a_beat_while_a_renewal_is_under_way_harms_neither(plane: FakePlane) -> None:
    first = opened(plane)
    plane.wait(30 * SECOND)
    beats: list[Grant] = []
    plane.journal.before["leases.extend"] = lambda: beats.append(beat(plane, first.id))
    renewed = plane.renew(plane.agent(), first.id).grant
    assert beats[0].renewing_to == renewed.expires_at
    assert renewed.expires_at == plane.clock.now() + 5 * MINUTE


def test_the_interval_of_now_holds_from_the_next_beat_on(plane: FakePlane) -> None:
    first = opened(plane)
    plane.change(compiled_entitlement(heartbeat="20s"))
    assert beat(plane, first.id).heartbeat_due_at == plane.clock.now() + 20 * SECOND
    plane.change(compiled_entitlement())
    assert beat(plane, first.id).heartbeat_due_at is None
    plane.wait(2 * MINUTE)
    assert plane.grant(first.id).state is State.ACTIVE


def test_a_wrapping_token_that_nobody_opens_ends_it_although_it_beats() -> None:
    plane = FakePlane(compiled_entitlement(heartbeat="20s"))
    id = plane.ask().grant.id
    for _ in range(4):
        plane.wait(15 * SECOND)
        if plane.grant(id).state is State.ACTIVE:
            beat(plane, id)
    assert (plane.grant(id).state, plane.grant(id).why) == (State.REVOKED, Why.UNCLAIMED)


def test_what_is_not_in_use_yet_has_no_beat() -> None:
    plane = FakePlane(compiled_entitlement(heartbeat="60s", approval={"quorum": 1, "from": ["group:oncall"]}))
    waits = plane.ask().grant
    assert waits.heartbeat_due_at is None
    with pytest.raises(IllegalTransitionError):
        beat(plane, waits.id)
    plane.wait(5 * MINUTE)
    assert plane.grant(waits.id).state is State.PENDING


def test_a_worker_that_was_away_ends_what_lost_its_beat_meanwhile(plane: FakePlane) -> None:
    first = opened(plane)
    plane.clock.advance(3 * MINUTE)
    plane.work()
    assert (plane.grant(first.id).state, plane.grant(first.id).why) == (State.REVOKED, Why.HEARTBEAT_LOST)


def test_a_beat_that_cannot_be_saved_is_no_beat_and_no_end(plane: FakePlane) -> None:
    first = opened(plane)
    plane.store.down = "the disk is full"
    with pytest.raises(StoreUnavailableError):
        beat(plane, first.id)
    plane.store.down = None
    assert plane.grant(first.id) == first
    assert beat(plane, first.id).state is State.ACTIVE


def test_finishing_wins_over_a_beat_at_the_same_moment(plane: FakePlane) -> None:
    first = opened(plane)
    stale = plane.grant(first.id)
    plane.finish(plane.agent(), first.id, Why.COMPLETED)
    with pytest.raises(EndedError, match="completed"):
        beat(plane, first.id)
    with pytest.raises(LostRaceError), plane.store.transaction() as tx:
        tx.save(stale.watched(heartbeat_due_at=plane.clock.now() + MINUTE))
    assert plane.end(first.id).state is State.REVOKED
