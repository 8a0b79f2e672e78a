"""Explaining: the same decision as a request gets, and nothing made; budgets through the verb (P12, C7, C22, A17)."""

import threading
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import pytest

from controlplane.grants.explain import Explanation
from controlplane.http.explained import explained
from controlplane.model.canonical import JsonValue
from controlplane.model.decision import Decision, Deny
from controlplane.model.errors import DeniedError, OverBudgetError, TokenReplayedError
from controlplane.model.event import Kind
from controlplane.model.grant import TaskId, Why
from controlplane.model.identity import VerifiedClaims
from controlplane.model.request import GrantRequest
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane

HIGH: dict[str, Any] = {"risk": "high", "approval": {"quorum": 1, "from": ["group:oncall"]}}
AGENTS: dict[str, Any] = {"eligibility": [{"issuer": "dev", "subject": {"glob": "agent-*"}}]}


def explain(plane: FakePlane, who: VerifiedClaims | None = None, **asked: Any) -> Decision:
    wish: dict[str, Any] = {"entitlement": "orders-read", "intent": "answer-question", **asked}
    wanted = GrantRequest(task=TaskId("T-1"), **wish)
    return plane.explain(who or plane.agent(), wanted, address=ip_address("10.0.0.1")).decision


def shown(decision: Decision, *, spent: bool = False) -> dict[str, JsonValue]:
    return explained(Explanation(decision=decision, spent=spent))


def says(decision: Decision) -> list[tuple[str, str]]:
    reasons = shown(decision)["reasons"]
    assert isinstance(reasons, list)
    return [(str(why["says"]), str(why["code"])) for why in reasons if isinstance(why, dict)]


def test_an_explanation_makes_nothing_but_its_audit_event() -> None:
    plane = FakePlane(compiled_entitlement())
    decision = explain(plane)
    assert says(decision) == [
        ("yes", "eligible"),
        ("yes", "in-context"),
        ("yes", "in-scope"),
        ("yes", "policy-permits"),
        ("yes", "no-approval-needed"),
    ]
    assert plane.journal.steps == ["commit grant.explained"]
    assert (plane.alive(), plane.store.grants()) == ([], [])
    (event,) = plane.events(Kind.GRANT_EXPLAINED)
    assert event.grant is None
    assert (event.body["outcome"], event.body["entitlement"]) == ("allow", "orders-read")


@pytest.mark.parametrize(
    ("changes", "asked", "status", "expected"),
    [
        ({}, {}, 201, ["yes", "yes", "yes", "yes", "yes"]),
        (HIGH, {}, 202, ["yes", "yes", "yes", "yes", "wait"]),
        ({"context": {"networks": ["11.0.0.0/8"]}}, {}, 403, ["yes", "no", "yes", "yes"]),
        (
            {"context": {"networks": ["11.0.0.0/8", "10.0.0.0/8"], "environments": ["prod"]}},
            {"ttl": timedelta(hours=9)},
            403,
            ["yes", "yes", "no", "no", "yes"],
        ),
        ({}, {"intent": "other"}, 403, ["yes", "yes", "no", "yes"]),
    ],
)
def test_every_yes_and_every_no_is_told_in_the_order_of_the_decisions(
    changes: dict[str, Any], asked: dict[str, Any], status: int, expected: list[str]
) -> None:
    decision = explain(FakePlane(compiled_entitlement(**changes)), **asked)
    assert shown(decision)["status"] == status
    assert [word for word, _ in says(decision)] == expected


def test_p12_a_stranger_is_told_the_same_of_what_is_there_and_of_what_is_not() -> None:
    plane = FakePlane(compiled_entitlement(context={"max_active": {"total": 1}}))
    stranger = plane.agent("mallory")
    there, nothing = explain(plane, stranger), explain(FakePlane(), stranger)
    assert there == nothing
    assert says(there) == [("no", "not-eligible")]


@pytest.mark.parametrize("changes", [{}, HIGH, {"context": {"max_requests": {"per_subject": "1/h"}}}])
def test_an_explanation_is_what_the_request_then_gets(changes: dict[str, Any]) -> None:
    plane = FakePlane(compiled_entitlement(**changes))
    for _ in range(2):
        before = explain(plane)
        try:
            reasons = plane.ask().reasons
        except DeniedError as denied:
            reasons = denied.reasons
        assert before.reasons == reasons


def test_c14_an_explanation_says_that_its_token_is_spent_and_what_a_request_with_it_gets() -> None:
    plane = FakePlane(compiled_entitlement(), compiled_entitlement(entitlement="orders-gone", intents=["look-away"]))
    who = plane.agent()
    wish = GrantRequest(entitlement="orders-read", task=TaskId("T-1"), intent="answer-question")
    assert explained(plane.explain(who, wish))["token_spent"] is False
    plane.ask(who)
    told = explained(plane.explain(who, wish))
    assert (told["decision"], told["status"], told["token_spent"]) == ("allow", 401, True)
    with pytest.raises(TokenReplayedError):
        plane.request(who, wish)
    # A denial comes first: a request that is refused for another reason spends and needs no token.
    told = explained(plane.explain(who, replace(wish, entitlement="orders-gone")))
    assert (told["decision"], told["status"], told["token_spent"]) == ("deny", 403, True)
    assert explained(plane.explain(plane.agent(), wish))["token_spent"] is False


def test_c22_explaining_spends_no_budget() -> None:
    plane = FakePlane(
        compiled_entitlement(context={"max_requests": {"per_subject": "1/h"}, "max_active": {"total": 1}})
    )
    assert {explain(plane).outcome for _ in range(3)} == {"allow"}
    plane.ask()
    over = explain(plane)
    assert isinstance(over, Deny)
    assert (shown(over)["status"], shown(over)["retry_after"]) == (429, 3600)


def test_c22_an_open_grant_keeps_its_place_until_it_is_proved_gone() -> None:
    plane = FakePlane(compiled_entitlement(context={"max_active": {"per_subject": 2}}, **AGENTS))
    first, _ = plane.ask(plane.agent("agent-1")), plane.ask(plane.agent("agent-1"))
    with pytest.raises(OverBudgetError) as over:
        plane.ask(plane.agent("agent-1"))
    assert (over.value.status, over.value.code, over.value.retry_after) == (429, "over-budget", None)
    assert [why.code for why in over.value.reasons] == ["over-max-active-per-subject"]
    plane.ask(plane.agent("agent-2"))
    plane.finish(plane.agent("agent-1"), first.grant.id, Why.COMPLETED)
    with pytest.raises(OverBudgetError):  # revoking: the credential may still work
        plane.ask(plane.agent("agent-1"))
    plane.work()
    plane.ask(plane.agent("agent-1"))
    assert len(plane.events(Kind.GRANT_REFUSED)) == 2


def test_a18_what_waits_for_approval_keeps_its_place() -> None:
    plane = FakePlane(compiled_entitlement(context={"max_active": {"per_subject": 1}}, **HIGH))
    plane.ask()
    with pytest.raises(OverBudgetError):
        plane.ask()
    plane.wait(timedelta(minutes=31))
    plane.ask()


def test_c22_a_rate_lets_the_next_one_through_when_the_oldest_leaves_the_span() -> None:
    plane = FakePlane(compiled_entitlement(context={"max_requests": {"per_subject": "2/h"}}))
    plane.ask()
    plane.clock.advance(timedelta(minutes=20))
    plane.ask()
    with pytest.raises(OverBudgetError) as over:
        plane.ask()
    assert over.value.retry_after == timedelta(minutes=40)
    plane.clock.advance(timedelta(minutes=40) - timedelta(microseconds=1))
    with pytest.raises(OverBudgetError):  # refusals do not count: else who asks on never gets one
        plane.ask()
    plane.clock.advance(timedelta(microseconds=1))
    plane.ask()


def test_c22_the_same_idempotency_key_again_spends_nothing() -> None:
    plane = FakePlane(compiled_entitlement(context={"max_requests": {"per_subject": "1/h"}}))
    first = plane.ask(key="k-1")
    assert plane.ask(key="k-1").grant.id == first.grant.id


def test_a17_requests_that_race_never_exceed_a_budget() -> None:
    plane = FakePlane(compiled_entitlement(context={"max_active": {"total": 3}}, **AGENTS))
    agents, ready = [plane.agent(f"agent-{number}") for number in range(12)], threading.Barrier(12)
    refused: list[OverBudgetError] = []

    def ask(who: VerifiedClaims) -> None:
        ready.wait(60)
        try:
            plane.ask(who)
        except OverBudgetError as error:
            refused.append(error)

    threads = [threading.Thread(target=ask, args=(who,)) for who in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(refused), plane.journal.steps.count("logins.login")) == (9, 3)
