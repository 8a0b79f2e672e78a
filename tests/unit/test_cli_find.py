"""`shorthold grant find`: the answer with its cost, how to ask, and what nothing covers (P12)."""

from collections.abc import Generator
from pathlib import Path

import pytest
from click.testing import CliRunner
from pytest_socket import enable_socket

from controlplane.cli.grant import grant
from controlplane.model.canonical import JsonValue
from controlplane.testing.canned import Canned, canned

FOUND: JsonValue = {
    "covers": ["update billing.invoices"],
    "ask": {"entitlement": "invoice-status", "intent": "correct-status"},
    "access": {
        "entitlement": "invoice-status",
        "opens": ["may update status of billing.invoices"],
        "risk": "medium",
        "ttl": {"default": "5m", "max": "15m"},
        "approval": None,
        "when": {"says": "at any time"},
    },
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[Canned]:
    enable_socket()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHORTHOLD_TOKEN_FILE", raising=False)
    monkeypatch.setenv("SHORTHOLD_TOKEN", "tok")
    with canned() as told:
        monkeypatch.setenv("SHORTHOLD_ADDR", told.addr)
        yield told


def test_it_tells_what_to_ask_for_and_what_nothing_covers(server: Canned) -> None:
    path = "POST /v1/needs"
    server.answers[path] = (200, {"needs": [], "missing": [], "found": [FOUND]})
    result = CliRunner().invoke(grant, ["find", "update billing.invoices", "--intent", "correct-status"])
    assert result.exit_code == 0, result.output
    assert result.stdout.split("\n")[1].startswith("invoice-status  update billing.invoices")
    assert "shorthold grant request invoice-status --task TASK --intent correct-status" in result.stderr
    assert server.asked[0].body == {"needs": ["update billing.invoices"], "intent": "correct-status"}
    server.answers[path] = (200, {"needs": [], "missing": ["use a/b"], "found": []})
    result = CliRunner().invoke(grant, ["find", "a/b"])
    assert (result.exit_code, "covers: use a/b" in result.stderr) == (3, True)
