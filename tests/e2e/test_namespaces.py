"""Everything below one namespace: bootstrap, plan, apply, a grant and its verified end, and nothing outside of it."""

import base64
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import Any, Final

import pytest

from controlplane.dev.engines import certificate_authority
from controlplane.dev.openbao import OpenBao
from controlplane.dev.process import until
from controlplane.doctor.checks import Doctor
from controlplane.doctor.finding import Grade, examine
from controlplane.model.errors import VaultRefusedError
from controlplane.model.grant import State, Why
from controlplane.model.secret import Secret
from controlplane.testing.real import RealPlane
from controlplane.vault.client import Server, TokenSource, VaultClient, part
from controlplane.wiring.errands import server_facts
from controlplane.world import SystemClock

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

NAMESPACE: Final = "acme"
PASSING: Final = "passing"
KEY: Final[dict[str, Any]] = {"name": "cards", "engine": "transit", "key": "cards", "operations": ["decrypt"]}
CLIENT: Final[dict[str, Any]] = {"name": "client", "engine": "pki", "common_name": "agent.acme.example"}
PLAIN: Final = base64.b64encode(b"4111 1111").decode()


@pytest.fixture(scope="module")
def spaces(openbao: OpenBao, vault_root: VaultClient) -> Generator[Callable[[str], VaultClient]]:
    """Makes namespaces, gone afterwards, and whoever may do everything in them: ask for it before `planes`."""
    with ExitStack() as made:

        def make(name: str) -> VaultClient:
            vault_root.write(f"sys/namespaces/{name}", {})
            made.callback(vault_root.delete, f"sys/namespaces/{name}")
            return made.enter_context(_looking_into(name, openbao, vault_root.token))

        yield make


def test_a_control_plane_lives_below_one_namespace_and_touches_nothing_outside(
    spaces: Callable[[str], VaultClient],
    planes: Callable[..., RealPlane],
    openbao: OpenBao,
    vault_root: VaultClient,
) -> None:
    def outside() -> tuple[Any, ...]:
        mounts = [sorted(part(vault_root.read(path), "data")) for path in ("sys/mounts", "sys/auth")]
        return *mounts, [name for name in vault_root.list("sys/policies/acl") if "ns" in name.split("-")]

    before = outside()
    below = spaces(NAMESPACE)
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


def test_r25_a_namespace_that_is_deleted_and_made_anew_revives_nobody_and_serves_again(
    spaces: Callable[[str], VaultClient],
    planes: Callable[..., RealPlane],
    openbao: OpenBao,
    vault_root: VaultClient,
) -> None:
    passing = spaces(PASSING)
    plane = planes("nsr", "transit", namespace=PASSING, root=passing)
    passing.write(f"{plane.mount('transit')}/keys/cards", {})
    card_numbers = {"entitlement": "card-numbers", "scopes": [KEY]}
    plane.entitle(card_numbers)
    granted, finished = plane.grant("card-numbers"), plane.grant("card-numbers")
    tokens = [plane.unwrap(each)["token"] for each in (granted, finished)]

    def agent_with(token: str) -> AbstractContextManager[VaultClient]:
        return _looking_into(PASSING, openbao, lambda: Secret(token))

    _gone(vault_root, PASSING)
    plane.end(finished)
    vault_root.write(f"sys/namespaces/{PASSING}", {})
    plane.bootstrap()
    passing.write(f"{plane.mount('transit')}/keys/cards", {})
    plane.entitle(card_numbers)

    assert plane.ended(finished).why is Why.COMPLETED
    # What the store believed of the other is compared with the server, once it is a minute old.
    assert until(lambda: plane.stands(granted).state is State.REVOKED, timedelta(minutes=2))
    assert plane.stands(granted).why is Why.LOST
    for token in tokens:
        with agent_with(token) as agent, pytest.raises(VaultRefusedError):
            agent.read("auth/token/lookup-self")
    again = plane.grant("card-numbers")
    with agent_with(plane.unwrap(again)["token"]) as agent:
        sealed = part(passing.write(f"{plane.mount('transit')}/encrypt/cards", {"plaintext": PLAIN}), "data")
        path = f"{plane.mount('transit')}/decrypt/cards"
        assert part(agent.write(path, {"ciphertext": sealed["ciphertext"]}), "data")["plaintext"] == PLAIN
    assert plane.finished(again).state is State.REVOKED


def _gone(root: VaultClient, namespace: str) -> None:
    """Delete it; the server says yes before it is done."""
    root.delete(f"sys/namespaces/{namespace}")
    if not until(lambda: f"{namespace}/" not in root.list("sys/namespaces"), timedelta(seconds=60)):
        raise AssertionError("the namespace does not go")


@contextmanager
def _looking_into(namespace: str, openbao: OpenBao, token: TokenSource | None) -> Generator[VaultClient]:
    client = VaultClient(Server(openbao.addr, namespace=namespace), token)
    try:
        yield client
    finally:
        client.close()
