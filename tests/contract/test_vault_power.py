"""Least power (P7, C6, Y32): each identity's token may do at every path of the server what is listed here, no more.

The paths are the server's own: its OpenAPI document, with names of ours and of others put in for every placeholder.
The server says itself what a token may do at each (`sys/capabilities-self`).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import pytest

from controlplane.dev.openbao import OpenBao
from controlplane.engines import places
from controlplane.keys.files import generate
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import VaultRefusedError
from controlplane.model.plan import Compiled, Layout, Plan
from controlplane.model.secret import Secret
from controlplane.sync.apply import ApplySync
from controlplane.sync.needs import needed
from controlplane.sync.plan import PlanSync
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.vault.bootstrap import Trust, bootstrap
from controlplane.vault.client import Server, VaultClient, part
from controlplane.vault.policies import IDENTITIES
from controlplane.vault.roles import VaultRoles
from controlplane.vault.session import JwtSession
from controlplane.world import RandomIds, SystemClock

pytestmark = pytest.mark.servers

LAYOUT: Final = Layout(
    prefix="lp",
    auth_mount="shorthold-lp",
    mounts={"database": "database-lp", "pki": "pki-lp", "ssh": "ssh-lp", "kv": "kv-lp"},
)
OWN: Final = "lp-orders-read-0a1b2c3d-orders"
NAMES: Final = (
    *(OWN, "lp-prober-orders", "lp-p-orders-read-0a1b2c3d-orders", "lp", "lpx", "readonly", "root", "default", "x"),
    *("shorthold-lp", "shorthold-lp-epoch", *IDENTITIES, *(f"shorthold-lp-{identity}" for identity in IDENTITIES)),
)
PREFIXES: Final = (
    *(f"{mount}/{verb}/{name}" for mount in ("database-lp", "pki-lp", "secret") for verb in ("creds", "issue", "roles")
      for name in (OWN, "lp-prober-orders", "readonly")),
    *("database-lp/creds", "pki-lp/issue", "database-lp", "auth/token/create"),
)  # fmt: skip

_LEASES: Final = r"(database-lp/creds|pki-lp/issue)"
_WRITE: Final = "create delete read update"
ALLOWED: Final[Mapping[str, Mapping[str, str]]] = {
    "broker": {
        "auth/token/accessors": "list sudo",
        "auth/token/(lookup|renew|revoke)-accessor": "update",
        "sys/leases/(lookup|renew|revoke)": "update",  # the policy bounds lease_id to our prefix
        f"sys/leases/lookup/{_LEASES}": "list sudo",
        f"sys/leases/lookup/{_LEASES}/lp-.*": "list sudo",
        "identity/entity/name/shorthold-lp-epoch": "read update",
        "sys/capabilities-self": "update",
        "database-lp/creds/lp-prober-.*": "read",
    },
    "sync": {
        "sys/policies/acl": "list",
        "sys/policies/acl/lp-.*": _WRITE,
        "auth/shorthold-lp/role": "list",
        "auth/shorthold-lp/role/lp-.*": _WRITE,
        "(database-lp|pki-lp|ssh-lp)/roles": "list",
        "(database-lp|pki-lp|ssh-lp)/roles/lp-(?!prober-|p-).*": _WRITE,
        f"sys/leases/lookup/{_LEASES}/lp-.*": "list sudo",
        "sys/capabilities-self": "update",
    },
    "param": {
        "(database-lp|pki-lp|ssh-lp)/roles": "list",
        "(database-lp|pki-lp|ssh-lp)/roles/lp-p-.*": _WRITE,
        "sys/capabilities-self": "update",
    },
    "rotate": {
        "kv-lp/data/.*": "patch",
        "kv-lp/metadata/.*": "read",
        "sys/capabilities-self": "update",
    },
    "drift": {
        "sys/policies/acl": "list",
        "sys/policies/acl/.*": "read",
        "auth/shorthold-lp/role": "list",
        "auth/shorthold-lp/role/.*": "read",
        "auth/shorthold-lp(-(broker|sync|responder|drift|param|rotate))?/config": "read",
        **{f"auth/shorthold-lp-{name}/role/{name}": "read" for name in IDENTITIES},
        "(database-lp|pki-lp|ssh-lp)/roles": "list",
        "(database-lp|pki-lp|ssh-lp)/roles/lp-.*": "read",
        "database-lp/config": "list",
        "database-lp/config/.*": "read",
        f"sys/leases/lookup/{_LEASES}/lp-.*": "list sudo",
        "sys/audit": "read sudo",
        "sys/capabilities-self": "update",
    },
    "responder": {
        "auth/token/accessors": "list sudo",
        "auth/token/(lookup|revoke)-accessor": "update",
        "sys/leases/(lookup|revoke)": "update",
        f"sys/leases/lookup/{_LEASES}": "list sudo",  # which of our roles have leases that no token holds any more
        f"sys/leases/lookup/{_LEASES}/lp-.*": "list sudo",
        "sys/capabilities-self": "update",
    },
}
"""What each may do, where: whoever changes a policy changes this, and a reviewer sees it."""


def paths(root: VaultClient) -> list[str]:
    """Every path that the server says it has, and its folder, with each name in place of each placeholder."""
    document = root.adapter.request("GET", "sys/internal/specs/openapi")
    assert document is not None
    templates = part(document, "paths")
    assert len(templates) > 300  # or this is not the document
    assert any("database-lp" in template for template in templates)
    return sorted({path.strip("/") for template in templates for path in filled(template)})


def filled(template: str) -> Iterator[str]:
    shape = re.sub(r"\{[^}]+\}", "{}", template)
    holes = shape.count("{}")
    yield from (shape.replace("{}", name) for name in (NAMES if holes else [""]))
    if shape.startswith("/sys/leases/") and holes:
        for prefix in PREFIXES:
            yield shape.replace("{}", prefix)


def capabilities(client: VaultClient, asked: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for start in range(0, len(asked), 500):
        some: list[JsonValue] = [*asked[start : start + 500]]
        answer = part(client.write("sys/capabilities-self", {"paths": some}), "data")
        for path in some:
            words = answer[str(path)]
            assert isinstance(words, list)
            found[str(path)] = " ".join(sorted(str(word) for word in words))
    return found


@pytest.fixture(scope="module")
def keys(openbao: OpenBao, vault_root: VaultClient) -> Iterator[dict[str, JwtSession]]:
    made = {name: generate() for name in ("task", *IDENTITIES)}
    bootstrap(
        vault_root, LAYOUT, Trust(**{f"{name}_key_pem": key.public_pem for name, key in made.items()}), apply=True
    )
    server = Server(openbao.addr)
    yield {
        name: JwtSession(server, f"shorthold-lp-{name}", name, made[name], clock=SystemClock(), ids=RandomIds())
        for name in IDENTITIES
    }
    for mount in LAYOUT.mounts.values():
        vault_root.delete(f"sys/mounts/{mount}")
    for mount in ("shorthold-lp", *(f"shorthold-lp-{name}" for name in IDENTITIES)):
        vault_root.delete(f"sys/auth/{mount}")


@pytest.mark.parametrize("identity", IDENTITIES)
def test_p7_an_identity_may_do_at_every_path_of_the_server_what_is_listed_and_no_more_y32(
    identity: str, keys: dict[str, JwtSession], vault_root: VaultClient, openbao: OpenBao
) -> None:
    client = VaultClient(Server(openbao.addr), keys[identity])
    try:
        has = capabilities(client, paths(vault_root))
    finally:
        client.close()
    allowed = {re.compile(pattern): words for pattern, words in ALLOWED[identity].items()}
    expected = {
        path: next((words for pattern, words in allowed.items() if pattern.fullmatch(path)), "deny") for path in has
    }
    assert {path: words for path, words in has.items() if words != expected[path]} == {}
    met = {pattern.pattern for pattern in allowed if any(pattern.fullmatch(path) for path in has)}
    assert met == set(ALLOWED[identity]), "what is listed and no path is like was not looked at"


def test_the_folders_of_the_layout_are_those_that_are_listed() -> None:
    leases = {where.leases for where in places(LAYOUT) if where.leases is not None}
    assert leases == {leases for leases in leases if re.fullmatch(_LEASES, leases)}


@dataclass(frozen=True, kw_only=True)
class Applying:
    """What an operator does: plan as somebody who may look, apply as somebody who may do just that."""

    root: VaultClient
    addr: str
    wanted: tuple[Compiled, ...]

    @property
    def plan(self) -> Plan:
        return self._by(self.root).plan(self.wanted)

    def apply(self, client: VaultClient | None = None) -> None:
        self._by(client or self.root)(self.wanted, self.plan)

    def apply_under(self, policy: dict[str, JsonValue]) -> None:
        self.root.write("sys/policies/acl/test-lp-needed", {"policy": json.dumps(policy)})
        answer = self.root.write("auth/token/create", {"policies": ["test-lp-needed"], "no_default_policy": True})
        token = Secret(str(part(answer, "auth")["client_token"]))
        client = VaultClient(Server(self.addr), lambda: token)
        try:
            self.apply(client)
        finally:
            client.close()
            self.root.write("auth/token/revoke", {"token": token.reveal()})

    @staticmethod
    def _by(client: VaultClient) -> ApplySync:
        roles = VaultRoles(LAYOUT, client)
        return ApplySync(roles=roles, plan=PlanSync(roles=roles, layout=LAYOUT))


@pytest.mark.usefixtures("keys")
def test_an_apply_needs_exactly_what_plan_prints_y32(vault_root: VaultClient, openbao: OpenBao) -> None:
    """Under the policy it works; with any one path of it taken out it does not."""
    shell: JsonValue = {"name": "shell", "engine": "ssh", "principals": ["deploy"]}
    old = (compiled_entitlement(LAYOUT), compiled_entitlement(LAYOUT, entitlement="shell", scopes=[shell]))
    new = (compiled_entitlement(LAYOUT, ttl={"default": "5m", "max": "10m"}),)  # one changes, and one goes
    before = Applying(root=vault_root, addr=openbao.addr, wanted=old)
    after = Applying(root=vault_root, addr=openbao.addr, wanted=new)
    before.apply()
    policy = needed(after.plan, new, LAYOUT)
    rules = policy["path"]
    assert isinstance(rules, dict)
    assert not [path for path in rules if "*" in path or "+" in path]
    for path in rules:
        with pytest.raises(VaultRefusedError):
            after.apply_under({"path": {other: rule for other, rule in rules.items() if other != path}})
        before.apply()  # as it was, whatever was done of it
    after.apply_under(policy)
    assert after.plan.empty
    Applying(root=vault_root, addr=openbao.addr, wanted=()).apply()
    vault_root.delete("sys/policies/acl/test-lp-needed")
