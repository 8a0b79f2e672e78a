"""Who asks: ids of workloads, claims by path, and whom an entitlement's eligibility admits."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from controlplane.model.canonical import JsonValue
from controlplane.model.entitlement import Eligibility
from controlplane.model.identity import IssuerName, VerifiedClaims, workload_id

AT = datetime(2026, 1, 5, tzinfo=UTC)
names = st.text(max_size=30)


def who(claims: Mapping[str, Any] | None = None, *, subject: str = "agent-1", issuer: str = "acme") -> VerifiedClaims:
    return VerifiedClaims(issuer=IssuerName(issuer), subject=subject, claims=claims or {}, issued_at=AT, expires_at=AT)


def rule(**fields: Any) -> Eligibility:
    return Eligibility.model_validate({"issuer": "acme", "subject": "agent-1", **fields})


@given(names, names)
def test_a_workload_id_is_safe_wherever_it_is_put(issuer: str, subject: str) -> None:
    id = workload_id(IssuerName(issuer), subject)
    assert len(id) == 35
    assert id.startswith("wl_")
    assert set(id[3:]) <= set("0123456789abcdef")


@given(names, names, names, names)
def test_two_workloads_never_share_an_id(issuer: str, subject: str, other_issuer: str, other_subject: str) -> None:
    if "\x00" in issuer + other_issuer:
        return  # the name of an issuer is an operator's and has no such character
    same = (issuer, subject) == (other_issuer, other_subject)
    assert (workload_id(IssuerName(issuer), subject) == workload_id(IssuerName(other_issuer), other_subject)) == same


def test_a_workload_id_never_changes_between_releases() -> None:
    assert who().workload == "wl_ba6ecff0a01e84f4e78f50fe61bd72bd"


def test_a_claim_is_found_by_its_path() -> None:
    someone = who({"environment": "prod", "kubernetes.io": {"namespace": "agents", "pod": {"name": "p-1"}}, "n": 1})
    assert someone.claim("environment") == "prod"
    assert someone.claim("kubernetes.io/namespace") == "agents"
    assert someone.claim("kubernetes.io/pod/name") == "p-1"
    assert someone.claim("kubernetes.io/pod") == {"name": "p-1"}
    assert someone.claim("n") == 1


@pytest.mark.parametrize(
    "path",
    ["", "/", "none", "environment/", "/environment", "environment/x", "list/0", "deep//name", "n/1", "nothing/x"],
)
def test_a_path_that_leads_nowhere_is_none(path: str) -> None:
    someone = who({"environment": "prod", "list": ["a"], "deep": {"name": "x"}, "n": 1, "nothing": None})
    assert someone.claim(path) is None


def test_a_claim_whose_own_name_has_a_slash_wins_over_the_descent() -> None:
    assert who({"a/b": "own", "a": {"b": "deep"}}).claim("a/b") == "own"


@given(st.text(max_size=20))
def test_any_path_is_answered(path: str) -> None:
    who({"a": {"b": [1, {"c": None}]}, "environment": "prod"}).claim(path)


def test_eligibility_admits_exactly_the_subject_that_it_names() -> None:
    assert rule().admits(who())
    for subject in ("agent-2", "agent-1 ", "agent-", "Agent-1", "agent-1\n", ""):
        assert not rule().admits(who(subject=subject))


def test_the_same_subject_of_another_issuer_is_somebody_else() -> None:
    assert not rule().admits(who(issuer="other"))
    assert not rule(issuer="other").admits(who())


def test_a_glob_is_a_pattern_only_by_name() -> None:
    assert rule(subject={"glob": "agent-*"}).admits(who(subject="agent-7"))
    assert not rule(subject="agent-*").admits(who(subject="agent-7"))
    assert rule(subject="agent-*").admits(who(subject="agent-*"))
    assert not rule(subject={"glob": "repo:acme/*"}).admits(who(subject="repo:acme/agent:ref:refs/heads/main"))


def test_every_claim_that_is_named_must_match() -> None:
    both = rule(claims={"environment": "prod", "kubernetes.io/namespace": {"glob": "agents-*"}})
    assert both.admits(who({"environment": "prod", "kubernetes.io": {"namespace": "agents-eu"}}))
    assert not both.admits(who({"environment": "prod", "kubernetes.io": {"namespace": "other"}}))
    assert not both.admits(who({"environment": "dev", "kubernetes.io": {"namespace": "agents-eu"}}))
    assert not both.admits(who({"environment": "prod"}))


@pytest.mark.parametrize("value", [None, True, 1, ["prod"], {"prod": 1}, "", "Prod", " prod"])
def test_a_claim_that_is_missing_or_no_string_never_matches(value: JsonValue) -> None:
    assert not rule(claims={"environment": "prod"}).admits(who({"environment": value}))
    assert not rule(claims={"environment": "prod"}).admits(who())
    if not isinstance(value, str):
        assert not rule(claims={"environment": {"glob": "p*"}}).admits(who({"environment": value}))


@given(names, names, st.dictionaries(names, names, max_size=3))
def test_adding_a_claim_never_admits_more(subject: str, environment: str, claims: dict[str, str]) -> None:
    someone = who({**claims, "environment": environment}, subject=subject)
    narrow, wide = rule(subject={"glob": "a*"}, claims={"environment": "prod"}), rule(subject={"glob": "a*"})
    assert not narrow.admits(someone) or wide.admits(someone)


@pytest.mark.parametrize("pattern", ["*", "**", "*:*", "*/*", ":", ""])
def test_a_pattern_that_would_match_anybody_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ValidationError):
        rule(subject={"glob": pattern})
