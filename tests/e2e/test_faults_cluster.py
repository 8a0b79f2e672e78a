"""Three nodes: leaders are killed in the middle of revocations, and standbys are asked (facts 4, 22; R09).

The control plane has one address, as everywhere: a load balancer that asks for everybody's health, or one node.
"""

import http.client
import os
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplane.dev.loopback import HOST
from controlplane.dev.process import until
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.model.errors import VaultRefusedError
from controlplane.model.secret import Secret
from controlplane.sdk.client import Shorthold
from controlplane.testing.cluster import Cluster
from controlplane.testing.relay import Relay, relay
from controlplane.testing.served import ServedPlane, Witness, ask_again, witness
from controlplane.vault.client import part

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

QUICK = {
    "VAULT__TIMEOUT": "5s",
    "VAULT__ISSUING_WITHIN": "10s",
    "VAULT__MAX_REQUEST_DURATION": "2s",
    "WORKER__TICK": "1s",
    "WORKER__HOLD": "10s",
}
WISH: dict[str, str | None] = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}
ROUNDS = int(os.environ.get("SIEGE_ROUNDS", "2"))
GRANTS = int(os.environ.get("SIEGE_GRANTS", "40"))
"""How many are revoked while a leader dies, and how often; `make siege` has more of both."""
_HANDS = 8
_ASKED = 40
"""Tokens of so many are looked at right after: what ends then should not have to wait for us."""
GONE_WITHIN = timedelta(seconds=90) + GRANTS * timedelta(seconds=0.2)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """A stack of its own: its server becomes one of three."""
    whole = Stack(project=tmp_path_factory.mktemp("cluster"), say=print)
    try:
        whole.up()
        whole.serve.stop()  # each test has a control plane of its own
        yield whole
    finally:
        whole.destroy()


@pytest.fixture(scope="module")
def cluster(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    nodes = Cluster(stack, tmp_path_factory.mktemp("nodes"))
    looking = witness(stack)
    try:
        nodes.start(looking.vault)
        yield nodes
    finally:
        looking.vault.close()
        nodes.stop()


@pytest.fixture(scope="module")
def balancer(cluster: Cluster) -> Generator[Relay]:
    """What operators put in front of a cluster."""
    with relay(cluster.leader_port) as between:
        yield between


@pytest.fixture
def seer(cluster: Cluster, stack: Stack, balancer: Relay) -> Generator[Witness]:
    assert until(cluster.whole, timedelta(seconds=60), every=0.5)
    looking = witness(stack, f"http://{HOST}:{balancer.port}")
    yield looking
    looking.close()


@pytest.mark.timeout(200 + ROUNDS * (60 + 2 * GRANTS))
def test_a_leader_that_is_killed_while_it_revokes_leaves_nobody_alive(
    cluster: Cluster, balancer: Relay, stack: Stack, seer: Witness, tmp_path: Path
) -> None:  # fact 4, R09
    for number in range(ROUNDS):
        (directory := tmp_path / str(number)).mkdir()
        plane = ServedPlane(stack, directory, {**QUICK, "VAULT__ADDR": f"http://{HOST}:{balancer.port}"})
        plane.start()
        try:
            _kill_the_leader_amid(GRANTS, plane, cluster, seer, number)
            assert len(plane.grants()) >= GRANTS
        finally:
            plane.kill()


def _kill_the_leader_amid(count: int, plane: ServedPlane, cluster: Cluster, seer: Witness, number: int) -> None:
    assert until(cluster.whole, timedelta(seconds=60), every=0.5)
    with plane.agent(AGENT) as agent:

        def granted(n: int) -> str:
            wish = {**WISH, "task": f"T-{number}-{n}", "ttl": "8m"}
            return str(ask_again(lambda: agent.request(wish))["grant"]["id"])

        with ThreadPoolExecutor(_HANDS) as hands:
            ids = list(hands.map(granted, range(count)))
        assert until(lambda: len(seer.users()) == count, timedelta(seconds=60))  # what was burnt on the way is gone
        finishing = [threading.Thread(target=_finish, args=(agent, ids[part::_HANDS])) for part in range(_HANDS)]
        for thread in finishing:
            thread.start()
        leader = cluster.leader
        assert leader is not None
        assert until(lambda: len(seer.users()) < count, timedelta(seconds=90), every=0.001)
        leader.kill()
        killed = time.monotonic()
        left = len(seer.users())
        try:
            assert until(lambda: cluster.leader is not None, timedelta(seconds=90))
            led = time.monotonic() - killed
            zombies = sum(_uses_left(seer, grant["accessor"]) == -1 for grant in plane.grants()[:_ASKED])
            for thread in finishing:
                thread.join(60 + count)
            until(lambda: seer.users() == [], GONE_WITHIN, every=0.2)
            gone = time.monotonic() - killed
            ended = until(lambda: all(grant["state"] == "revoked" for grant in plane.grants()), GONE_WITHIN, every=0.2)
            proved = time.monotonic() - killed
            told = f"{left} alive at the kill, {zombies} of {_ASKED} tokens neither dead nor alive; a leader after"
            sys.stdout.write(f"round {number}: {told} {led:.1f} s, 0 alive {gone:.1f} s, all proved {proved:.1f} s\n")
            assert ended, [(grant["id"], grant["failing"]) for grant in plane.grants() if grant["state"] != "revoked"]
        finally:
            leader.start()
        assert left > 0
        assert seer.users() == []
        assert all(_receipt(agent, id)["verified"] for id in ids)
        assert all(plane.events(id).count("grant.revoked") == 1 for id in ids)


def _finish(agent: Shorthold, ids: list[str]) -> None:
    for id in ids:
        agent.finish(id)


def _receipt(agent: Shorthold, id: str) -> dict[str, Any]:
    return agent.show(id)["grant"]["receipt"]


def _uses_left(seer: Witness, accessor: str) -> object:
    with suppress(VaultRefusedError):
        return part(seer.vault.write("auth/token/lookup-accessor", {"accessor": accessor}), "data")["num_uses"]
    return None


def test_at_a_standby_every_answer_is_as_new_as_our_last_write(
    cluster: Cluster, stack: Stack, seer: Witness, tmp_path: Path
) -> None:  # fact 22
    assert until(cluster.whole, timedelta(seconds=60), every=0.5)
    standby = cluster.standbys()[0]
    plane = ServedPlane(stack, tmp_path, {**QUICK, "VAULT__ADDR": standby.addr})
    plane.start()
    try:
        with plane.agent(AGENT) as agent:
            for number in range(30):
                # Asked and ended without a pause: a copy that lags behind knows neither token nor lease.
                wish = {**WISH, "task": f"T-{number}"}
                # A standby that lost its leader just now fails a call; that grant is burnt, and one asks again.
                id = str(ask_again(lambda wish=wish: agent.request(wish))["grant"]["id"])
                assert agent.finish(id, wait="30s")["grant"]["state"] == "revoked"
                assert _receipt(agent, id)["verified"] is True
        assert until(lambda: all(grant["state"] == "revoked" for grant in plane.grants()), GONE_WITHIN)
        assert seer.users() == []
    finally:
        plane.kill()


def test_a_standby_that_dies_is_met_with_an_error_and_what_was_granted_ends_when_it_is_back(
    cluster: Cluster, stack: Stack, seer: Witness, tmp_path: Path
) -> None:
    assert until(cluster.whole, timedelta(seconds=60), every=0.5)
    standby = cluster.standbys()[0]
    plane = ServedPlane(stack, tmp_path, {**QUICK, "VAULT__ADDR": standby.addr})
    plane.start()
    try:
        with plane.agent(AGENT) as agent:
            answer = ask_again(lambda: agent.request(WISH))
            id = str(answer["grant"]["id"])
            credential = agent.unwrap(standby.addr, Secret(answer["wrapping_token"]))["orders"]
            standby.kill()
            try:
                agent.finish(id)
                assert until(lambda: agent.show(id)["grant"]["failing"] is not None, timedelta(seconds=90))
                assert "Vault is down" in agent.show(id)["grant"]["failing"]
            finally:
                standby.start()
            assert until(lambda: agent.show(id)["grant"]["state"] == "revoked", GONE_WITHIN)
            assert _receipt(agent, id)["verified"] is True
        assert not Stage(stack.project).opens(credential)
        assert seer.users() == []
    finally:
        plane.kill()


def test_a_standby_that_may_not_pass_a_request_on_sends_it_elsewhere_and_we_ask_none_to(cluster: Cluster) -> None:
    """What `test_a_redirect_is_never_followed_and_the_token_stays_here` is about: a 307 with the leader's address."""
    assert until(cluster.whole, timedelta(seconds=60), every=0.5)
    leader, standby = cluster.leader, cluster.standbys()[0]
    assert leader is not None
    connection = http.client.HTTPConnection(HOST, standby.port, timeout=60)
    connection.request("PUT", "/v1/sys/leases/lookup", body="{}", headers={"X-Vault-No-Request-Forwarding": "true"})
    answer = connection.getresponse()
    assert answer.status == 307
    assert str(answer.getheader("Location")).startswith(leader.addr)
    connection.close()
