"""Credentials of which Vault keeps no lease, and ends that nobody at the target confirms (P3)."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest

from controlplane.engines import engines
from controlplane.model.entitlement import Revocability
from controlplane.model.errors import VaultUnavailableError
from controlplane.model.grant import State
from controlplane.model.lease import Ask, LeaseId, Response, is_leased, unleased
from controlplane.model.plan import Places
from controlplane.model.secret import Secret
from controlplane.ports import Engine
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane
from controlplane.testing.vault import FakeLogins

CERTIFICATE = [{"name": "client", "engine": "pki", "common_name": "checkout.agents.acme.example"}]


def plane_with(**changes: Any) -> FakePlane:
    """A control plane whose certificates are of another class, and that has no prober for them."""
    plane = FakePlane(compiled_entitlement(scopes=CERTIFICATE))
    engine = cast("Engine", replace(cast("Any", engines()["pki"]), **changes))
    plane.reap = replace(plane.reap, revoke=replace(plane.revoke, engines={"pki": engine}))
    return plane


def evidence(plane: FakePlane) -> tuple[bool, str]:
    revoked = plane.newest()
    assert revoked.state is State.REVOKED
    assert revoked.receipt is not None
    (end,) = revoked.receipt.ended
    return end.verified, end.evidence


def test_what_can_only_run_out_and_has_not_is_unverified_and_says_until_when() -> None:
    plane = plane_with(revocability=Revocability.EXPIRING, unasked="nobody takes it back")
    delivered = plane.ask()
    plane.end(delivered.grant.id)
    (lease,) = delivered.leases
    assert evidence(plane) == (False, f"nobody takes it back; it runs out at {lease.expires_at:%Y-%m-%dT%H:%M:%SZ}")


def test_what_can_only_run_out_and_has_says_so_and_is_not_verified_for_nobody_was_asked() -> None:
    """C15."""
    plane = plane_with(revocability=Revocability.EXPIRING, unasked="nobody takes it back")
    (lease,) = plane.ask().leases
    plane.clock.advance(timedelta(minutes=20))  # nobody is at work meanwhile
    plane.wait(timedelta(seconds=1))
    assert evidence(plane) == (False, f"it ran out at {lease.expires_at:%Y-%m-%dT%H:%M:%SZ}, by its own clock")


def test_what_lasts_is_never_verified_however_long_ago_its_grant_ended() -> None:
    plane = plane_with(revocability=Revocability.LASTING, unasked="whoever has read it has it")
    plane.ask()
    plane.clock.advance(timedelta(days=400))
    plane.wait(timedelta(seconds=1))
    assert evidence(plane) == (False, "whoever has read it has it")


@pytest.fixture
def without_leases(monkeypatch: pytest.MonkeyPatch) -> Sequence[LeaseId]:
    """Vault answers as it does where it keeps no lease."""
    real, made = FakeLogins.read, list[LeaseId]()

    def read(logins: FakeLogins, token: Secret, ask: Ask) -> Response:
        response = real(logins, token, ask)
        made.append(response.lease)
        return replace(response, lease=unleased(ask.path, f"request-{len(made)}"))

    monkeypatch.setattr(FakeLogins, "read", read)
    return made


def test_an_engine_that_always_gets_a_lease_and_got_none_hands_nothing_out(without_leases: Sequence[LeaseId]) -> None:
    """P3: what has no lease could not be taken back."""
    plane = FakePlane(compiled_entitlement(scopes=CERTIFICATE))
    with pytest.raises(VaultUnavailableError, match="without a lease"):
        plane.ask()
    assert plane.newest().state is State.REVOKING
    assert len(without_leases) == 1


@pytest.mark.usefixtures("without_leases")
def test_what_never_had_a_lease_is_not_looked_up_renewed_or_revoked_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Places(roles="pki/roles", leases=None, holds=None)
    monkeypatch.setattr(type(engines()["pki"]), "places", lambda _engine, _mount: nowhere)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType] # a stand-in
    plane = FakePlane(compiled_entitlement(scopes=CERTIFICATE))
    delivered = plane.ask(ttl=timedelta(minutes=1))
    (lease,) = delivered.leases
    assert not is_leased(lease.id)
    begun = len(plane.journal.steps)
    plane.end(delivered.grant.id)
    assert plane.journal.steps[begun:] == [
        "commit grant.ended",
        "logins.facts",
        "leases.revoke_token",
        "logins.facts",
        "commit lease.revoked grant.revoked",
    ]


def test_no_lease_of_vault_looks_like_one_of_ours() -> None:
    assert not is_leased(unleased("ssh/issue/sh-x-0a1b2c3d-shell", "1"))
    assert is_leased(LeaseId("unleased/creds/x/1"))
