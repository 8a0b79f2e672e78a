"""Where Vault says that it ended a credential and the target knows better, and whatever else keeps an end from coming.

Nothing is called revoked while PostgreSQL has the user; what cannot end says why, is loud, and heals by itself where
anything can (P3; R03, R05, R14-R16, R18, R19, R22).
"""

import json
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from controlplane.dev.engines import database_connection
from controlplane.dev.loopback import HOST
from controlplane.dev.outside import Target
from controlplane.dev.process import until
from controlplane.dev.stack import LAYOUT, Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.model.canonical import JsonObject
from controlplane.model.errors import VaultRefusedError
from controlplane.model.secret import Secret
from controlplane.sdk.client import Shorthold
from controlplane.testing.fault_proxy import FaultProxy, fault_proxy
from controlplane.testing.redis import RedisServer
from controlplane.testing.served import ServedPlane, Witness
from controlplane.vault.client import part

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

QUICK = {
    "VAULT__TIMEOUT": "3s",
    "VAULT__ISSUING_WITHIN": "3s",
    "VAULT__MAX_REQUEST_DURATION": "1s",
    "WORKER__TICK": "1s",
    "WORKER__HOLD": "5s",
}
GONE_WITHIN = timedelta(seconds=75)
"""The longest pause between two tries, and the try."""
WISH: dict[str, str | None] = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}


@pytest.fixture(scope="module")
def proxy(stack: Stack) -> Generator[FaultProxy]:
    with fault_proxy(stack.vault_addr) as between:
        yield between


@pytest.fixture(scope="module")
def plane(stack: Stack, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Generator[ServedPlane]:
    served = ServedPlane(stack, tmp_path_factory.mktemp("target"), {**QUICK, "VAULT__ADDR": proxy.addr})
    served.start()
    yield served
    served.kill()


@pytest.fixture
def agent(plane: ServedPlane) -> Generator[Shorthold]:
    with plane.agent(AGENT) as client:
        yield client


@dataclass(frozen=True)
class Granted:
    id: str
    lease: str
    user: str
    credential: dict[str, Secret]


def granted(agent: Shorthold, stack: Stack) -> Granted:
    answer = agent.request(WISH)
    opened = agent.unwrap(stack.vault_addr, Secret(answer["wrapping_token"]))
    lease = answer["leases"][0]
    return Granted(answer["grant"]["id"], lease["id"], lease["principal"], opened["orders"])


def shown(agent: Shorthold, id: str) -> dict[str, Any]:
    return agent.show(id)["grant"]


def stays_revoking(agent: Shorthold, id: str, *told: str) -> str:
    """Finish it, and wait until it says why it does not end. What it says."""
    agent.finish(id)

    def says() -> bool:
        grant = shown(agent, id)
        assert grant["state"] == "revoking", grant
        return all(text in str(grant["failing"]) for text in told)

    assert until(says, GONE_WITHIN), shown(agent, id)
    return str(shown(agent, id)["failing"])


def ends_verified(agent: Shorthold, stack: Stack, seer: Witness, *grants: Granted) -> None:
    for one in grants:
        assert until(lambda: shown(agent, one.id)["state"] == "revoked", GONE_WITHIN, every=0.1), shown(agent, one.id)  # noqa: B023 # waited for at once
        assert shown(agent, one.id)["receipt"]["verified"] is True
        assert not Stage(stack.project).opens(one.credential)
        assert one.user not in seer.users()


@contextmanager
def owner(stack: Stack, database: str = "orders") -> Generator[psycopg.Connection]:
    with psycopg.connect(stack.postgres.owner.reveal(), dbname=database, autocommit=True) as connection:
        yield connection


def connect(stack: Stack, seer: Witness) -> None:
    """Configure the connection `orders` as `dev up` does."""
    target = Target(host=HOST, port=stack.postgres.port, sslmode="disable", owner=stack.postgres.owner)
    database_connection(seer.vault, LAYOUT, target, stack.postgres.manager_password, anew=True)


@contextmanager
def edited(stack: Stack, seer: Witness, elsewhere: JsonObject, lease: str, deed: str) -> Generator[None]:
    """While somebody has edited in place what a living lease is revoked with; each of it Vault takes without a word."""
    path = lease.rpartition("/")[0].replace("/creds/", "/roles/")
    role = part(seer.vault.read(path), "data")
    seer.vault.write("database/config/elsewhere", elsewhere)
    try:
        match deed:
            case "statements":
                seer.vault.write(path, {**role, "revocation_statements": ["SELECT 1"]})
            case "moved":
                seer.vault.write(path, {**role, "db_name": "elsewhere"})
            case _:
                seer.vault.delete("database/config/orders")
                seer.vault.write("database/config/orders", elsewhere)
        yield
    finally:
        if deed == "repointed":
            seer.vault.delete("database/config/orders")
        connect(stack, seer)
        seer.vault.write(path, role)
        seer.vault.delete("database/config/elsewhere")


@pytest.fixture
def elsewhere(redis: RedisServer) -> JsonObject:
    """A connection to another server, which knows nobody and so has nobody to drop."""
    return redis.connection(LAYOUT)


@pytest.mark.parametrize("deed", ["statements", "moved", "repointed"])
def test_a_login_that_survives_what_was_edited_under_it_is_never_called_revoked_and_is_told_aloud(  # noqa: PLR0917
    stack: Stack, plane: ServedPlane, agent: Shorthold, seer: Witness, elsewhere: JsonObject, deed: str
) -> None:  # fact 6, R15, Y27
    before, one = granted(agent, stack), granted(agent, stack)
    agent.finish(before.id)
    ends_verified(agent, stack, seer, before)  # so the prober has its own login, which is of this connection, too
    with edited(stack, seer, elsewhere, one.lease, deed):
        told = stays_revoking(agent, one.id, f"Vault let go of lease {one.lease}")
        assert f"1 role {one.user}" in told
        assert Stage(stack.project).opens(one.credential)  # Vault has forgotten it, and it works
        assert plane.events(one.id).count("lease.survived") == 1
        assert until(lambda: _cried(plane, one.id), timedelta(seconds=60))
    seer.drop([one.user])  # what only a person can do
    ends_verified(agent, stack, seer, one)


def test_without_its_connection_nothing_is_called_revoked_and_it_ends_when_that_is_back(
    stack: Stack, agent: Shorthold, seer: Witness
) -> None:  # fact 6, R16
    one = granted(agent, stack)
    seer.vault.delete("database/config/orders")
    try:
        stays_revoking(agent, one.id, "Vault")
        assert Stage(stack.project).opens(one.credential)
    finally:
        connect(stack, seer)
    ends_verified(agent, stack, seer, one)


def test_a_login_that_somebody_dropped_by_hand_is_gone(stack: Stack, agent: Shorthold, seer: Witness) -> None:  # R14
    one = granted(agent, stack)
    seer.drop([one.user])
    agent.finish(one.id)
    ends_verified(agent, stack, seer, one)


def test_a_lease_that_somebody_revoked_by_hand_is_gone(stack: Stack, agent: Shorthold, seer: Witness) -> None:  # R14
    one = granted(agent, stack)
    seer.vault.write("sys/leases/revoke", {"lease_id": one.lease, "sync": True})
    agent.finish(one.id)
    ends_verified(agent, stack, seer, one)


def test_a_lease_that_somebody_forced_vault_to_forget_is_not_gone(
    stack: Stack, agent: Shorthold, seer: Witness
) -> None:  # fact 32
    one = granted(agent, stack)
    role = one.lease.rpartition("/")[0]
    seer.vault.delete("database/config/orders")
    try:
        seer.vault.write(f"sys/leases/revoke-force/{role}", {})
    finally:
        connect(stack, seer)
    stays_revoking(agent, one.id, f"Vault let go of lease {one.lease}")
    assert Stage(stack.project).opens(one.credential)
    seer.drop([one.user])
    ends_verified(agent, stack, seer, one)


def test_one_of_eight_that_resists_keeps_no_other_alive(stack: Stack, agent: Shorthold, seer: Witness) -> None:  # R18
    grants = [granted(agent, stack) for _ in range(8)]
    poisoned, others = grants[3], [*grants[:3], *grants[4:]]
    with owner(stack) as database, database.transaction(force_rollback=True):
        database.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT 1").format(sql.Identifier(poisoned.user)))
        for one in grants:
            agent.finish(one.id)
        ends_verified(agent, stack, seer, *others)
        assert shown(agent, poisoned.id)["state"] == "revoking"
        assert until(lambda: shown(agent, poisoned.id)["failing"] is not None, timedelta(seconds=90))
    ends_verified(agent, stack, seer, poisoned)


def test_a_prober_that_cannot_log_in_proves_nothing(stack: Stack, agent: Shorthold, seer: Witness) -> None:  # R19
    one, another = granted(agent, stack), granted(agent, stack)
    agent.finish(one.id)
    ends_verified(agent, stack, seer, one)  # so that the prober has a login
    with owner(stack) as database:
        rows = database.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-sh-prober-%'").fetchall()
        logins = [sql.Identifier(str(row[0])) for row in rows]
        for login in logins:
            database.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(login))
        database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'v-sh-prober-%'")
        try:
            stays_revoking(agent, another.id, "did not answer")
        finally:
            for login in logins:
                database.execute(sql.SQL("ALTER ROLE {} LOGIN").format(login))
    ends_verified(agent, stack, seer, another)


def test_a_mount_that_was_disabled_by_hand_proves_nothing_until_somebody_can_be_asked(
    stack: Stack, agent: Shorthold, seer: Witness
) -> None:  # R22
    one = granted(agent, stack)
    seer.vault.delete("sys/mounts/database")
    try:
        stays_revoking(agent, one.id, "")
        assert until(lambda: shown(agent, one.id)["failing"] is not None, timedelta(seconds=90))
    finally:
        stack.up()
    ends_verified(agent, stack, seer, one)


def test_a_control_plane_that_vault_lets_do_nothing_calls_nothing_revoked(
    stack: Stack, agent: Shorthold, seer: Witness
) -> None:  # R05
    one = granted(agent, stack)
    policy = part(seer.vault.read("sys/policies/acl/shorthold-broker"), "data")["policy"]
    seer.vault.write("sys/policies/acl/shorthold-broker", {"policy": '{"path": {}}'})
    try:
        stays_revoking(agent, one.id, "403")
        assert Stage(stack.project).opens(one.credential)
    finally:
        seer.vault.write("sys/policies/acl/shorthold-broker", {"policy": policy})
    ends_verified(agent, stack, seer, one)


def test_a_control_plane_whose_own_token_was_revoked_logs_in_again_and_goes_on(
    stack: Stack, agent: Shorthold, seer: Witness
) -> None:  # R05
    one = granted(agent, stack)
    for accessor in seer.vault.list("auth/token/accessors"):
        with suppress(VaultRefusedError):  # it ended since it was listed
            data = part(seer.vault.write("auth/token/lookup-accessor", {"accessor": accessor}), "data")
            if data["path"] == "auth/shorthold-broker/login":
                seer.vault.write("auth/token/revoke-accessor", {"accessor": accessor})
    agent.finish(one.id)
    ends_verified(agent, stack, seer, one)


@pytest.mark.parametrize("status", [429, 500, 502, 504])
def test_a_server_that_answers_nothing_else_is_outlived_by_many_grants(
    stack: Stack, agent: Shorthold, proxy: FaultProxy, seer: Witness, status: int
) -> None:  # fact 18, R02, R03
    grants = [granted(agent, stack) for _ in range(4)]
    proxy.answer_only(status)
    try:
        for one in grants:
            stays_revoking(agent, one.id, str(status))
    finally:
        proxy.answer_only(None)
    ends_verified(agent, stack, seer, *grants)


def test_what_is_not_verified_gone_is_exit_5_and_says_why(
    stack: Stack, plane: ServedPlane, agent: Shorthold, proxy: FaultProxy, seer: Witness
) -> None:
    one = granted(agent, stack)
    proxy.answer_only(503)
    try:
        waited = subprocess.run(
            plane.command("grant", "finish", one.id, "--wait", "3s", "-o", "json"),
            env={**plane.environment, "SHORTHOLD_TOKEN": plane.token(AGENT).reveal()},
            cwd=plane.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        proxy.answer_only(None)
    assert waited.returncode == 5
    assert "503" in json.loads(waited.stdout)["grant"]["failing"]
    ends_verified(agent, stack, seer, one)


def test_the_receipt_of_a_grant_is_checked_with_the_keys_that_the_control_plane_publishes(
    stack: Stack, plane: ServedPlane, agent: Shorthold, seer: Witness
) -> None:
    one = granted(agent, stack)
    agent.finish(one.id)
    ends_verified(agent, stack, seer, one)
    done = subprocess.run(
        plane.command("grant", "verify-receipt", one.id, "-o", "json"),
        env={**plane.environment, "SHORTHOLD_TOKEN": plane.token(AGENT).reveal()},
        cwd=plane.directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["grant"], told["ended"][0]["principal"]) == (one.id, one.user)
    assert "verified gone" in done.stderr


def _cried(plane: ServedPlane, id: str) -> bool:
    """Whether the log has told that this grant is not gone."""
    lines = plane.log.read_text(encoding="utf-8").splitlines()
    return any("grant_not_gone" in line and id in line for line in lines)
