"""Freezes on real servers: one command stops new grants on every replica, nothing that runs (C20, A10, A19, I05)."""

import json
import secrets
import subprocess
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL

from controlplane.dev.issuer import mint
from controlplane.dev.loopback import HOST
from controlplane.dev.postgres import SUPERUSER
from controlplane.dev.process import until
from controlplane.dev.stack import Stack
from controlplane.dev.story import AGENT
from controlplane.model.secret import Secret
from controlplane.sdk.client import AnsweredError, Shorthold
from controlplane.testing.served import ServedPlane, Witness
from controlplane.world import RandomIds, SystemClock

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

ASK: Final = ("grant", "request", "orders-read", "--task", "T-1", "--intent", "answer-question", "-o", "json")
WISH: Final = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}
WHY: Final = ("--message", "Incident 7: refunds are stopped.", "--reason", "leaked key")
MINUTE: Final = timedelta(minutes=1)
SETTINGS: Final = {"VAULT__MAX_REQUEST_DURATION": "1s", "WORKER__TICK": "1s"}


@pytest.fixture(scope="module")
def plane(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Generator[ServedPlane]:
    served = ServedPlane(stack, tmp_path_factory.mktemp("freezes"), SETTINGS)
    served.start()
    yield served
    served.kill()


@pytest.fixture
def replicas(stack: Stack, tmp_path: Path) -> Iterator[tuple[ServedPlane, ServedPlane]]:
    """Two processes on one PostgreSQL store."""
    with database(stack) as url:
        both = (replica(stack, tmp_path / "one", url), replica(stack, tmp_path / "two", url))
        try:
            for each in both:
                each.start()
            yield both
        finally:
            for each in both:
                each.kill()


@contextmanager
def database(stack: Stack) -> Generator[str]:
    name = f"freezes_{secrets.token_hex(6)}"
    server = stack.postgres
    with psycopg.connect(server.owner.reveal(), autocommit=True) as owner:
        owner.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        url = URL.create("postgresql", SUPERUSER, server.password.reveal(), HOST, server.port, name)
        yield url.render_as_string(hide_password=False)
        owner.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def replica(stack: Stack, directory: Path, url: str) -> ServedPlane:
    directory.mkdir()
    return ServedPlane(stack, directory, {**SETTINGS, "STORE__URL": url})


def token(plane: ServedPlane, subject: str, role: str | None = None) -> Secret:
    issuer = plane.stack.issuer
    claims = {"role": role} if role else {}
    return mint(issuer.key, issuer.url, subject, now=SystemClock().now(), ids=RandomIds(), claims={**claims})


def client(plane: ServedPlane, subject: str, role: str | None = None) -> Shorthold:
    return Shorthold(plane.api, lambda: token(plane, subject, role), timeout=60)


def shorthold(
    plane: ServedPlane, *arguments: str, subject: str = AGENT, role: str | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        plane.command(*arguments),
        env={**plane.environment, "SHORTHOLD_TOKEN": token(plane, subject, role).reveal()},
        cwd=plane.directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def incident(plane: ServedPlane, *arguments: str, by: str = "ann") -> Any:  # noqa: ANN401 # JSON
    done = shorthold(plane, "incident", *arguments, "-o", "json", subject=by, role="responder")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_c20_a_responder_stops_a_team_and_lets_it_go_on(plane: ServedPlane) -> None:
    before = json.loads(shorthold(plane, *ASK).stdout)["grant"]
    frozen = incident(plane, "freeze", "-l", "label.team=sales,risk=low", *WHY, "--expires", "2h")["freeze"]
    refused = shorthold(plane, *ASK)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "Error [frozen]: orders-read was not granted" in refused.stderr
    assert f"freeze: Incident 7: refunds are stopped. ({frozen['id']}) [frozen]" in refused.stderr
    explained = shorthold(plane, "grant", "explain", "orders-read", "--intent", "answer-question")
    assert (explained.returncode, "frozen" in explained.stdout) == (3, True)
    other = shorthold(plane, "grant", "request", "invoice-status", "--task", "T-2", "--intent", "answer-question")
    assert other.returncode == 0, other.stderr
    assert [each["id"] for each in incident(plane, "freezes")] == [frozen["id"]]

    ended = shorthold(plane, "grant", "finish", before["id"], "--wait", "30s", "-o", "json")  # A19
    assert (ended.returncode, json.loads(ended.stdout)["grant"]["state"]) == (0, "revoked"), ended.stderr

    thawed = incident(plane, "thaw", frozen["id"], "--reason", "key replaced", by="bob")["freeze"]
    assert [by["subject"] for by in thawed["thaws"]] == ["bob"]
    assert shorthold(plane, *ASK).returncode == 0
    assert incident(plane, "freezes") == []
    assert frozen["id"] in [each["id"] for each in incident(plane, "freezes", "--ended")]


def test_i05_everything_takes_two_people_to_thaw(plane: ServedPlane) -> None:
    frozen = incident(plane, "freeze", "-l", "all", *WHY)["freeze"]
    try:
        assert shorthold(plane, *ASK).returncode == 3
        thaw = ("incident", "thaw", frozen["id"], "--reason", "over")
        first = shorthold(plane, *thaw, subject="ann", role="responder")
        assert (first.returncode, "another responder has to run the same command" in first.stderr) == (4, True)
        again = shorthold(plane, *thaw, subject="Ann", role="responder")
        assert (again.returncode, "other-person-needed" in again.stderr) == (3, True)
        assert shorthold(plane, *ASK).returncode == 3
    finally:
        incident(plane, "thaw", frozen["id"], "--reason", "over", by="bob")
    assert shorthold(plane, *ASK).returncode == 0


def test_what_a_responder_may_nobody_else_may_and_a_slip_of_the_hand_freezes_nothing(plane: ServedPlane) -> None:
    freeze = ("incident", "freeze", "-l", "all", *WHY)
    for role in (None, "approver", "platform", "auditor"):
        refused = shorthold(plane, *freeze, role=role)
        assert (refused.returncode, "this takes the role responder" in refused.stderr) == (3, True)
    wrong = shorthold(plane, "incident", "freeze", "-l", "team=sales", *WHY, subject="ann", role="responder")
    assert (wrong.returncode, "character 1: there is no key team" in wrong.stderr) == (1, True)
    slip = shorthold(plane, "incident", "thaw", "gr_1", "--reason", "x")
    assert (slip.returncode, "no freeze id" in slip.stderr) == (1, True)
    assert incident(plane, "freezes") == []


def test_p8_a_freeze_at_one_replica_refuses_at_the_other_and_outlives_both(
    replicas: tuple[ServedPlane, ServedPlane],
) -> None:
    one, other = replicas
    frozen = incident(one, "freeze", "-l", f"subject={AGENT}", *WHY)["freeze"]
    refused = shorthold(other, *ASK)
    assert (refused.returncode, frozen["id"] in refused.stderr) == (3, True)
    for each in replicas:
        each.kill()
    other.start()
    assert shorthold(other, *ASK).returncode == 3
    incident(other, "thaw", frozen["id"], "--reason", "over")
    one.start()
    assert shorthold(one, *ASK).returncode == 0


def test_a10_once_a_freeze_is_answered_no_grant_reaches_anybody_at_any_replica(
    replicas: tuple[ServedPlane, ServedPlane], seer: Witness
) -> None:
    granted, refused = list[str](), list[tuple[int, str]]()
    enough, stop = threading.Event(), threading.Event()
    users = set(seer.users())

    def asks(number: int) -> None:
        with client(replicas[number % 2], AGENT) as agent:
            for _ in range(40):
                try:
                    granted.append(agent.request(WISH)["grant"]["id"])
                except AnsweredError as error:
                    refused.append((error.http_status, error.told_code))
                    if stop.is_set():
                        return
                if len(granted) >= 12:
                    enough.set()

    with ThreadPoolExecutor(8) as pool, client(replicas[0], "ann", "responder") as responder:
        asking = [pool.submit(asks, number) for number in range(8)]
        assert enough.wait(60)
        wanted = {"selection": "entitlement=orders-read", "message": "Stop.", "reason": "a race"}
        assert responder.freeze(wanted)["settled"] is True
        at_once = ids_that_were_active(replicas[1])
        stop.set()
        for each in asking:
            each.result()
    assert set(refused) == {(423, "frozen")}
    assert ids_that_were_active(replicas[1]) == at_once
    assert set(granted) <= at_once

    with client(replicas[0], AGENT) as agent:
        for grant in granted:
            agent.finish(grant)
    assert until(lambda: users >= set(seer.users()), MINUTE)
    assert until(lambda: {grant["state"] for grant in grants(replicas[0])} == {"revoked"}, MINUTE)
    burnt = [grant for grant in grants(replicas[0]) if grant["id"] not in at_once]
    assert {grant["why"] for grant in burnt} <= {"frozen"}


def grants(plane: ServedPlane) -> list[dict[str, Any]]:
    """Every grant, as an auditor sees it."""
    with client(plane, "auditor", "auditor") as auditor:
        found: list[dict[str, Any]] = auditor.list()["grants"]
    return found


def ids_that_were_active(plane: ServedPlane) -> set[str]:
    return {grant["id"] for grant in grants(plane) if grant["issued_at"] is not None}
