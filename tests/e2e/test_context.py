"""Context over the real stack: networks behind proxies, environments, budgets at once, reasons (C7, C22, J38, A17)."""

import json
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3

from controlplane.dev.configuration import configuration_file
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.sdk.client import Shorthold

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

ENTITLEMENT = """\
entitlement: {name}
owner: team-sales@acme.example
purpose: Read orders.
intents: [answer-question]
risk: low
eligibility:
  - {{issuer: dev, subject: {{glob: "repo:acme/*:ref:refs/heads/main"}}}}
context: {context}
scopes:
  - {{name: orders, engine: database, connection: orders, privileges: [select on table sales.orders]}}
ttl: {{default: 1m, max: 5m}}
"""
CONTEXTS = {
    "from-loopback": "{networks: [127.0.0.0/8]}",
    "from-office": "{networks: [203.0.113.0/24]}",
    "only-prod": "{environments: [prod]}",
    "three-open": "{max_active: {total: 3}}",
    "one-an-hour": "{max_active: {total: 1}, max_requests: {per_subject: 1/h}}",
    "two-an-hour": "{max_requests: {per_subject: 2/h}}",
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stage]:
    project = tmp_path_factory.mktemp("context")
    (project / "roles").mkdir()
    for name, context in CONTEXTS.items():
        (project / "roles" / f"{name}.yaml").write_text(ENTITLEMENT.format(name=name, context=context))
    stack = Stack(project=project, say=print)
    try:
        stack.up()
        yield Stage(project)
    finally:
        stack.destroy()


Answer = tuple[int, Any, Any]
"""Status, body and headers."""


def ask(stage: Stage, entitlement: str, *, query: str = "", subject: str = AGENT, **headers: str) -> Answer:
    answer = urllib3.request(
        "POST",
        f"{stage.api}/v1/grants{query}",
        json={"entitlement": entitlement, "task": "T-1", "intent": "answer-question"},
        headers={"Authorization": f"Bearer {stage.token(subject).reveal()}", **headers},
        retries=False,
    )
    return answer.status, answer.json(), answer.headers


def codes(body: dict[str, Any]) -> list[str]:
    return [why["code"] for why in body["reasons"]]


def forwarded(stage: Stage, entitlement: str, addresses: str) -> tuple[int, list[str]]:
    status, body, _ = ask(stage, entitlement, **{"X-Forwarded-For": addresses})
    return status, [code for code in codes(body) if "network" in code or "address" in code]


def test_j38_what_a_caller_says_of_his_address_is_believed_only_behind_a_trusted_proxy(stage: Stage) -> None:  # P05
    # Nobody is trusted: not even on loopback, where servers like to make an exception.
    assert forwarded(stage, "from-loopback", "203.0.113.7") == (201, ["in-network"])
    assert forwarded(stage, "from-office", "203.0.113.7") == (403, ["outside-network"])

    file = configuration_file(stage.stack.home)
    plain = file.read_text()
    file.write_text(
        plain.replace("[api]\n", '[api]\ntrusted_proxies = ["127.0.0.1/32"]\n').replace('"dev"', '"prod"', 1)
    )
    stage.stack.serve.stop()
    stage.restart_control_plane()
    try:
        assert forwarded(stage, "from-office", "203.0.113.7") == (201, ["in-network"])
        assert forwarded(stage, "from-office", "198.51.100.1, 203.0.113.7") == (201, ["in-network"])
        assert forwarded(stage, "from-office", "203.0.113.7, 198.51.100.1") == (403, ["outside-network"])
        assert forwarded(stage, "from-office", "203.0.113.7, unknown") == (403, ["address-unknown"])
        assert forwarded(stage, "from-loopback", "203.0.113.7") == (403, ["outside-network"])
        status, body, _ = ask(stage, "from-loopback")
        assert (status, codes(body)) == (403, ["address-unknown"])
        assert ask(stage, "only-prod")[0] == 201
    finally:
        file.write_text(plain)
        stage.stack.serve.stop()
        stage.restart_control_plane()


def test_c7_an_entitlement_of_another_environment_is_refused(stage: Stage) -> None:
    status, body, _ = ask(stage, "only-prod")
    assert (status, body["code"], codes(body)) == (403, "denied", ["other-environment"])


def test_a17_requests_at_once_never_exceed_a_budget_and_a_proved_end_frees_a_place(stage: Stage) -> None:
    subjects = [f"repo:acme/agent-{number}:ref:refs/heads/main" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, stage, "three-open", subject=subject) for subject in subjects]
    answers = [future.result() for future in asked]
    assert sorted(status for status, _, _ in answers) == [201] * 3 + [429] * 5
    refused = next(body for status, body, _ in answers if status == 429)
    assert (refused["code"], codes(refused)) == ("over-budget", ["over-max-active-total"])
    place = next(at for at, (status, _, _) in enumerate(answers) if status == 201)
    with Shorthold(stage.api, lambda: stage.token(subjects[place]), timeout=90) as agent:
        assert agent.finish(answers[place][1]["grant"]["id"], wait="30s")["grant"]["state"] == "revoked"
    assert ask(stage, "three-open")[0] == 201


def test_a15_twins_at_once_make_one_grant_and_are_all_told_of_it_though_it_uses_the_budget_up(stage: Stage) -> None:
    with ThreadPoolExecutor(12) as pool:
        twins = [pool.submit(ask, stage, "one-an-hour", **{"Idempotency-Key": "k-1"}) for _ in range(12)]
    answers = [future.result() for future in twins]
    assert {status for status, _, _ in answers} == {201}
    assert len({body["grant"]["id"] for _, body, _ in answers}) == 1
    assert sum("wrapping_token" in body for _, body, _ in answers) == 1
    assert ask(stage, "one-an-hour")[0] == 429


def test_c22_a_rate_is_refused_with_the_time_to_come_back_and_explaining_spends_nothing(stage: Stage) -> None:
    for _ in range(3):
        status, body, _ = ask(stage, "two-an-hour", query="?dry_run=1")
        assert (status, body["decision"], body["status"]) == (200, "allow", 201)
    assert [ask(stage, "two-an-hour")[0] for _ in range(3)] == [201, 201, 429]
    status, body, headers = ask(stage, "two-an-hour")
    assert (status, body["code"], codes(body)) == (429, "over-budget", ["over-max-requests"])
    assert 3500 < int(headers["Retry-After"]) <= 3600
    other = "repo:acme/other:ref:refs/heads/main"
    assert ask(stage, "two-an-hour", subject=other)[0] == 201
    explained = explain(stage, "two-an-hour")
    assert explained.returncode == 3, explained.stderr
    told = json.loads(explained.stdout)
    assert (told["status"], told["reasons"][-1]["says"], told["reasons"][-1]["code"]) == (429, "yes", "policy-permits")


def test_p12_a_stranger_is_explained_the_same_of_what_is_there_and_of_what_is_not(stage: Stage) -> None:
    stranger = "repo:mallory/fork:ref:refs/heads/main"
    status, there, _ = ask(stage, "from-loopback", query="?dry_run=1", subject=stranger)
    _, nothing, _ = ask(stage, "from-nowhere", query="?dry_run=1", subject=stranger)
    assert status == 200
    assert json.loads(json.dumps(there).replace("from-loopback", "from-nowhere")) == nothing
    assert codes(there) == ["not-eligible"]


def explain(stage: Stage, entitlement: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "controlplane", "grant", "explain", entitlement]
    return subprocess.run(
        [*command, "--intent", "answer-question", "-o", "json"],
        env={"SHORTHOLD_ADDR": stage.api, "SHORTHOLD_TOKEN": stage.token(AGENT).reveal()},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
