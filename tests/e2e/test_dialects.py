"""Grants for MariaDB and Redis on real servers: what is issued works, is narrow, and is gone and proved gone."""

import shutil
from collections.abc import Generator
from contextlib import closing
from typing import Any

import pymysql
import pytest
import yaml
from redis import RedisError
from redis.exceptions import NoPermissionError

from controlplane.dev.shipped import shipped
from controlplane.dev.stack import LAYOUT, Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.engines import engines, scope_models
from controlplane.engines.dialects import dialects
from controlplane.model.entitlement import Entitlement
from controlplane.model.secret import Secret
from controlplane.sdk.client import Shorthold
from controlplane.sync.compile import compiled
from controlplane.testing.mariadb import MANAGER, MariaDB
from controlplane.testing.redis import RedisServer
from controlplane.testing.served import ServedPlane, witness
from controlplane.vault.prober import connections, prober_role

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]


def document(word: str) -> dict[str, Any]:
    """An entitlement around the example of a dialect."""
    return {
        "entitlement": f"{word}-example",
        "owner": "team-shop@acme.example",
        "purpose": "Follow one order up.",
        "intents": ["follow-up"],
        "risk": "low",
        "eligibility": [{"issuer": "dev", "subject": AGENT}],
        "scopes": [yaml.safe_load(dialects()[word].example)],
        "ttl": {"default": "5m", "max": "10m"},
    }


@pytest.fixture(scope="module")
def plane(
    stack: Stack, mariadb: MariaDB, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Generator[ServedPlane]:
    """A control plane with two entitlements, whose connections and roles an operator and `sync` made."""
    directory = tmp_path_factory.mktemp("dialects")
    roles = directory / "roles"
    roles.mkdir()
    shutil.copy(shipped("roles") / "tiers.toml", roles)
    mariadb.run(
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (id INT PRIMARY KEY, status VARCHAR(20))",
        "INSERT INTO shop.orders VALUES (1, 'open')",
        f"GRANT SELECT, UPDATE ON shop.* TO {MANAGER} WITH GRANT OPTION",
    )
    redis.ask("HSET", "cart:1", "sku", "7")
    looking = witness(stack)
    mount = LAYOUT.mounts["database"]
    made = [f"{mount}/config/shop", f"{mount}/config/carts"]
    looking.vault.write(made[0], mariadb.connection(LAYOUT))
    looking.vault.write(made[1], redis.connection(LAYOUT))
    for connection in connections(looking.vault, mount):
        if connection.name in {"shop", "carts"}:
            role = prober_role(LAYOUT, connection)
            made.insert(0, f"{mount}/roles/{role.name}")
            looking.vault.write(made[0], role.body)
    for word in ("mariadb", "redis"):
        (roles / f"{word}-example.yaml").write_text(yaml.safe_dump(document(word)), encoding="utf-8")
        entitlement = Entitlement.model_validate(document(word), context={"engines": scope_models()})
        for item in compiled(entitlement, LAYOUT, engines()).objects:
            looking.vault.write(item.path, item.data)
            made.insert(0, item.path)
    plane = ServedPlane(
        stack,
        directory,
        {
            "ROLES": str(roles),
            "TARGETS__SHOP__KIND": "mariadb",
            "TARGETS__SHOP__PORT": str(mariadb.port),
            "TARGETS__SHOP__TLS": "off",
            "TARGETS__CARTS__KIND": "redis",
            "TARGETS__CARTS__PORT": str(redis.port),
            "TARGETS__CARTS__TLS": "off",
        },
    )
    try:
        plane.start()
        yield plane
    finally:
        plane.kill()
        for prefix in ("sh-prober-shop", "sh-prober-carts"):
            looking.vault.write(f"sys/leases/revoke-prefix/{mount}/creds/{prefix}", {"sync": True})
        for path in made:
            looking.vault.delete(path)
        looking.vault.close()
        mariadb.run("DROP DATABASE shop")


def granted(agent: Shorthold, stack: Stack, word: str) -> tuple[str, dict[str, Any]]:
    answer = agent.request({"entitlement": f"{word}-example", "task": "T-1", "intent": "follow-up"})
    scope = yaml.safe_load(dialects()[word].example)["name"]
    fields = agent.unwrap(Stage(stack.project).vault_addr, Secret(answer["wrapping_token"]))[scope]
    return answer["grant"]["id"], {name: value.reveal() for name, value in fields.items()}


def proved(agent: Shorthold, id: str) -> dict[str, Any]:
    grant = agent.finish(id, wait="30s")["grant"]
    assert grant["state"] == "revoked", grant
    (end,) = grant["receipt"]["ended"]
    assert end["verified"] is True
    return end


def test_mariadb_from_grant_to_receipt(plane: ServedPlane, stack: Stack, mariadb: MariaDB) -> None:
    """C5, C6, C9, C10: issued, narrow, and dead after the task, an open session included."""
    with plane.agent(AGENT) as agent:
        id, credential = granted(agent, stack, "mariadb")
        session = mariadb.connect(credential["username"], credential["password"])
        with closing(session.cursor()) as cursor:
            cursor.execute("UPDATE shop.orders SET status = 'sent' WHERE id = 1")
            with pytest.raises(pymysql.MySQLError, match="denied"):
                cursor.execute("DELETE FROM shop.orders")
            end = proved(agent, id)
            assert end["evidence"] == f"mariadb shop: no account {credential['username']}, no open session"
            with pytest.raises(pymysql.MySQLError):
                cursor.execute("SELECT 1")
        with pytest.raises(pymysql.MySQLError):
            mariadb.connect(credential["username"], credential["password"])


def test_redis_from_grant_to_receipt(plane: ServedPlane, stack: Stack, redis: RedisServer) -> None:
    """C5, C6, C9, C10."""
    with plane.agent(AGENT) as agent:
        id, credential = granted(agent, stack, "redis")
        client = redis.connect(credential["username"], credential["password"])
        assert client.execute_command("HGET", "cart:1", "sku") == "7"
        with pytest.raises(NoPermissionError):
            client.execute_command("DEL", "cart:1")
        end = proved(agent, id)
        assert end["evidence"] == f"redis carts: no user {credential['username']}, no open connection"
        with pytest.raises(RedisError):
            client.execute_command("HGET", "cart:1", "sku")
        with pytest.raises(RedisError):
            redis.connect(credential["username"], credential["password"])


def test_a_target_that_is_down_is_never_called_gone(plane: ServedPlane, stack: Stack, redis: RedisServer) -> None:
    """P3: Redis forgets its users when it stops, so what is asked for afterwards is really asked."""
    with plane.agent(AGENT) as agent:
        id, _ = granted(agent, stack, "redis")
        redis.stop()
        try:
            assert agent.finish(id, wait="2s")["grant"]["state"] == "revoking"
        finally:
            redis.start()
        redis.ask("HSET", "cart:1", "sku", "7")
        assert proved(agent, id)["evidence"].startswith("redis carts: no user ")
