"""OpenBao as an issuer: its own identity tokens, by discovery, for whoever logs in there by any auth method."""

import secrets
from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from controlplane.dev.openbao import OpenBao
from controlplane.issuers import kinds
from controlplane.issuers.trust.issuer import issuer_of
from controlplane.issuers.trust.trusted import TrustedIssuers
from controlplane.model.errors import NotAuthenticatedError
from controlplane.model.secret import Secret
from controlplane.settings import load
from controlplane.vault.client import Server, VaultClient, part
from controlplane.world import SystemClock

pytestmark = pytest.mark.servers

KEY, TEMPLATE = "shorthold-test", '{"team": {{identity.entity.metadata.team}}, "mallory": "x"}'


@dataclass(frozen=True)
class Workload:
    """Somebody who logged in with a password, and is an entity with a team."""

    client: VaultClient
    entity: str

    def token(self, role: str) -> Secret:
        answer = self.client.read(f"identity/oidc/token/{role}")
        token = part(answer, "data")["token"]
        assert isinstance(token, str)
        return Secret(token)


@pytest.fixture(scope="module")
def workload(openbao: OpenBao, vault_root: VaultClient) -> Generator[Workload]:
    password, mount = secrets.token_hex(16), f"userpass-{secrets.token_hex(4)}"
    issuer = {"issuer": openbao.addr}
    vault_root.write("identity/oidc/config", issuer)
    vault_root.write(f"sys/auth/{mount}", {"type": "userpass"})
    vault_root.write(
        "sys/policies/acl/test-identity", {"policy": 'path "identity/oidc/token/*" {capabilities = ["read"]}'}
    )
    vault_root.write(f"auth/{mount}/users/agent", {"password": password, "token_policies": ["test-identity"]})
    vault_root.write(f"identity/oidc/key/{KEY}", {"algorithm": "ES256", "allowed_client_ids": ["*"]})
    for role, audience, ttl in (("ours", "shorthold", "10m"), ("others", "else", "10m"), ("long", "shorthold", "24h")):
        vault_root.write(
            f"identity/oidc/role/test-{role}", {"key": KEY, "client_id": audience, "ttl": ttl, "template": TEMPLATE}
        )
    login = VaultClient(Server(openbao.addr), None)
    auth = part(login.write(f"auth/{mount}/login/agent", {"password": password}), "auth")
    token, entity = auth["client_token"], auth["entity_id"]
    assert isinstance(token, str)
    assert isinstance(entity, str)
    vault_root.write(f"identity/entity/id/{entity}", {"metadata": {"team": "billing"}})
    own = VaultClient(Server(openbao.addr), lambda: Secret(token))
    yield Workload(own, entity)
    own.close()
    login.close()
    vault_root.delete(f"sys/auth/{mount}")
    for role in ("ours", "others", "long"):
        vault_root.delete(f"identity/oidc/role/test-{role}")
    vault_root.delete(f"identity/oidc/key/{KEY}")
    vault_root.delete(f"identity/entity/id/{entity}")


@pytest.fixture
def trust(openbao: OpenBao) -> TrustedIssuers:
    given = {"name": "bao", "kind": "vault", "url": f"{openbao.addr}/v1/identity/oidc", "audiences": ["shorthold"]}
    (options,) = load(issuers=[{**given, "claims": ["team"]}]).issuers
    return TrustedIssuers([issuer_of(kinds()["vault"], options)], SystemClock())


def refusal(trust: TrustedIssuers, token: Secret) -> str:
    with pytest.raises(NotAuthenticatedError) as caught:
        trust.verify(token)
    return caught.value.detail


def test_an_identity_token_proves_its_entity_and_what_its_template_says(
    trust: TrustedIssuers, workload: Workload
) -> None:
    who = trust.verify(workload.token("test-ours"))
    assert (who.issuer, who.subject) == ("bao", workload.entity)
    assert (who.claim("team"), who.claim("namespace")) == ("billing", "root")
    assert (who.claim("mallory"), who.others) == (None, {"mallory": "x"})
    assert who.expires_at - who.issued_at == timedelta(minutes=10)


def test_j40_an_identity_token_has_no_jti_and_is_told_apart_all_the_same(
    trust: TrustedIssuers, workload: Workload
) -> None:
    token = workload.token("test-ours")
    one, again = trust.verify(token).single_use, trust.verify(token).single_use
    assert one is not None
    assert one == again
    assert one.id.startswith("sha256:")


def test_j17_j21_tokens_for_others_and_for_too_long_prove_nobody(trust: TrustedIssuers, workload: Workload) -> None:
    assert "aud" in refusal(trust, workload.token("test-others"))
    assert "lives longer" in refusal(trust, workload.token("test-long"))
