"""What somebody wrote into our store ends nothing of another's: it is refused before Vault is asked (R24)."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controlplane.grants.belonging import is_strange_token, strange_lease
from controlplane.model.errors import VaultRefusedError
from controlplane.model.grant import Grant, State, TaskId
from controlplane.model.lease import LeaseId
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane

TAMPERED = {
    "another mount": "other/creds/{role}/{tail}",
    "another role": "database/creds/sh-orders-all-0a1b2c3d-orders/{tail}",
    "one that is not ours": "database/creds/admin/{tail}",
    "a prefix": "database/creds/{role}/",
    "a way out": "database/creds/{role}/../admin/{tail}",
    "two names": "database/creds/{role}/{tail}\n{tail}",
    "a namespace before it": "ns1/database/creds/{role}/{tail}",
}


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement())


def rows(plane: FakePlane) -> Any:  # noqa: ANN401 # the fake's own
    """The tables, for somebody who is at them with SQL."""
    return vars(plane.store)["_now"]


def tamper(plane: FakePlane, grant: Grant, id: LeaseId) -> None:
    """Write another lease's id and path over those of the grant's only lease."""
    (lease,) = plane.store.leases(grant.id)
    leases = rows(plane).leases
    del leases[lease.id]
    leases[id] = (grant.id, replace(lease, id=id, path=id.rpartition("/")[0]))


@pytest.mark.parametrize("id", TAMPERED.values(), ids=TAMPERED)
def test_r24_a_lease_that_hangs_from_no_path_of_its_grant_is_strange(plane: FakePlane, id: str) -> None:
    grant = plane.ask().grant
    (lease,) = plane.store.leases(grant.id)
    assert strange_lease(grant, lease) is None
    _, _, role, tail = lease.id.split("/")
    other = replace(lease, id=LeaseId(id.format(role=role, tail=tail)))
    assert strange_lease(grant, other)
    consistent = replace(other, path=other.id.rpartition("/")[0])
    assert strange_lease(grant, consistent)


def test_r24_a_lease_of_another_that_was_written_into_our_row_is_left_alone_by_an_end_and_by_a_renewal() -> None:
    plane = FakePlane(compiled_entitlement(), compiled_entitlement(entitlement="orders-other"))
    mine, theirs = plane.ask(task=TaskId("T-1")), plane.ask(task=TaskId("T-2"), entitlement="orders-other")
    for delivered in (mine, theirs):
        assert delivered.wrapping_token is not None
        plane.vault.unwrap(delivered.wrapping_token)
    (own,), (other,) = mine.leases, theirs.leases
    rows(plane).leases.pop(other.id)
    tamper(plane, mine.grant, other.id)
    with pytest.raises(VaultRefusedError, match="hangs from no path of it"):
        plane.renew(plane.agent(), mine.grant.id, ttl=timedelta(minutes=10))
    plane.journal.steps.clear()
    left = plane.end(mine.grant.id)
    assert left.state is State.REVOKING
    assert f"hangs from no path of it, {other.id}: it was left alone" in str(left.failing)
    assert {"leases.facts", "leases.revoke", "prober.ask"} & set(plane.journal.steps) == set()
    assert plane.vault.leases.facts(own.id) is None  # its own token was revoked, and all that hangs from it
    assert plane.vault.leases.facts(other.id) is not None


def test_r24_a_token_of_another_that_was_written_into_our_row_is_left_alone_and_our_own_is_found_and_ended(
    plane: FakePlane,
) -> None:
    mine, theirs = plane.ask(task=TaskId("T-1")), plane.ask(task=TaskId("T-2"))
    own, other = mine.grant.accessor, theirs.grant.accessor
    assert own is not None
    assert other is not None
    rows(plane).grants[mine.grant.id] = replace(plane.grant(mine.grant.id), accessor=other)
    ended = plane.end(mine.grant.id)
    assert ended.state is State.REVOKED
    assert ended.receipt is not None
    assert ended.receipt.verified
    assert plane.vault.logins.facts(own) is None
    assert plane.vault.logins.facts(other) is not None
    assert plane.grant(theirs.grant.id).state is State.ACTIVE


def test_r24_where_vault_refuses_to_say_whose_a_token_is_it_is_revoked_rather_than_left_alive(plane: FakePlane) -> None:
    grant = plane.ask().grant
    plane.journal.fail("before", "logins.facts", VaultRefusedError)
    assert plane.end(grant.id).state is State.REVOKED
    assert plane.alive() == []


def test_r24_nothing_is_strange_about_a_token_that_is_gone_or_was_being_revoked(plane: FakePlane) -> None:
    grant = plane.ask().grant
    assert grant.accessor is not None
    assert not is_strange_token(grant, None)
    plane.vault.make_zombie(grant.accessor)
    assert not is_strange_token(grant, plane.vault.logins.facts(grant.accessor))
