"""Where OpenBao itself loses track: logins without leases, leases without tokens, tokens neither dead nor alive.

The rare instants are made certain: a relay between OpenBao and PostgreSQL keeps an answer back, and what happens in
the meantime happens in every run. Numbers of facts are those of docs/vault-facts.md.
"""

import os
import signal
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import repeat
from pathlib import Path
from typing import Any

import psycopg
import pytest

from controlplane.dev.engines import database_connection
from controlplane.dev.loopback import HOST, is_free
from controlplane.dev.openbao import bao_binary
from controlplane.dev.outside import Target
from controlplane.dev.process import until
from controlplane.dev.stack import LAYOUT, Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.model.errors import ControlPlaneError, VaultRefusedError
from controlplane.model.secret import Secret
from controlplane.sdk.client import Shorthold
from controlplane.settings import bao_program
from controlplane.testing.fault_proxy import fault_proxy
from controlplane.testing.relay import Relay, relay
from controlplane.testing.served import ServedPlane, Witness, ask_again, witness
from controlplane.vault.client import part

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

QUICK = {
    "VAULT__TIMEOUT": "5s",
    "VAULT__ISSUING_WITHIN": "5s",
    "VAULT__MAX_REQUEST_DURATION": "1s",
    "WORKER__TICK": "1s",
    "WORKER__HOLD": "5s",
}
LOGIN = "/v1/auth/shorthold/login"
MADE = b"commit\x00"  # how OpenBao's plugin ends the transaction that makes a login
ENDING = b"NOLOGIN"  # stands in the statements that end one
KILLS = int(os.environ.get("SIEGE_KILLS", "1"))
BULK = int(os.environ.get("SIEGE_BULK", "4"))
"""How often a server is killed while it revokes, and how many at a time; `make siege` has more of both."""
GONE_WITHIN = timedelta(seconds=60)
WISH: dict[str, str | None] = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}


@pytest.fixture(scope="module")
def line(stack: Stack) -> Generator[Relay]:
    """What stands between OpenBao and PostgreSQL; the prober asks PostgreSQL itself."""
    looking = witness(stack)
    port, owner = stack.postgres.port, stack.postgres.owner

    def connect(port: int) -> None:
        target = Target(host=HOST, port=port, sslmode="disable", owner=owner)
        database_connection(looking.vault, LAYOUT, target, stack.postgres.manager_password, anew=True)

    with relay(lambda: port) as between:
        connect(between.port)
        yield between
        connect(port)
    looking.close()


@pytest.fixture
def plane(stack: Stack, line: Relay, tmp_path_factory: pytest.TempPathFactory) -> Generator[ServedPlane]:
    del line  # it is there before anything is asked for
    served = ServedPlane(stack, tmp_path_factory.mktemp("lost"), QUICK)
    served.start()
    yield served
    served.kill()


@dataclass(frozen=True)
class Granted:
    id: str
    lease: str
    credential: dict[str, Secret]


def granted(plane: ServedPlane, agent: Shorthold) -> Granted:
    answer = ask_again(lambda: agent.request(WISH))  # a test before this one may have restarted OpenBao
    opened = agent.unwrap(plane.stack.vault_addr, Secret(answer["wrapping_token"]))
    return Granted(answer["grant"]["id"], answer["leases"][0]["id"], opened["orders"])


def asking(plane: ServedPlane) -> tuple[threading.Thread, list[ControlPlaneError]]:
    """Somebody who asks for a grant in a thread of his own, and what he was refused with."""
    refused: list[ControlPlaneError] = []

    def ask() -> None:
        with plane.agent(AGENT) as agent:
            try:
                agent.request(WISH)
            except ControlPlaneError as error:
                refused.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, refused


def kill_openbao(stack: Stack) -> None:
    pid = stack.openbao.process.pid
    assert pid is not None
    port = int(stack.vault_addr.rpartition(":")[2])
    os.kill(pid, signal.SIGKILL)
    # Its last thread may hold the port a little longer, and it would come back at another one.
    assert until(lambda: stack.openbao.process.pid is None and is_free(port), timedelta(seconds=60))


def start_openbao(stack: Stack) -> None:
    stack.openbao.start(bao_binary(bao_program()))


def all_revoked(plane: ServedPlane) -> None:
    ended = until(lambda: all(grant["state"] == "revoked" for grant in plane.grants()), GONE_WITHIN, every=0.1)
    assert ended, {grant["id"]: (grant["state"], grant["failing"]) for grant in plane.grants()}
    for grant in plane.grants():
        assert plane.events(grant["id"]).count("grant.revoked") == 1


def receipt(plane: ServedPlane, id: str) -> dict[str, Any]:
    with plane.agent(AGENT) as agent:
        return agent.show(id)["grant"]["receipt"]


def test_a_login_whose_server_is_killed_before_it_wrote_the_lease_is_owned_up_to_and_ends_by_its_own_clock(
    stack: Stack, plane: ServedPlane, seer: Witness, line: Relay
) -> None:  # fact 5, G09
    held = line.hold(MADE)
    thread, refused = asking(plane)
    try:
        held.wait()  # PostgreSQL has the login, and OpenBao does not know yet
        kill_openbao(stack)
    finally:
        held.release()
        start_openbao(stack)
    thread.join(30)
    (error,) = refused
    assert "the connection to Vault broke" in error.detail
    (left,) = seer.users()
    (grant,) = plane.grants()
    assert seer.leases(*paths(grant)) == []  # nothing in Vault will ever end it
    all_revoked(plane)
    told = receipt(plane, grant["id"])
    assert told["verified"] is False
    assert "ends by its own clock" in told["ended"][0]["evidence"]
    assert closes(stack, left) <= datetime.now(UTC) + timedelta(minutes=15)
    seer.drop([left])


def paths(grant: dict[str, Any]) -> list[str]:
    return str(grant["paths"]).strip('[]"').split('","')


def closes(stack: Stack, user: str) -> datetime:
    """When PostgreSQL lets `user` in no more."""
    with psycopg.connect(stack.postgres.owner.reveal(), autocommit=True) as database:
        row = database.execute("SELECT rolvaliduntil FROM pg_roles WHERE rolname = %s", (user,)).fetchone()
    assert row is not None
    return row[0]


def test_a_read_that_overtakes_its_revocation_makes_a_login_that_is_ended_all_the_same(
    plane: ServedPlane, seer: Witness, line: Relay
) -> None:  # fact 3, A06
    held = line.hold(MADE)
    thread, refused = asking(plane)
    try:
        held.wait()
        (grant,) = plane.grants()
        with plane.agent(AGENT) as agent:
            assert agent.finish(grant["id"])["grant"]["state"] == "revoking"
        assert until(lambda: seer.tokens(grant["id"]) == [], timedelta(seconds=60))  # now its read comes to its end
        assert plane.grants()[0]["state"] == "revoking"
    finally:
        held.release()
    thread.join(30)
    assert refused
    all_revoked(plane)
    assert seer.users() == []
    assert seer.leases(*paths(grant)) == []


@pytest.mark.timeout(180 + KILLS * (60 + BULK))
def test_what_a_server_that_was_killed_while_it_revoked_left_alive_is_ended(
    stack: Stack, plane: ServedPlane, seer: Witness, line: Relay
) -> None:  # facts 1, 4, R10
    for _ in range(KILLS):
        _kill_amid_bulk(stack, plane, seer, line)


def _kill_amid_bulk(stack: Stack, plane: ServedPlane, seer: Witness, line: Relay) -> None:
    with plane.agent(AGENT) as agent:
        with ThreadPoolExecutor(4) as hands:
            grants = list(hands.map(granted, repeat(plane, BULK), repeat(agent)))
        held = line.hold(ENDING)
        for one in grants:
            agent.finish(one.id)
        try:
            held.wait()  # OpenBao does not know that one is ended, and the others wait for their turn
            stop(plane, signal.SIGSTOP)  # what there is after the restart is OpenBao's own doing
            kill_openbao(stack)
        finally:
            held.release()
            start_openbao(stack)
            zombies = [grant["id"] for grant in plane.grants() if uses_left(seer, grant["accessor"]) == -1]
            stop(plane, signal.SIGCONT)
        sys.stdout.write(f"tokens that are neither dead nor alive: {len(zombies)} of {len(grants)}\n")
        all_revoked(plane)
        assert seer.users() == []
        assert not any(Stage(stack.project).opens(one.credential) for one in grants)
        assert all(agent.show(one.id)["grant"]["receipt"]["verified"] for one in grants)


def stop(plane: ServedPlane, told: signal.Signals) -> None:
    assert plane.process is not None
    plane.process.send_signal(told)


def uses_left(seer: Witness, accessor: str) -> int | None:
    """What the server says of a token: -1 is one that was being revoked."""
    with suppress(VaultRefusedError):
        answer = seer.vault.write("auth/token/lookup-accessor", {"accessor": accessor})
        left = part(answer, "data")["num_uses"]
        return left if isinstance(left, int) else None
    return None


@pytest.mark.parametrize("twice", [False, True], ids=["500", "sent-twice"])
def test_a_login_that_made_a_token_and_said_otherwise_leaves_none(
    stack: Stack, seer: Witness, tmp_path: Path, twice: bool
) -> None:  # facts 13, 17, R29, G12
    with fault_proxy(stack.vault_addr) as proxy:
        plane = ServedPlane(stack, tmp_path, {**QUICK, "VAULT__ADDR": proxy.addr})
        plane.start()
        try:
            proxy.forge(LOGIN, 500, twice=twice)
            thread, refused = asking(plane)
            thread.join(30)
            (error,) = refused
            assert "500" in error.detail
            (grant,) = plane.grants()
            assert len(seer.tokens(grant["id"])) == (2 if twice else 1)
            assert proxy.seen.count(LOGIN) == 1  # never asked again by itself
            all_revoked(plane)
            assert seer.tokens(grant["id"]) == []
            assert seer.users() == []
        finally:
            plane.kill()
