"""The least that an agent can ask for: exact, deterministic, and silent about what is not for it (C6, P07, P12)."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.engines import engines
from controlplane.grants.cover import MOST, Candidate, candidate, narrowest, parse_needs
from controlplane.model.errors import InvalidRequestError
from controlplane.testing.entitlements import compiled_entitlement, entitlement
from controlplane.testing.plane import AGENT, FakePlane

Http = Callable[..., httpx.Response]
OTHERS = [{"issuer": "dev", "subject": "repo:acme/other:ref:refs/heads/main"}]


def scope(*privileges: str, name: str = "s") -> dict[str, object]:
    return {"name": name, "engine": "database", "connection": "orders", "privileges": [*privileges]}


PLANE = (
    compiled_entitlement(),
    compiled_entitlement(
        entitlement="invoice-status",
        intents=["correct-status", "answer-question"],
        scopes=[scope("select on table billing.invoices", "update (status) on table billing.invoices")],
    ),
    compiled_entitlement(entitlement="invoice-read", scopes=[scope("select (id, total) on table billing.invoices")]),
    compiled_entitlement(
        entitlement="everything",
        risk="high",
        approval={"quorum": 1, "from": ["group:oncall"]},
        scopes=[
            scope("select on table billing.invoices", "select on table sales.orders", "delete on table sales.orders")
        ],
    ),
    compiled_entitlement(
        entitlement="not-for-you", eligibility=OTHERS, scopes=[scope("delete on table billing.secrets")]
    ),
    compiled_entitlement(
        entitlement="checkout-tls",
        scopes=[{"name": "c", "engine": "pki", "common_name": "checkout.acme.example", "usages": ["client"]}],
    ),
)


@pytest.fixture(scope="module")
def plane() -> FakePlane:
    return FakePlane(*PLANE)


def found(plane: FakePlane, *needs: str, intent: str | None = None) -> tuple[list[str], list[str]]:
    answer: dict[str, Any] = plane.find(plane.agent(), needs, intent=intent)
    return [one["ask"]["entitlement"] for one in answer["found"]], answer["missing"]


@pytest.mark.parametrize(
    ("needs", "names"),
    [
        (("update billing.invoices",), ["invoice-status"]),
        (("update (status) on table billing.invoices",), ["invoice-status"]),
        (("select billing.invoices",), ["invoice-read"]),
        (("SELECT (ID, Total) ON billing.invoices",), ["invoice-read"]),
        (("select (customer) billing.invoices",), ["invoice-status"]),
        (("ERROR:  permission denied for table invoices",), ["invoice-read"]),
        (("select sales.orders", "select billing.invoices"), ["invoice-read", "orders-read"]),
        (("delete sales.orders",), ["everything"]),
        (("checkout.acme.example",), ["checkout-tls"]),
    ],
)
def test_the_narrowest_that_covers_what_was_refused_is_found(
    plane: FakePlane, needs: Sequence[str], names: list[str]
) -> None:
    assert found(plane, *needs) == (names, [])


def test_p07_what_is_not_for_the_caller_is_missing_as_if_nobody_had_it(plane: FakePlane) -> None:
    assert found(plane, "delete billing.secrets", "select sales.orders") == (
        ["orders-read"],
        ["delete billing.secrets"],
    )
    assert "not-for-you" not in str(plane.find(plane.agent(), ["delete billing.secrets"]))
    platform = plane.agent("ann", role="platform")
    assert plane.find(platform, ["select sales.orders"])["found"] == []


def test_an_intent_narrows_what_is_looked_at(plane: FakePlane) -> None:
    assert found(plane, "select billing.invoices", intent="correct-status") == (["invoice-status"], [])


@pytest.mark.parametrize("text", ["", "a b c d", "; DROP TABLE x", "¦", "()", "(a) b)"])
def test_a_text_in_no_form_is_a_thing_that_nothing_has(plane: FakePlane, text: str) -> None:
    assert found(plane, text)[0] == []


def test_columns_of_two_entitlements_add_up_to_no_statement(plane: FakePlane) -> None:
    assert found(plane, "select (id, customer) billing.invoices") == (["invoice-status"], [])
    assert found(plane, "update (status, total) billing.invoices")[0] == []


@pytest.mark.parametrize("needs", [(), tuple(f"select t{number}" for number in range(MOST + 1))])
def test_too_many_or_none_are_refused(plane: FakePlane, needs: Sequence[str]) -> None:
    with pytest.raises(InvalidRequestError):
        plane.find(plane.agent(), needs)


def test_over_http_the_answer_has_cost_and_how_to_ask(plane: FakePlane, http: Http) -> None:
    who = {"Authorization": f"Bearer {plane.issuer.mint(AGENT).reveal()}"}
    answer = http(plane, "POST", "/v1/needs", json={"needs": ["delete sales.orders"]}, headers=who)
    assert answer.status_code == 200, answer.text
    (one,) = answer.json()["found"]
    assert one["ask"] == {"entitlement": "everything", "intent": "answer-question"}
    assert one["covers"] == ["delete sales.orders"]
    assert one["access"]["approval"]["quorum"] == 1
    assert one["access"]["ttl"] == {"default": "5m", "max": "15m"}
    assert http(plane, "POST", "/v1/needs", json={"needs": []}, headers=who).status_code == 422


def cheapest_by_trying_all(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """Every subset that covers all that can be covered; the cheapest, and of equal ones the first by name."""
    ordered = sorted(candidates, key=lambda one: one.entitlement.name)
    everything = 0
    for one in ordered:
        everything |= one.covers
    subsets = [
        chosen
        for size in range(len(ordered) + 1)
        for chosen in itertools.combinations(range(len(ordered)), size)
        if _union(ordered, chosen) == everything and all(ordered[place].covers for place in chosen)
    ]
    best = min(subsets, key=lambda chosen: (_cost(ordered, chosen), chosen))
    return tuple(ordered[place].entitlement.name for place in best)


def _union(ordered: Sequence[Candidate], chosen: Sequence[int]) -> int:
    covered = 0
    for place in chosen:
        covered |= ordered[place].covers
    return covered


def _cost(ordered: Sequence[Candidate], chosen: Sequence[int]) -> tuple[int, ...]:
    return tuple(sum(ordered[place].cost[part] for place in chosen) for part in range(4))


NAMED = [entitlement(entitlement=f"e-{letter}") for letter in "abcdefgh"]
TABLES = st.lists(st.sampled_from("uvwxyz"), min_size=1, max_size=4, unique=True)


@given(
    st.lists(st.tuples(st.integers(0, 31), st.integers(1, 4)), max_size=8).map(
        lambda told: [
            Candidate(entitlement=NAMED[place], covers=covers, width=width)
            for place, (covers, width) in enumerate(told)
        ]
    )
)
@settings(max_examples=150)
def test_no_set_is_cheaper_than_the_one_that_is_found(candidates: list[Candidate]) -> None:
    assert tuple(one.entitlement.name for one in narrowest(candidates)) == cheapest_by_trying_all(candidates)
    assert narrowest(reversed(candidates)) == narrowest(candidates)


@given(st.lists(TABLES, min_size=1, max_size=5), TABLES)
@settings(max_examples=40)
def test_what_documents_say_is_covered_exactly(documents: list[list[str]], wanted: list[str]) -> None:
    needs = parse_needs([f"select s.{table}" for table in wanted])
    candidates = [
        candidate(
            entitlement(entitlement=f"e-{place}x", scopes=[scope(*(f"select on table s.{table}" for table in tables))]),
            needs,
            engines(),
        )
        for place, tables in enumerate(documents)
    ]
    covered = {table for tables in documents for table in tables} & set(wanted)
    chosen = narrowest(candidates)
    reached = _union(chosen, range(len(chosen)))
    assert {table for place, table in enumerate(wanted) if reached >> place & 1} == covered
    assert tuple(one.entitlement.name for one in chosen) == cheapest_by_trying_all(candidates)
