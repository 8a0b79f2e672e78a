"""What no open grant covers is found, ended and reported; what is being issued is left alone (G12, G17, R17, R20)."""

from datetime import timedelta

import pytest

from controlplane.model.errors import VaultUnavailableError
from controlplane.model.event import Kind
from controlplane.model.grant import State, Why
from controlplane.model.lease import Ask, LeaseId
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane

ROUND = timedelta(seconds=10)
MINUTE = timedelta(minutes=1)
MADE = compiled_entitlement()
ROLE = MADE.naming.base
PATH = f"database/creds/{MADE.naming.scope('orders')}"


@pytest.fixture
def plane() -> FakePlane:
    plane = FakePlane(MADE)
    plane.reconcile()
    return plane


def again(plane: FakePlane) -> bool:
    plane.clock.advance(ROUND)
    return plane.reconcile()


def told(plane: FakePlane, kind: Kind) -> list[tuple[object, ...]]:
    names = ("orphan", "name") if kind is Kind.ORPHAN_FOUND else ("orphan", "name", "verified")
    return [tuple(event.body[name] for name in names) for event in plane.events(kind)]


def test_nothing_of_an_open_grant_is_touched(plane: FakePlane) -> None:
    grant = plane.ask().grant
    before = plane.alive()
    assert again(plane)
    assert plane.alive() == before
    assert plane.store.orphans() == []
    assert plane.end(grant.id).state is State.REVOKED
    assert again(plane)
    assert plane.events(Kind.ORPHAN_FOUND) == []


def test_g12_a_task_jwt_that_was_sent_to_vault_twice_is_found_and_its_token_ended(plane: FakePlane) -> None:
    grant = plane.ask().grant
    second = plane.vault.logins.login(ROLE, plane.assertions[-1])
    assert again(plane)
    assert plane.vault.logins.facts(second.accessor) is None
    assert told(plane, Kind.ORPHAN_FOUND) == [("token", second.accessor)]
    assert told(plane, Kind.ORPHAN_ENDED) == [("token", second.accessor, True)]
    (found,) = plane.events(Kind.ORPHAN_FOUND)
    assert found.grant == grant.id
    assert "twice" in str(found.body["detail"])
    assert grant.accessor is not None
    assert plane.vault.logins.facts(grant.accessor) is not None
    assert plane.grant(grant.id).state is State.ACTIVE


def test_a_token_that_somebody_made_with_our_key_is_ended_though_no_grant_was_ever_asked_for(plane: FakePlane) -> None:
    grant = plane.ask().grant
    plane.end(grant.id)
    replayed = plane.vault.logins.login(ROLE, plane.assertions[-1])
    plane.vault.logins.read(replayed.token, _ask())
    assert again(plane)
    assert plane.alive() == []
    assert ("token", replayed.accessor) in told(plane, Kind.ORPHAN_FOUND)


def test_g17_what_a_failover_forgot_is_ended_and_proved_at_the_target(plane: FakePlane) -> None:
    promoted = plane.store.backup()
    forgotten = plane.ask().grant
    after = FakePlane(MADE, store=promoted, vault=plane.vault, clock=plane.clock)
    assert again(after)
    assert after.vault.target.users == set()
    assert after.vault.tokens == [*after.vault.tokens][:1]  # the wrapping token, which opens nothing any more
    assert ("token", forgotten.accessor) in told(after, Kind.ORPHAN_FOUND)
    assert {event.grant for event in after.events(Kind.ORPHAN_FOUND)} >= {forgotten.id}
    assert after.store.orphans() == []


def test_a_lease_whose_token_is_gone_is_ended_by_its_id_and_the_target_proves_it(plane: FakePlane) -> None:
    lease = plane.vault.plant_lease(PATH, "v-stray", MINUTE)
    assert again(plane)
    assert plane.vault.target.users == set()
    assert told(plane, Kind.ORPHAN_ENDED) == [("lease", lease, True)]
    assert "no login is left" in str(plane.events(Kind.ORPHAN_ENDED)[0].body["evidence"])


def test_while_a_grant_is_being_issued_a_lease_that_may_be_its_own_is_left_alone(plane: FakePlane) -> None:
    seen: list[int] = []

    def meanwhile() -> None:
        again(plane)
        seen.append(len(plane.vault.target.users))

    plane.journal.after["logins.read"] = meanwhile
    plane.ask()
    assert seen == [1]
    assert plane.events(Kind.ORPHAN_FOUND) == []


def test_while_a_grant_is_being_issued_its_token_is_left_alone(plane: FakePlane) -> None:
    plane.journal.after["logins.login"] = lambda: again(plane)
    assert plane.ask().grant.state is State.ACTIVE
    assert plane.events(Kind.ORPHAN_FOUND) == []


def test_what_an_interrupted_grant_left_is_its_own_matter(plane: FakePlane) -> None:
    plane.vault.faults.lose_login = True
    with pytest.raises(VaultUnavailableError):
        plane.ask()
    assert again(plane)
    assert plane.events(Kind.ORPHAN_FOUND) == []
    plane.wait(MINUTE)
    assert plane.newest().state is State.REVOKED
    assert plane.alive() == []


def test_an_orphan_that_resists_is_told_once_and_ended_when_the_target_is_back(plane: FakePlane) -> None:
    lease = plane.vault.plant_lease(PATH, "v-stray", MINUTE * 10)
    plane.vault.target.down = True
    for _ in range(3):
        assert again(plane)
    assert told(plane, Kind.ORPHAN_FOUND) == [("lease", lease)]
    assert plane.events(Kind.ORPHAN_ENDED) == []
    assert [orphan.name for orphan in plane.store.orphans()] == [lease]
    plane.vault.target.down = False
    assert again(plane)
    assert told(plane, Kind.ORPHAN_ENDED) == [("lease", lease, True)]


def test_a_login_without_a_lease_is_reported_until_it_is_gone_and_never_called_ended(plane: FakePlane) -> None:
    """G09: what only `VALID UNTIL` ends; the prober may look and not touch."""
    plane.vault.target.users.add("v-lost")
    plane.vault.target.groups["v-lost"] = PATH.rpartition("/")[2]
    for _ in range(2):
        assert again(plane)
    assert told(plane, Kind.ORPHAN_FOUND) == [("login", "orders/v-lost")]
    assert plane.vault.target.users == {"v-lost"}
    assert plane.events(Kind.ORPHAN_ENDED) == []
    plane.vault.target.down = True
    assert again(plane)
    assert plane.events(Kind.ORPHAN_ENDED) == []
    plane.vault.target.down = False
    plane.vault.target.users.clear()
    assert again(plane)
    assert told(plane, Kind.ORPHAN_ENDED) == [("login", "orders/v-lost", True)]


def test_a_lease_that_came_back_with_a_snapshot_of_vault_is_ended_again(plane: FakePlane) -> None:
    grant = plane.ask().grant
    (lease,) = plane.store.leases(grant.id)
    plane.end(grant.id)
    back = plane.vault.plant_lease(PATH, lease.principal, MINUTE)
    _rename(plane, back, lease.id)
    assert again(plane)
    assert told(plane, Kind.ORPHAN_ENDED) == [("lease", lease.id, True)]
    assert plane.events(Kind.ORPHAN_FOUND)[0].grant == grant.id


def test_a_grant_whose_token_vault_has_forgotten_is_ended_and_says_so(plane: FakePlane) -> None:
    delivered = plane.ask()
    accessor = delivered.grant.accessor
    assert accessor is not None
    assert delivered.wrapping_token is not None
    plane.vault.unwrap(delivered.wrapping_token)
    plane.wait(MINUTE + ROUND)
    plane.vault.leases.revoke_token(accessor)  # somebody, at Vault itself
    assert again(plane)
    plane.work()
    lost = plane.grant(delivered.grant.id)
    assert (lost.state, lost.why) == (State.REVOKED, Why.LOST)


def test_a_young_grant_is_not_called_lost_because_a_standby_may_be_behind(plane: FakePlane) -> None:
    grant = plane.ask().grant
    assert grant.accessor is not None
    plane.vault.leases.revoke_token(grant.accessor)
    assert again(plane)
    assert plane.grant(grant.id).state is State.ACTIVE


def test_a_round_is_done_by_one_replica_and_a_round_that_fails_comes_again(plane: FakePlane) -> None:
    assert not plane.reconcile()
    plane.clock.advance(ROUND)
    plane.vault.faults.sealed = True
    with pytest.raises(VaultUnavailableError):
        plane.reconcile()
    plane.vault.faults.sealed = False
    assert plane.reconcile()


def _ask() -> Ask:
    return Ask(path=PATH, body=None)


def _rename(plane: FakePlane, lease: LeaseId, to: LeaseId) -> None:
    state = plane.vault._state  # pyright: ignore[reportPrivateUsage] # what a restored snapshot does
    state.leases[to] = state.leases.pop(lease)
