"""Answers that are another's, come twice or never, and a wrapping token that a thief was first to open."""

import json
import os
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.dev.loopback import HOST
from controlplane.dev.process import until
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.model.errors import VaultRefusedError
from controlplane.model.secret import Secret
from controlplane.sdk.client import AnsweredError
from controlplane.testing.fault_proxy import FaultProxy, fault_proxy
from controlplane.testing.relay import relay
from controlplane.testing.served import ServedPlane, Witness

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

QUICK = {
    "VAULT__TIMEOUT": "3s",
    "VAULT__ISSUING_WITHIN": "5s",
    "VAULT__MAX_REQUEST_DURATION": "1s",
    "WORKER__TICK": "1s",
    "WORKER__HOLD": "5s",
}
LOGIN = "/v1/auth/shorthold/login"
WISH: dict[str, str | None] = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}
OUTAGES = [int(seconds) for seconds in os.environ.get("SIEGE_OUTAGES", "3").split(",")]
"""Seconds; `make siege` has longer ones."""
GONE_WITHIN = timedelta(seconds=60)


@pytest.fixture(scope="module")
def proxy(stack: Stack) -> Generator[FaultProxy]:
    with fault_proxy(stack.vault_addr) as between:
        yield between


@pytest.fixture(scope="module")
def plane(stack: Stack, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Generator[ServedPlane]:
    served = ServedPlane(stack, tmp_path_factory.mktemp("answers"), {**QUICK, "VAULT__ADDR": proxy.addr})
    served.start()
    yield served
    served.kill()


def ask(plane: ServedPlane, task: str) -> str:
    """The id of a new grant, or the code of the refusal."""
    with plane.agent(AGENT) as agent:
        try:
            return str(agent.request({**WISH, "task": task})["grant"]["id"])
        except AnsweredError as error:
            return error.told_code or "?"


def finish(plane: ServedPlane, id: str) -> None:
    with plane.agent(AGENT) as agent:
        agent.finish(id)


def all_ended(plane: ServedPlane, seer: Witness) -> bool:
    def ended() -> bool:
        return all(grant["state"] == "revoked" for grant in plane.grants())

    return until(ended, GONE_WITHIN, every=0.1) and until(lambda: seer.users() == [], GONE_WITHIN)


def test_r30_while_answers_come_twice_nothing_is_called_gone_that_is_not_and_nothing_is_left(
    plane: ServedPlane, proxy: FaultProxy, seer: Witness
) -> None:
    held = [ask(plane, f"twice-{number}") for number in range(4)]
    assert len(seer.users()) == len(held)
    proxy.doubling = True  # whoever asks next over the same connection may read what another was answered
    try:
        asked = [ask(plane, f"doubled-{number}") for number in range(4)]
        for id in (*held, *(id for id in asked if id.startswith("gr_"))):
            finish(plane, id)
        for _ in range(20):
            alive = sum(grant["state"] != "revoked" for grant in plane.grants())
            assert len(seer.users()) <= alive
    finally:
        proxy.calm()
    assert all_ended(plane, seer)
    assert all(plane.events(str(grant["id"])).count("grant.revoked") == 1 for grant in plane.grants())


def test_r30_two_logins_that_get_each_others_answers_are_noticed_and_neither_leaves_anything(
    plane: ServedPlane, proxy: FaultProxy, seer: Witness
) -> None:
    proxy.swap(LOGIN)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(ask, [plane, plane], ["swapped-1", "swapped-2"]))
    proxy.calm()
    assert answers == ["unexpected-token"] * 2
    assert all_ended(plane, seer)
    assert [seer.tokens(str(grant["id"])) for grant in plane.grants()] == [[]] * len(plane.grants())


@pytest.mark.timeout(180 + 2 * sum(OUTAGES))
@pytest.mark.parametrize("seconds", OUTAGES)
def test_r28_a_line_that_is_cut_amid_calls_and_heals_later_leaves_nothing_behind(
    stack: Stack, seer: Witness, tmp_path: Path, seconds: int
) -> None:
    port, cut = int(stack.vault_addr.rpartition(":")[2]), threading.Event()
    with relay(lambda: None if cut.is_set() else port) as line:
        served = ServedPlane(stack, tmp_path, {**QUICK, "VAULT__ADDR": f"http://{HOST}:{line.port}"})
        served.start()
        try:
            held = [ask(served, f"held-{number}") for number in range(3)]
            amid = line.hold(LOGIN.encode())  # a token was made, and nobody will ever hear of it
            asking = threading.Thread(target=ask, args=(served, "amid"))
            asking.start()
            amid.wait()
            cut.set()
            line.sever()
            for id in held:
                finish(served, id)
            until(lambda: False, timedelta(seconds=seconds))
            assert {str(grant["state"]) for grant in served.grants()} == {"revoking"}
            cut.clear()
            line.calm()
            asking.join(60)
            assert all_ended(served, seer)
            assert [seer.tokens(str(grant["id"])) for grant in served.grants()] == [[]] * 4
        finally:
            served.kill()


def test_r23_a_server_that_makes_no_more_credentials_refuses_grants_and_ends_what_there_is(
    plane: ServedPlane, seer: Witness
) -> None:
    """OpenBao counts no leases (404); its rate quota answers 429 as one that did would, before anything is made."""
    with pytest.raises(VaultRefusedError, match="unsupported path"):
        seer.vault.write("sys/quotas/lease-count/shorthold", {"path": "database/", "max_leases": 1})
    held = ask(plane, "before-the-quota")
    (grant,) = (grant for grant in plane.grants() if grant["id"] == held)
    (path,) = json.loads(str(grant["paths"]))
    seer.vault.write("sys/quotas/rate-limit/shorthold", {"path": path, "rate": 0.001, "interval": "60s"})
    try:
        refused = [ask(plane, f"over-the-quota-{number}") for number in range(3)]
        assert refused[1:] == ["vault-unavailable"] * 2  # the first one may have found a request left
        with plane.agent(AGENT) as agent:
            assert agent.finish(held, wait="30s")["grant"]["state"] == "revoked"
    finally:
        seer.vault.delete("sys/quotas/rate-limit/shorthold")
    for grant in plane.grants():
        if grant["state"] == "active":
            finish(plane, str(grant["id"]))
    assert all_ended(plane, seer)
    after = ask(plane, "after-the-quota")
    assert after.startswith("gr_")
    finish(plane, after)
    assert all_ended(plane, seer)


def test_g11_who_reports_that_another_one_opened_his_wrapping_token_ends_what_the_thief_has(
    stack: Stack, plane: ServedPlane, seer: Witness
) -> None:
    with plane.agent(AGENT) as agent:
        answer = agent.request({**WISH, "task": "stolen"})
        id, token = str(answer["grant"]["id"]), Secret(answer["wrapping_token"])
        stolen = agent.unwrap(stack.vault_addr, token)["orders"]
        assert Stage(stack.project).opens(stolen)
        with pytest.raises(AnsweredError):
            agent.unwrap(stack.vault_addr, token)
        reported = time.monotonic()
        assert agent.finish(id, outcome="failed")["grant"]["state"] == "revoking"
        assert until(lambda: not Stage(stack.project).opens(stolen), timedelta(seconds=60), every=0.02)
        sys.stdout.write(f"the thief was out {time.monotonic() - reported:.2f} s after the report\n")
    assert all_ended(plane, seer)
