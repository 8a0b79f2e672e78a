"""`shorthold task` as a person or a script uses it, over a loopback server that answers as it is told."""

import json
from collections.abc import Generator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pytest_socket import enable_socket

from controlplane.cli.grant import grant
from controlplane.cli.task import task
from controlplane.model.canonical import JsonValue
from controlplane.testing.canned import Canned, canned

BEGUN = "2026-07-01T12:00:00+00:00"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[Canned]:
    enable_socket()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHORTHOLD_CONFIG", raising=False)
    monkeypatch.delenv("SHORTHOLD_TOKEN_FILE", raising=False)
    with canned() as told:
        monkeypatch.setenv("SHORTHOLD_ADDR", told.addr)
        monkeypatch.setenv("SHORTHOLD_TOKEN", "tok")
        yield told


def run(*words: str) -> Result:
    return CliRunner().invoke(task, list(words))


def about(name: str = "T-1", **more: JsonValue) -> dict[str, JsonValue]:
    return {"task": name, "parent": None, "depth": 1, "begun_at": BEGUN, "finished_at": None, "why": None, **more}


def granted(state: str, *, verified: bool | None = None) -> JsonValue:
    receipt: JsonValue = None if verified is None else {"verified": verified, "ended": [], "signed": None}
    return {
        "id": "gr_" + "a" * 24,
        "state": state,
        "entitlement": "orders-read",
        "task": "T-1",
        "why": "completed",
        "revoked_at": None,
        "receipt": receipt,
    }


def finished(server: Canned, *grants: JsonValue) -> None:
    ended = about(finished_at="2026-07-01T12:01:00+00:00", why="completed")
    server.answers["POST /v1/tasks/T-1/finish?wait=10s"] = (202, {"task": ended, "grants": [*grants]})
    server.answers["POST /v1/tasks/T-1/finish"] = (202, {"task": ended, "grants": [*grants]})


def test_finish_says_what_ended_and_that_it_is_verified(server: Canned) -> None:
    finished(server, granted("revoked", verified=True), granted("lapsed"))
    result = run("finish", "T-1", "--outcome", "failed", "--wait", "10s")
    assert result.exit_code == 0
    assert "2 of 2 ended, each verified gone or never made." in result.stderr
    assert server.asked[-1].body == {"outcome": "failed"}


@pytest.mark.parametrize("left", [granted("revoking"), granted("revoked", verified=False)])
def test_what_is_not_verified_gone_in_time_is_exit_status_5(server: Canned, left: JsonValue) -> None:
    finished(server, granted("revoked", verified=True), left)
    result = run("finish", "T-1", "--wait", "10s")
    assert result.exit_code == 5
    assert "1 of 2 not verified gone yet" in result.stderr
    assert run("finish", "T-1").exit_code == 0


def test_a_task_with_nothing_left_says_so(server: Canned) -> None:
    finished(server)
    result = run("finish", "T-1")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Nothing of it was left to end." in result.stderr


def test_show_tells_the_task_its_parts_and_its_grants(server: Canned) -> None:
    parts: list[JsonValue] = [about("T-1/a", parent="T-1", depth=2, finished_at="later", why="completed")]
    server.answers["GET /v1/tasks/T-1"] = (200, {"task": about(), "parts": parts, "grants": [granted("active")]})
    result = run("show", "T-1")
    assert result.exit_code == 0
    assert "active" in result.stdout
    assert f"Task T-1: open since {BEGUN}." in result.stderr
    assert "part: T-1/a, completed at later" in result.stderr
    shown = json.loads(run("show", "T-1", "-o", "json").stdout)
    assert shown["parts"] == parts


def test_a_name_with_slashes_is_sent_as_one_name(server: Canned) -> None:
    problem: dict[str, JsonValue] = {"code": "not-found", "detail": "this workload has no task T-1/a", "hint": "look"}
    server.answers["GET /v1/tasks/T-1%2Fa"] = (404, problem)
    result = run("show", "T-1/a")
    assert result.exit_code == 2
    assert "this workload has no task T-1/a" in result.stderr


def test_grant_request_names_the_parent(server: Canned) -> None:
    words = ("request", "orders-read", "--task", "T-1/a", "--parent", "T-1", "--intent", "answer-question")
    CliRunner().invoke(grant, list(words))
    assert server.asked[-1].body == {
        "entitlement": "orders-read",
        "task": "T-1/a",
        "parent": "T-1",
        "intent": "answer-question",
    }
