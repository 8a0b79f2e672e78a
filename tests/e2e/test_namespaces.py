"""Everything below one namespace: bootstrap, plan, apply, a grant and its verified end, and nothing outside of it."""

import base64
from collections.abc import Callable, Generator
from typing import Any, Final

import pytest

from controlplane.dev.engines import certificate_authority
from controlplane.dev.openbao import OpenBao
from controlplane.doctor.checks import Doctor
from controlplane.doctor.finding import Grade, examine
from controlplane.model.errors import VaultRefusedError
from controlplane.model.secret import Secret
from controlplane.testing.real import RealPlane
from controlplane.vault.client import Server, VaultClient, part
from controlplane.wiring import server_facts
from controlplane.world import SystemClock

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

NAMESPACE: Final = "acme"
KEY: Final[dict[str, Any]] = {"name": "cards", "engine": "transit", "key": "cards", "operations": ["decrypt"]}
CLIENT: Final[dict[str, Any]] = {"name": "client", "engine": "pki", "common_name": "agent.acme.example"}
PLAIN: Final = base64.b64encode(b"4111 1111").decode()


@pytest.fixture(scope="module")
def below(openbao: OpenBao, vault_root: VaultClient) -> Generator[VaultClient]:
    """May do everything in a namespace, which is gone afterwards: ask for it before `planes`."""
    vault_root.write(f"sys/namespaces/{NAMESPACE}", {})
    client = VaultClient(Server(openbao.addr, namespace=NAMESPACE), vault_root.token)
    yield client
    client.close()
    vault_root.delete(f"sys/namespaces/{NAMESPACE}")


def test_a_control_plane_lives_below_one_namespace_and_touches_nothing_outside(
    below: VaultClient, planes: Callable[..., RealPlane], openbao: OpenBao, vault_root: VaultClient
) -> None:
    def outside() -> tuple[Any, ...]:
        mounts = [sorted(part(vault_root.read(path), "data")) for path in ("sys/mounts", "sys/auth")]
        return *mounts, [name for name in vault_root.list("sys/policies/acl") if "ns" in name.split("-")]

    before = outside()
    plane = planes("ns", "transit", "pki", namespace=NAMESPACE, root=below)
    below.write(f"{plane.mount('transit')}/keys/cards", {})
    certificate_authority(below, plane.layout, openbao.addr)
    plane.entitle({"entitlement": "card-numbers", "scopes": [KEY]}, {"entitlement": "as-client", "scopes": [CLIENT]})

    facts = server_facts(plane.settings.vault, {"transit", "pki"})
    assert (facts.product, facts.seal, facts.namespace) == ("OpenBao", "static", NAMESPACE)
    assert {one.name for one in facts.features if one.used and one.there} == {"namespaces", "engine-pki"}
    found = list(examine(Doctor(settings=plane.settings, plane=plane.plane, clock=SystemClock()).checks))
    assert [one for one in found if one.grade is not Grade.SOUND] == []
    assert any(one.check == "server" and f"namespace {NAMESPACE}" in one.detail for one in found)

    granted = plane.grant("card-numbers")
    token = plane.unwrap(granted)["token"]
    agent = VaultClient(Server(openbao.addr, namespace=NAMESPACE), lambda: Secret(token))
    decrypt = f"{plane.mount('transit')}/decrypt/cards"
    sealed = part(below.write(f"{plane.mount('transit')}/encrypt/cards", {"plaintext": PLAIN}), "data")["ciphertext"]
    assert part(agent.write(decrypt, {"ciphertext": sealed}), "data")["plaintext"] == PLAIN
    certified = plane.grant("as-client")

    for each in (granted, certified):
        receipt = plane.finished(each).receipt
        assert receipt is not None
        assert [end.verified for end in receipt.ended] == [True]
    with pytest.raises(VaultRefusedError):
        agent.write(decrypt, {"ciphertext": sealed})
    agent.close()
    assert outside() == before
