"""When the control plane is what is broken: dead, its store deleted, and every credential ends all the same."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.model.secret import Secret
from controlplane.settings import VaultSettings
from controlplane.testing.served import ServedPlane, Witness
from controlplane.wiring.errands import responder_token

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

WISH: dict[str, str | None] = {"entitlement": "orders-read", "intent": "answer-question"}


def cut(stack: Stack, token: Secret, count: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`shorthold incident cut --direct`, with the count that it tells where others have left something to end, too."""
    while True:  # until the test's own time is over
        run = command(stack, token, *arguments, "--count", str(count))
        told = re.search(r"there are (\d+), not \d+; nothing was ended", run.stderr)
        if told is None:
            return run
        count = int(told[1])


def command(stack: Stack, token: Secret, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Where nothing else of ours is: no settings, no keys, no store."""
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8"}
    return subprocess.run(  # our own command
        [sys.executable, "-m", "controlplane", "incident", "cut", "--direct", *arguments],
        cwd="/",
        env={**environment, "VAULT_ADDR": stack.vault_addr, "VAULT_TOKEN": token.reveal()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_p2_i02_without_store_and_control_plane_all_ends_by_a_responders_vault_token_and_postgresql_says_so(
    stack: Stack, seer: Witness, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    plane, stage = ServedPlane(stack, tmp_path), Stage(stack.project)
    plane.start()
    granted: dict[str, str] = {}
    opened: list[psycopg.Connection] = []
    request.addfinalizer(lambda: [session.close() for session in opened])
    for task in ("D-1", "D-2", "D-3"):
        with plane.agent(AGENT) as agent:
            answer = agent.request({**WISH, "task": task})
            granted[task] = answer["grant"]["id"]
            credentials = agent.unwrap(stack.vault_addr, Secret(answer["wrapping_token"]))
        opened.append(stage.connect(credentials["orders"]))
    plane.kill()
    for file in tmp_path.glob("shorthold.db*"):
        file.unlink()
    vault = VaultSettings(addr=stack.vault_addr)
    token = responder_token(vault, stack.home.directory / "keys" / "responder.pem")
    assert len(seer.users()) == len(granted)

    one = cut(stack, token, 1, "-l", f"grant={granted['D-1']}", "-o", "json")
    assert one.returncode == 0, one.stderr
    (ended,) = [each for each in json.loads(one.stdout)["ended"] if each["subject"]]
    assert (ended["grant"], ended["outcome"]) == (granted["D-1"], "verified")
    assert "unverified at the target" in ended["why"]
    assert len(seer.users()) == len(granted) - 1  # and nobody else's has ended

    rest = cut(stack, token, 2, "--all")
    assert rest.returncode == 0, rest.stderr
    assert token.reveal() not in one.stdout + one.stderr + rest.stdout + rest.stderr
    assert (seer.users(), seer.all_leases()) == ([], [])
    for session in opened:  # PostgreSQL ended those that were open, too
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
