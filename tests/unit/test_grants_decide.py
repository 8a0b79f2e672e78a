"""Decisions: separate, ordered, all reasons kept, nothing told to a stranger (P1, P12; controls C1, C2, C6)."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.grants.decide import decide as decide_in
from controlplane.grants.decide import granted_ttl
from controlplane.model.decision import Allow, Decides, Decision, Deny, NeedsApproval
from controlplane.model.entitlement import Entitlement, Scope
from controlplane.model.grant import TaskId
from controlplane.model.identity import IssuerName, VerifiedClaims
from controlplane.model.request import GrantRequest
from controlplane.model.situation import Situation
from controlplane.ports import Rule
from controlplane.testing.policies import shipped_policy

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUBJECT = "repo:acme/support-agent:ref:refs/heads/main"


def entitlement(**changes: Any) -> Entitlement:
    document: dict[str, Any] = {
        "entitlement": "orders-read",
        "owner": "team-support@acme.example",
        "purpose": "Answer a question about an order.",
        "intents": ["answer-question"],
        "risk": "low",
        "eligibility": [{"issuer": "dev", "subject": SUBJECT, "claims": {"environment": "prod"}}],
        "scopes": [{"name": "orders", "engine": "any"}],
        "ttl": {"default": "5m", "max": "15m"},
        **changes,
    }
    return Entitlement.model_validate(document, context={"engines": {"any": Scope}})


def who(subject: str = SUBJECT, **claims: Any) -> VerifiedClaims:
    return VerifiedClaims(
        issuer=IssuerName("dev"),
        subject=subject,
        claims={"environment": "prod", **claims},
        issued_at=NOW,
        expires_at=NOW + timedelta(minutes=5),
    )


def asked(**changes: Any) -> GrantRequest:
    wish: dict[str, Any] = {"entitlement": "orders-read", "task": TaskId("T-1"), "intent": "answer-question"}
    return GrantRequest(**{**wish, **changes})


def decide(
    wanted: Entitlement | None,
    who: VerifiedClaims,
    asked: GrantRequest,
    situation: Situation | None = None,
    rule: Rule | None = None,
) -> Decision:
    return decide_in(wanted, who, asked, situation or Situation(at=NOW), rule or shipped_policy().now())


def codes(decision: Allow | Deny | NeedsApproval) -> list[tuple[Decides, str]]:
    return [(why.decision, why.code) for why in decision.reasons]


def test_an_eligible_workload_within_scope_is_allowed_and_every_decision_says_why() -> None:
    decision = decide(entitlement(), who(), asked())
    assert isinstance(decision, Allow)
    assert [why.decision for why in decision.reasons] == [
        Decides.ELIGIBILITY,
        Decides.CONTEXT,
        Decides.SCOPE,
        Decides.POLICY,
        Decides.APPROVAL,
    ]


def test_a_heartbeat_is_a_promise_for_later_and_denies_nothing() -> None:
    assert isinstance(decide(entitlement(heartbeat="60s"), who(), asked()), Allow)


def test_a_stranger_learns_the_same_of_a_foreign_entitlement_and_of_none_at_all() -> None:
    stranger = who("repo:evil/fork:ref:refs/heads/main")
    foreign = decide(entitlement(), stranger, asked(intent="no-such-intent", ttl=timedelta(days=1)))
    none = decide(None, stranger, asked(intent="no-such-intent", ttl=timedelta(days=1)))
    assert foreign == none
    assert codes(foreign) == [(Decides.ELIGIBILITY, "not-eligible")]


@pytest.mark.parametrize("claims", [{"environment": "dev"}, {"environment": None}, {"environment": ["prod"]}])
def test_a_claim_that_is_missing_or_of_another_type_is_not_eligible(claims: dict[str, Any]) -> None:
    assert codes(decide(entitlement(), who(**claims), asked())) == [(Decides.ELIGIBILITY, "not-eligible")]


def test_a_glob_stays_within_its_segment() -> None:
    globbed = entitlement(eligibility=[{"issuer": "dev", "subject": {"glob": "system:serviceaccount:agents:*"}}])
    assert isinstance(decide(globbed, who("system:serviceaccount:agents:refund-1"), asked()), Allow)
    assert isinstance(decide(globbed, who("system:serviceaccount:agents:x:y"), asked()), Deny)
    assert isinstance(decide(globbed, who("system:serviceaccount:other:refund-1"), asked()), Deny)


def test_every_refusal_of_an_eligible_workload_is_told_at_once() -> None:
    narrow = entitlement(context={"windows": ["Mon-Fri 07:00-19:00 Europe/Berlin"], "networks": ["10.0.0.0/8"]})
    decision = decide(narrow, who(), asked(intent="drop-tables", ttl=timedelta(hours=1)))
    assert isinstance(decision, Deny)
    assert codes(decision) == [
        (Decides.CONTEXT, "outside-window"),
        (Decides.CONTEXT, "address-unknown"),
        (Decides.SCOPE, "unknown-intent"),
        (Decides.SCOPE, "ttl-above-maximum"),
    ]
    assert [why.code for why in decision.passed] == ["eligible", "policy-permits"]
    assert not decision.over_budget


def test_p12_a_stranger_learns_nothing_of_the_context_either() -> None:
    stranger = who("repo:evil/fork:ref:refs/heads/main")
    narrow = entitlement(context={"windows": ["Mon 07:00-07:01 UTC"], "max_active": {"total": 1}})
    decision = decide(narrow, stranger, asked())
    assert decision == decide(None, stranger, asked())
    assert isinstance(decision, Deny)
    assert decision.passed == ()


def test_a_refusal_also_says_what_passed() -> None:
    decision = decide(entitlement(), who(), asked(intent="drop-tables"))
    assert isinstance(decision, Deny)
    assert [why.code for why in decision.passed] == ["eligible", "in-context", "policy-permits"]


def test_what_needs_approval_waits_and_says_for_whom() -> None:
    high = entitlement(risk="high", approval={"quorum": 2, "from": ["group:oncall"]})
    decision = decide(high, who(), asked())
    assert isinstance(decision, NeedsApproval)
    assert decision.quorum == 2
    assert "group:oncall" in decision.reasons[-1].detail


def test_a_scope_refusal_comes_before_approval() -> None:
    high = entitlement(risk="high", approval={"quorum": 1, "from": ["group:oncall"]})
    assert isinstance(decide(high, who(), asked(intent="other")), Deny)


@given(st.timedeltas(min_value=timedelta(seconds=-1), max_value=timedelta(days=400)))
def test_no_ttl_above_the_maximum_or_below_the_minimum_is_ever_allowed(ttl: timedelta) -> None:
    decision = decide(entitlement(), who(), asked(ttl=ttl))
    assert isinstance(decision, Allow) == (timedelta(seconds=5) <= ttl <= timedelta(minutes=15))


def test_without_a_wish_the_default_ttl_is_granted() -> None:
    assert granted_ttl(entitlement(), asked()) == timedelta(minutes=5)
    assert granted_ttl(entitlement(), asked(ttl=timedelta(minutes=2))) == timedelta(minutes=2)
