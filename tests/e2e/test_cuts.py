"""A cut on real servers: by two replicas, killed and started again, until every login is proved gone (I01, I02, K9)."""

import secrets
import signal
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL

from controlplane.dev import loopback
from controlplane.dev.issuer import mint
from controlplane.dev.postgres import SUPERUSER
from controlplane.dev.process import until
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.model.secret import Secret
from controlplane.sdk.client import Shorthold
from controlplane.testing.served import ServedPlane, Witness
from controlplane.world import RandomIds, SystemClock

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

WISH: dict[str, str | None] = {"entitlement": "orders-read", "intent": "answer-question"}
GRANTS = 16


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
def replicas(stack: Stack, url: str, tmp_path: Path) -> Generator[list[ServedPlane]]:
    """Two control planes over one store; a hold of a dead one is taken over soon."""
    settings = {"STORE__URL": url, "WORKER__HOLD": "3s", "WORKER__THREADS": "2"}
    planes: list[ServedPlane] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        planes.append(ServedPlane(stack, tmp_path / name, settings))
    for plane in planes:
        plane.start()
    yield planes
    for plane in planes:
        plane.end(signal.SIGKILL)


def responder(plane: ServedPlane) -> Shorthold:
    issuer = Stage(plane.stack.project).stack.issuer

    def token() -> Secret:
        now, who = SystemClock().now(), "ann@acme.example"
        return mint(issuer.key, issuer.url, who, now=now, ids=RandomIds(), claims={"role": "responder"})

    return Shorthold(plane.api, token, timeout=60)


def test_i02_a_cut_is_carried_out_by_whoever_lives_and_everything_is_proved_gone(
    replicas: list[ServedPlane], seer: Witness
) -> None:
    first, second = replicas

    def one(number: int) -> str:
        with first.agent(AGENT) as agent:
            answer = agent.request({**WISH, "task": f"T-{number % 2}"})
            agent.unwrap(first.stack.vault_addr, Secret(answer["wrapping_token"]))
            return str(answer["grant"]["id"])

    with ThreadPoolExecutor(4) as pool:
        grants = list(pool.map(one, range(GRANTS)))
    with responder(first) as door:
        seen = door.preview_cut("task in (T-0, T-1)")
        assert seen["count"] == GRANTS
        (opened,) = seen["opened"]
        assert (opened["leases"], opened["sessions"], opened["revocability"]) == (GRANTS, 0, "provable")
        ordered = door.cut({"digest": seen["digest"], "incident": "INC-7", "reason": "drill"})
        assert (ordered["settled"], ordered["changed"]) == (True, {"new": 0, "ended": 0})
    until(lambda: _progress(second, ordered)["waiting"] < GRANTS, timedelta(seconds=60))
    for plane in replicas:
        plane.kill()
    second.start()
    assert until(lambda: _cut(second, ordered)["cut"]["ended_at"] is not None, timedelta(seconds=60)), _cut(
        second, ordered
    )
    over = _cut(second, ordered)
    assert over["progress"] | {"total": GRANTS, "verified": GRANTS} == over["progress"]
    assert (over["residual"], over["unverifiable"]) == ([], [])
    with responder(second) as door:
        receipts = [door.show(id)["grant"] for id in grants]
        assert all(grant["receipt"]["verified"] and grant["why"] == "cut" for grant in receipts)
        assert door.cut({"digest": seen["digest"], "incident": "INC-7", "reason": "again"})["cut"] == over["cut"]
        (frozen,) = door.freezes()["freezes"]
        assert frozen["id"] == over["cut"]["freeze"]
    principals = {end["principal"] for grant in receipts for end in grant["receipt"]["ended"]}
    assert len(principals) == GRANTS
    assert not principals & set(seer.users())


def _cut(plane: ServedPlane, ordered: dict[str, Any]) -> dict[str, Any]:
    time.sleep(0.1)
    with responder(plane) as door:
        return door.show_cut(ordered["cut"]["id"])


def _progress(plane: ServedPlane, ordered: dict[str, Any]) -> dict[str, Any]:
    return _cut(plane, ordered)["progress"]
