"""Certificates on a real OpenBao: what is in one, what cannot get into one, and that its end can be proved."""

import time
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controlplane.dev.openbao import OpenBao
from controlplane.engines import engines
from controlplane.model.canonical import JsonObject
from controlplane.model.errors import VaultRefusedError
from controlplane.model.lease import LeaseId, Response
from controlplane.model.plan import Compiled, Layout, ObjectKind
from controlplane.model.secret import Secret
from controlplane.sync.diff import drift
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.vault.client import Server, VaultClient, part

pytestmark = pytest.mark.servers

LAYOUT = Layout(prefix="ep", mounts={"database": "database-ep", "pki": "pki-ep"})
NAME = "checkout.agents.acme.example"


@pytest.fixture(scope="module")
def authority(vault_root: VaultClient) -> Generator[VaultClient]:
    mount = LAYOUT.mounts["pki"]
    vault_root.write(f"sys/mounts/{mount}", {"type": "pki", "config": {"max_lease_ttl": "87600h"}})
    vault_root.write(f"{mount}/root/generate/internal", {"common_name": "test root", "key_type": "ec", "ttl": "87600h"})
    yield vault_root
    vault_root.delete(f"sys/mounts/{mount}")


@pytest.fixture(scope="module")
def role(authority: VaultClient) -> Compiled:
    return written(authority)


def written(authority: VaultClient, **changes: object) -> Compiled:
    scope = {"name": "client", "engine": "pki", "common_name": NAME, "alt_names": [f"b.{NAME}", f"a.{NAME}"]}
    compiled = compiled_entitlement(LAYOUT, entitlement="certificate", scopes=[scope | changes])
    for item in compiled.objects[:2]:
        authority.write(item.path, item.data)
    return compiled


@pytest.fixture
def task(openbao: OpenBao, authority: VaultClient, role: Compiled) -> Generator[VaultClient]:
    """A client with the policy of the entitlement and nothing else."""
    wanted: JsonObject = {"policies": [role.naming.base], "no_default_policy": True, "ttl": "5m", "no_parent": True}
    answer = authority.write("auth/token/create", wanted)
    token = Secret(str(part(answer, "auth")["client_token"]))
    client = VaultClient(Server(openbao.addr), lambda: token)
    yield client
    client.close()


def issue(client: VaultClient, role: Compiled, **changes: object) -> tuple[str, dict[str, Any]]:
    scope = role.entitlement.scopes[0]
    ask = engines()["pki"].ask(scope, role.naming, ttl=timedelta(seconds=90))
    answer: Any = client.write(ask.path, {**(ask.body or {}), **changes})  # pyright: ignore[reportArgumentType] # any JSON
    return answer["lease_id"], answer["data"]


def test_a_certificate_says_exactly_what_its_scope_says(task: VaultClient, role: Compiled) -> None:
    _, data = issue(task, role)
    certificate = x509.load_pem_x509_certificate(data["certificate"].encode())
    assert [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [NAME]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {NAME, f"a.{NAME}", f"b.{NAME}"}
    assert len(list(names)) == 3
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    key_usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert key_usage.digital_signature
    assert not key_usage.key_cert_sign
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(seconds=80) < left <= timedelta(seconds=90)
    key = load_pem_private_key(data["private_key"].encode(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    shape = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert key.public_key().public_bytes(*shape) == certificate.public_key().public_bytes(*shape)


@pytest.mark.parametrize(
    "beyond",
    [
        {"common_name": "evil.acme.example"},
        {"common_name": f"sub.{NAME}"},
        {"common_name": f"*.{NAME}"},
        {"common_name": "localhost"},
        {"alt_names": "evil.acme.example"},
        {"ip_sans": "127.0.0.1"},
        {"uri_sans": "spiffe://acme/evil"},
        {"other_sans": "1.3.6.1.4.1.311.20.2.3;utf8:admin@acme.example"},
        {"not_after": "2099-01-01T00:00:00Z"},
        {"not_before": "2020-01-01T00:00:00Z"},
        {"user_ids": "admin"},
        {"serial_number": "1"},
        {"exclude_cn_from_sans": True},
    ],
    ids=str,
)
def test_nothing_else_gets_into_one_neither_by_policy_nor_by_role(
    task: VaultClient, authority: VaultClient, role: Compiled, beyond: dict[str, Any]
) -> None:
    with pytest.raises(VaultRefusedError):
        issue(task, role, **beyond)
    if beyond != {"exclude_cn_from_sans": True}:  # harmless, so only the policy minds
        with pytest.raises(VaultRefusedError):
            issue(authority, role, **beyond)


def test_a_longer_time_than_the_role_allows_is_cut(task: VaultClient, role: Compiled) -> None:
    _, data = issue(task, role, ttl="24h")
    certificate = x509.load_pem_x509_certificate(data["certificate"].encode())
    assert certificate.not_valid_after_utc - datetime.now(UTC) <= timedelta(minutes=15)


def test_its_end_is_on_the_revocation_list(task: VaultClient, authority: VaultClient, role: Compiled) -> None:
    lease, data = issue(task, role)
    serial = x509.load_pem_x509_certificate(data["certificate"].encode()).serial_number

    def listed() -> bool:
        answer = part(authority.read(f"{LAYOUT.mounts['pki']}/cert/crl"), "data")["certificate"]
        crl = x509.load_pem_x509_crl(str(answer).encode())
        return crl.get_revoked_certificate_by_serial_number(serial) is not None

    assert not listed()
    authority.write("sys/leases/revoke", {"lease_id": lease, "sync": True})
    ends = time.monotonic() + 60
    while not listed():
        assert time.monotonic() < ends
        time.sleep(0.02)
    with pytest.raises(VaultRefusedError, match="invalid lease"):
        authority.write("sys/leases/lookup", {"lease_id": lease})


def test_the_answer_becomes_a_credential_whose_principal_is_the_serial_number(
    task: VaultClient, role: Compiled
) -> None:
    lease, data = issue(task, role)
    secret = {key: Secret(value) if isinstance(value, str) else None for key, value in data.items()}
    secret["ca_chain"] = [Secret(one) for one in data["ca_chain"]]  # pyright: ignore[reportArgumentType] # a list of secrets is one, too
    credential = engines()["pki"].receive(
        role.entitlement.scopes[0], Response(lease=LeaseId(lease), lease_ttl=timedelta(seconds=90), data=secret)
    )
    assert credential.principal == data["serial_number"]
    assert set(credential.fields) == {"certificate", "private_key", "issuing_ca", "ca_chain", "serial_number"}
    assert credential.fields["ca_chain"].reveal() == "\n".join(data["ca_chain"])


@pytest.mark.parametrize(
    "changes",
    [{}, {"key": "ec-p384"}, {"key": "ed25519"}, {"usages": ["server"]}, {"usages": ["client", "server"]}],
    ids=str,
)
def test_the_role_reads_back_as_it_was_compiled(authority: VaultClient, changes: dict[str, Any]) -> None:
    compiled = written(authority, **changes)
    item = compiled.objects[0]
    assert item.kind is ObjectKind.SECRET_ROLE
    assert drift(item, part(authority.read(item.path), "data")) == ()
    issue(authority, compiled)
