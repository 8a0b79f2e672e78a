"""Ways around a tier: alone or by twos, and only where a workload can go them (C4, C6, C28)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.engines import engines
from controlplane.model.entitlement import Entitlement
from controlplane.model.matching import globs, overlap
from controlplane.sync.undercut import undercuts
from controlplane.testing.entitlements import entitlement

REFUND = ["select on table billing.invoices", "insert (amount, reason) on table billing.refunds"]


def made(
    name: str, *privileges: str, subject: object = "repo:acme/agent:ref:refs/heads/main", **more: Any
) -> Entitlement:
    scope = {"name": "orders", "engine": "database", "connection": "orders", "privileges": list(privileges)}
    return entitlement(entitlement=name, scopes=[scope], eligibility=[{"issuer": "dev", "subject": subject}], **more)


GUARDED = made("refund", *REFUND, risk="high", approval={"quorum": 1, "from": ["group:billing"]})


def found(*lower: Entitlement) -> set[str]:
    return set(undercuts([GUARDED, *lower], engines()))


def test_c4_one_that_gives_as_much_at_a_lower_tier_is_found() -> None:
    assert found(made("low", *REFUND)) == {"low"}
    assert found(made("low", "select on table billing.invoices", "insert on table billing.refunds")) == {"low"}
    assert found(made("low", *REFUND, "delete on table sales.orders", risk="medium")) == {"low"}


@pytest.mark.parametrize(
    "lower",
    [
        made("low", REFUND[0]),
        made("low", REFUND[0], "insert (amount) on table billing.refunds"),
        made("low", REFUND[0], "insert (amount, reason) on table billing.other"),
        made("low", *REFUND, risk="high", approval={"quorum": 1, "from": ["group:billing"]}),
        made("low", *REFUND, approval={"quorum": 1, "from": ["group:billing"]}),
        made("low", *REFUND, break_glass=True),
    ],
    ids=["less", "a column less", "another table", "the same tier", "as many agree", "somebody reviews"],
)
def test_one_that_gives_less_or_is_looked_at_as_well_is_not(lower: Entitlement) -> None:
    assert found(lower) == set()


def test_c4_two_that_one_workload_may_have_are_found_together() -> None:
    one, other = made("one", REFUND[0]), made("other", REFUND[1])
    assert found(one, other) == {"one", "other"}
    (sentence,) = undercuts([GUARDED, one, other], engines())["one"]
    assert "with other, which one workload may have as well" in sentence
    assert found(made("one", "insert (amount) on table billing.refunds"), other) == set()


def test_two_for_different_workloads_are_no_way() -> None:
    one = made("one", REFUND[0])
    assert found(one, made("other", REFUND[1], subject="repo:acme/other:ref:refs/heads/main")) == set()
    assert found(one, made("other", REFUND[1], subject={"glob": "repo:acme/*:ref:refs/heads/main"})) == {"one", "other"}
    assert found(one, made("other", REFUND[1], subject={"glob": "repo:other/*:ref:refs/heads/main"})) == set()


@given(st.lists(st.text("ab:/*", max_size=6), min_size=2, max_size=2), st.text("ab:/", max_size=6))
def test_two_patterns_meet_where_one_text_fits_both(patterns: list[str], text: str) -> None:
    one, other = patterns
    assert overlap(one, other) == overlap(other, one)
    if globs(one, text) and globs(other, text):
        assert overlap(one, other)
    if "*" not in other:
        assert overlap(one, other) == globs(one, other)


def test_a_thousand_entitlements_are_compared_in_a_blink() -> None:
    many = [made(f"low-{place}", f"select on table t{place % 40}.x") for place in range(1000)]
    assert found(*many) == set()


def static(path: str, *fields: str, rotate: bool = False, **more: Any) -> Entitlement:
    scope: dict[str, Any] = {"name": "key", "engine": "kv", "path": path, "fields": list(fields)}
    if rotate:
        scope["rotate"] = {"random": {"length": 40}, "reread": "30s"}
        more["context"] = {"max_active": {"total": 1}}
    return entitlement(scopes=[scope], **more)


def test_c4_a_static_secret_that_is_rotated_at_a_higher_tier_is_undercut_by_who_just_hands_it_out() -> None:
    guarded = static("payments/gateway", "api_key", rotate=True, entitlement="guarded", risk="medium")

    def found_below(path: str, *fields: str, **more: Any) -> set[str]:
        return set(undercuts([guarded, static(path, *fields, entitlement="low", **more)], engines()))

    assert found_below("payments/gateway", "api_key") == {"low"}
    assert found_below("payments/gateway", "api_key", "other") == {"low"}
    assert found_below("payments/gateway", "other") == set()
    assert found_below("payments/{which}", "api_key", parameters={"which": {"pattern": "[a-z]{4,9}"}}) == {"low"}
    assert found_below("payments/{which}", "api_key", parameters={"which": {"pattern": "[a-z]{4,6}"}}) == set()
    one_of_them = static(
        "payments/{which}", "api_key", rotate=True, entitlement="guarded", risk="medium",
        parameters={"which": {"pattern": "[a-z]{4,9}"}},
    )  # fmt: skip
    for path, beneath in (("payments/gateway", {"low"}), ("payments/42", set[str]()), ("orders/gateway", set[str]())):
        assert set(undercuts([one_of_them, static(path, "api_key", entitlement="low")], engines())) == beneath


def test_a_thousand_with_parameters_are_compared_in_a_blink() -> None:
    more: dict[str, Any] = {"parameters": {"which": {"pattern": "[a-z]{4,9}"}}}
    many = [
        static(f"apps/{n}/{{which}}", "api_key", entitlement=f"app-{n}", risk="medium" if n % 2 else "low", **more)
        for n in range(1000)
    ]
    assert undercuts(many, engines()) == {}
