"""The reaper: what is due moves on by itself, and nothing else does (P2; G10, R01, T03)."""

from datetime import timedelta

import pytest

from controlplane.model.errors import StoreUnavailableError
from controlplane.model.event import Kind
from controlplane.model.grant import GrantId, State, Why
from controlplane.testing.entitlements import LAYOUT, compiled_entitlement
from controlplane.testing.plane import ISSUING_WITHIN, FakePlane

MINUTE = timedelta(minutes=1)


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement())


def test_a_wrapping_token_that_nobody_opened_ends_its_grant_before_it_runs_out(plane: FakePlane) -> None:
    grant = plane.ask().grant
    plane.wait(LAYOUT.wrap_ttl)
    ended = plane.grant(grant.id)
    assert (ended.state, ended.why) == (State.REVOKED, Why.UNCLAIMED)
    assert ended.revoked_at is not None
    assert ended.revoked_at < grant.requested_at + LAYOUT.wrap_ttl
    assert plane.alive() == []


def test_an_opened_grant_goes_on_until_its_time_is_over_and_then_ends_verified(plane: FakePlane) -> None:
    id = _opened(plane)
    plane.wait(timedelta(minutes=5) - timedelta(seconds=1))
    assert plane.grant(id).state is State.ACTIVE
    assert len(plane.vault.target.users) == 1
    plane.wait(timedelta(seconds=2))
    ended = plane.grant(id)
    assert (ended.state, ended.why) == (State.REVOKED, Why.EXPIRED)
    assert ended.receipt is not None
    assert ended.receipt.verified
    assert plane.alive() == []


def test_the_look_at_the_wrapping_token_happens_once(plane: FakePlane) -> None:
    id = _opened(plane)
    plane.wait(MINUTE)
    looks = plane.journal.steps.count("logins.facts")
    watched = plane.grant(id)
    assert (watched.wrap_accessor, watched.due_at) == (None, watched.expires_at)
    plane.wait(MINUTE)
    assert plane.journal.steps.count("logins.facts") == looks


def test_a_wrapping_token_that_is_being_opened_at_that_moment_counts_as_opened(plane: FakePlane) -> None:
    grant = plane.ask().grant
    assert grant.wrap_accessor is not None
    plane.vault.make_zombie(grant.wrap_accessor)  # a token in its last use looks like that
    plane.wait(MINUTE)
    assert plane.grant(grant.id).state is State.ACTIVE


def test_a_vault_that_cannot_be_asked_about_a_wrapping_token_holds_nothing_up(plane: FakePlane) -> None:
    id = _opened(plane)
    plane.vault.faults.sealed = True
    plane.wait(MINUTE)
    watched = plane.grant(id)
    assert (watched.state, watched.due_at) == (State.ACTIVE, watched.expires_at)
    plane.vault.faults.sealed = False
    assert plane.end(id).state is State.REVOKED  # at once: the grant is not left to a hold that must run out


def test_a_worker_that_was_away_all_the_time_ends_what_expired_meanwhile(plane: FakePlane) -> None:  # T03
    ids = [plane.ask(task=f"T-{number}").grant.id for number in range(3)]
    plane.clock.advance(timedelta(hours=10))
    plane.work()
    assert {(plane.grant(id).state, plane.grant(id).why) for id in ids} == {(State.REVOKED, Why.EXPIRED)}


def test_an_expired_grant_whose_vault_is_sealed_stays_revoking_and_ends_when_it_is_back(plane: FakePlane) -> None:
    id = _opened(plane)
    plane.vault.faults.sealed = True
    plane.wait(timedelta(minutes=6))
    waiting = plane.grant(id)
    assert (waiting.state, waiting.why, waiting.failing) == (State.REVOKING, Why.EXPIRED, "Vault is sealed")
    plane.vault.faults.sealed = False
    plane.wait(timedelta(minutes=2))
    assert plane.grant(id).state is State.REVOKED
    assert plane.alive() == []


def test_issuing_is_left_alone_until_its_deadline_and_ended_then(plane: FakePlane) -> None:
    plane.journal.fail("after", "commit grant.allowed", KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        plane.ask()
    id = plane.newest().id
    plane.wait(ISSUING_WITHIN - timedelta(milliseconds=1))
    assert plane.grant(id).state is State.ISSUING
    plane.wait(timedelta(milliseconds=2))
    assert (plane.grant(id).state, plane.grant(id).why) == (State.REVOKING, Why.INTERRUPTED)


def test_a_race_lost_to_the_owner_leaves_the_owner_s_move(plane: FakePlane) -> None:
    grant = plane.ask().grant
    plane.clock.advance(MINUTE)
    plane.finish(plane.agent(), grant.id, Why.FAILED)
    seen = plane.reap(grant)  # claimed before the owner finished it
    assert (seen.state, seen.why) == (State.REVOKING, Why.FAILED)
    assert plane.events(Kind.GRANT_REVOKED) == []
    plane.work()
    assert (plane.grant(grant.id).state, plane.grant(grant.id).why) == (State.REVOKED, Why.FAILED)


def test_a_tombstone_never_moves_again(plane: FakePlane) -> None:
    id = plane.ask().grant.id
    revoked = plane.end(id)
    steps = len(plane.journal.steps)
    assert plane.reap(revoked) == revoked
    plane.wait(timedelta(days=1))
    assert plane.grant(id) == revoked
    assert plane.journal.steps[steps:] == []


def test_without_a_store_the_deadline_stays_due(plane: FakePlane) -> None:
    id = _opened(plane)
    plane.clock.advance(timedelta(minutes=10))
    plane.journal.fail("before", "commit grant.ended", StoreUnavailableError)
    with pytest.raises(StoreUnavailableError):
        plane.work()
    assert plane.grant(id).state is State.ACTIVE
    plane.work()
    assert (plane.grant(id).state, plane.grant(id).why) == (State.REVOKED, Why.EXPIRED)


def _opened(plane: FakePlane) -> GrantId:
    delivered = plane.ask()
    assert delivered.wrapping_token is not None
    plane.vault.unwrap(delivered.wrapping_token)
    return delivered.grant.id
