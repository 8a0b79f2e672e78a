"""`serve --workers 2` over PostgreSQL: one socket, two workers, everything done once (R20, G14)."""

import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL

from controlplane.audit.chain import Intact
from controlplane.audit.verify import verify_trail
from controlplane.dev import loopback
from controlplane.dev.postgres import SUPERUSER
from controlplane.dev.process import until
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.model.secret import Secret
from controlplane.stores.trail import open_trail
from controlplane.testing.served import ServedPlane

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

WISH: dict[str, str | None] = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}


@pytest.fixture
def url(stack: Stack) -> Generator[str]:
    server, name = stack.postgres, f"store_{secrets.token_hex(6)}"
    with psycopg.connect(server.owner.reveal(), autocommit=True) as owner:
        owner.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        password = server.password.reveal()
        yield URL.create("postgresql", SUPERUSER, password, loopback.HOST, server.port, name).render_as_string(
            hide_password=False
        )
        owner.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def served(stack: Stack, url: str, tmp_path: Path) -> Generator[ServedPlane]:
    plane = ServedPlane(stack, tmp_path, {"STORE__URL": url}, options=("--workers", "2"))
    plane.start()
    yield plane
    assert plane.end(signal.SIGTERM) == 0


def test_r20_two_processes_end_each_of_many_grants_once(served: ServedPlane, url: str) -> None:
    def one(number: int) -> str:
        with served.agent(AGENT) as agent:
            answer = agent.request({**WISH, "task": f"T-{number}"})
            agent.unwrap(served.stack.vault_addr, Secret(answer["wrapping_token"]))
            assert agent.finish(answer["grant"]["id"], wait="30s")["grant"]["state"] == "revoked"
            return str(answer["grant"]["id"])

    with ThreadPoolExecutor(4) as pool:
        grants = list(pool.map(one, range(16)))
    with psycopg.connect(url) as database:
        counted = dict(
            database.execute(
                "SELECT kind, count(*) FROM events WHERE grant_id = ANY (%s) GROUP BY kind", (grants,)
            ).fetchall()
        )
        holders = database.execute("SELECT count(*) FROM grants WHERE state <> 'revoked'").fetchone()
    assert counted == dict.fromkeys(
        ("grant.allowed", "task_token.issued", "lease.issued", "grant.issued", "grant.ended", "lease.revoked",
         "grant.revoked"), len(grants)
    )  # fmt: skip
    assert holders == (0,)
    trail = open_trail(url)
    assert isinstance(verify_trail(trail, Stage(served.stack.project).audit_key), Intact)
    trail.close()


def test_g14_one_request_sent_to_both_at_once_is_one_grant(served: ServedPlane) -> None:
    def ask(_: int) -> str:
        with served.agent(AGENT) as agent:
            return str(agent.request(WISH, key="once")["grant"]["id"])

    with ThreadPoolExecutor(8) as pool:
        grants = set(pool.map(ask, range(8)))
    assert len(grants) == 1
    with served.agent(AGENT) as agent:
        assert agent.finish(grants.pop(), wait="30s")["grant"]["state"] == "revoked"


def test_the_figures_of_both_are_added_up_whoever_is_asked(served: ServedPlane) -> None:
    for _ in range(20):
        loopback.ask(served.port, "GET", "/healthz")
    seen = {_healthy(served) for _ in range(10)}
    assert all(figure >= 20 for figure in seen), seen


def test_one_that_is_killed_is_started_anew_and_the_other_serves_on(served: ServedPlane) -> None:
    assert served.process is not None
    children = _children(served.process.pid)
    assert len(children) == 2
    subprocess.run(["kill", "-9", str(children[0])], check=True)
    deadline = time.monotonic() + 60
    after = _children(served.process.pid)
    while time.monotonic() < deadline and (len(after) < 2 or children[0] in after):
        assert loopback.ask(served.port, "GET", "/healthz")[0] == 200
        time.sleep(0.1)
        after = _children(served.process.pid)
    assert len(after) == 2
    assert children[0] not in after


def test_all_of_them_end_with_the_one_that_started_them_even_if_it_is_killed(served: ServedPlane) -> None:
    assert served.process is not None
    children = _children(served.process.pid)
    served.kill()
    assert until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), timedelta(seconds=90))
    assert loopback.is_free(served.port)
    served.start()


def test_on_sqlite_several_processes_are_refused_with_what_to_use_instead(stack: Stack, tmp_path: Path) -> None:
    plane = ServedPlane(stack, tmp_path)
    command = [sys.executable, "-m", "controlplane", "serve", "--workers", "2"]
    refused = subprocess.run(
        command, env=plane.environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=90
    )
    assert refused.returncode == 1
    assert "needs PostgreSQL" in refused.stderr
    assert not plane.store.exists()


def _healthy(served: ServedPlane) -> float:
    with urllib.request.urlopen(f"{served.api}/metrics", timeout=60) as answer:  # noqa: S310 # http, on loopback
        text = answer.read().decode()
    (line,) = [line for line in text.splitlines() if line.startswith(_COUNT) and '"/healthz"' in line]
    return float(line.rpartition(" ")[2])


def _children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


_COUNT = "shorthold_http_request_seconds_count"
