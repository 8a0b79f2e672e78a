"""Servers sealed, dead, stopped or slow, and answers that get lost: a clear error, and nothing lives (P3; R01-R29)."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta

import psutil
import pytest

from controlplane.dev.openbao import bao_binary
from controlplane.dev.process import until
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.model.secret import Secret
from controlplane.sdk.client import Shorthold
from controlplane.settings import bao_program
from controlplane.testing.fault_proxy import FaultProxy, When, fault_proxy
from controlplane.testing.served import ServedPlane, Witness, ask_again

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

QUICK = {
    "VAULT__TIMEOUT": "2s",
    "VAULT__ISSUING_WITHIN": "3s",
    "VAULT__MAX_REQUEST_DURATION": "1s",
    "WORKER__TICK": "1s",
    "WORKER__HOLD": "5s",
}
GONE_WITHIN = timedelta(seconds=60)
REVOKE, LEASE, LOGIN = "/v1/auth/token/revoke-accessor", "/v1/sys/leases/lookup", "/v1/auth/shorthold/login"
WISH: dict[str, str | None] = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}


@pytest.fixture(scope="module")
def plane(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Generator[ServedPlane]:
    served = ServedPlane(stack, tmp_path_factory.mktemp("outages"), QUICK)
    served.start()
    yield served
    served.kill()


@pytest.fixture(scope="module")
def proxy(stack: Stack) -> Generator[FaultProxy]:
    with fault_proxy(stack.vault_addr) as between:
        yield between


@pytest.fixture(scope="module")
def proxied(stack: Stack, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Generator[ServedPlane]:
    served = ServedPlane(stack, tmp_path_factory.mktemp("proxied"), {**QUICK, "VAULT__ADDR": proxy.addr})
    served.start()
    yield served
    served.kill()


@pytest.fixture(autouse=True)
def left_by_nobody(plane: ServedPlane, proxied: ServedPlane) -> Generator[None]:
    """A test that fails leaves no grant behind that would make the next one fail."""
    yield
    for served in (plane, proxied):
        with served.agent(AGENT) as agent:
            for grant in served.grants():
                if grant["state"] == "active":
                    agent.finish(grant["id"], wait="20s")


@dataclass
class Held:
    """A grant in an agent's hands, with its credential."""

    id: str
    credential: dict[str, Secret]


def granted(plane: ServedPlane, agent: Shorthold) -> Held:
    answer = ask_again(lambda: agent.request(WISH))  # a server that was stopped or restarted may be slow
    opened = agent.unwrap(plane.stack.vault_addr, Secret(answer["wrapping_token"]))
    return Held(answer["grant"]["id"], opened["orders"])


def shorthold(plane: ServedPlane, *arguments: str, token: Secret | None = None) -> subprocess.CompletedProcess[str]:
    """The command line as an agent has it; it never shows a traceback."""
    bearer = {"SHORTHOLD_TOKEN": (token or plane.token(AGENT)).reveal()}
    done = subprocess.run(
        plane.command(*arguments),
        env={**plane.environment, **bearer},
        cwd=plane.directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def ask(plane: ServedPlane) -> subprocess.CompletedProcess[str]:
    asked = ("grant", "request", "orders-read", "--task", "T-1", "--intent", "answer-question")
    return shorthold(plane, *asked)


def all_gone(plane: ServedPlane, seer: Witness) -> None:
    """Every grant ends revoked, and what it made is not there any more."""
    ended = until(lambda: all(grant["state"] == "revoked" for grant in plane.grants()), GONE_WITHIN, every=0.1)
    assert ended, {grant["id"]: (grant["state"], grant["failing"]) for grant in plane.grants()}
    for grant in plane.grants():
        assert seer.tokens(grant["id"]) == []
        assert plane.events(grant["id"]).count("grant.revoked") == 1
    assert seer.users() == []


def start_openbao(stack: Stack) -> None:
    stack.openbao.stop()
    stack.openbao.start(bao_binary(bao_program()))


@pytest.mark.parametrize("outage", ["sealed", "killed", "stopped"])
def test_without_openbao_asking_fails_clearly_finishing_is_kept_and_all_is_gone_when_it_is_back(
    stack: Stack, plane: ServedPlane, seer: Witness, outage: str
) -> None:  # R01, R04
    with plane.agent(AGENT) as agent:
        held = granted(plane, agent)
        pid = stack.openbao.process.pid
        assert pid is not None
        try:
            match outage:
                case "sealed":
                    seer.vault.write("sys/seal", {})
                case "killed":
                    os.kill(pid, signal.SIGKILL)
                case _:
                    os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            refused = ask(plane)
            assert refused.returncode == 2
            assert "Error [vault-unavailable]" in refused.stderr
            assert {"sealed": "sealed", "killed": "Vault is down", "stopped": "Vault is slow"}[outage] in refused.stderr
            assert "What to do: " in refused.stderr
            assert refused.stdout == ""
            waited = shorthold(plane, "grant", "finish", held.id, "--wait", "1s", "-o", "json")
            assert waited.returncode == 5
            assert json.loads(waited.stdout)["grant"]["state"] == "revoking"
            assert time.monotonic() - began < 30
            assert until(lambda: agent.show(held.id)["grant"]["failing"] is not None, timedelta(seconds=60))
            assert agent.show(held.id)["grant"]["state"] == "revoking"
        finally:
            if outage == "stopped":
                os.kill(pid, signal.SIGCONT)
            else:
                start_openbao(stack)
        all_gone(plane, seer)
        assert agent.show(held.id)["grant"]["receipt"]["verified"] is True
        assert not Stage(stack.project).opens(held.credential)
        again = granted(plane, agent)  # and it serves again
        assert shorthold(plane, "grant", "finish", again.id, "--wait", "30s").returncode == 0


@pytest.mark.parametrize("outage", ["down", "stopped"])
def test_without_postgresql_a_grant_stays_revoking_and_is_verified_when_it_is_back(
    stack: Stack, plane: ServedPlane, seer: Witness, outage: str
) -> None:  # R12, R19
    with plane.agent(AGENT) as agent:
        held = granted(plane, agent)
        pid = stack.postgres.process.pid
        assert pid is not None
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        try:
            if outage == "down":
                stack.postgres.stop()
            else:
                for process in processes:
                    process.suspend()
            waited = shorthold(plane, "grant", "finish", held.id, "--wait", "3s")
            assert waited.returncode == 5
            assert "Not everything is verified gone yet" in waited.stderr
            assert until(lambda: agent.show(held.id)["grant"]["failing"] is not None, timedelta(seconds=60))
            assert agent.show(held.id)["grant"]["state"] in {"revoking", "irrevocable"}
        finally:
            if outage == "down":
                stack.postgres.start()
            else:
                for process in processes:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.resume()
        all_gone(plane, seer)
        assert agent.show(held.id)["grant"]["receipt"]["verified"] is True
        assert not Stage(stack.project).opens(held.credential)


def test_without_postgresql_asking_makes_nothing_that_lives(stack: Stack, plane: ServedPlane, seer: Witness) -> None:
    stack.postgres.stop()
    try:
        refused = ask(plane)
    finally:
        stack.postgres.start()
    assert refused.returncode == 2
    assert refused.stderr.startswith("Error [vault-")
    all_gone(plane, seer)


@pytest.mark.parametrize("path", [REVOKE, LEASE, "/v1/auth/token/lookup-accessor"])
@pytest.mark.parametrize("when", list(When))
def test_an_answer_that_gets_lost_while_revoking_is_asked_for_again(
    proxied: ServedPlane, proxy: FaultProxy, seer: Witness, path: str, when: When
) -> None:  # R29
    with proxied.agent(AGENT) as agent:
        held = granted(proxied, agent)
        proxy.cut(path, when)
        assert agent.finish(held.id, wait="30s")["grant"]["state"] == "revoked"
    all_gone(proxied, seer)


@pytest.mark.parametrize(("path", "when"), [(LOGIN, When.AFTER), ("/v1/database/creds/*", When.AFTER)])
def test_an_answer_that_gets_lost_while_issuing_burns_the_grant(
    proxied: ServedPlane, proxy: FaultProxy, seer: Witness, path: str, when: When
) -> None:
    logins = proxy.seen.count(LOGIN)
    proxy.cut(path, when)
    refused = ask(proxied)
    assert refused.returncode == 2
    assert "the connection to Vault broke" in refused.stderr
    assert proxy.seen.count(LOGIN) == logins + 1  # never tried again by itself
    all_gone(proxied, seer)


def test_a_storm_of_503_is_met_with_patience_and_outlived(
    proxied: ServedPlane, proxy: FaultProxy, seer: Witness
) -> None:  # R02
    with proxied.agent(AGENT) as agent:
        held = granted(proxied, agent)
        tries = len(proxy.seen)
        proxy.answer_only(503)
        try:
            agent.finish(held.id)
            assert until(lambda: len(proxy.seen) > tries + 2, timedelta(seconds=60))
            began, counted = time.monotonic(), len(proxy.seen)
            until(lambda: False, timedelta(seconds=3))
            assert (len(proxy.seen) - counted) / (time.monotonic() - began) < 2  # calls a second for one grant
            assert agent.show(held.id)["grant"]["state"] == "revoking"
        finally:
            proxy.answer_only(None)
    all_gone(proxied, seer)


def test_a_vault_that_hangs_on_one_grant_keeps_no_other_from_its_end(
    proxied: ServedPlane, proxy: FaultProxy, seer: Witness
) -> None:  # R04
    with proxied.agent(AGENT) as agent:
        slow, other = granted(proxied, agent), granted(proxied, agent)
        fault = proxy.hold(REVOKE, When.BEFORE)
        agent.finish(slow.id)
        fault.wait()
        assert agent.finish(other.id, wait="30s")["grant"]["state"] == "revoked"
        fault.cut()
    all_gone(proxied, seer)


def test_a_grant_that_is_finished_while_its_login_is_under_way_ends_and_its_asker_is_told(
    proxied: ServedPlane, proxy: FaultProxy, seer: Witness
) -> None:  # A06
    fault = proxy.hold(LOGIN, When.AFTER)
    asking = subprocess.Popen(
        proxied.command("grant", "request", "orders-read", "--task", "T-race", "--intent", "answer-question"),
        env={**proxied.environment, "SHORTHOLD_TOKEN": proxied.token(AGENT).reveal()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    fault.wait()
    (id,) = [grant["id"] for grant in proxied.grants() if grant["task"] == "T-race"]
    with proxied.agent(AGENT) as agent:
        assert agent.finish(id)["grant"]["state"] == "revoking"
    fault.release()
    out, err = asking.communicate(timeout=90)
    assert (asking.returncode, out) == (2, "")
    assert "Traceback" not in err
    all_gone(proxied, seer)


def test_ctrl_c_while_asking_says_so_and_what_it_began_is_ended(
    proxied: ServedPlane, proxy: FaultProxy, seer: Witness
) -> None:
    fault = proxy.hold(LOGIN, When.AFTER)
    asking = subprocess.Popen(
        proxied.command("grant", "request", "orders-read", "--task", "T-ctrl-c", "--intent", "answer-question"),
        env={**proxied.environment, "SHORTHOLD_TOKEN": proxied.token(AGENT).reveal()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    fault.wait()
    asking.send_signal(signal.SIGINT)
    out, err = asking.communicate(timeout=90)
    fault.cut()
    assert (asking.returncode, out) == (130, "")
    assert "Interrupted" in err
    assert "Traceback" not in err
    all_gone(proxied, seer)
