"""Orphans on the real servers: found, ended, proved; a restored store that grants nothing; `doctor` (G12, G18)."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplane.dev.configuration import configuration_file
from controlplane.dev.openbao import bao_binary
from controlplane.dev.stack import LAYOUT, Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.keys.files import load
from controlplane.model.canonical import JsonObject
from controlplane.model.errors import ControlPlaneError
from controlplane.model.lease import Ask, TaskToken
from controlplane.model.secret import Secret
from controlplane.sdk.client import AnsweredError, Shorthold
from controlplane.settings import bao_program
from controlplane.testing.served import Witness, witness
from controlplane.vault.logins import VaultLogins

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

WISH: dict[str, str | None] = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}
QUICK = {"SHORTHOLD_WORKER__RECONCILE": "2s"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """A stack whose control plane compares Vault with its store."""
    whole = Stack(project=tmp_path_factory.mktemp("orphans"), say=print, settings=QUICK)
    try:
        whole.up()
        yield whole
    finally:
        whole.destroy()


@pytest.fixture
def seer(own: Stack) -> Generator[Witness]:
    looking = witness(own)
    yield looking
    looking.close()


@pytest.fixture
def agent(own: Stack) -> Generator[Shorthold]:
    stage = Stage(own.project)
    with Shorthold(stage.api, lambda: stage.token(AGENT)) as client:
        yield client


def until(condition: Callable[[], bool], span: timedelta) -> bool:
    ends = time.monotonic() + span.total_seconds()
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.2)
    return True


def run(stack: Stack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {
        "PATH": os.defpath,
        "HOME": str(stack.project),
        "LANG": "C.UTF-8",
        "SHORTHOLD_CONFIG": str(configuration_file(stack.home)),
        **QUICK,
    }
    command = [sys.executable, "-m", "controlplane", *arguments]
    return subprocess.run(
        command, env=environment, cwd=stack.project, capture_output=True, text=True, check=False, timeout=60
    )


def events(stack: Stack, kind: str) -> list[dict[str, Any]]:
    shown = run(stack, "audit", "tail", "-n", "1000", "-o", "json")
    assert shown.returncode == 0, shown.stderr
    return [event for event in json.loads(shown.stdout) if event["kind"] == kind]


def replay(stack: Stack, seer: Witness, grant: dict[str, Any]) -> TaskToken:
    """A login with our key, past the control plane: what somebody who stole it does."""
    key, now = load(stack.home.part("keys") / "task.pem"), int(time.time())
    claims: JsonObject = {
        "aud": LAYOUT.audience,
        "sub": "wl_" + "0" * 32,
        "jti": grant["id"],
        "iat": now,
        "nbf": now,
        "exp": now + 15,
        "workload": f"dev {AGENT}",
        "grant": grant["id"],
        "issuer": "dev",
        "subject": AGENT,
        "entitlement": grant["entitlement"],
        "revision": grant["revision"],
        "task": "T-1",
        "intent": "answer-question",
    }
    role = f"sh-{grant['entitlement']}-{grant['revision']}"
    return VaultLogins(LAYOUT, seer.vault).login(role, key.sign(claims))


def test_g12_a_second_login_under_a_grant_is_ended_with_what_it_read_within_15_seconds(
    own: Stack, seer: Witness, agent: Shorthold
) -> None:
    answer = agent.request(WISH)
    agent.unwrap(own.vault_addr, _secret(answer))
    before = set(seer.users())
    grant = answer["grant"]
    token = replay(own, seer, grant)
    path = f"database/creds/sh-orders-read-{grant['revision']}-orders"
    lease = VaultLogins(LAYOUT, seer.vault).read(token.token, Ask(path=path, body=None)).lease
    assert len(set(seer.users()) - before) == 1
    assert until(lambda: set(seer.users()) == before, timedelta(seconds=60))
    assert until(lambda: token.accessor not in seer.tokens(grant["id"]), timedelta(seconds=60))
    assert lease not in [f"{path}/{key}" for key in seer.leases(path)]
    assert until(lambda: {"token"} <= _kinds(own, "orphan.ended"), timedelta(seconds=60))
    assert agent.show(grant["id"])["grant"]["state"] == "active"
    assert agent.finish(grant["id"], wait="30s")["grant"]["state"] == "revoked"


def test_a_token_that_somebody_made_with_our_stolen_key_is_ended_with_what_it_read_and_told_aloud(
    own: Stack, seer: Witness, agent: Shorthold
) -> None:
    """No grant knows it, and nobody ever asked for one."""
    known = agent.request(WISH)["grant"]
    made_up = {**known, "id": "gr_" + "z" * 24}
    before = set(seer.users())
    token = replay(own, seer, made_up)
    VaultLogins(LAYOUT, seer.vault).read(
        token.token, Ask(path=f"database/creds/sh-orders-read-{known['revision']}-orders", body=None)
    )
    assert len(set(seer.users()) - before) == 1
    assert until(lambda: set(seer.users()) == before, timedelta(seconds=60))
    assert until(lambda: token.accessor not in seer.tokens(made_up["id"]), timedelta(seconds=60))
    told = [event for event in events(own, "orphan.found") if event["body"]["name"] == token.accessor]
    assert [event["body"]["detail"] for event in told] == [
        "no grant knows it: it was made by somebody else, or the store has forgotten"
    ]
    assert "orphan_found" in own.serve.log.read_text(encoding="utf-8")
    assert agent.finish(known["id"], wait="30s")["grant"]["state"] == "revoked"


def test_grants_come_and_go_and_nobody_is_called_an_orphan(own: Stack, agent: Shorthold) -> None:
    before = len(events(own, "orphan.found"))
    ends = time.monotonic() + 8
    while time.monotonic() < ends:
        answer = agent.request(WISH)
        agent.unwrap(own.vault_addr, _secret(answer))
        assert agent.finish(answer["grant"]["id"], wait="30s")["grant"]["state"] == "revoked"
    assert len(events(own, "orphan.found")) == before


def test_doctor_finds_a_healthy_control_plane_sound(own: Stack) -> None:
    assert until(lambda: not _orphans(own), timedelta(seconds=60))
    shown = run(own, "doctor", "-o", "json")
    findings = json.loads(shown.stdout)
    assert [finding for finding in findings if finding["grade"] != "sound"] == []
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert {finding["check"] for finding in findings} == {
        *("settings", "vault", "server", "clock", "broker", "param", "rotate", "sync", "store"),
        *("restore", "entitlements", "targets", "revocations", "orphans", "sinks"),
    }
    assert run(own, "doctor").returncode == 0


def test_doctor_tells_power_that_an_identity_should_not_have(own: Stack, seer: Witness) -> None:
    path = "sys/policies/acl/shorthold-broker"
    kept = (seer.vault.read(path) or {})["data"]
    assert isinstance(kept, dict)
    wider = json.loads(str(kept["policy"]))
    wider["path"]["auth/token/create"] = {"capabilities": ["update"]}
    seer.vault.write(path, {"policy": json.dumps(wider)})
    try:
        shown = run(own, "doctor")
        assert shown.returncode == 2
        assert "auth/token/create (update instead of deny)" in shown.stdout
        assert "vault bootstrap" in shown.stdout
    finally:
        seer.vault.write(path, {"policy": kept["policy"]})
    assert run(own, "doctor").returncode == 0


def test_g18_a_restored_store_grants_nothing_until_somebody_decides_and_then_loses_nothing(
    own: Stack, seer: Witness, agent: Shorthold, tmp_path: Path
) -> None:
    store = own.home.directory / "shorthold.db"
    own.serve.stop(patience=timedelta(seconds=30))
    backup = tmp_path / "backup.db"
    shutil.copy(store, backup)
    own.start_control_plane()
    answer = agent.request(WISH)
    agent.unwrap(own.vault_addr, _secret(answer))
    grant = answer["grant"]["id"]
    alive = set(seer.users())
    two_rounds(own)
    own.serve.stop(patience=timedelta(seconds=30))
    for name in ("shorthold.db-wal", "shorthold.db-shm"):
        store.with_name(name).unlink(missing_ok=True)
    shutil.copy(backup, store)
    own.start_control_plane()
    with pytest.raises(AnsweredError) as refused:
        agent.request({**WISH, "task": "T-2"})
    assert refused.value.told_code == "store-behind"
    assert run(own, "doctor").returncode == 2
    shown = run(own, "doctor", "restore", "-o", "json")
    assert shown.returncode == 1
    assert [row["grant"] for row in json.loads(shown.stdout)] == [grant]
    assert set(seer.users()) == alive
    adopted = run(own, "doctor", "restore", "--adopt", "--yes")
    assert adopted.returncode == 0, adopted.stdout + adopted.stderr
    assert until(lambda: _grants(agent), timedelta(seconds=60))
    two_rounds(own)
    assert alive <= set(seer.users())
    assert agent.finish(grant)["grant"]["state"] in {"revoking", "revoked"}
    assert until(lambda: not alive & set(seer.users()), timedelta(seconds=60))
    assert until(lambda: agent.show(grant)["grant"]["state"] == "revoked", timedelta(seconds=90))


def test_a_restored_vault_revives_nobody_and_what_it_forgot_is_never_called_gone_before_it_is(
    own: Stack, seer: Witness, agent: Shorthold, tmp_path: Path
) -> None:
    """The other direction: the store knows better, and needs nobody's decision."""
    two_rounds(own)
    data, backup = own.home.directory / "openbao", tmp_path / "vault"
    ended = agent.request(WISH)["grant"]
    own.openbao.stop()
    shutil.copytree(data, backup)
    own.openbao.start(bao_binary(bao_program()))
    assert until(lambda: _grants(agent), timedelta(seconds=60))
    assert agent.finish(ended["id"], wait="30s")["grant"]["state"] == "revoked"
    answer = agent.request({**WISH, "task": "T-4"})
    forgotten, credential = answer["grant"]["id"], agent.unwrap(own.vault_addr, _secret(answer))["orders"]
    two_rounds(own)

    own.openbao.stop()
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    own.openbao.start(bao_binary(bao_program()))

    assert until(lambda: _told(own, "restore.found", what="vault"), timedelta(seconds=90))
    assert until(lambda: seer.tokens(ended["id"]) == [], timedelta(seconds=90))  # it came back with the backup
    assert agent.show(ended["id"])["grant"]["state"] == "revoked"
    lost = timedelta(seconds=180)  # a minute, in which a standby might only be behind
    assert until(lambda: agent.show(forgotten)["grant"]["why"] == "lost", lost)
    assert until(lambda: "Vault let go" in str(agent.show(forgotten)["grant"]["failing"]), timedelta(seconds=60))
    assert Stage(own.project).opens(credential)  # no lease will ever end it: so it is not called revoked
    seer.drop([credential["username"].reveal()])
    assert until(lambda: agent.show(forgotten)["grant"]["state"] == "revoked", timedelta(seconds=60))
    assert agent.show(forgotten)["grant"]["receipt"]["verified"] is True
    assert until(lambda: _grants(agent), timedelta(seconds=60))


def _told(stack: Stack, kind: str, **body: str) -> bool:
    return any(all(event["body"].get(name) == value for name, value in body.items()) for event in events(stack, kind))


def _grants(agent: Shorthold) -> bool:
    try:
        answer = agent.request({**WISH, "task": "T-3"})
    except ControlPlaneError:
        return False
    return agent.finish(answer["grant"]["id"], wait="30s")["grant"]["state"] == "revoked"


def _kinds(stack: Stack, kind: str) -> set[str]:
    return {str(event["body"]["orphan"]) for event in events(stack, kind)}


def _orphans(stack: Stack) -> bool:
    return len(events(stack, "orphan.found")) != len(events(stack, "orphan.ended"))


def _secret(answer: dict[str, Any]) -> Secret:
    return Secret(answer["wrapping_token"])


def _next_round(stack: Stack) -> str:
    with closing(sqlite3.connect(f"file:{stack.home.directory / 'shorthold.db'}?mode=ro", uri=True)) as database:
        row = database.execute("SELECT next_at FROM rounds WHERE name = 'reconcile'").fetchone()
    return "" if row is None else str(row[0])


def two_rounds(stack: Stack) -> None:
    """Whatever happened before this was asked is seen by a whole round."""
    seen = {_next_round(stack)}
    assert until(lambda: seen.add(_next_round(stack)) is None and len(seen) > 4, timedelta(seconds=90))
