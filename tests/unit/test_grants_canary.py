"""The canary: a grant like any other, that nobody gets, and whose end is proved before its revision goes live."""

from datetime import timedelta

import pytest

from controlplane.audit.record import Record
from controlplane.engines import engines
from controlplane.grants.canary import TryRevision
from controlplane.model.errors import CanaryFailedError
from controlplane.model.grant import State
from controlplane.sync.canary import closed
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import ISSUING_WITHIN, SETTLING, FakePlane

NEW = compiled_entitlement(ttl={"default": "5m", "max": "10m"})


@pytest.fixture
def plane() -> FakePlane:
    """With everything of the new revision, and a login that only the canary fits."""
    plane = FakePlane()
    for item in NEW.objects[:-1]:
        plane.vault.roles.write(item)
    plane.vault.roles.write(closed(NEW.objects[-1]))
    return plane


def canary(plane: FakePlane) -> TryRevision:
    def waits(span: timedelta) -> None:
        plane.clock.advance(span)

    return TryRevision(
        clock=plane.clock,
        ids=plane.ids,
        record=Record(clock=plane.clock, ids=plane.ids),
        store=plane.store,
        engines=engines(),
        issue=plane.issue,
        revoke=plane.revoke,
        pause=waits,
        issuing_within=ISSUING_WITHIN,
        settling=SETTLING,
    )


def test_it_is_issued_and_proved_gone(plane: FakePlane) -> None:
    """C10."""
    canary(plane)(NEW)
    (grant,) = plane.store.grants()
    assert (grant.state, grant.subject, grant.revision) == (State.REVOKED, "canary", NEW.revision)
    assert grant.receipt is not None
    assert grant.receipt.verified
    assert plane.vault.target.users == set()


def test_one_that_does_not_go_is_a_failure_and_stays_the_workers(plane: FakePlane) -> None:
    """P3, P4."""
    plane.vault.target.down = True
    with pytest.raises(CanaryFailedError, match="is not gone"):
        canary(plane)(NEW)
    (grant,) = plane.store.grants()
    assert grant.state is State.REVOKING
    assert grant.due_at is not None


def test_one_that_vault_does_not_let_in_is_a_failure(plane: FakePlane) -> None:
    plane.vault.roles.write(NEW.objects[-1])  # open to its workloads, and not to the canary
    with pytest.raises(CanaryFailedError, match="not issued"):
        canary(plane)(NEW)
    assert plane.vault.target.users == set()


def test_killed_while_it_is_out_it_is_ended_like_any_grant(plane: FakePlane) -> None:
    """P4."""
    tried = canary(plane)
    plane.vault.faults.lose_read = True
    with pytest.raises(CanaryFailedError):
        tried(NEW)
    plane.clock.advance(timedelta(minutes=30))
    assert [grant.open for grant in plane.store.grants()] == [True]
    for grant in plane.store.grants():
        plane.reap(grant)
    assert [grant.state for grant in plane.store.grants()] == [State.REVOKED]
