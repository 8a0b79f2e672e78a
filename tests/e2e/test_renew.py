"""Renew and heartbeat on real servers: what Vault and PostgreSQL say, and kill -9 midway (C8, C11, C15, P2, P4)."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

import controlplane.sdk as shorthold
from controlplane.dev.process import until
from controlplane.dev.shipped import shipped
from controlplane.dev.stack import Stack
from controlplane.dev.story import AGENT
from controlplane.model.errors import ControlPlaneError
from controlplane.model.secret import Secret
from controlplane.sdk.client import AnsweredError, Shorthold
from controlplane.testing.fault_proxy import FaultProxy, When, fault_proxy
from controlplane.testing.served import ServedPlane, Witness, witness
from controlplane.vault.client import part

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

SOON: Final = timedelta(seconds=60)
MINUTE: Final = 60
_WISH: Final = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}
BEATS: Final = "invoice-status"
"""It has a heartbeat here; that is no part of what is compiled, so its roles are those that were synced."""


@dataclass(frozen=True)
class Scene:
    plane: ServedPlane
    seer: Witness
    proxy: FaultProxy

    @property
    def roles(self) -> Path:
        return self.plane.directory / "roles"

    def row(self, id: str) -> dict[str, Any]:
        (found,) = (grant for grant in self.plane.grants() if grant["id"] == id)
        return found

    def left(self, id: str) -> tuple[int, int, int]:
        """Seconds that are left: of the token and of the lease at Vault, of the login at PostgreSQL."""
        with contextlib.closing(self.plane.agent(AGENT)) as agent:
            (lease,) = agent.show(id)["leases"]
        asked = {"accessor": self.row(id)["accessor"]}
        token = part(self.seer.vault.adapter.request("POST", "auth/token/lookup-accessor", json=asked), "data")
        known = self.seer.vault.adapter.request("PUT", "sys/leases/lookup", json={"lease_id": lease["id"]})
        with psycopg.connect(self.plane.stack.postgres.owner.reveal(), autocommit=True) as owner:
            row = owner.execute(
                "SELECT extract(epoch FROM rolvaliduntil - now()) FROM pg_roles WHERE rolname = %s",
                (lease["principal"],),
            ).fetchone()
        assert row is not None
        ttls = (token["ttl"], part(known, "data")["ttl"], round(float(row[0])))
        assert all(isinstance(ttl, int) for ttl in ttls)
        return ttls  # pyright: ignore[reportReturnType] # just seen


@pytest.fixture(scope="module")
def scene(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Generator[Scene]:
    directory = tmp_path_factory.mktemp("renewals")
    shutil.copytree(shipped("roles"), directory / "roles")
    beats = directory / "roles" / f"{BEATS}.yaml"
    beats.write_text(f"{beats.read_text()}heartbeat: 4s\n")
    seer = witness(stack)
    with fault_proxy(stack.vault_addr) as proxy:
        settings = {
            "ROLES": str(directory / "roles"),
            "POLICIES": str(directory / "roles" / "policies"),
            "VAULT__ADDR": proxy.addr,
            "VAULT__TIMEOUT": "5s",
            "VAULT__ISSUING_WITHIN": "6s",
            "WORKER__TICK": "1s",
            "WORKER__HOLD": "5s",
        }
        plane = ServedPlane(stack, directory, settings)
        plane.start()
        try:
            yield Scene(plane, seer, proxy)
        finally:
            plane.kill()
            seer.close()


@pytest.fixture
def agent(scene: Scene) -> Generator[Shorthold]:
    with scene.plane.agent(AGENT) as client:
        yield client


def granted(scene: Scene, agent: Shorthold, entitlement: str = "orders-read", **wish: str) -> dict[str, Any]:
    """A grant that was opened as an agent opens it; files that were changed and changed back hold within a second."""
    assert until(lambda: agent.explain(_WISH)["decision"] == "allow", SOON)
    answer = agent.request({"entitlement": entitlement, "task": "T-1", "intent": "answer-question", **wish})
    agent.unwrap(scene.plane.stack.vault_addr, Secret(answer["wrapping_token"]))
    return answer["grant"]


def gone(scene: Scene, agent: Shorthold, id: str) -> dict[str, Any]:
    """The grant, once it is verified gone."""
    assert until(lambda: agent.show(id)["grant"]["state"] == "revoked", SOON)
    found = agent.show(id)["grant"]
    assert found["receipt"]["verified"]
    assert scene.seer.tokens(id) == []
    return found


def about(ttls: tuple[int, ...], seconds: int) -> bool:
    """PostgreSQL's own clock is about five seconds behind Vault's."""
    return all(seconds - 10 <= ttl <= seconds + 8 for ttl in ttls)


def test_a_renewal_moves_the_end_at_vault_and_at_postgresql(scene: Scene, agent: Shorthold) -> None:
    id = granted(scene, agent, ttl="1m")["id"]
    assert about(scene.left(id), MINUTE)
    answer = agent.renew(id, ttl="10m")
    assert about(scene.left(id), 10 * MINUTE)
    assert {lease["expires_at"] for lease in answer["leases"]} == {answer["expires_at"]}
    with pytest.raises(AnsweredError) as refused:
        agent.renew(id, ttl="20m")
    assert [why["code"] for why in refused.value.problem["reasons"]] == ["ttl-above-maximum"]
    assert about(scene.left(id), 10 * MINUTE)
    agent.finish(id)
    gone(scene, agent, id)


def test_c11_an_entitlement_that_changed_ends_its_grant_at_the_next_renewal(scene: Scene, agent: Shorthold) -> None:
    id = granted(scene, agent)["id"]
    file = scene.roles / "orders-read.yaml"
    before = file.read_text()
    file.write_text(before.replace("[answer-question, prepare-report]", "[prepare-report]"))
    try:
        assert until(lambda: _ended_by(lambda: agent.renew(id)) == "context-changed", SOON)
    finally:
        file.write_text(before)
    assert gone(scene, agent, id)["why"] == "context-changed"
    assert _ended_by(lambda: agent.heartbeat(id)) == "ended"


def test_c11_a_policy_that_changed_ends_its_grant_at_the_next_beat(scene: Scene, agent: Shorthold) -> None:
    id = granted(scene, agent)["id"]
    own = scene.roles / "policies" / "own.cedar"
    own.write_text('@id("stop") @reason("not any more") forbid (principal, action, resource);\n')
    try:
        assert until(lambda: _ended_by(lambda: agent.heartbeat(id)) == "context-changed", SOON)
    finally:
        own.unlink()
    assert gone(scene, agent, id)["why"] == "context-changed"


def test_c11_who_has_gone_silent_or_was_killed_with_9_loses_its_login_and_who_beats_does_not(
    scene: Scene, agent: Shorthold
) -> None:
    """C9: `with` and `exec` beat by themselves, as often as it takes."""
    vault = shorthold.VaultAt(addr=scene.plane.stack.vault_addr)
    at = shorthold.Surroundings(addr=scene.plane.api, vault=vault, identity=lambda: scene.plane.token(AGENT))
    ask = ("--task", "T-exec", "--intent", "answer-question")
    silent = granted(scene, agent, BEATS)
    assert silent["heartbeat_due_at"] is not None
    with (
        shorthold.grant(BEATS, task="T-with", intent="answer-question", at=at, prove="60s") as access,
        subprocess.Popen(
            scene.plane.command(
                "exec", BEATS, *ask, "--env", "P=password", "--", "sh", "-c", "echo $$; exec sleep 600"
            ),
            env={
                **scene.plane.environment,
                "SHORTHOLD_TOKEN": scene.plane.token(AGENT).reveal(),
                "BAO_ADDR": vault.addr,
            },
            cwd=scene.plane.directory,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            (executed,) = (grant["id"] for grant in scene.plane.grants() if grant["task"] == "T-exec")
            assert gone(scene, agent, silent["id"])["why"] == "heartbeat-lost"
            assert [agent.show(id)["grant"]["state"] for id in (executed, access.id)] == ["active", "active"]
        finally:
            process.kill()
            process.wait()
            os.kill(child, signal.SIGKILL)
        assert gone(scene, agent, executed)["why"] == "heartbeat-lost"
        assert agent.show(access.id)["grant"]["state"] == "active"
    assert access.ended is not None
    assert (access.ended["why"], access.ended["receipt"]["verified"]) == ("completed", True)


@pytest.mark.parametrize(
    ("path", "when"),
    [
        ("/v1/sys/leases/renew", When.BEFORE),
        ("/v1/sys/leases/renew", When.AFTER),
        ("/v1/auth/token/renew-accessor", When.BEFORE),
        ("/v1/auth/token/renew-accessor", When.AFTER),
    ],
)
def test_p4_killed_between_the_intent_and_vaults_answer_the_end_of_before_holds(
    scene: Scene, path: str, when: When
) -> None:
    with scene.plane.agent(AGENT) as first:
        id = granted(scene, first, ttl="2m")["id"]
    fault = scene.proxy.hold(path, when)

    def renew() -> None:
        with scene.plane.agent(AGENT) as other, contextlib.suppress(ControlPlaneError):
            other.renew(id, ttl="12m")

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    fault.wait()
    begun = scene.row(id)
    assert begun["renewing_to"] > begun["expires_at"]
    scene.plane.kill()
    fault.release()
    thread.join(30)
    scene.plane.start()
    assert until(lambda: scene.row(id)["renewing_to"] is None, SOON)
    after = scene.row(id)
    assert (after["state"], after["expires_at"]) == ("active", begun["expires_at"])
    assert all(ttl <= 2 * MINUTE + 8 for ttl in scene.left(id))
    assert scene.plane.events(id)[-2:] == ["renewal.allowed", "renewal.undone"]
    with scene.plane.agent(AGENT) as again:
        assert about(_left_after(scene, again, id), 5 * MINUTE)
        again.finish(id)
        gone(scene, again, id)


def test_without_vault_a_renewal_fails_clearly_and_the_end_of_before_holds(scene: Scene, agent: Shorthold) -> None:
    before = granted(scene, agent)
    scene.proxy.answer_only(503)
    try:
        assert _ended_by(lambda: agent.renew(before["id"], ttl="10m")) == "vault-unavailable"
        assert agent.heartbeat(before["id"])["expires_at"] == before["expires_at"]
    finally:
        scene.proxy.answer_only(None)
    assert until(lambda: scene.row(before["id"])["renewing_to"] is None, SOON)
    assert about(scene.left(before["id"]), 5 * MINUTE)
    agent.finish(before["id"])
    gone(scene, agent, before["id"])


def test_the_command_line_renews_and_beats_until_the_grant_has_ended(scene: Scene, agent: Shorthold) -> None:
    id = granted(scene, agent, BEATS)["id"]
    with subprocess.Popen(
        scene.plane.command("grant", "heartbeat", id, "--every", "1s"),
        env={**scene.plane.environment, "SHORTHOLD_TOKEN": scene.plane.token(AGENT).reveal()},
        cwd=scene.plane.directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as beating:
        time.sleep(7)
        renewed = subprocess.run(
            scene.plane.command("grant", "renew", id, "--ttl", "8m", "-o", "json"),
            env={**scene.plane.environment, "SHORTHOLD_TOKEN": scene.plane.token(AGENT).reveal()},
            cwd=scene.plane.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert renewed.returncode == 0, renewed.stderr
        assert json.loads(renewed.stdout)["grant"]["state"] == "active"
        agent.finish(id)
        _, told = beating.communicate(timeout=60)
    assert beating.returncode == 0, told
    assert "The grant ends at" in told
    assert "The grant has ended" in told
    gone(scene, agent, id)


def _left_after(scene: Scene, agent: Shorthold, id: str) -> tuple[int, ...]:
    agent.renew(id, ttl="5m")
    return scene.left(id)


def _ended_by(call: Any) -> str:  # noqa: ANN401 # any call
    """The code of what it was refused with; empty where it was not."""
    try:
        call()
    except AnsweredError as error:
        return error.told_code
    return ""
