"""`shorthold grant` as a person or a script uses it, over a loopback server that answers as it is told."""

import json
import re
from collections.abc import Generator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pytest_socket import enable_socket

from controlplane.cli.grant import grant
from controlplane.cli.unwrapping import NotUnwrappedError
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import ConfigurationError
from controlplane.testing.canned import Canned, canned

ID = "gr_" + "a" * 24
ASK = ("request", "orders-read", "--task", "T-1", "--intent", "answer-question")
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[Canned]:
    enable_socket()
    monkeypatch.chdir(tmp_path)
    for name in ("BAO_NAMESPACE", "VAULT_NAMESPACE", "BAO_CACERT", "VAULT_CACERT", "SHORTHOLD_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    with canned() as told:
        monkeypatch.setenv("SHORTHOLD_ADDR", told.addr)
        monkeypatch.setenv("BAO_ADDR", told.addr)
        monkeypatch.setenv("SHORTHOLD_TOKEN", "tok")
        monkeypatch.delenv("SHORTHOLD_TOKEN_FILE", raising=False)
        yield told


def run(*words: str) -> Result:
    return CliRunner().invoke(grant, list(words))


def told(state: str, **more: JsonValue) -> dict[str, JsonValue]:
    return {
        "id": ID,
        "state": state,
        "entitlement": "orders-read",
        "task": "T-1",
        "intent": "answer-question",
        "requested_at": "2026-07-01T12:00:00.123456+00:00",
        "expires_at": "2026-07-01T12:05:00.123456+00:00",
        "receipt": None,
        **more,
    }


def ended(principal: str) -> dict[str, JsonValue]:
    evidence = f"no user {principal}"
    return {"lease": "x", "principal": principal, "method": "self", "at": "", "verified": True, "evidence": evidence}


def opening(server: Canned, fields: dict[str, JsonValue]) -> None:
    server.answers["POST /v1/grants"] = (201, {"grant": told("active"), "leases": [], "wrapping_token": "canary-w"})
    server.answers["POST /v1/sys/wrapping/unwrap"] = (200, {"data": fields})
    server.answers[f"POST /v1/grants/{ID}/finish"] = (202, {"grant": told("revoking")})


def test_unwrap_prints_the_credentials_and_no_wrapping_token(server: Canned) -> None:
    opening(server, {"orders": {"username": "u_1", "password": "p"}})
    result = run(*ASK, "--unwrap", "-o", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["credentials"] == {"orders": {"username": "u_1", "password": "p"}}
    assert "canary-w" not in result.output


def test_a_grant_that_cannot_be_unwrapped_is_named_and_finished_as_failed(server: Canned) -> None:
    opening(server, {})
    server.answers["POST /v1/sys/wrapping/unwrap"] = (400, {"errors": ["wrapping token is not valid"]})
    error = run(*ASK, "--unwrap").exception
    assert isinstance(error, NotUnwrappedError)
    assert ID in error.detail
    assert "wrapping token is not valid" in error.detail
    assert "finished as failed" in error.detail
    assert "canary-w" not in error.detail + error.hint
    assert (server.asked[-1].path, server.asked[-1].body) == (f"/v1/grants/{ID}/finish", {"outcome": "failed"})


def test_nobody_at_vault_is_told_the_same_way_and_how_to_finish_if_that_fails_too(
    server: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening(server, {})
    monkeypatch.setenv("BAO_ADDR", "http://127.0.0.1:9")
    del server.answers[f"POST /v1/grants/{ID}/finish"]
    error = run(*ASK, "--unwrap").exception
    assert isinstance(error, NotUnwrappedError)
    assert "http://127.0.0.1:9" in error.detail
    assert f"shorthold grant finish {ID} --outcome failed" in error.detail


def test_certificates_that_cannot_be_read_are_told_before_a_grant_is_made(
    server: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAO_ADDR", "https://127.0.0.1:9")
    monkeypatch.setenv("BAO_CACERT", "nowhere.pem")
    error = run(*ASK, "--unwrap").exception
    assert isinstance(error, ConfigurationError)
    assert server.asked == []


@pytest.mark.parametrize(
    ("decision", "spent", "status"),
    [("allow", False, 0), ("allow", True, 3), ("needs-approval", True, 3), ("deny", True, 3)],
)
def test_explaining_says_that_the_token_itself_has_been_used_up(
    server: Canned, decision: str, spent: bool, status: int
) -> None:
    server.answers["POST /v1/grants"] = (200, {"decision": decision, "token_spent": spent, "reasons": []})
    result = run("explain", "orders-read", "--intent", "answer-question")
    assert result.exit_code == status
    assert ("get a new one" in result.stderr) == (spent and decision != "deny")


@pytest.mark.parametrize("state", ["lapsed", "denied"])
def test_finishing_what_was_never_made_leaves_nothing_to_verify(server: Canned, state: str) -> None:
    server.answers[f"POST /v1/grants/{ID}/finish"] = (202, {"grant": told(state)})
    result = run("finish", ID, "--wait", "10s")
    assert result.exit_code == 0
    assert f"it is {state}" in result.stderr
    assert "verified" not in result.stderr


@pytest.mark.parametrize(
    ("grant_told", "status"),
    [
        (told("revoked", receipt={"verified": True, "ended": [ended("u_1")]}), 0),
        (told("revoked", receipt={"verified": False, "ended": []}), 5),
        (told("revoking"), 5),
    ],
)
def test_finish_with_wait_is_0_only_with_a_proof(server: Canned, grant_told: dict[str, JsonValue], status: int) -> None:
    server.answers[f"POST /v1/grants/{ID}/finish"] = (202, {"grant": grant_told})
    assert run("finish", ID, "--wait", "10s").exit_code == status


def test_every_lease_of_a_receipt_is_shown(server: Canned) -> None:
    receipt: JsonValue = {"verified": True, "ended": [ended("u_1"), ended("serial_2")]}
    server.answers[f"GET /v1/grants/{ID}"] = (200, {"grant": told("revoked", receipt=receipt), "leases": []})
    out = run("show", ID).stdout
    assert re.search(r"^verified gone +no user u_1 \(self\)$", out, re.MULTILINE)
    assert re.search(r"^verified gone \(2\) +no user serial_2 \(self\)$", out, re.MULTILINE)


@pytest.mark.parametrize(("status", "code", "exits"), [(422, "invalid-request", 1), (401, "not-authenticated", 3)])
def test_a_refusal_is_told_with_its_hint_and_its_kind_is_the_exit_status(
    server: Canned, status: int, code: str, exits: int
) -> None:
    server.answers["POST /v1/grants"] = (status, {"code": code, "detail": "because", "hint": "do it"})
    result = run(*ASK)
    assert result.exit_code == exits
    assert f"Error [{code}]: because" in result.stderr
    assert "What to do: do it" in result.stderr


def test_what_has_several_lines_is_printed_as_it_is_under_the_name_that_it_has(server: Canned) -> None:
    opening(server, {"client": {"private_key": CERTIFICATE, "serial_number": "7a"}})
    out = run(*ASK, "--unwrap").stdout
    assert f"\nclient.private_key:\n{CERTIFICATE}\n" in out
    assert re.search(r"^client\.serial_number +7a$", out, re.MULTILINE)
    assert re.search(r"^expires_at +2026-07-01T12:05:00Z$", out, re.MULTILINE)


def test_a_list_has_whole_ids_instants_to_the_second_and_no_blanks_at_its_ends(server: Canned) -> None:
    server.answers["GET /v1/grants"] = (200, {"grants": [told("active")]})
    out = run("list").stdout
    assert out.splitlines()[-1].split() == [ID, "active", "orders-read", "T-1", "2026-07-01T12:05:00Z"]
    assert all(line == line.rstrip() for line in out.splitlines())


def test_an_id_that_is_none_is_told_before_anything_is_sent(server: Canned) -> None:
    assert run("show", "gr_x").exit_code == 2  # click's own; the command's door makes 1 of it
    assert server.asked == []


def test_open_reviews_are_a_line_each_and_closing_one_says_by_whom(server: Canned) -> None:
    review: dict[str, JsonValue] = {
        "issuer": "dev",
        "subject": "agent",
        "person": None,
        "opened_at": "",
        "closed": None,
    }
    granted = told("revoked", reason="the shop is down")
    server.answers["GET /v1/reviews"] = (200, {"reviews": [{**review, "grant": granted}]})
    result = run("reviews")
    assert result.exit_code == 0, result.stderr
    assert re.search(rf"^{ID} +revoked +orders-read +T-1 +dev agent +the shop is down$", result.stdout, re.MULTILINE)
    assert json.loads(run("reviews", "-o", "json").stdout)[0]["grant"]["id"] == ID
    closed: JsonValue = {"at": "", "issuer": "dev", "subject": "bob", "person": None, "note": "fine"}
    server.answers[f"POST /v1/grants/{ID}/review"] = (200, {"review": {**review, "closed": closed, "grant": ID}})
    result = run("review", ID, "--note", "fine")
    assert result.exit_code == 0, result.stderr
    assert re.search(r"^note +fine$", result.stdout, re.MULTILINE)
    assert server.asked[-1].body == {"note": "fine"}
