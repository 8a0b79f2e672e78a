"""Issuing that does not come to its end: whatever it made is found and ended, at every step (P3, P4; A06, G01-G07)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Never, cast

import pytest

from controlplane.engines import engines
from controlplane.model.errors import (
    ControlPlaneError,
    LostRaceError,
    StoreUnavailableError,
    UnexpectedTokenError,
    VaultRefusedError,
    VaultUnavailableError,
)
from controlplane.model.event import Kind
from controlplane.model.grant import State, TaskId, Why
from controlplane.model.request import GrantRequest
from controlplane.ports import Engine, Meanwhile
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.meanwhile import at_once, at_the_latest
from controlplane.testing.plane import ISSUING_WITHIN, SETTLING, FakePlane

TWO_SCOPES = [
    {
        "name": name,
        "engine": "database",
        "connection": "orders",
        "privileges": [f"select on table sales.{name}"],
    }
    for name in ("orders", "customers")
]

EVERY_STEP = (
    "signer.sign",
    "logins.login",
    "logins.facts",
    "commit task_token.issued",
    "logins.read",
    "commit lease.issued",
    "logins.wrap",
    "commit grant.issued",
)


@pytest.fixture(params=[at_once, at_the_latest])
def plane(request: pytest.FixtureRequest) -> FakePlane:
    meanwhile: Meanwhile = request.param
    return FakePlane(compiled_entitlement(scopes=TWO_SCOPES), meanwhile=meanwhile)


def test_a_login_whose_answer_was_lost_burns_the_grant_and_its_token_is_found_by_metadata(plane: FakePlane) -> None:
    plane.vault.faults.lose_login = True
    with pytest.raises(VaultUnavailableError):
        plane.ask()
    id = plane.newest().id
    assert len(plane.vault.logins.accessors_of(id)) == 1
    assert (plane.newest().state, plane.newest().why) == (State.REVOKING, Why.INTERRUPTED)
    plane.work()
    assert plane.alive() == []
    assert plane.journal.steps.count("logins.login") == 1  # never repeated


def test_an_unknown_outcome_counts_as_revoked_only_when_no_late_effect_can_appear_any_more(plane: FakePlane) -> None:
    plane.vault.faults.lose_login = True
    with pytest.raises(VaultUnavailableError):
        plane.ask()
    id = plane.newest().id
    settles_at = plane.newest().settles_at
    plane.wait(SETTLING - timedelta(milliseconds=1))
    assert plane.grant(id).state is State.REVOKING
    assert plane.grant(id).failing == "issuing was interrupted: an unseen effect may still appear in Vault"
    plane.wait(timedelta(minutes=2))
    revoked = plane.grant(id)
    assert revoked.state is State.REVOKED
    assert revoked.revoked_at is not None
    assert settles_at is not None
    assert revoked.revoked_at >= settles_at


def test_a_login_that_takes_effect_long_after_its_time_out_is_found_and_ended(plane: FakePlane) -> None:
    plane.journal.fail("before", "logins.login", VaultUnavailableError)
    with pytest.raises(VaultUnavailableError):
        plane.ask()
    plane.wait(timedelta(seconds=10))
    assert plane.alive() == []
    compiled = plane.entitlements.get("orders-read")
    assert compiled is not None
    late = plane.vault.logins.login(compiled.naming.base, plane.assertions[0])
    assert plane.alive() == [late.accessor]
    plane.wait(SETTLING * 3)
    assert plane.alive() == []
    assert plane.newest().state is State.REVOKED


@pytest.mark.parametrize("lost", ["lose_read", "lose_wrap"])
def test_when_a_later_answer_is_lost_everything_made_before_ends_too(plane: FakePlane, lost: str) -> None:
    if lost == "lose_read":  # of the second scope
        plane.journal.after["commit lease.issued"] = lambda: setattr(plane.vault.faults, lost, True)
    else:
        setattr(plane.vault.faults, lost, True)
    with pytest.raises(VaultUnavailableError):
        plane.ask()
    assert len(plane.vault.target.users) == len(TWO_SCOPES)
    plane.work()
    assert plane.alive() == []
    plane.wait(SETTLING * 2)
    grant = plane.newest()
    assert (grant.state, grant.why) == (State.REVOKED, Why.INTERRUPTED)


def test_a_lease_whose_answer_was_lost_and_whose_token_is_a_zombie_is_found_under_its_path(plane: FakePlane) -> None:
    plane.vault.faults.lose_read = True
    with pytest.raises(VaultUnavailableError):
        plane.ask()
    grant = plane.newest()
    assert grant.accessor is not None
    plane.vault.make_zombie(grant.accessor)
    plane.work()
    assert plane.vault.target.users == set()
    plane.wait(SETTLING * 2)
    assert plane.newest().state is State.REVOKED


@pytest.mark.parametrize("scope", ["first", "second"])
def test_a_refused_read_ends_what_was_made_before(plane: FakePlane, scope: str) -> None:
    if scope == "first":
        plane.journal.fail("before", "logins.read", VaultRefusedError)
    else:
        plane.journal.after["commit lease.issued"] = lambda: plane.journal.fail(
            "before", "logins.read", VaultRefusedError
        )
    with pytest.raises(VaultRefusedError):
        plane.ask()
    plane.work()
    assert plane.alive() == []
    assert plane.newest().why is Why.INTERRUPTED


def test_a_credential_that_cannot_be_understood_is_ended_although_the_store_never_knew_it() -> None:
    plane = FakePlane(compiled_entitlement())
    puzzled = {"database": cast("Engine", _Puzzled(engines()["database"]))}
    request = replace(plane.request, issue=replace(plane.issue, engines=puzzled))
    asked = GrantRequest(entitlement="orders-read", task=TaskId("T-1"), intent="answer-question")
    with pytest.raises(VaultUnavailableError, match="scope orders is not usable: it lacks a password"):
        request(plane.agent(), asked)
    assert len(plane.vault.target.users) == 1
    plane.work()
    assert plane.alive() == []


def test_when_the_accessor_cannot_be_saved_the_token_is_revoked_there_and_then(plane: FakePlane) -> None:
    def full() -> None:
        plane.store.down = "the disk is full"
        raise StoreUnavailableError(plane.store.down)

    plane.journal.before["commit task_token.issued"] = full
    with pytest.raises(StoreUnavailableError):
        plane.ask()
    plane.store.down = None
    assert plane.vault.tokens == []
    assert "logins.read" not in plane.journal.steps
    assert plane.newest().state is State.ISSUING  # the store could not be told; its deadline is
    plane.wait(ISSUING_WITHIN + SETTLING * 2)
    assert plane.newest().state is State.REVOKED


@pytest.mark.parametrize("step", [step for step in EVERY_STEP if step.startswith("commit")])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_that_failed_or_only_seemed_to_fail_leaves_nothing_alive(
    plane: FakePlane, step: str, when: str
) -> None:
    plane.journal.fail(when, step, StoreUnavailableError)
    with pytest.raises(ControlPlaneError):
        plane.ask()
    plane.wait(ISSUING_WITHIN + SETTLING * 2)
    assert plane.alive() == []
    assert plane.newest().state is State.REVOKED
    assert len(plane.events(Kind.GRANT_REVOKED)) == 1


@pytest.mark.parametrize("worker", [False, True], ids=["alone", "with-the-worker-at-once"])
@pytest.mark.parametrize("step", EVERY_STEP[:-1])
def test_a_grant_that_is_finished_while_it_is_issued_is_delivered_to_nobody_and_ends(
    plane: FakePlane, step: str, worker: bool
) -> None:  # A06
    who = plane.agent()

    def finish() -> None:
        plane.finish(who, plane.newest().id, Why.COMPLETED)
        if worker:
            plane.work()

    plane.journal.after[step] = finish
    # The worker may end the token before the next read, and then it is Vault that says no first.
    with pytest.raises((LostRaceError, UnexpectedTokenError)):
        plane.ask(who)
    plane.wait(SETTLING * 2)
    grant = plane.newest()
    assert (grant.state, grant.why) == (State.REVOKED, Why.COMPLETED)
    assert plane.alive() == []
    assert len(plane.events(Kind.GRANT_ENDED)) == len(plane.events(Kind.GRANT_REVOKED)) == 1
    assert plane.events(Kind.GRANT_ISSUED) == []


def test_a_loser_of_the_race_revokes_its_token_itself_and_does_not_wait_for_the_worker(plane: FakePlane) -> None:
    who = plane.agent()
    plane.journal.after["logins.login"] = lambda: plane.finish(who, plane.newest().id, Why.COMPLETED)
    with pytest.raises(LostRaceError):
        plane.ask(who)
    assert plane.vault.tokens == []


def test_issuing_that_takes_too_long_reads_no_further_credential(plane: FakePlane) -> None:
    plane.journal.after["commit lease.issued"] = lambda: plane.clock.advance(ISSUING_WITHIN)
    with pytest.raises(VaultUnavailableError, match="too long"):
        plane.ask()
    assert plane.journal.steps.count("logins.read") == 1
    plane.wait(SETTLING * 2)
    assert plane.alive() == []
    assert plane.newest().state is State.REVOKED


@pytest.mark.parametrize("step", EVERY_STEP)
def test_a_fault_of_our_own_at_any_step_burns_the_grant_too(plane: FakePlane, step: str) -> None:
    plane.journal.fail("before", step, RuntimeError)
    with pytest.raises(RuntimeError):
        plane.ask()
    plane.wait(ISSUING_WITHIN + SETTLING * 2)
    assert plane.alive() == []
    grant = plane.newest()
    assert (grant.state, grant.why) == (State.REVOKED, Why.INTERRUPTED)


@pytest.mark.parametrize("step", EVERY_STEP)
def test_a_control_plane_that_dies_at_any_step_leaves_what_the_next_one_ends(plane: FakePlane, step: str) -> None:
    # What a kill does: nothing of ours runs any more, not even a `finally` that would tidy up.
    class KilledError(BaseException):
        pass

    def kill() -> None:
        raise KilledError

    plane.journal.after[step] = kill
    with pytest.raises(KilledError):
        plane.ask()
    id = plane.newest().id
    delivered = plane.newest().state is State.ACTIVE
    plane.wait(timedelta(minutes=10))
    grant = plane.grant(id)
    assert (grant.state, plane.alive()) == (State.REVOKED, [])
    assert grant.why is (Why.UNCLAIMED if delivered else Why.INTERRUPTED)
    assert len(plane.events(Kind.GRANT_REVOKED, id)) == 1


@dataclass
class _Puzzled:
    """Fits Engine, but understands no answer."""

    engine: Engine

    def receive(self, *_: object) -> Never:
        raise ValueError("it lacks a password")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return getattr(self.engine, name)
