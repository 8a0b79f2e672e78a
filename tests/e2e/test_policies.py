"""Policies over the real stack: what they forbid, whose words the answer has, and files that change (C7, Y33, P1)."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from controlplane.dev.issuer import mint
from controlplane.dev.shipped import shipped
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.world import RandomIds, SystemClock

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

BILLING = "repo:acme/billing-agent:ref:refs/heads/main"
NEVER = '@id("not-for-prod-claims") @reason("what claims to be prod has no business in dev")\n'
TAGGED = 'when { principal.hasTag("environment") && principal.getTag("environment").contains("prod") }'


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stage]:
    project = tmp_path_factory.mktemp("policies")
    shutil.copytree(shipped("roles"), project / "roles")
    stack = Stack(project=project, say=print)
    try:
        stack.up()
        yield Stage(project)
    finally:
        stack.destroy()


def ask(stage: Stage, entitlement: str, intent: str, *, subject: str = AGENT, **claims: str) -> tuple[int, Any]:
    issuer = stage.stack.issuer
    token = mint(issuer.key, issuer.url, subject, now=SystemClock().now(), ids=RandomIds(), claims=claims)
    answer = urllib3.request(
        "POST",
        f"{stage.api}/v1/grants",
        json={"entitlement": entitlement, "task": "T-1", "intent": intent},
        headers={"Authorization": f"Bearer {token.reveal()}"},
        retries=False,
    )
    return answer.status, answer.json()


def said(body: dict[str, Any]) -> list[tuple[str, str]]:
    return [(why["code"], why["detail"]) for why in body["reasons"] if why["decision"] == "policy"]


def until(stage: Stage, *codes: str) -> None:
    """The control plane looks at its files once a second."""
    deadline = time.monotonic() + 60
    while True:
        _, body = ask(stage, "orders-read", "answer-question")
        if [code for code, _ in said(body)] == [*codes]:
            return
        assert time.monotonic() < deadline, body
        time.sleep(0.05)


def test_c7_a_slice_tells_two_workloads_of_one_entitlement_apart(stage: Stage) -> None:
    status, body = ask(stage, "invoice-status", "correct-status", subject=BILLING)
    assert status == 201, body
    assert said(body) == [("policy-permits", "reviewed-entitlement: what the reviewed entitlement admits is permitted")]
    status, body = ask(stage, "invoice-status", "answer-question")
    assert status == 201, body
    status, body = ask(stage, "invoice-status", "correct-status")
    assert (status, body["code"]) == (403, "denied")
    ((code, detail),) = said(body)
    assert code == "policy-forbids"
    assert detail.startswith("billing-corrects-invoices: only billing's own agent")


def test_p1_the_audit_log_names_the_policy_and_nothing_was_made(stage: Stage) -> None:
    status, _ = ask(stage, "invoice-status", "correct-status")
    assert status == 403
    audit = shorthold(stage, "audit", "tail", "-o", "json")
    assert audit.returncode == 0, audit.stderr
    assert "grant.refused" in audit.stdout
    assert "billing-corrects-invoices: only billing's own agent" in audit.stdout


def test_y33_files_that_change_hold_and_those_that_break_grant_nothing_until_they_are_mended(stage: Stage) -> None:
    own = stage.directory / "roles" / "policies" / "own.cedar"
    until(stage, "policy-permits")
    own.write_text(f"{NEVER}forbid (principal, action, resource) {TAGGED};\n")
    try:
        deadline = time.monotonic() + 60
        while (answer := ask(stage, "orders-read", "answer-question", environment="prod"))[0] != 403:
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)
        assert [code for code, _ in said(answer[1])] == ["policy-forbids"]
        assert ask(stage, "orders-read", "answer-question")[0] == 201

        own.write_text(f"{NEVER}forbid (principal, action, resource) when {{ principal.nothing }};\n")
        until(stage, "policy-broken")
        ready = urllib3.request("GET", f"{stage.api}/readyz", retries=False)
        assert (ready.status, ready.json()["missing"]) == (503, ["policies"])
        lint = shorthold(stage, "sync", "lint", "--roles", str(stage.directory / "roles"))
        assert lint.returncode == 1
        assert "policies/own.cedar:1:1: error: " in lint.stdout
        assert "[invalid-policy]" in lint.stdout
    finally:
        own.unlink()
    until(stage, "policy-permits")


def test_the_cases_that_are_shipped_pass_where_they_are_shipped_to(stage: Stage) -> None:
    tried = shorthold(stage, "policy", "test", str(stage.directory / "roles" / "policies"), "-o", "json")
    assert tried.returncode == 0, tried.stderr
    assert all(case["ok"] for case in json.loads(tried.stdout))


def test_explaining_names_the_policy_too(stage: Stage) -> None:
    answer = urllib3.request(
        "POST",
        f"{stage.api}/v1/grants?dry_run=1",
        json={"entitlement": "invoice-status", "task": "T-1", "intent": "correct-status"},
        headers={"Authorization": f"Bearer {stage.token(AGENT).reveal()}"},
        retries=False,
    ).json()
    assert (answer["decision"], answer["status"]) == ("deny", 403)
    assert [why["says"] for why in answer["reasons"] if why["decision"] == "policy"] == ["no"]


def shorthold(stage: Stage, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controlplane", *arguments],
        env={"SHORTHOLD_CONFIG": str(stage.directory / ".shorthold" / "shorthold.toml")},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
