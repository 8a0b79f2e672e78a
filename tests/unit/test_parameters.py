"""Parameters of entitlements: what a pattern lets through, where a parameter may stand, and what becomes of a value."""

import json
import re
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from controlplane.engines import engines
from controlplane.model.entitlement import Entitlement, Scope
from controlplane.model.parameter import LONGEST, VALUE, filled, opened, parse, placeholders
from controlplane.model.plan import Compiled, Naming, of_grant
from controlplane.sync.compile import compiled
from controlplane.sync.ours import origin, reserved, role_of_grant
from controlplane.testing.entitlements import LAYOUT, entitlement

WIDE = replace(LAYOUT, mounts={word: word for word in engines()})
CLIENT = {"name": "client", "engine": "pki", "common_name": "{customer}.customers.acme.example"}
CUSTOMER = {"customer": {"pattern": "[a-z][a-z0-9]{2,15}"}}


def entitled(*scopes: dict[str, Any], parameters: object = CUSTOMER) -> Entitlement:
    return entitlement(scopes=list(scopes or [CLIENT]), parameters=parameters)


def compiled_(*scopes: dict[str, Any], parameters: object = CUSTOMER) -> Compiled:
    return compiled(entitled(*scopes, parameters=parameters), WIDE, engines())


def refused(*scopes: dict[str, Any], parameters: object = CUSTOMER) -> str:
    with pytest.raises(ValidationError) as error:
        entitled(*scopes, parameters=parameters)
    return "\n".join(problem["msg"] for problem in error.value.errors())


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("[0-9]{1,9}", ["0", "42", "123456789"], ["", "1234567890", "4x", "-1", "٣", "42\n", " 42"]),
        ("INC-[0-9]{6}", ["INC-000001"], ["INC-1", "inc-000001", "INC-0000011", "xINC-000001"]),
        ("[a-z][a-z0-9-]{2,15}", ["abc", "a-1", "a--"], ["ab", "1bc", "Abc", "a.b", "a/b", "a'b"]),
        ("[ab]{0,2}c", ["c", "ac", "bac"], ["", "aaac", "ab"]),
    ],
)
def test_a_pattern_means_the_whole_value(pattern: str, good: list[str], bad: list[str]) -> None:
    parsed = parse(pattern)
    assert [value for value in good if not parsed.matches(value)] == []
    assert [value for value in bad if parsed.matches(value)] == []


@pytest.mark.parametrize(
    "pattern",
    [
        *("", ".*", "(a+)+", "a+", "a*", "a?", "a|b", "[^a]", "\\d", "[a-Z]", "[z-a]", "[]", "[", "a{2,1}", "a{0}"),
        *("a{0,3}", "a{64}", "[a-z]{32}[a-z]{32}", "a{1", "{3}", "é", "a b", "[a/b]", "'", "^a$", "a{,3}", "[a-]{99}"),
    ],
)
def test_a_pattern_has_nothing_in_it_that_could_mean_more(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(pattern)


def test_a_pattern_is_held_against_the_worst_value_in_no_time() -> None:
    """ReDoS: what would send a backtracking matcher away for ever takes one pass."""
    parsed = parse("a" + "[a-z]{0,8}" * 7)
    began = time.process_time()
    for _ in range(20):
        assert not parsed.matches("a" * 62 + "!")
        assert not parsed.matches("a" * 1_000_000)
    assert time.process_time() - began < 10  # seconds; backtracking takes years


@given(st.text(alphabet="abzAZ019-_[]{},", max_size=24), st.text(max_size=70))
def test_whatever_a_pattern_lets_through_is_a_harmless_word(text: str, value: str) -> None:
    """Y15: no value has a character that means something in a path, a policy, a host name or a statement."""
    try:
        parsed = parse(text)
    except ValueError:
        return
    for sample in (parsed.shortest, parsed.longest):
        assert parsed.matches(sample)
        assert re.fullmatch(VALUE, sample)
        assert len(sample) <= LONGEST
    assert not parsed.matches(value) or re.fullmatch(VALUE, value)


def test_a_scope_shows_its_parameter_until_a_value_is_bound() -> None:
    (scope,) = entitled().scopes
    assert engines()["pki"].reach(scope) == ["may prove to be {customer}.customers.acme.example as a TLS client"]
    assert scope.parameters == {"customer"}
    bound = scope.bound({"customer": "initech"})
    assert engines()["pki"].reach(bound) == ["may prove to be initech.customers.acme.example as a TLS client"]
    assert bound.parameters == frozenset()


@pytest.mark.parametrize("value", ["a.b", "-a", "a'b", "*", "", "{customer}", "x" * 64, "ab/../c"])
def test_a_value_is_read_again_by_the_engine_and_never_pasted(value: str) -> None:
    """Y15: even where nobody has held the value against its pattern."""
    (scope,) = entitled(CLIENT | {"common_name": "{customer}.example"}).scopes
    try:
        bound = scope.bound({"customer": value})
    except ValueError:
        return
    name = str(bound.model_dump()["common_name"])
    assert name == f"{value}.example"
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        (CLIENT | {"common_name": "{other}.example.org"}, "there is no parameter other"),
        (CLIENT | {"alt_names": ["{customer}.example.org"]}, "no parameter can narrow alt_names .* common_name only"),
        (CLIENT | {"common_name": "{customer}_x.example.org"}, "String should match pattern"),
        ({"name": "k", "engine": "kv", "path": "a/x-{customer}", "fields": ["f"]}, "alone between two slashes"),
        ({"name": "s", "engine": "ssh", "principals": ["a", "{customer}"]}, "in the only entry of the list"),
        (
            {"name": "t", "engine": "transit", "key": "{customer}", "operations": ["sign"]},
            "no parameter can narrow key",
        ),
    ],
)
def test_a_parameter_stands_only_where_it_can_be_held_to_its_value(scope: dict[str, Any], said: str) -> None:
    assert re.search(said, refused(scope))


def test_a_parameter_that_narrows_nothing_is_refused() -> None:
    two = CUSTOMER | {"ticket": {"pattern": "[0-9]{1,9}"}}
    assert "the parameter ticket narrows nothing" in refused(CLIENT, parameters=two)
    assert "narrows nothing" in refused(CLIENT | {"common_name": "a.example.org"})


def test_vault_is_told_as_much_as_its_policies_can_say() -> None:
    made = compiled_(
        CLIENT,
        {"name": "shell", "engine": "ssh", "principals": ["svc-{customer}"]},
        {"name": "token", "engine": "kv", "path": "customers/{customer}/token", "fields": ["f"]},
    )
    base = made.naming.base.removeprefix("sh-")
    policy = json.loads(str(made.objects[0].data["policy"]))["path"]
    assert set(policy) == {
        "sys/wrapping/wrap",
        f"pki/issue/sh-p-{base}-client-*",
        f"ssh/issue/sh-p-{base}-shell-*",
        "kv/data/customers/+/token",
    }
    allowed = policy[f"pki/issue/sh-p-{base}-client-*"]["allowed_parameters"]
    assert allowed["common_name"] == ["*.customers.acme.example"]
    assert [item.kind for item in made.objects] == ["policy", "jwt-role"]  # no role: each grant has its own


def test_a_wider_pattern_is_another_revision() -> None:
    """A09: what was approved, or planned, is void when the pattern changes."""
    wider = compiled_(parameters={"customer": {"pattern": "[a-z][a-z0-9]{2,16}"}})
    other = compiled_(CLIENT | {"common_name": "{customer}.customer.acme.example"})
    assert len({compiled_().revision, wider.revision, other.revision}) == 3


def test_the_name_of_a_role_tells_its_grant_and_sync_leaves_it_alone() -> None:
    grant = "e4mzjr3vudzjgvyorq6xlzsn"
    naming = Naming(layout=LAYOUT, entitlement="orders", revision=compiled_().revision, narrowed=frozenset({"o"}))
    name = replace(naming, grant=grant).scope("o")
    assert role_of_grant(LAYOUT, name) == f"gr_{grant}"
    assert of_grant(name) == (f"{naming.base}-o", f"gr_{grant}")
    assert origin(LAYOUT, compiled_().objects[0].kind, f"database/roles/{name}") is None
    assert reserved("p-orders")
    assert not reserved("payments")
    assert role_of_grant(LAYOUT, name.replace("sh-p-", "xx-p-")) is None
    assert role_of_grant(LAYOUT, f"{naming.base}-other") is None


def test_what_has_no_parameters_compiles_as_before() -> None:
    assert compiled(entitlement(), LAYOUT, engines()).objects[0].path.startswith("database/roles/sh-orders-read-")
    plain: Scope = entitlement().scopes[0]
    assert plain.bound({"customer": "x"}) is plain


def test_braces_are_filled_once() -> None:
    assert filled({"a": ["{x}", "{y}"], "b": 1}, {"x": "{y}"}) == {"a": ["{y}", "{y}"], "b": 1}
    assert placeholders(("{x}", {"k": ["{y}{X}{1}"]}, 5)) == {"x", "y"}
    assert (opened("a-{x}"), opened("{x}.b"), opened("{x}-{y}.b"), opened("a{x}b"), opened("{x}")) == (
        *("a-*", "*.b", "*.b"),
        *(None, None),
    )
