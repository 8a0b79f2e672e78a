"""Policy-as-code: a clean yes or a no, by the real Cedar (C7, C2, C6; Y33, Y34; P12)."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model.decision import Decides, Ruling
from controlplane.model.entitlement import Entitlement
from controlplane.model.grant import TaskId
from controlplane.model.identity import IssuerName, VerifiedClaims
from controlplane.model.network import parse_address
from controlplane.model.request import GrantRequest
from controlplane.model.situation import Situation
from controlplane.policies.cedar import CedarPolicy
from controlplane.testing.entitlements import entitlement
from controlplane.testing.plane import AGENT
from controlplane.testing.policies import policy_of, shipped_policy

NOON = datetime(2026, 1, 5, 12, 30, tzinfo=UTC)  # a Monday
FORBID = '@id("{id}") @reason("because") forbid (principal, action, resource) {clauses};\n'


def forbid(clauses: str, id: str = "test-forbids") -> str:
    return FORBID.format(id=id, clauses=clauses)


def who(subject: str = AGENT, *, person: str | None = None, **claims: Any) -> VerifiedClaims:
    return VerifiedClaims(
        issuer=IssuerName("dev"),
        subject=subject,
        person=person,
        claims=claims,
        issued_at=NOON,
        expires_at=NOON + timedelta(minutes=5),
    )


def asked(**changes: Any) -> GrantRequest:
    wish: dict[str, Any] = {"entitlement": "orders-read", "task": TaskId("T-1"), "intent": "answer-question"}
    return GrantRequest(**{**wish, **changes})


def ruled(
    policy: CedarPolicy,
    *,
    on: Entitlement | None = None,
    by: VerifiedClaims | None = None,
    wish: GrantRequest | None = None,
    **situation: Any,
) -> Ruling:
    facts: dict[str, Any] = {"at": NOON, **situation}
    return policy.now()(on or entitlement(), by or who(), wish or asked(), Situation(**facts))


def codes(ruling: Ruling) -> list[str]:
    return [why.code for why in ruling.reasons]


def test_y33_without_any_policy_nothing_is_permitted(tmp_path: Path) -> None:
    ruling = ruled(policy_of(tmp_path, {"guardrails.cedar": "// nothing yet\n"}))
    assert (ruling.permitted, codes(ruling), ruling.policies) == (False, ["no-policy-permits"], ())


def test_y33_without_a_directory_nothing_is_permitted(tmp_path: Path) -> None:
    policy = CedarPolicy(tmp_path / "nowhere")
    ruling = ruled(policy)
    assert (ruling.permitted, codes(ruling)) == (False, ["policy-broken"])
    assert policy.broken is not None
    assert "does not exist" in policy.broken


def test_y33_a_forbid_beats_every_permit_and_says_which_and_why(tmp_path: Path) -> None:
    ruling = ruled(policy_of(tmp_path, forbid("")))
    assert (ruling.permitted, ruling.policies) == (False, ("test-forbids",))
    assert [(why.decision, why.code, why.detail) for why in ruling.reasons] == [
        (Decides.POLICY, "policy-forbids", "test-forbids: because")
    ]


def test_every_forbid_that_applies_is_told(tmp_path: Path) -> None:
    ruling = ruled(policy_of(tmp_path, forbid("", "second-one") + forbid("", "first-one")))
    assert ruling.policies == ("first-one", "second-one")


@pytest.mark.parametrize(
    "clauses",
    [
        "when { context.hour + 9223372036854775807 > 0 }",
        "unless { context.hour + 9223372036854775807 > 0 }",
        "when { context.hour * 9223372036854775807 == 3 }",
    ],
)
def test_y33_a_policy_that_cannot_be_evaluated_denies_although_cedar_would_leave_it_out(
    tmp_path: Path, clauses: str
) -> None:
    policy = policy_of(tmp_path, forbid(clauses))
    assert policy.broken is None
    ruling = ruled(policy)
    assert (ruling.permitted, codes(ruling)) == (False, ["policy-error"])
    assert "test-forbids" in ruling.reasons[0].detail


def test_y33_a_permit_that_cannot_be_evaluated_denies_although_another_permits(tmp_path: Path) -> None:
    overflow = "context.hour + 9223372036854775807 > 0"
    text = f'@id("bad-sum") @reason("r") permit (principal, action, resource) when {{ {overflow} }};'
    ruling = ruled(policy_of(tmp_path, text))
    assert (ruling.permitted, codes(ruling)) == (False, ["policy-error"])


@pytest.mark.parametrize(
    ("by", "wish"),
    [
        (who("\ud800"), asked()),
        (who(environment="\udfff"), asked()),
        (who(), asked(intent="\ud800")),
        (who(), asked(ttl=timedelta.max)),
    ],
)
def test_y33_what_cedar_cannot_read_denies(by: VerifiedClaims, wish: GrantRequest, tmp_path: Path) -> None:
    policy = policy_of(
        tmp_path, forbid('when { principal.hasTag("environment") && principal.getTag("environment").contains("x") }')
    )
    ruling = ruled(policy, by=by, wish=wish)
    if ruling.permitted:  # a very long time is one Cedar can read
        assert wish.ttl == timedelta.max
    else:
        assert codes(ruling) == ["policy-error"]


def test_y33_an_address_that_cedar_does_not_know_denies() -> None:
    assert codes(ruled(shipped_policy(), address=parse_address("fe80::1%eth0"))) == ["policy-error"]


def test_y33_an_engine_that_fails_denies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(tmp_path, "")

    def broken(*_: object) -> None:
        raise RuntimeError("the engine is gone")

    monkeypatch.setattr("controlplane.policies.cedar.is_authorized", broken)
    assert codes(ruled(policy)) == ["policy-error"]


UNGUARDED = [
    'when { resource.sensitivity == "pii" }',
    'when { context.environment == "prod" }',
    'when { context.address.isInRange(ip("10.0.0.0/8")) }',
    'when { principal.getTag("environment").contains("prod") }',
    'when { resource.getTag("env") == "prod" }',
    'when { principal.person == "ann" }',
    'when { resource.risk == Risk::"hihg" }',
    'when { context.weekday == Weekday::"Sunday" }',
    "when { context.ttl > 600 }",
    "when { context.nothing }",
    'when { resource in Nobody::"knows" }',
    "unless { principal has subject && principal.subject == 7 }",
]


@pytest.mark.parametrize("clauses", UNGUARDED)
def test_y33_what_the_schema_does_not_guarantee_is_refused_before_it_can_fail(tmp_path: Path, clauses: str) -> None:
    policy = policy_of(tmp_path, forbid(clauses))
    assert codes(ruled(policy)) == ["policy-broken"]
    assert {problem.rule for problem in policy.policies.problems} <= {"invalid-policy", "not-cedar"}


@pytest.mark.parametrize(
    ("clauses", "changes"),
    [
        ('when { resource.risk == Risk::"low" }', {}),
        ('when { resource has sensitivity && resource.sensitivity == "pii" }', {"on": {"sensitivity": "pii"}}),
        ('when { resource.hasTag("env") && resource.getTag("env") == "prod" }', {"on": {"labels": {"env": "prod"}}}),
        ('when { resource.owner like "*@acme.example" && resource.name == "orders-read" }', {}),
        ('when { resource == Entitlement::"orders-read" }', {}),
        ('when { resource.engines.contains("database") && resource.intents.contains("answer-question") }', {}),
        ('when { resource.delivery == Delivery::"inline" }', {"on": {"delivery": "inline"}}),
        ("when { resource.quorum > 1 }", {"on": {"approval": {"quorum": 2, "from": ["group:oncall"]}}}),
        ('when { resource.max_ttl == duration("15m") }', {}),
        ('when { principal.issuer == "dev" && principal.subject like "repo:acme/agent:*" }', {}),
        (f'when {{ principal == Workload::"dev {AGENT}" }}', {}),
        ('when { principal has person && principal.person == "ann" }', {"by": who(person="ann")}),
        ('when { context.intent == "answer-question" && context.task == "T-1" && context.reason == "" }', {}),
        ('when { context.ttl == duration("5m") }', {}),
        ('when { context.ttl == duration("90s") }', {"wish": asked(ttl=timedelta(seconds=90))}),
        ('when { context.weekday == Weekday::"Mon" && context.hour == 12 }', {}),
        ('when { context.at == datetime("2026-01-05T12:30:00Z") }', {}),
        ('when { context.at.offset(duration("1h")).toTime() > duration("13h") }', {}),
        ('when { context has environment && context.environment == "dev" }', {"environment": "dev"}),
        (
            'when { context has address && context.address.isInRange(ip("10.0.0.0/8")) }',
            {"address": parse_address("10.1.2.3")},
        ),
        (
            'when { context has address && context.address.isInRange(ip("2001:db8::/32")) }',
            {"address": parse_address("2001:db8::1")},
        ),
    ],
)
def test_c7_a_policy_sees_the_whole_request(tmp_path: Path, clauses: str, changes: Mapping[str, Any]) -> None:
    policy = policy_of(tmp_path, forbid(clauses))
    assert policy.broken is None, policy.broken
    facts: dict[str, Any] = {**changes, "on": entitlement(**changes.get("on", {}))}
    assert ruled(policy, **facts).policies == ("test-forbids",)


@pytest.mark.parametrize(
    ("clauses", "changes"),
    [
        ("when { context has environment }", {}),
        ("when { context has address }", {}),
        ("when { principal has person }", {}),
        ("when { resource has sensitivity }", {}),
        ('when { context.intent == "other" }', {}),
        ('when { principal.issuer == "github" }', {}),
        ('when { context.weekday == Weekday::"Sun" }', {}),
    ],
)
def test_c7_and_nothing_that_is_not_there(tmp_path: Path, clauses: str, changes: Mapping[str, Any]) -> None:
    assert ruled(policy_of(tmp_path, forbid(clauses)), **changes).permitted


@pytest.mark.parametrize(
    ("claims", "tag", "texts"),
    [
        ({"environment": "prod"}, "environment", '["prod"]'),
        ({"groups": ["a", "b"]}, "groups", '["a", "b"]'),
        ({"kubernetes.io": {"namespace": "agents", "pod": {"name": "x"}}}, "kubernetes.io/namespace", '["agents"]'),
        ({"kubernetes.io": {"pod": {"name": "x"}}}, "kubernetes.io/pod/name", '["x"]'),
        ({"a/b": "own", "a": {"b": "within"}}, "a/b", '["own"]'),
        ({"a": {"b": "within"}, "a/b": "own"}, "a/b", '["own"]'),
        ({"number": 7, "fraction": 0.5}, "number", '["7"]'),
        ({"number": 7, "fraction": 0.5}, "fraction", '["0.5"]'),
        ({"yes": True}, "yes", '["true"]'),
        ({"mixed": ["a", 1, {"b": 2}, None]}, "mixed", '["a", "1", "{\\"b\\":2}", "null"]'),
        ({"empty": []}, "empty", "context.nothing"),
    ],
)
def test_a_claim_is_the_set_of_texts_it_holds(tmp_path: Path, claims: dict[str, Any], tag: str, texts: str) -> None:
    expected = f'principal.getTag("{tag}")' + (".isEmpty()" if texts == "context.nothing" else f" == {texts}")
    policy = policy_of(tmp_path, forbid(f'when {{ principal.hasTag("{tag}") && {expected} }}'))
    assert policy.broken is None, policy.broken
    assert not ruled(policy, by=who(**claims)).permitted
    assert ruled(policy, by=who()).permitted


def test_a_claim_that_is_null_is_not_there(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, forbid('when { principal.hasTag("environment") }'))
    assert ruled(policy, by=who(environment=None)).permitted
    assert not ruled(policy, by=who(environment="")).permitted


def test_a_policy_that_computes_the_name_of_a_claim_sees_them_all(tmp_path: Path) -> None:
    computed = "when { principal.hasTag(context.intent) && principal.getTag(context.intent).contains(context.task) }"
    policy = policy_of(tmp_path, forbid(computed))
    assert not ruled(policy, by=who(**{"answer-question": "T-1"})).permitted
    assert ruled(policy, by=who(**{"answer-question": "T-2"})).permitted


TAGS = st.sampled_from(["environment", "groups", "a/b", "answer-question"])
CLAIMS = st.dictionaries(TAGS, st.sampled_from(["prod", "dev", "T-1"]) | st.lists(st.sampled_from(["prod", "x"])))
CONDITIONS = st.sampled_from(
    [
        'principal.hasTag("environment") && principal.getTag("environment").contains("prod")',
        '!(principal.hasTag("groups"))',
        'principal.hasTag("a/b") && principal.getTag("a/b") == ["prod"]',
        "principal.hasTag(context.intent)",
        'principal.subject like "repo:acme/*"',
        'resource.risk == Risk::"high"',
        "resource has sensitivity",
        'context.ttl > duration("5m")',
        "context.hour >= 12",
        '[Weekday::"Sat", Weekday::"Sun"].contains(context.weekday)',
        "context has environment",
        'context has address && context.address.isInRange(ip("10.0.0.0/8"))',
        'context.intent == "answer-question"',
        "context.hour + 9223372036854775000 > 9223372036854775800",
    ]
)


def by(claims: dict[str, Any]) -> VerifiedClaims:
    return who(**claims)


def lasting(minutes: int) -> GrantRequest:
    return asked(ttl=timedelta(minutes=minutes))


def later(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


REQUESTS = st.fixed_dictionaries(
    {
        "by": st.builds(by, CLAIMS),
        "wish": st.builds(lasting, st.integers(1, 15)),
        "on": st.sampled_from([entitlement(), entitlement(risk="high"), entitlement(sensitivity="pii")]),
        "at": st.builds(later, st.integers(0, 60 * 24 * 14)),
        "environment": st.sampled_from([None, "prod", "dev"]),
        "address": st.sampled_from([None, parse_address("10.1.2.3"), parse_address("2001:db8::1")]),
    }
)


def written(tmp_path_factory: pytest.TempPathFactory, text: str) -> CedarPolicy:
    return policy_of(tmp_path_factory.mktemp("policies"), text)


@given(conditions=st.lists(CONDITIONS, min_size=1, max_size=4), request=REQUESTS)
def test_y34_one_forbid_more_never_allows_more(
    tmp_path_factory: pytest.TempPathFactory, conditions: list[str], request: dict[str, Any]
) -> None:
    texts = [forbid(f"when {{ {condition} }}", f"forbid-{number}") for number, condition in enumerate(conditions)]
    fewer = ruled(written(tmp_path_factory, "".join(texts[:-1])), **request)
    more = ruled(written(tmp_path_factory, "".join(texts)), **request)
    assert fewer.permitted or not more.permitted
    assert set(fewer.policies) <= set(more.policies) or fewer.permitted


@given(condition=CONDITIONS, request=REQUESTS)
def test_y34_one_permit_less_never_allows_more(
    tmp_path_factory: pytest.TempPathFactory, condition: str, request: dict[str, Any]
) -> None:
    permit = f'@id("test-permits") @reason("r") permit (principal, action, resource) when {{ {condition} }};'
    directory = tmp_path_factory.mktemp("policies")
    some = ruled(policy_of(directory / "some", {"own.cedar": permit}), **request)
    none = ruled(policy_of(directory / "none", {"own.cedar": ""}), **request)
    assert not none.permitted
    assert codes(none) == ["no-policy-permits"]
    assert not some.permitted or some.policies == ("test-permits",)


@given(condition=CONDITIONS, request=REQUESTS)
def test_y33_only_a_clean_yes_is_a_yes(
    tmp_path_factory: pytest.TempPathFactory, condition: str, request: dict[str, Any]
) -> None:
    ruling = ruled(written(tmp_path_factory, forbid(f"when {{ {condition} }}")), **request)
    assert ruling.reasons
    assert ruling.permitted == (codes(ruling) == ["policy-permits"])
    assert ruling.permitted == (ruling.policies == ("reviewed-entitlement",))


@given(
    subject=st.text(max_size=40),
    claims=st.dictionaries(
        st.text(max_size=10),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=4,
    ),
)
def test_y33_no_token_makes_the_decision_point_raise(
    tmp_path_factory: pytest.TempPathFactory, subject: str, claims: dict[str, Any]
) -> None:
    # A name that is computed makes every claim be read.
    policy = written(tmp_path_factory, forbid("when { principal.hasTag(context.task) && context.hour > 23 }"))
    by = VerifiedClaims(issuer=IssuerName("dev"), subject=subject, claims=claims, issued_at=NOON, expires_at=NOON)
    ruling = ruled(policy, by=by)
    assert ruling.permitted or codes(ruling) == ["policy-error"]
