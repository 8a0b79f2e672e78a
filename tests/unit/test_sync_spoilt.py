"""Rotation under others' hands: found for both, wherever their secrets can be the same one, and nowhere else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model.entitlement import Entitlement
from controlplane.model.parameter import made_of, parse
from controlplane.sync.spoilt import spoilt
from controlplane.testing.entitlements import entitlement

ROTATE = {"random": {"length": 40}, "reread": "30s"}
CUSTOMER = {"customer": {"pattern": "[a-z]{3,15}"}}


def hands(name: str, path: str, *fields: str, rotates: bool = False, **more: Any) -> Entitlement:
    scope = {"name": "key", "engine": "kv", "path": path, "fields": list(fields or ["api_key"])}
    alone = {"context": {"max_active": {"total": 1}}} if rotates else {}
    return entitlement(entitlement=name, scopes=[scope | ({"rotate": ROTATE} if rotates else {})], **(alone | more))


ROTATING = hands("rotating", "payments/gateway", rotates=True)


def found(*entitlements: Entitlement) -> set[str]:
    return set(spoilt(entitlements))


def test_both_are_told_who_replaces_what_of_whom() -> None:
    told = spoilt([ROTATING, hands("static", "payments/gateway")])
    ((mine,), (theirs,)) = told["rotating"][0], told["static"][0]
    assert mine.startswith(
        "each grant of this ends with another api_key of payments/gateway, also for whoever has it by s"
    )
    assert theirs.startswith("each grant of rotating ends with another api_key of payments/gateway")
    assert "give each a secret of its own" in mine


def test_the_fields_of_one_scope_are_told_of_in_one_sentence() -> None:
    both = hands("rotating", "payments/gateway", "api_key", "url", rotates=True)
    ((sentence,),) = spoilt([both, hands("static", "payments/gateway", "api_key", "url")])["static"].values()
    assert "with another api_key of payments/gateway, url of payments/gateway, also" in sentence


def test_two_that_rotate_are_told_once_each_and_many_by_their_number() -> None:
    others = [hands(f"other-{number}", "payments/gateway", rotates=True) for number in range(5)]
    told = spoilt([ROTATING, *others])
    assert len(told) == 6
    ((sentence,),) = told["rotating"].values()
    assert "other-0, other-1, other-2 and 2 more" in sentence


@pytest.mark.parametrize(
    "other",
    [
        hands("static", "payments/other"),
        hands("static", "payments/gateway", "webhook_key"),
        hands("static", "payments/{customer}/gateway", parameters=CUSTOMER),
        hands("static", "{customer}/gateway", parameters={"customer": {"pattern": "[0-9]{8}"}}),
        entitlement(entitlement="orders"),
    ],
    ids=["path", "field", "length", "pattern", "engine"],
)
def test_another_secret_is_none_of_its_business(other: Entitlement) -> None:
    assert found(ROTATING, other) == set()
    assert found(hands("one", "payments/gateway"), hands("two", "payments/gateway")) == set()


def test_a_path_with_parameters_is_every_path_that_it_can_become() -> None:
    one = hands("one", "customers/{customer}/token", parameters=CUSTOMER)
    assert found(hands("rotating", "customers/initech/token", rotates=True), one) == {"rotating", "one"}
    assert found(hands("rotating", "customers/42/token", rotates=True), one) == set()
    others = {"who": {"pattern": "[a-f]{2}[0-9a-f]{1,2}"}}
    assert found(hands("rotating", "customers/{who}/token", rotates=True, parameters=others), one) == {
        "rotating",
        "one",
    }
    digits = {"who": {"pattern": "[0-9]{9}"}}
    assert found(hands("rotating", "customers/{who}/token", rotates=True, parameters=digits), one) == set()


def test_the_scopes_of_one_entitlement_end_together() -> None:
    twice = [
        {"name": "one", "engine": "kv", "path": "payments/gateway", "fields": ["api_key"], "rotate": ROTATE},
        {"name": "two", "engine": "kv", "path": "payments/gateway", "fields": ["api_key"]},
    ]
    assert found(entitlement(scopes=twice, context={"max_active": {"total": 1}})) == set()


PATTERNS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "[ab]", "[a-c]"]), st.sampled_from(["", "{0,2}", "{1,3}", "{2}"])),
    min_size=1,
    max_size=3,
).map(lambda parts: "x" + "".join(atom + times for atom, times in parts))


@given(PATTERNS, PATTERNS, st.text("abcx", max_size=7))
def test_two_patterns_meet_where_one_value_fits_both(one: str, other: str, value: str) -> None:
    mine, theirs = parse(one), parse(other)
    assert mine.meets(theirs) == theirs.meets(mine)
    if mine.matches(value) and theirs.matches(value):
        assert mine.meets(theirs)
    assert made_of(value, {}).meets(mine) == mine.matches(value)


def test_a_thousand_that_rotate_are_compared_in_a_blink() -> None:
    many = [
        hands(f"low-{number}", f"apps/{number}/{{customer}}/token", rotates=True, parameters=CUSTOMER)
        for number in range(1000)
    ]
    assert found(*many) == set()
