"""Rotation on return: what was read is replaced once, whatever dies, and only then is its grant revoked."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from pydantic import ValidationError

from controlplane.model.errors import (
    ControlPlaneError,
    RotationOffError,
    StoreUnavailableError,
    VaultRefusedError,
    VaultUnavailableError,
)
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, State
from controlplane.model.plan import Layout
from controlplane.model.rotation import Rotation
from controlplane.testing.entitlements import compiled_entitlement, entitlement
from controlplane.testing.plane import FakePlane

REREAD = timedelta(seconds=30)
ROTATION = Rotation(fields=("api_key",), length=40, reread=REREAD)
SCOPE = {
    "name": "gateway",
    "engine": "kv",
    "path": "payments/gateway",
    "fields": ["api_key"],
    "rotate": {"random": {"length": 40}, "reread": "30s"},
}
ALONE = {"max_active": {"total": 1}}


@dataclass
class Kv:
    """Fits `ports.Rotator`: a secret whose versions are counted, or that is not there at all."""

    version_: int | None = 1
    rotated: list[tuple[str, Rotation]] = field(default_factory=list[tuple[str, Rotation]])
    before: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None

    def rotate(self, path: str, rotation: Rotation) -> int:
        self.before()
        self.rotated.append((path, rotation))
        self.version_ = (self.version_ or 0) + 1
        self.after()
        return self.version_

    def version(self, path: str) -> int | None:
        del path
        return self.version_


@pytest.fixture
def kv() -> Kv:
    return Kv()


@pytest.fixture
def plane(kv: Kv) -> FakePlane:
    return served(FakePlane(compiled_entitlement()), kv)


def served(plane: FakePlane, kv: Kv) -> FakePlane:
    plane.revoke = replace(plane.revoke, rotator=kv)
    plane.reap = replace(plane.reap, revoke=plane.revoke)
    return plane


def granted(plane: FakePlane) -> Grant:
    """With a credential that ends by rotation, besides whatever else it ends with."""
    grant = plane.ask().grant
    (lease,) = plane.store.leases(grant.id)
    with plane.store.transaction() as tx:
        tx.rotate_lease(lease.id, ROTATION)
    return grant


def fails(error: type[ControlPlaneError]) -> Callable[[], object]:
    def fail() -> None:
        raise error("as the test wants it")

    return fail


def test_it_is_replaced_when_the_grant_ends_and_revoked_once_whoever_checks_it_has_read_it_anew(
    plane: FakePlane, kv: Kv
) -> None:
    grant = granted(plane)
    ending = plane.end(grant.id)
    assert (ending.state, ending.due_at) == (State.REVOKING, plane.clock.now() + REREAD)
    assert "not read anew yet" in str(ending.failing)
    assert [rotation for _, rotation in kv.rotated] == [ROTATION]
    plane.wait(REREAD)
    plane.work()
    receipt = plane.grant(grant.id).receipt
    assert receipt is not None
    assert [(end.verified, end.method) for end in receipt.ended] == [(True, "rotated at version 2")]
    assert len(kv.rotated) == len(plane.events(Kind.SECRET_ROTATED)) == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [VaultUnavailableError, VaultRefusedError])
def test_p4_what_fails_or_is_not_known_is_tried_again_until_it_is(
    plane: FakePlane, kv: Kv, when: str, error: type[ControlPlaneError]
) -> None:
    grant = granted(plane)
    setattr(kv, when, fails(error))
    plane.end(grant.id)
    plane.wait(timedelta(hours=1))
    assert plane.grant(grant.id).state is State.REVOKING
    setattr(kv, when, lambda: None)
    plane.wait(timedelta(minutes=5))
    assert plane.grant(grant.id).state is State.REVOKED


def test_p4_a_control_plane_that_dies_after_it_was_replaced_replaces_it_again_and_no_more(
    plane: FakePlane, kv: Kv
) -> None:
    grant = granted(plane)
    plane.journal.fail("before", f"commit {Kind.SECRET_ROTATED}", StoreUnavailableError)
    with pytest.raises(StoreUnavailableError):
        plane.end(grant.id)
    plane.wait(timedelta(minutes=5))
    assert (plane.grant(grant.id).state, len(kv.rotated)) == (State.REVOKED, 2)


def test_a_version_that_vault_has_lost_is_made_again(plane: FakePlane, kv: Kv) -> None:
    grant = granted(plane)
    plane.end(grant.id)
    kv.version_ = 1  # restored from a snapshot
    plane.wait(timedelta(minutes=5))
    assert (plane.grant(grant.id).state, len(kv.rotated)) == (State.REVOKED, 2)


def test_a_secret_that_is_there_no_more_is_gone(plane: FakePlane, kv: Kv) -> None:
    grant = granted(plane)
    kv.version_ = None
    assert plane.end(grant.id).state is State.REVOKED
    assert kv.rotated == []


def test_where_nobody_may_replace_it_nothing_is_granted_and_what_is_out_is_not_called_gone() -> None:
    plane = FakePlane(compiled_entitlement())
    grant = granted(plane)
    assert "vault.rotate is not set" in str(plane.end(grant.id).failing)
    layout = Layout(mounts={"kv": "kv"})
    rotated = compiled_entitlement(layout, entitlement="gateway-once", scopes=[SCOPE], context=ALONE)
    with pytest.raises(RotationOffError):
        FakePlane(rotated).ask(entitlement="gateway-once")


def test_one_secret_is_out_to_one_grant_at_a_time() -> None:
    with pytest.raises(ValidationError, match=r"set context\.max_active\.total to 1"):
        entitlement(scopes=[SCOPE])
    with pytest.raises(ValidationError, match=r"set context\.max_active\.total to 1"):
        entitlement(scopes=[SCOPE], context={"max_active": {"per_subject": 1}})
    assert entitlement(scopes=[SCOPE], context=ALONE).scopes[0].rotation == ROTATION
