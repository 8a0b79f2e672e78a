"""Every engine that the server has reads its objects back as they were compiled, and its tasks can do nothing else."""

from collections.abc import Generator
from typing import Any

import pytest
import yaml

from controlplane.dev.openbao import OpenBao
from controlplane.engines import engines
from controlplane.model.canonical import JsonObject
from controlplane.model.errors import VaultRefusedError
from controlplane.model.plan import Compiled, Layout, ObjectKind
from controlplane.model.secret import Secret
from controlplane.ports import Engine
from controlplane.sync.diff import drift
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.vault.client import Server, VaultClient, part

pytestmark = pytest.mark.servers

LAYOUT = Layout(prefix="ev", mounts={word: f"{word}-ev" for word in engines()})
ABSENT = {"aws", "ldap"}
"""Engines that HashiCorp Vault has and OpenBao 2.7 has not. docs/engines.md says so."""

present = pytest.mark.parametrize(
    "engine",
    [engine for engine in engines().values() if engine.word not in ABSENT],
    ids=sorted(engines().keys() - ABSENT),
)


@pytest.fixture(scope="module")
def mounted(vault_root: VaultClient) -> Generator[VaultClient]:
    """Every mount that can be made."""
    for word in sorted(engines().keys() - ABSENT):
        vault_root.write(f"sys/mounts/{LAYOUT.mounts[word]}", engines()[word].mounting)
    database = LAYOUT.mounts["database"]
    vault_root.write(f"{database}/config/orders", {
        "plugin_name": "postgresql-database-plugin", "allowed_roles": ["*"], "verify_connection": False,
        "connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:9/x", "username": "x", "password": "x",
    })  # fmt: skip
    vault_root.write(f"{LAYOUT.mounts['ssh']}/config/ca", {"generate_signing_key": True, "key_type": "ed25519"})
    yield vault_root
    for word in sorted(engines().keys() - ABSENT):
        vault_root.delete(f"sys/mounts/{LAYOUT.mounts[word]}")


@pytest.fixture
def written(mounted: VaultClient, engine: Engine) -> Generator[Compiled]:
    scope = yaml.safe_load(engine.example)
    compiled = compiled_entitlement(LAYOUT, entitlement=f"every-{engine.word}", scopes=[scope])
    objects = [item for item in compiled.objects if item.kind is not ObjectKind.JWT_ROLE]
    for item in objects:
        mounted.write(item.path, item.data)
    yield compiled
    for item in reversed(objects):
        mounted.delete(item.path)


@present
def test_what_it_writes_reads_back_as_it_was_compiled(mounted: VaultClient, written: Compiled) -> None:
    """Y20: nothing is left to a default of the server."""
    for item in written.objects:
        if item.kind is ObjectKind.SECRET_ROLE:
            assert drift(item, part(mounted.read(item.path), "data")) == ()


@present
def test_a_task_may_make_its_own_credential_and_nothing_else_at_that_mount(
    openbao: OpenBao, mounted: VaultClient, written: Compiled, engine: Engine
) -> None:
    """P7, A14, Y14, Y32: another case is another path, and so is one without `data/`."""
    answer = mounted.write(
        "auth/token/create",
        {"policies": [written.naming.base], "no_default_policy": True, "ttl": "5m", "no_parent": True},
    )
    task = VaultClient(Server(openbao.addr), lambda: Secret(str(part(answer, "auth")["client_token"])))
    mount = LAYOUT.mounts[engine.word]
    own = set(engine.capabilities(written.entitlement.scopes[0], written.naming))
    others = {
        *(f"{mount}/{verb}/other" for verb in ("creds", "issue", "sign", "sts", "roles", "role", "data", "metadata")),
        *(f"{mount}/{what}" for what in ("config", "config/ca", "config/orders", "config/connection", "roles")),
        *(f"auth/token/{what}" for what in ("create", "create-orphan", "create/other", "roles/other", "renew-self")),
        *(f"{path}{more}" for path in own for more in ("-x", "/x")),
        *(
            other
            for path in own
            for other in (path.title(), path.upper(), path.replace("/data/", "/"))
            if other != path
        ),
        *(f"{where}/{written.naming.base}" for where in (engine.places(mount).roles, "sys/policies/acl") if where),
    }
    asked: JsonObject = {"token": task.token().reveal() if task.token else "", "paths": [*sorted(own | others)]}
    rights: Any = mounted.write("sys/capabilities", asked)
    assert {path for path in own | others if rights["data"][path] != ["deny"]} == own
    task.close()


@pytest.mark.parametrize("word", sorted(ABSENT))
def test_an_engine_that_the_server_lacks_is_refused_by_it_and_not_half_made(mounted: VaultClient, word: str) -> None:
    with pytest.raises(VaultRefusedError, match="plugin not found"):
        mounted.write(f"sys/mounts/{LAYOUT.mounts[word]}", engines()[word].mounting)
