"""`shorthold grant pending / approve / deny / collect / request --wait`: ten seconds for a person (C17, C18)."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pytest_socket import enable_socket

from controlplane.cli.grant import grant
from controlplane.model.canonical import JsonValue
from controlplane.testing.canned import Canned, canned

ID = "gr_" + "a" * 24
DIGEST = "d" * 64
ASKED: dict[str, JsonValue] = {
    "digest": DIGEST,
    "grant": ID,
    "issuer": "dev",
    "subject": "repo:acme/refund-agent",
    "person": None,
    "entitlement": "orders-refund",
    "revision": "0a1b2c3d",
    "owner": "team-billing@acme.example",
    "purpose": "Book one refund.",
    "risk": "high",
    "sensitivity": "pii",
    "delivery": "wrapped",
    "task": "T-7",
    "intent": "issue-refund",
    "reason": "order 7\x1b[2J is wrong",
    "ttl": "5m",
    "scopes": [{"name": "refunds", "engine": "database", "reach": ["may read billing.invoices"], "revocability": "x"}],
    "unusual": ["this workload was never granted it before"],
    "parameters": {},
    "quorum": 1,
    "from": ["group:billing-oncall"],
    "not_from": [],
    "requested_at": "2026-07-01T12:00:00+00:00",
    "until": "2026-07-01T12:30:00+00:00",
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[Canned]:
    enable_socket()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHORTHOLD_CONFIG", raising=False)
    with canned() as told:
        monkeypatch.setenv("SHORTHOLD_ADDR", told.addr)
        monkeypatch.setenv("SHORTHOLD_TOKEN", "tok")
        monkeypatch.delenv("SHORTHOLD_TOKEN_FILE", raising=False)
        yield told


def run(*words: str, typed: str = "") -> Result:
    return CliRunner().invoke(grant, list(words), input=typed)


def one(state: str) -> dict[str, JsonValue]:
    expires = "2026-07-01T12:30:00+00:00"
    return {"id": ID, "state": state, "entitlement": "orders-refund", "expires_at": expires, "receipt": None}


def bodies(server: Canned, path: str) -> list[Any]:
    return [asked.body for asked in server.asked if asked.path == path]


def test_approve_shows_what_is_asked_and_sends_back_the_digest_of_exactly_that(server: Canned) -> None:
    server.answers[f"GET /v1/grants/{ID}"] = (200, {"grant": one("pending"), "asked": ASKED})
    server.answers[f"POST /v1/grants/{ID}/approve"] = (200, {"grant": one("approved"), "approvals": []})
    result = run("approve", ID, "--reason", "seen the ticket", typed="y\n")
    assert result.exit_code == 0, result.output
    for told in ("repo:acme/refund-agent", "Book one refund.", "may read billing.invoices", "never granted it before"):
        assert told in result.stderr
    assert "\x1b" not in result.output
    expected: dict[str, Any] = {"digest": DIGEST, "narrow": {}, "reason": "seen the ticket"}
    assert bodies(server, f"/v1/grants/{ID}/approve") == [expected]


@pytest.mark.parametrize("typed", ["n\n", "\n", ""])
def test_nothing_is_agreed_to_without_a_yes(server: Canned, typed: str) -> None:
    server.answers[f"GET /v1/grants/{ID}"] = (200, {"grant": one("pending"), "asked": ASKED})
    result = run("approve", ID, typed=typed)
    assert result.exit_code == 1
    assert bodies(server, f"/v1/grants/{ID}/approve") == []


def test_machines_bring_the_digest_and_are_not_asked(server: Canned) -> None:
    assert run("approve", ID, "--yes").exit_code == 2
    server.answers[f"POST /v1/grants/{ID}/approve"] = (200, {"grant": one("pending"), "approvals": []})
    result = run("approve", ID, "--yes", "--digest", DIGEST, "--ttl", "2m", "--scope", "refunds", "-o", "json")
    assert result.exit_code == 0, result.output
    narrow = {"ttl": "2m", "scopes": ["refunds"]}
    assert [asked.body for asked in server.asked] == [{"digest": DIGEST, "narrow": narrow}]
    assert json.loads(result.stdout)["grant"]["state"] == "pending"
    assert "more people have to agree" in result.stderr


def test_a_digest_of_something_else_is_not_agreed_to(server: Canned) -> None:
    server.answers[f"GET /v1/grants/{ID}"] = (200, {"grant": one("pending"), "asked": ASKED})
    result = run("approve", ID, "--digest", "e" * 64, typed="y\n")
    assert result.exit_code == 1
    assert bodies(server, f"/v1/grants/{ID}/approve") == []


def test_what_does_not_wait_is_not_asked_about(server: Canned) -> None:
    server.answers[f"GET /v1/grants/{ID}"] = (200, {"grant": one("active")})
    result = run("approve", ID, typed="y\n")
    assert result.exit_code == 1
    assert "does not wait" in result.stderr


def test_deny_needs_a_reason(server: Canned) -> None:
    assert run("deny", ID).exit_code == 2
    server.answers[f"POST /v1/grants/{ID}/deny"] = (200, {"grant": one("denied")})
    assert run("deny", ID, "--reason", "not at night").exit_code == 0
    assert bodies(server, f"/v1/grants/{ID}/deny") == [{"reason": "not at night"}]


def test_a18_pending_is_a_line_for_each_requester_and_has_the_ids(server: Canned) -> None:
    group: dict[str, JsonValue] = {
        "entitlement": "orders-refund",
        "issuer": "dev",
        "subject": "repo:acme/refund-agent",
        "count": 2,
        "until": "2026-07-01T12:30:00+00:00",
        "waiting": [
            {"asked": ASKED, "approvals": []},
            {"asked": {**ASKED, "grant": "gr_" + "b" * 24}, "approvals": []},
        ],
    }
    server.answers["GET /v1/approvals"] = (200, {"groups": [group], "next": None})
    table = run("pending")
    assert table.stdout.count("gr_") == 1
    assert "orders-refund" in table.stdout
    assert run("pending", "-o", "id").stdout.split() == [ID, "gr_" + "b" * 24]
    assert json.loads(run("pending", "-o", "json").stdout)[0]["count"] == 2
    server.answers["GET /v1/approvals"] = (200, {"groups": [], "next": None})
    assert "Nothing waits for you" in run("pending").stderr


def test_request_says_how_to_collect_what_waits_and_ends_4(server: Canned) -> None:
    server.answers["POST /v1/grants"] = (202, {"grant": one("pending"), "leases": [], "asked": ASKED})
    result = run("request", "orders-refund", "--task", "T-7", "--intent", "issue-refund")
    assert result.exit_code == 4
    assert f"shorthold grant collect {ID} --wait" in result.stderr


def test_request_wait_collects_what_was_approved_meanwhile(server: Canned) -> None:
    server.answers["POST /v1/grants"] = (202, {"grant": one("pending"), "leases": [], "asked": ASKED})
    server.answers[f"GET /v1/grants/{ID}"] = (200, {"grant": one("approved")})
    collected: dict[str, JsonValue] = {"grant": one("active"), "leases": [], "wrapping_token": "canary-w"}
    server.answers[f"POST /v1/grants/{ID}/collect"] = (201, collected)
    result = run("request", "orders-refund", "--task", "T-7", "--intent", "issue-refund", "--wait", "-o", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["wrapping_token"] == "canary-w"
    assert [asked.path for asked in server.asked] == [
        "/v1/grants",
        f"/v1/grants/{ID}?wait=30s",
        f"/v1/grants/{ID}/collect",
    ]


@pytest.mark.parametrize(
    ("status", "code", "exit_status"),
    [(409, "not-approved-yet", 4), (403, "denied", 3), (409, "lapsed", 2), (404, "not-found", 2)],
)
def test_collect_ends_as_what_became_of_the_grant_says(
    server: Canned, status: int, code: str, exit_status: int
) -> None:
    problem: dict[str, JsonValue] = {"code": code, "detail": "as the test wants it", "reasons": []}
    server.answers[f"POST /v1/grants/{ID}/collect"] = (status, problem)
    result = run("collect", ID)
    assert (result.exit_code, f"[{code}]" in result.stderr) == (exit_status, True)
