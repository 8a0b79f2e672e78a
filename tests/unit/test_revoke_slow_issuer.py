"""Whoever issues may be slow and not dead: what he saves while his grant is being ended ends, too (P3; G06, R05)."""

import pytest

from controlplane.model.errors import VaultUnavailableError
from controlplane.model.event import Kind
from controlplane.model.grant import State
from controlplane.model.lease import Lease, Target
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import SETTLING, FakePlane


def test_p3_a_lease_that_is_saved_while_its_grant_is_ended_stands_in_the_receipt() -> None:
    plane = FakePlane(compiled_entitlement())
    plane.journal.fail("after", "logins.read", VaultUnavailableError)
    with pytest.raises(VaultUnavailableError):
        plane.ask()
    grant = plane.newest()
    plane.clock.advance(SETTLING)
    (path,) = grant.paths
    (id,) = plane.vault.leases.under(path)
    now = plane.clock.now()
    lease = Lease(
        id=id,
        scope="orders",
        engine="database",
        path=path,
        target=Target(kind="postgresql", name="orders"),
        principal=next(iter(plane.vault.target.users)),
        issued_at=now,
        expires_at=grant.expires_at,
    )

    def save() -> None:
        with plane.store.transaction() as tx:
            tx.add_leases(grant.id, [lease])

    plane.journal.before["leases.under"] = save
    plane.work()
    assert plane.grant(grant.id).state is State.REVOKING
    assert plane.events(Kind.GRANT_REVOKED) == []
    plane.wait(SETTLING)
    ended = plane.grant(grant.id)
    assert ended.state is State.REVOKED
    assert ended.receipt is not None
    assert [end.lease for end in ended.receipt.ended] == [id]
    assert ended.receipt.verified
    assert plane.alive() == []
