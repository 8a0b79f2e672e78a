"""Revoking: a 2xx is a wish, a look-up a fact, and only what the target confirms is gone (P3; R01-R20)."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controlplane.model.errors import LostRaceError, StoreUnavailableError, VaultRefusedError, VaultUnavailableError
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State, Why
from controlplane.model.lease import Accessor, LeaseFacts, LeaseId
from controlplane.ports import Answer
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane

MINUTE = timedelta(minutes=1)
TWO_SCOPES = [
    {"name": name, "engine": "database", "connection": "orders", "privileges": [f"select on table sales.{name}"]}
    for name in ("orders", "customers")
]
CERTIFICATE = [{"name": "client", "engine": "pki", "common_name": "checkout.agents.acme.example"}]


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement(scopes=TWO_SCOPES))


def test_the_token_is_revoked_each_lease_looked_up_each_target_asked_and_only_then_is_it_revoked(
    plane: FakePlane,
) -> None:
    id = plane.ask().grant.id
    begun = len(plane.journal.steps)
    plane.end(id)
    assert plane.journal.steps[begun:] == [
        "commit grant.ended",
        "logins.facts",
        "leases.revoke_token",
        "leases.facts",
        "prober.ask",
        "leases.facts",
        "prober.ask",
        "logins.facts",
        "commit lease.revoked lease.revoked grant.revoked",
    ]
    assert plane.alive() == []


def test_the_receipt_says_of_each_lease_how_when_and_on_whose_word_it_ended(plane: FakePlane) -> None:
    delivered = plane.ask()
    plane.wait(MINUTE / 2)
    revoked = plane.end(delivered.grant.id)
    assert revoked.receipt is not None
    assert revoked.receipt.verified
    assert [(end.lease, end.principal) for end in revoked.receipt.ended] == [
        (lease.id, lease.principal) for lease in delivered.leases
    ]
    for end in revoked.receipt.ended:
        assert (end.method, end.verified, end.at) == ("task token revoked", True, plane.clock.now())
        assert end.evidence == f"orders: {end.principal} is gone"
    told = [event.body for event in plane.events(Kind.LEASE_REVOKED, revoked.id)]
    assert [body["lease"] for body in told] == [lease.id for lease in delivered.leases]
    assert all(body["verified"] is True for body in told)
    assert [event.body for event in plane.events(Kind.GRANT_REVOKED)] == [{"verified": True}]
    assert (revoked.revoked_at, revoked.due_at, revoked.failing) == (plane.clock.now(), None, None)


def test_where_nobody_can_be_asked_the_receipt_says_so_and_is_not_verified() -> None:
    plane = FakePlane(compiled_entitlement(scopes=CERTIFICATE))
    revoked = plane.end(plane.ask().grant.id)
    assert revoked.state is State.REVOKED
    assert revoked.receipt is not None
    assert not revoked.receipt.verified
    assert revoked.receipt.ended[0].evidence == "a pki target cannot be asked"
    assert [event.body for event in plane.events(Kind.GRANT_REVOKED)] == [{"verified": False}]


def test_a_lease_that_lingers_after_vault_s_204_is_waited_for(plane: FakePlane) -> None:  # vault-facts 1
    id = plane.ask().grant.id
    lingering = _Lingering(plane, looks=4)
    revoked = _revoke(plane, id, leases=lingering)
    assert revoked.state is State.REVOKED
    assert revoked.receipt is not None
    assert {end.method for end in revoked.receipt.ended} == {"task token revoked"}
    assert "leases.revoke" not in plane.journal.steps
    assert set(lingering.left.values()) == {0}


def test_a_lease_that_lingers_too_long_is_revoked_by_its_own_id(plane: FakePlane) -> None:
    id = plane.ask().grant.id
    revoked = _revoke(plane, id, leases=_Lingering(plane, looks=1_000))
    assert revoked.state is State.REVOKED
    assert revoked.receipt is not None
    assert [end.method for end in revoked.receipt.ended] == ["lease revoked by its id", "lease revoked by its id"]


def test_a_lease_that_lies_about_its_end_never_counts_as_gone(plane: FakePlane) -> None:
    id = plane.ask().grant.id
    waiting = _revoke(plane, id, leases=_Lingering(plane, looks=1_000, for_ever=True))
    assert waiting.state is State.REVOKING
    assert str(waiting.failing).startswith("Vault still holds lease database/creds/")


def test_the_leases_of_a_zombie_token_are_revoked_by_their_ids(plane: FakePlane) -> None:  # vault-facts 4
    grant = plane.ask().grant
    assert grant.accessor is not None
    plane.vault.make_zombie(grant.accessor)
    plane.end(grant.id)
    plane.wait(timedelta(seconds=1))
    revoked = plane.grant(grant.id)
    assert revoked.state is State.REVOKED
    assert revoked.receipt is not None
    assert {end.method for end in revoked.receipt.ended} == {"lease revoked by its id"}
    assert plane.vault.target.users == set()


def test_a_token_that_is_still_alive_is_not_revoked_whatever_the_leases_say(plane: FakePlane) -> None:
    grant = plane.ask().grant
    waiting = _revoke(plane, grant.id, leases=_Deaf(plane))
    assert (waiting.state, waiting.failing) == (State.REVOKING, "the task token is still alive")
    assert plane.vault.target.users == set()


def test_a_token_that_a_standby_does_not_know_yet_is_revoked_all_the_same(plane: FakePlane) -> None:
    grant = plane.ask().grant
    assert grant.accessor is not None
    _revoke(plane, grant.id, logins=_Behind())
    assert plane.vault.logins.facts(grant.accessor) is None
    assert plane.alive() == []


def test_while_the_target_is_down_it_is_never_called_revoked_and_says_why(plane: FakePlane) -> None:  # R12, R19
    id = plane.ask().grant.id
    plane.vault.target.down = True
    plane.end(id)
    plane.wait(timedelta(hours=1))
    waiting = plane.grant(id)
    assert waiting.state is State.REVOKING
    assert "the target does not answer" in str(waiting.failing)
    assert plane.events(Kind.GRANT_REVOKED) == []
    plane.vault.target.down = False
    plane.wait(timedelta(minutes=2))
    healed = plane.grant(id)
    assert (healed.state, healed.failing) == (State.REVOKED, None)
    assert healed.receipt is not None
    assert healed.receipt.verified
    assert plane.alive() == []


def test_tries_come_at_doubling_distances_never_over_a_minute_and_differ_between_grants(
    plane: FakePlane,
) -> None:  # R02
    ids = [plane.ask(task=f"T-{number}").grant.id for number in range(2)]
    plane.vault.target.down = True
    distances: dict[GrantId, list[float]] = {id: [] for id in ids}
    for id in ids:
        grant = plane.finish(plane.agent(), id, Why.COMPLETED)
        for _ in range(15):
            grant = plane.reap(grant)
            assert grant.due_at is not None
            distances[id].append((grant.due_at - plane.clock.now()).total_seconds())
    for spans in distances.values():
        for number, span in enumerate(spans):
            expected = min(0.5 * 2**number, 40)
            assert 0.75 * expected <= span <= 1.25 * expected
    assert distances[ids[0]] != distances[ids[1]]


def test_while_vault_does_not_answer_it_is_asked_every_few_seconds(plane: FakePlane) -> None:  # R01
    id = plane.ask().grant.id
    plane.vault.faults.sealed = True
    plane.end(id)
    plane.wait(timedelta(minutes=10))
    plane.vault.faults.sealed = False
    plane.wait(timedelta(seconds=6))
    assert plane.grant(id).state is State.REVOKED


def test_the_first_try_never_waits_for_a_target(plane: FakePlane) -> None:  # R04, I08
    id = plane.ask().grant.id
    plane.vault.target.down = True
    plane.end(id)
    assert "leases.revoke" not in plane.journal.steps
    plane.wait(timedelta(seconds=1))
    assert "leases.revoke" in plane.journal.steps


def test_a_user_that_is_there_although_vault_forgot_its_lease_is_not_gone(plane: FakePlane) -> None:  # R15
    delivered = plane.ask()
    survivor = delivered.leases[1].principal
    plane.journal.after["leases.revoke_token"] = lambda: plane.vault.target.users.add(survivor)
    waiting = plane.end(delivered.grant.id)
    assert (waiting.state, waiting.failing) == (State.REVOKING, f"orders: orders: {survivor} is there")
    assert plane.events(Kind.LEASE_SURVIVED) == []  # it may only be slow
    plane.wait(MINUTE)
    (told,) = plane.events(Kind.LEASE_SURVIVED)  # once, however often it is tried
    assert told.body["detail"] == plane.grant(delivered.grant.id).failing
    assert str(told.body["detail"]).startswith(f"Vault let go of lease {delivered.leases[1].id}")
    plane.vault.target.users.discard(survivor)
    plane.wait(MINUTE)
    assert plane.grant(delivered.grant.id).state is State.REVOKED


def test_a_target_that_nobody_can_log_in_to_is_not_gone(plane: FakePlane) -> None:  # R19
    id = plane.ask().grant.id
    plane.journal.before["prober.ask"] = lambda: setattr(plane.vault.target, "down", True)
    waiting = plane.end(id)
    assert (waiting.state, waiting.failing) == (State.REVOKING, "orders does not answer")


def test_leases_and_users_that_somebody_removed_by_hand_are_gone(plane: FakePlane) -> None:  # R14
    delivered = plane.ask()
    for lease in delivered.leases:
        plane.vault.leases.revoke(lease.id)
    assert delivered.grant.accessor is not None
    plane.vault.leases.revoke_token(delivered.grant.accessor)
    revoked = plane.end(delivered.grant.id)
    assert revoked.state is State.REVOKED
    assert revoked.receipt is not None
    assert revoked.receipt.verified


@pytest.mark.parametrize("poisoned", [0, 1])
def test_a_lease_that_resists_does_not_keep_the_others_alive(plane: FakePlane, poisoned: int) -> None:  # R18
    delivered = plane.ask()
    assert delivered.grant.accessor is not None
    plane.vault.make_zombie(delivered.grant.accessor)  # so that each lease has to be ended by its own id
    bad = delivered.leases[poisoned]
    waiting = _revoke(plane, delivered.grant.id, leases=_Poisoned(plane, bad.id))
    assert (waiting.state, waiting.failing) == (State.REVOKING, "the row is locked")
    assert plane.vault.target.users == {bad.principal}


def test_when_vault_gives_a_lease_up_it_is_told_once_and_heals_by_itself(plane: FakePlane) -> None:  # R13
    id = plane.ask().grant.id
    plane.vault.target.down = plane.vault.faults.given_up = True
    plane.end(id)
    plane.wait(timedelta(seconds=1))
    stranded = plane.grant(id)
    assert stranded.state is State.IRREVOCABLE
    assert str(stranded.failing).startswith("Vault has given lease database/creds/")
    plane.wait(timedelta(hours=2))
    assert plane.grant(id).state is State.IRREVOCABLE
    assert plane.grant(id).attempts > 50  # it goes on, although Vault would try once a day
    (event,) = plane.events(Kind.GRANT_STRANDED, id)
    assert event.body == {"detail": stranded.failing}
    plane.vault.target.down = plane.vault.faults.given_up = False
    plane.wait(timedelta(minutes=2))
    assert plane.grant(id).state is State.REVOKED
    kinds = [event.kind for event in plane.events(grant=id)]
    assert kinds[-5:] == [
        Kind.GRANT_STRANDED,
        Kind.GRANT_HEALED,
        Kind.LEASE_REVOKED,
        Kind.LEASE_REVOKED,
        Kind.GRANT_REVOKED,
    ]
    assert plane.alive() == []


def test_one_lease_that_was_given_up_is_told_even_where_another_only_resists(plane: FakePlane) -> None:
    delivered = plane.ask()
    assert delivered.grant.accessor is not None
    plane.vault.make_zombie(delivered.grant.accessor)
    first, second = delivered.leases
    leases = _Poisoned(plane, first.id, given_up=second.id)
    assert _revoke(plane, delivered.grant.id, leases=leases).state is State.IRREVOCABLE


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("leases.revoke_token", VaultUnavailableError),
        ("leases.revoke_token", VaultRefusedError),  # R05: our own token is bad: never gone
        ("leases.facts", VaultUnavailableError),
        ("leases.facts", VaultRefusedError),
        ("logins.facts", VaultUnavailableError),
        ("logins.facts", VaultRefusedError),
    ],
)
def test_an_answer_that_does_not_come_is_no_proof(plane: FakePlane, step: str, error: type[Exception]) -> None:
    id = plane.ask().grant.id
    if step == "logins.facts":  # the look after the revocation is the proof; the one before only says whose it is
        plane.journal.after["leases.revoke_token"] = lambda: plane.journal.fail("before", step, error)
    else:
        plane.journal.fail("before", step, error)
    waiting = plane.end(id)
    assert (waiting.state, waiting.failing, waiting.attempts) == (State.REVOKING, "as the test wants it", 1)
    plane.wait(MINUTE)
    assert (plane.grant(id).state, plane.alive()) == (State.REVOKED, [])


def test_a_receipt_that_cannot_be_saved_is_made_anew(plane: FakePlane) -> None:
    id = plane.ask().grant.id
    plane.journal.fail("before", "commit lease.revoked lease.revoked grant.revoked", StoreUnavailableError)
    with pytest.raises(StoreUnavailableError):
        plane.end(id)
    assert plane.grant(id).state is State.REVOKING
    plane.work()
    revoked = plane.grant(id)
    assert revoked.receipt is not None
    assert len(revoked.receipt.ended) == len(TWO_SCOPES)
    assert len(plane.events(Kind.GRANT_REVOKED)) == 1


def test_two_replicas_at_one_grant_write_one_end(plane: FakePlane) -> None:  # R20
    id = plane.ask().grant.id
    ending = plane.finish(plane.agent(), id, Why.COMPLETED)
    plane.journal.before["logins.facts"] = lambda: plane.revoke(ending)
    with pytest.raises(LostRaceError):
        plane.revoke(ending)
    assert plane.grant(id).state is State.REVOKED
    assert len(plane.events(Kind.GRANT_REVOKED)) == 1


@pytest.mark.parametrize(
    "step",
    ["commit grant.ended", "leases.revoke_token", "leases.facts", "prober.ask", "logins.facts"],
)
def test_a_control_plane_that_dies_while_it_revokes_leaves_what_the_next_one_ends(
    plane: FakePlane, step: str
) -> None:  # R11
    id = plane.ask().grant.id
    plane.journal.fail("after", step, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        plane.end(id)
    plane.wait(timedelta(minutes=2))
    assert (plane.grant(id).state, plane.alive()) == (State.REVOKED, [])
    assert len(plane.events(Kind.GRANT_REVOKED, id)) == 1


def _revoke(plane: FakePlane, id: GrantId, **ports: Any) -> Grant:
    """Two tries to revoke it through other ports: the first only looks, the second revokes what resists by its id."""
    revoke = replace(plane.revoke, **ports)
    looked = revoke(plane.finish(plane.agent(), id, Why.COMPLETED))
    return looked if looked.state is State.REVOKED else revoke(looked)


class _Other:
    """Fits Leases: the fake Vault's, but for what a test changes."""

    def __init__(self, plane: FakePlane) -> None:
        self.plane = plane

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return getattr(self.plane.vault.leases, name)


class _Deaf(_Other):
    """Ends the leases of a token and leaves the token."""

    def revoke_token(self, accessor: Accessor) -> Answer:
        del accessor
        for path in self.plane.newest().paths:
            for lease in self.plane.vault.leases.under(path):
                self.plane.vault.leases.revoke(lease)
        return Answer.REQUESTED


class _Behind:
    """Fits what is asked of Logins: a standby that has not heard of any token."""

    def facts(self, accessor: Accessor) -> None:
        del accessor


class _Lingering(_Other):
    """Shows each lease for so many looks after it was revoked, or until it is revoked by its id."""

    def __init__(self, plane: FakePlane, *, looks: int, for_ever: bool = False) -> None:
        super().__init__(plane)
        self.left = defaultdict[LeaseId, int](lambda: looks)
        self.for_ever = for_ever

    def facts(self, lease: LeaseId) -> LeaseFacts | None:
        if self.left[lease]:
            self.left[lease] -= 1
            return LeaseFacts(id=lease, issued_at=self.plane.clock.now(), ttl=MINUTE, revoke_error=None)
        return self.plane.vault.leases.facts(lease)

    def revoke(self, lease: LeaseId) -> None:
        if not self.for_ever:
            self.left[lease] = 0


class _Poisoned(_Other):
    """Cannot end one lease, and has given another up."""

    def __init__(self, plane: FakePlane, poisoned: LeaseId, *, given_up: LeaseId | None = None) -> None:
        super().__init__(plane)
        self.poisoned, self.given_up = poisoned, given_up

    def facts(self, lease: LeaseId) -> LeaseFacts | None:
        found = self.plane.vault.leases.facts(lease)
        if found is not None and lease == self.given_up:
            return replace(found, revoke_error="out of retries, last error: row is locked")
        return found

    def revoke(self, lease: LeaseId) -> None:
        if lease in {self.poisoned, self.given_up}:
            raise VaultRefusedError("the row is locked")
        self.plane.vault.leases.revoke(lease)
