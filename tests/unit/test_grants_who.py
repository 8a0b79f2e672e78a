"""Who could have an entitlement, and when: all for the platform team, his own for who is eligible (C2, C7, P12)."""

import json
import shutil
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from controlplane.cli.sync import sync
from controlplane.engines import engines
from controlplane.grants.who import prospect, told
from controlplane.issuers.trust.known import known
from controlplane.model.errors import BrokenEntitlementsError
from controlplane.model.identity import KnownIssuer
from controlplane.settings import load
from controlplane.testing.clock import START
from controlplane.testing.entitlements import compiled_entitlement, entitlement
from controlplane.testing.plane import AGENT, FakePlane

Http = Callable[..., httpx.Response]
ROLES = Path(__file__).parents[2] / "roles"
REFUNDS = "system:serviceaccount:agents:refund-*"
WHOLE: dict[str, Any] = {
    "risk": "high",
    "eligibility": [
        {"issuer": "dev", "subject": AGENT},
        {"issuer": "cluster", "subject": {"glob": REFUNDS}, "claims": {"pod": "one"}},
    ],
    "context": {
        "windows": ["Sat 10:00-12:00 UTC", "Sun 08:00-09:00 UTC"],
        "networks": ["10.0.0.0/8"],
        "environments": ["prod"],
        "max_active": {"per_subject": 3, "total": 50},
        "max_requests": {"per_subject": "30/h"},
    },
    "approval": {"quorum": 2, "from": ["group:oncall"], "within": "20m"},
}
MONDAY = START.replace(year=2026, month=1, day=5, hour=12, minute=0)


def look(
    changes: dict[str, Any] | None = None, *, at: datetime = MONDAY, issuers: Mapping[str, KnownIssuer] | None = None
) -> dict[str, Any]:
    return told(prospect(entitlement(**(changes or {})), engines(), at=at, issuers=issuers))


def test_every_condition_of_the_document_is_told_in_words_and_for_machines() -> None:
    found = look(WHOLE)
    assert [entry["says"] for entry in found["who"]] == [
        f"exactly {AGENT}, vouched for by dev",
        f"whatever fits {REFUNDS}, where * is any text without ':' and '/', vouched for by cluster, whose pod is one",
    ]
    assert found["who"][1]["subject"] == {"glob": REFUNDS}
    assert (found["when"]["open"], found["when"]["opens_at"]) == (False, "2026-01-10T10:00:00.000000Z")
    assert found["when"]["says"].endswith("not now, but from 2026-01-10T10:00:00+00:00")
    assert found["where"]["says"] == "from 10.0.0.0/8, while this control plane is in prod"
    assert found["budgets"]["says"] == (
        "at most 3 at once for one subject; at most 50 at once for all; at most 30/h asked for by one subject"
    )
    assert found["approval"]["says"] == "2 of group:oncall must agree, within 20m"
    assert found["ttl"] == {"default": "5m", "max": "15m"}
    assert any("sales.orders" in line for line in found["opens"])
    assert json.loads(json.dumps(found)) == found


def test_what_names_no_condition_is_for_its_workloads_at_any_time() -> None:
    found = look()
    assert (found["when"]["says"], found["when"]["open"]) == ("at any time", True)
    assert (found["where"]["says"], found["budgets"]["says"]) == ("from anywhere", "as often as it is asked for")
    assert found["approval"] is None


@pytest.mark.parametrize(
    ("after", "opens"), [(timedelta(days=5), "; now"), (timedelta(days=4), "not now, but from 2026-01-10T12:00")]
)
def test_the_next_opening_is_that_of_the_window_that_opens_first(after: timedelta, opens: str) -> None:
    windows = {"context": {"windows": ["Sat 12:00-13:00 UTC", "Sun 08:00-09:00 UTC"]}}
    assert opens in look(windows, at=MONDAY + after)["when"]["says"]


def test_where_the_issuers_are_known_their_kind_is_told_and_who_will_never_come() -> None:
    given = [
        {"name": "dev", "url": "https://idp.example", "audiences": ["x"]},
        {"name": "cluster", "kind": "kubernetes", "url": "https://k.example", "audiences": ["x"]},
    ]
    issuers = known(load(issuers=given).issuers)
    more = {"eligibility": [*WHOLE["eligibility"], {"issuer": "nowhere", "subject": "x"}]}
    first, second, third = (entry["says"] for entry in look(more, issuers=issuers)["who"])
    assert first.endswith("vouched for by dev (oidc)")
    assert second.endswith("; nobody, because a claim of these is never looked at")
    assert third.endswith("; nobody now, because the settings have no such issuer")


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement(**WHOLE))


def ask(http: Http, plane: FakePlane, name: str, subject: str, **claims: Any) -> httpx.Response:
    token = plane.issuer.mint(subject, **claims).reveal()
    return http(plane, "GET", f"/v1/entitlements/{name}", headers={"Authorization": f"Bearer {token}"})


def test_the_platform_team_is_told_everything(plane: FakePlane, http: Http) -> None:
    answer = ask(http, plane, "orders-read", "ann", role="platform")
    assert answer.status_code == 200
    assert [entry["issuer"] for entry in answer.json()["who"]] == ["dev", "cluster"]
    assert answer.json()["who"][0]["kind"] == "oidc"
    assert answer.json()["when"]["windows"] == WHOLE["context"]["windows"]


def test_p12_who_is_eligible_is_told_of_himself_and_of_no_other(plane: FakePlane, http: Http) -> None:
    answer = ask(http, plane, "orders-read", AGENT)
    assert answer.status_code == 200
    assert [entry["subject"] for entry in answer.json()["who"]] == [AGENT]
    assert "cluster" not in answer.text
    assert answer.json()["approval"]["quorum"] == 2


@pytest.mark.parametrize("role", [None, "approver", "responder", "auditor"])
def test_p12_to_all_others_there_is_no_such_entitlement(plane: FakePlane, http: Http, role: str | None) -> None:
    claims = {} if role is None else {"role": role}
    there, nowhere = (ask(http, plane, name, "mallory", **claims) for name in ("orders-read", "orders-none"))
    assert (there.status_code, there.json()["code"]) == (404, "not-found")
    assert there.text.replace("orders-read", "orders-none") == nowhere.text
    assert ask(http, plane, "orders-none", "ann", role="platform").status_code == 404
    assert http(plane, "GET", "/v1/entitlements/orders-read").status_code == 401


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(ROLES, tmp_path / "roles"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(sync, ["who", *arguments])


def test_the_command_answers_from_the_files_alone(directory: Path) -> None:
    result = run("orders-refund")
    assert result.exit_code == 0, result.output
    for line in ("who", "when", "where", "how often", "how long", "approval", "opens (2)"):
        assert f"\n{line} " in result.stdout
    assert "exactly repo:acme/refund-agent:ref:refs/heads/main, vouched for by dev" in result.stdout
    machine = json.loads(run("orders-refund", "-o", "json", "--roles", str(directory)).stdout)
    assert machine["who"][0]["subject"] == "repo:acme/refund-agent:ref:refs/heads/main"


def test_a_name_that_is_none_or_broken_is_said(directory: Path) -> None:
    result = run("orders-none")
    assert result.exit_code == 2  # click's own; the command's door makes 1 of it
    names = "checkout-certificate, customer-certificate, invoice-status, orders-break-glass, orders-read, orders-refund"
    assert f"only: {names}" in result.output
    (directory / "orders-read.yaml").write_text("entitlement: orders-read\n", encoding="utf-8")
    error = run("orders-read").exception
    assert isinstance(error, BrokenEntitlementsError)
    assert "orders-read.yaml:1:1: error" in error.detail
