"""Nobody comes back: control plane and Vault gone for good, and access ends by its own clocks (P2; R01, R26, R27)."""

import os
import signal
import time
from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from controlplane.dev.loopback import is_free
from controlplane.dev.openbao import bao_binary
from controlplane.dev.process import until
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.model.secret import Secret
from controlplane.settings import bao_program
from controlplane.testing.served import ServedPlane, Witness, ask_again

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

TTL = timedelta(seconds=10)
SLACK = timedelta(seconds=40)
"""What OpenBao adds to `VALID UNTIL` (about 5 s), and what a busy machine takes."""
WISH: dict[str, str | None] = {
    "entitlement": "orders-read",
    "task": "T-1",
    "intent": "answer-question",
    "ttl": f"{TTL.seconds}s",
}


@dataclass(frozen=True)
class Left:
    """What an agent holds when its control plane is gone for good."""

    id: str
    credential: dict[str, Secret]
    session: psycopg.Connection
    since: float


@pytest.fixture
def left(stack: Stack, seer: Witness, tmp_path: Path) -> Generator[Left]:
    del seer  # it looks from before there is anything
    plane = ServedPlane(stack, tmp_path)
    plane.start()
    with plane.agent(AGENT) as agent:
        answer = ask_again(lambda: agent.request(WISH))
        credential = agent.unwrap(stack.vault_addr, Secret(answer["wrapping_token"]))["orders"]
    since = time.monotonic()
    session = Stage(stack.project).connect(credential)
    plane.kill()
    for file in tmp_path.glob("shorthold.db*"):
        file.unlink()
    yield Left(answer["grant"]["id"], credential, session, since)
    session.close()


def works(session: psycopg.Connection) -> bool:
    try:
        session.execute("SELECT count(*) FROM sales.orders")
    except psycopg.OperationalError:
        return False
    return True


def within(left: Left) -> timedelta:
    """What is left until everything has to be over."""
    return TTL + SLACK - timedelta(seconds=time.monotonic() - left.since)


def test_without_any_control_plane_and_its_store_login_session_and_token_end_by_their_ttl(
    stack: Stack, seer: Witness, left: Left
) -> None:  # R26
    assert works(left.session)
    assert seer.tokens(left.id)
    assert until(lambda: seer.users() == [], within(left))
    assert not Stage(stack.project).opens(left.credential)
    assert not works(left.session)
    assert seer.tokens(left.id) == []


@pytest.mark.parametrize("how", ["sealed", "killed"])
def test_without_vault_as_well_nobody_logs_in_any_more_and_sessions_end_when_it_is_back(
    stack: Stack, seer: Witness, left: Left, how: str
) -> None:  # R01, R27
    try:
        if how == "sealed":
            seer.vault.write("sys/seal", {})
        else:
            kill_openbao(stack)
        assert until(lambda: not Stage(stack.project).opens(left.credential), within(left), every=0.2)
        assert works(left.session)  # PostgreSQL's own clock is for logins only: docs/when-access-ends.md says so
    finally:
        stack.openbao.stop()
        stack.openbao.start(bao_binary(bao_program()))
    assert until(lambda: seer.users() == [], timedelta(seconds=60))
    assert not works(left.session)
    assert seer.tokens(left.id) == []


def kill_openbao(stack: Stack) -> None:
    pid, port = stack.openbao.process.pid, int(stack.vault_addr.rpartition(":")[2])
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: stack.openbao.process.pid is None and is_free(port), timedelta(seconds=60))
