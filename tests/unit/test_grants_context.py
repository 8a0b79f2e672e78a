"""Context: every condition decides by itself, fails closed, and says why (C7, C22, A17, A18)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.grants.context import Broken, Held, context, counted
from controlplane.grants.decide import decide
from controlplane.model.decision import Allow, Decides, Deny
from controlplane.model.grant import TaskId
from controlplane.model.identity import IssuerName, VerifiedClaims
from controlplane.model.request import GrantRequest
from controlplane.model.situation import Situation, Usage
from controlplane.testing.entitlements import entitlement
from controlplane.testing.policies import shipped_policy

NOW = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)  # a Monday
ASKED = GrantRequest(entitlement="orders-read", task=TaskId("T-1"), intent="answer-question")
WHO = VerifiedClaims(
    issuer=IssuerName("dev"),
    subject="repo:acme/agent:ref:refs/heads/main",
    claims={},
    issued_at=NOW,
    expires_at=NOW + timedelta(minutes=5),
)


def found(named: dict[str, Any], **situation: Any) -> list[tuple[bool, str]]:
    return [
        (isinstance(one, Held), one.reason.code)
        for one in context(entitlement(context=named), replace(Situation(at=NOW), **situation))
    ]


def test_an_entitlement_without_conditions_is_in_context() -> None:
    assert found({}) == [(True, "in-context")]


@pytest.mark.parametrize(
    ("windows", "held"),
    [
        (["Mon 10:00-11:00 Europe/Berlin"], True),
        (["Mon 09:00-10:00 Europe/Berlin"], False),
        (["Sat,Sun 00:00-24:00 UTC", "Mon 09:30-09:31 UTC"], True),
    ],
)
def test_c7_one_open_window_is_enough(windows: list[str], held: bool) -> None:
    assert found({"windows": windows}) == [(held, "in-window" if held else "outside-window")]


def test_c7_a_closed_window_says_when_the_next_one_opens() -> None:
    (closed,) = context(
        entitlement(context={"windows": ["Tue 07:00-19:00 Europe/Berlin", "Mon 21:00-22:00 UTC"]}), Situation(at=NOW)
    )
    assert isinstance(closed, Broken)
    assert closed.reason.decision is Decides.CONTEXT
    assert "the next opens at 2026-01-05T21:00:00+00:00" in closed.reason.detail


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("10.255.255.255", "in-network"),
        ("11.0.0.0", "outside-network"),
        ("2001:db8::1", "in-network"),
        ("2001:db9::1", "outside-network"),
        (None, "address-unknown"),
    ],
)
def test_c7_the_caller_comes_from_a_network_or_is_refused(address: str | None, code: str) -> None:
    named = {"networks": ["10.0.0.0/8", "2001:db8::/32"]}
    held = code == "in-network"
    assert found(named, address=None if address is None else ip_address(address)) == [(held, code)]


@pytest.mark.parametrize(
    ("here", "code"),
    [("prod", "in-environment"), ("staging", "other-environment"), (None, "environment-unknown")],
)
def test_c7_the_environment_is_one_that_is_named_or_it_is_refused(here: str | None, code: str) -> None:
    assert found({"environments": ["prod", "dr-site"]}, environment=here) == [(code == "in-environment", code)]


@pytest.mark.parametrize(
    ("mine", "everybodys", "mine_held", "total_held"),
    [(2, 4, True, True), (3, 4, False, True), (0, 5, True, False), (9, 9, False, False)],
)
def test_c22_a_budget_of_open_grants_holds_until_it_is_used_up(
    mine: int, everybodys: int, mine_held: bool, total_held: bool
) -> None:
    usage = Usage(active_of_subject=mine, active=everybodys)
    assert found({"max_active": {"per_subject": 3, "total": 5}}, usage=usage) == [
        (mine_held, f"{'within' if mine_held else 'over'}-max-active-per-subject"),
        (total_held, f"{'within' if total_held else 'over'}-max-active-total"),
    ]


def test_c22_a_budget_that_nobody_counted_is_used_up() -> None:
    assert found({"max_active": {"per_subject": 3}}) == [(False, "budget-unknown")]


def test_c22_a_rate_says_when_the_oldest_request_leaves_the_span() -> None:
    named = {"max_requests": {"per_subject": "3/h"}}
    assert found(named, usage=Usage(requested=2, oldest=NOW)) == [(True, "within-max-requests")]
    usage = Usage(requested=3, oldest=NOW - timedelta(minutes=50))
    (over,) = context(entitlement(context=named), Situation(at=NOW, usage=usage))
    assert isinstance(over, Broken)
    assert (over.reason.code, over.budget, over.retry_after) == ("over-max-requests", True, timedelta(minutes=10))


def test_c22_only_what_nothing_but_a_budget_refuses_is_over_budget() -> None:
    named = {"max_requests": {"per_subject": "1/h"}, "max_active": {"total": 1}, "environments": ["prod"]}
    spent = Usage(active=1, requested=1, oldest=NOW)
    refused = decide(
        entitlement(context=named),
        WHO,
        ASKED,
        Situation(at=NOW, environment="prod", usage=spent),
        shipped_policy().now(),
    )
    assert isinstance(refused, Deny)
    assert (refused.over_budget, refused.retry_after) == (True, timedelta(hours=1))
    assert [why.code for why in refused.reasons] == ["over-max-active-total", "over-max-requests"]
    assert [why.code for why in refused.passed] == ["eligible", "in-environment", "in-scope", "policy-permits"]
    elsewhere = decide(
        entitlement(context=named),
        WHO,
        ASKED,
        Situation(at=NOW, environment="dev", usage=spent),
        shipped_policy().now(),
    )
    assert isinstance(elsewhere, Deny)
    assert not elsewhere.over_budget


@pytest.mark.parametrize(
    ("named", "back", "enough"),
    [
        ({"max_active": {"per_subject": 3}}, timedelta(0), 3),
        ({"max_active": {"per_subject": 3, "total": 50}}, timedelta(0), 50),
        ({"max_active": {"total": 7}, "max_requests": {"per_subject": "30/h"}}, timedelta(hours=1), 30),
        ({"max_requests": {"per_subject": "5/m"}}, timedelta(minutes=1), 5),
    ],
)
def test_no_more_is_counted_than_the_budgets_need(named: dict[str, Any], back: timedelta, enough: int) -> None:
    assert counted(entitlement(context=named).context) == (back, enough)


CONDITIONS: dict[str, Any] = {
    "windows": ["Mon 09:00-10:00 UTC"],
    "networks": ["10.0.0.0/8"],
    "environments": ["prod"],
    "max_active": {"per_subject": 2, "total": 3},
    "max_requests": {"per_subject": "4/h"},
}
SITUATIONS = st.builds(
    Situation,
    at=st.datetimes(datetime(2025, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 # given a zone
    address=st.none() | st.ip_addresses(network=ip_network("10.0.0.0/7")) | st.ip_addresses(v=6),
    environment=st.none() | st.sampled_from(["prod", "dev"]),
    usage=st.none()
    | st.builds(
        Usage,
        active_of_subject=st.integers(0, 4),
        active=st.integers(0, 4),
        requested=st.integers(0, 5),
        oldest=st.none() | st.just(NOW),
    ),
)


@given(st.sets(st.sampled_from(sorted(CONDITIONS))), st.sampled_from(sorted(CONDITIONS)), SITUATIONS)
def test_y34_one_condition_more_never_allows_more(names: set[str], more: str, situation: Situation) -> None:
    def allowed(which: set[str]) -> bool:
        named = {name: CONDITIONS[name] for name in which}
        return isinstance(decide(entitlement(context=named), WHO, ASKED, situation, shipped_policy().now()), Allow)

    assert not allowed({*names, more}) or allowed(names)


@given(st.sets(st.sampled_from(sorted(CONDITIONS)), min_size=1), SITUATIONS)
def test_c7_it_is_allowed_exactly_when_every_condition_holds_by_itself(names: set[str], situation: Situation) -> None:
    def allowed(*which: str) -> bool:
        named = {name: CONDITIONS[name] for name in which}
        return isinstance(decide(entitlement(context=named), WHO, ASKED, situation, shipped_policy().now()), Allow)

    assert allowed(*names) == all(allowed(name) for name in names)
