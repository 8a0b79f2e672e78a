"""Engines whose target is Vault itself: a static secret that cannot be recalled, and the use of a key that can."""

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controlplane.doctor.checks import Doctor
from controlplane.doctor.finding import Finding, Grade, examine
from controlplane.model.canonical import JsonObject
from controlplane.model.errors import VaultRefusedError
from controlplane.model.secret import Secret
from controlplane.testing.real import RealPlane
from controlplane.vault.client import Server, VaultClient, part
from controlplane.wiring.identities import identity_client
from controlplane.wiring.plane import ControlPlane
from controlplane.world import SystemClock

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

STATIC: dict[str, Any] = {"name": "gateway", "engine": "kv", "path": "payments/gateway", "fields": ["api_key"]}
KEY: dict[str, Any] = {"name": "cards", "engine": "transit", "key": "cards", "operations": ["decrypt"]}
PLAIN = base64.b64encode(b"4111 1111").decode()


BASE: list[dict[str, Any]] = [
    {"entitlement": "gateway-key", "scopes": [STATIC]},
    {"entitlement": "card-numbers", "scopes": [KEY]},
    {"entitlement": "both-of-them", "scopes": [STATIC, KEY]},
]


@pytest.fixture(scope="module")
def shared(planes: Callable[..., RealPlane]) -> RealPlane:
    plane = planes("vte", "kv", "transit")
    for name in ("cards", "others"):
        plane.root.write(f"{plane.mount('transit')}/keys/{name}", {})
    values: JsonObject = {"api_key": "canary-api-key", "rest": {"a": 1}}
    plane.root.write(f"{plane.mount('kv')}/data/payments/gateway", {"data": dict(values)})
    return plane


@pytest.fixture
def plane(shared: RealPlane) -> RealPlane:
    """With the same entitlements before every test."""
    shared.entitle(*BASE)
    return shared


def agent(plane: RealPlane, token: str) -> VaultClient:
    return VaultClient(Server(plane.openbao.addr), lambda: Secret(token))


def test_of_a_static_secret_only_the_named_fields_are_handed_over_and_the_receipt_owns_up_to_what_stays_known(
    plane: RealPlane,
) -> None:
    """P3, P5: not recallable."""
    known = plane.root.read(f"{plane.mount('kv')}/metadata/payments/gateway")
    assert known is not None
    version = part(known, "data")["current_version"]
    granted = plane.grant("gateway-key")
    assert plane.unwrap(granted) == {"api_key": "canary-api-key"}
    assert granted.leases[0].principal == f"payments/gateway@{version}"
    revoked = plane.finished(granted)
    assert revoked.receipt is not None
    (end,) = revoked.receipt.ended
    assert not end.verified
    assert "whoever has read this version has it" in end.evidence
    assert "canary-api-key" not in str(revoked) + str([link.event for link in plane.plane.store.links()])


def test_one_that_is_rotated_on_return_is_another_secret_before_its_grant_is_called_revoked(plane: RealPlane) -> None:
    """C10, P3, P5: the named field only, once, proved by its metadata; nobody has read the new one."""
    path = f"{plane.mount('kv')}/data/payments/rotated"
    plane.root.write(path, {"data": {"api_key": "canary-api-key", "rest": {"a": 1}}})
    scope = STATIC | {"path": "payments/rotated", "rotate": {"random": {"length": 40}, "reread": "1s"}}
    alone = {"max_active": {"total": 1}}
    plane.entitle(*BASE, {"entitlement": "gateway-once", "scopes": [scope], "context": alone, "risk": "medium"})
    granted = plane.grant("gateway-once")
    assert plane.unwrap(granted) == {"api_key": "canary-api-key"}
    plane.root.write(path, {"data": {"api_key": "canary-api-key", "rest": {"a": 2}}})  # another version, the same key
    revoked = plane.finished(granted)
    assert revoked.receipt is not None
    (end,) = revoked.receipt.ended
    assert (end.verified, end.method, end.principal) == (True, "rotated at version 3", "payments/rotated@1")
    assert "kv payments/rotated is at version 3" in end.evidence
    data = part(part(plane.root.read(path), "data"), "data")
    assert data["rest"] == {"a": 2}
    assert re.fullmatch(r"[A-Za-z0-9]{40}", str(data["api_key"]))
    written = str(revoked) + str([link.event for link in plane.plane.store.links()])
    assert "canary-api-key" not in written
    assert str(data["api_key"]) not in written
    assert plane.events().count("secret.rotated") == 1
    with identity_client(plane.settings.vault, plane.settings.vault.rotate) as rotate:  # pyright: ignore[reportArgumentType] # it is set
        with pytest.raises(VaultRefusedError):
            rotate.read(path)
        with pytest.raises(VaultRefusedError):
            rotate.write(path, {"data": {"api_key": "x"}})


def test_p7_doctor_logs_in_as_who_rotates_and_says_what_is_amiss(plane: RealPlane) -> None:
    def told(of: ControlPlane) -> list[Finding]:
        doctor = Doctor(settings=plane.settings, plane=of, clock=SystemClock())
        return list(examine([(name, check) for name, check in doctor.checks if name == "rotate"]))

    rotate, alone = {"random": {"length": 40}, "reread": "1s"}, {"max_active": {"total": 1}}
    missing = STATIC | {"path": "payments/nowhere", "rotate": rotate}
    plane.entitle(*BASE, {"entitlement": "gateway-gone", "scopes": [missing], "context": alone})
    sound, advised = told(plane.plane)
    assert (sound.grade, advised.grade) == (Grade.SOUND, Grade.ADVICE)
    assert "has exactly the power it should" in sound.detail
    assert advised.detail == f"gateway-gone: there is no secret at {plane.mount('kv')}/data/payments/nowhere"
    (off,) = told(replace(plane.plane, rotate=None))
    assert (off.grade, off.do) == (Grade.BROKEN, "Set vault.rotate, and run `shorthold vault bootstrap`.")
    policy = f"sys/policies/acl/{plane.layout.auth_mount}-rotate"
    kept = part(plane.root.read(policy), "data")["policy"]
    plane.root.write(policy, {"policy": 'path "sys/capabilities-self" {capabilities = ["update"]}'})
    try:
        found = told(plane.plane)
        assert found[0].grade is Grade.BROKEN
        assert f"{plane.mount('kv')}/data/x (deny instead of patch)" in found[0].detail
    finally:
        plane.root.write(policy, {"policy": kept})
    plane.entitle(*BASE)


def test_a_static_secret_without_a_named_field_is_not_handed_over(plane: RealPlane) -> None:
    path = f"{plane.mount('kv')}/data/payments/gateway"
    plane.root.write(path, {"data": {"other": "x"}})
    try:
        with pytest.raises(Exception, match="without api_key"):
            plane.grant("gateway-key")
    finally:
        plane.root.write(path, {"data": {"api_key": "canary-api-key"}})


def test_a_key_s_use_is_a_token_for_the_named_operations_and_nothing_else(plane: RealPlane) -> None:
    mount = plane.mount("transit")
    granted = plane.grant("card-numbers")
    fields = plane.unwrap(granted)
    sealed = part(plane.root.write(f"{mount}/encrypt/cards", {"plaintext": PLAIN}), "data")["ciphertext"]
    client = agent(plane, fields["token"])
    assert fields["key"] == "cards"
    assert part(client.write(f"{mount}/decrypt/cards", {"ciphertext": sealed}), "data")["plaintext"] == PLAIN
    beyond: list[tuple[str, Any]] = [
        (f"{mount}/encrypt/cards", {"plaintext": PLAIN}),
        (f"{mount}/encrypt/new-key", {"plaintext": PLAIN}),
        (f"{mount}/decrypt/others", {"ciphertext": sealed}),
        (f"{mount}/keys/cards/config", {"exportable": True}),
        (f"{mount}/keys/cards/rotate", {}),
        ("auth/token/create", {}),
        (f"auth/token/create/{granted.leases[0].path.rpartition('/')[2]}", {}),
        ("auth/token/renew-self", {"increment": "8h"}),
        ("auth/token/lookup-self", {}),
        ("sys/wrapping/wrap", {"a": "b"}),
    ]
    for path, body in beyond:
        with pytest.raises(VaultRefusedError):
            client.write(path, body)
    for path in (f"{mount}/export/encryption-key/cards", f"{mount}/keys/cards"):
        with pytest.raises(VaultRefusedError):
            client.read(path)
    facts = part(plane.root.write("auth/token/lookup", {"token": fields["token"]}), "data")
    assert (facts["orphan"], facts["renewable"]) == (False, False)
    assert 0 < int(str(facts["ttl"])) <= 300
    assert facts["policies"] == [f"vte-card-numbers-{granted.grant.revision}-cards"]
    client.close()
    plane.finished(granted)


def test_it_is_dead_as_soon_as_its_grant_has_ended_and_vault_says_so(plane: RealPlane) -> None:
    """P3, C9, C10."""
    mount = plane.mount("transit")
    granted = plane.grant("card-numbers")
    fields = plane.unwrap(granted)
    sealed = part(plane.root.write(f"{mount}/encrypt/cards", {"plaintext": PLAIN}), "data")["ciphertext"]
    revoked = plane.finished(granted)
    client = agent(plane, fields["token"])
    with pytest.raises(VaultRefusedError, match=r"invalid token|permission denied"):
        client.write(f"{mount}/decrypt/cards", {"ciphertext": sealed})
    client.close()
    assert revoked.receipt is not None
    (end,) = revoked.receipt.ended
    assert end.verified
    assert end.evidence == f"Vault knows no token with the accessor {granted.leases[0].principal}"


def test_a_revision_that_is_replaced_keeps_its_key_s_use_until_its_grants_have_ended(plane: RealPlane) -> None:
    """P9."""
    mount = plane.mount("transit")
    granted = plane.grant("card-numbers")
    client = agent(plane, plane.unwrap(granted)["token"])
    sealed = part(plane.root.write(f"{mount}/encrypt/cards", {"plaintext": PLAIN}), "data")["ciphertext"]
    plane.entitle(
        {"entitlement": "gateway-key", "scopes": [STATIC]},
        {"entitlement": "card-numbers", "scopes": [KEY | {"operations": ["decrypt", "encrypt"]}]},
    )
    assert part(client.write(f"{mount}/decrypt/cards", {"ciphertext": sealed}), "data")["plaintext"] == PLAIN
    client.close()
    plane.finished(granted)
    assert granted.leases[0].path.rpartition("/")[2] in plane.root.list("auth/token/roles")
    plane.entitle({"entitlement": "gateway-key", "scopes": [STATIC]})
    assert [name for name in plane.root.list("auth/token/roles") if name.startswith("vte-")] == []
    assert [name for name in plane.root.list("sys/policies/acl") if name.startswith("vte-card")] == []


def test_tokens_and_secrets_without_leases_are_nobody_s_orphans(plane: RealPlane) -> None:
    granted = plane.grant("both-of-them")
    plane.compare()
    assert plane.stands(granted).state == "active"
    plane.finished(granted)
    plane.compare()
    assert "orphan.found" not in plane.events()
