"""Whom an entitlement trusts: patterns of too many, claims nobody looks at, groups nobody is in (C2, C4)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from controlplane.engines import engines
from controlplane.issuers.trust.known import known
from controlplane.keys.files import load_or_create
from controlplane.model.access import AccessRule, Role
from controlplane.model.errors import ConfigurationError
from controlplane.model.identity import IssuerName
from controlplane.model.plan import ObjectKind
from controlplane.settings import AccessSettings, Settings, VaultIdentity, VaultSettings, load
from controlplane.sync.catalog import Catalog
from controlplane.sync.problem import Problem, Severity
from controlplane.sync.review import review
from controlplane.testing.clock import FakeClock
from controlplane.testing.entitlements import LAYOUT, compiled_entitlement
from controlplane.wiring.plane import wire

ISSUERS: list[dict[str, Any]] = [
    {"name": "dev", "url": "https://idp.example"},
    {"name": "few", "url": "https://few.example", "claims": ["team", "deep/er"]},
    {"name": "github", "kind": "github"},
    {"name": "ours", "kind": "github", "url": "https://ghes.example/_services/token"},
    {"name": "cluster", "kind": "kubernetes", "url": "https://kubernetes.default.svc"},
    {"name": "gitlab", "kind": "gitlab"},
    {"name": "mesh", "kind": "spiffe", "url": "spiffe://acme.example", "jwks_file": "bundle.json"},
]
APPROVERS = AccessRule(
    issuer=IssuerName("dev"), roles=frozenset({Role.APPROVER}), claims={"team": "billing"}, groups="groups"
)
DOCUMENT = """\
entitlement: orders-read
owner: team-sales@acme.example
purpose: Read orders.
intents: [answer-question]
risk: {risk}
eligibility:
  - {entry}
scopes:
  - {{name: orders, engine: database, connection: orders, privileges: [select on table sales.orders]}}
ttl: {{default: 5m, max: 15m}}
{more}
"""


def configured(**changes: Any) -> Settings:
    given = [{"audiences": ["shorthold"], **one, **changes.get(one["name"], {})} for one in ISSUERS]
    return load(issuers=given)


def reviewed(
    directory: Path,
    entry: str,
    *,
    risk: str = "low",
    more: str = "",
    at_hand: bool = True,
    access: Sequence[AccessRule] = (APPROVERS,),
    **changes: Any,
) -> Sequence[Problem]:
    text = DOCUMENT.format(risk=risk, entry=entry, more=more)
    (directory / "orders-read.yaml").write_text(text, encoding="utf-8")
    issuers = known(configured(**changes).issuers) if at_hand else None
    today = FakeClock().now().date()
    return review(
        directory, LAYOUT, engines(), today=today, issuers=issuers, access=access if at_hand else None
    ).problems


def rules(problems: Sequence[Problem]) -> list[tuple[str, int, Severity]]:
    return [(problem.rule, problem.line, problem.severity) for problem in problems]


HIGH: dict[str, Any] = {"risk": "high", "more": 'approval: {quorum: 1, from: ["group:oncall"]}'}


@pytest.mark.parametrize(
    "glob",
    ["*-agent", "*agent:x", "*/agent", "repo:acme/*", "repo:acme/*:ref:refs/heads/main", "repo:*/agent:ref:x", "*:a"],
)
def test_y22_at_tier_high_no_pattern_begins_or_is_whole_with_a_star(tmp_path: Path, glob: str) -> None:
    found = reviewed(tmp_path, f'{{issuer: dev, subject: {{glob: "{glob}"}}}}', **HIGH)
    assert ("glob-too-wide", 7, Severity.ERROR) in rules(found)


def test_y22_at_tier_high_a_pattern_may_end_in_a_star(tmp_path: Path) -> None:
    entry = '{issuer: cluster, subject: {glob: "system:serviceaccount:agents:refund-*"}}'
    assert reviewed(tmp_path, entry, **HIGH) == ()


def test_y22_an_entry_without_a_subject_is_no_entry(tmp_path: Path) -> None:
    (problem,) = reviewed(tmp_path, "{issuer: dev, claims: {team: billing}}")
    assert (problem.line, problem.severity) == (7, Severity.ERROR)
    assert "missing" in problem.message


@pytest.mark.parametrize(
    "glob",
    [
        "repo:*/*",
        "repo:*/*:ref:refs/heads/main",
        "repo:*/*:environment:*",
        "system:serviceaccount:*:*",
        "system:serviceaccount:**:*",
        "spiffe://*/*/*",
        "project_path:*/*:ref_type:branch:ref:main",
        "https://*/*",
    ],
)
def test_c4_a_pattern_that_matches_every_workload_of_its_issuer_is_an_error(tmp_path: Path, glob: str) -> None:
    entry = f'{{issuer: cluster, subject: {{glob: "{glob}"}}}}'
    assert ("glob-of-everybody", 7, Severity.ERROR) in rules(reviewed(tmp_path, entry, at_hand=False))
    narrowed = entry.removesuffix("}") + ", claims: {kubernetes.io/namespace: agents}}"
    assert "glob-of-everybody" not in {rule for rule, _, _ in rules(reviewed(tmp_path, narrowed))}
    still = entry.removesuffix("}") + ', claims: {kubernetes.io/namespace: {glob: "a*"}}}'
    assert [rule for rule, _, _ in rules(reviewed(tmp_path, still))] == ["glob-of-everybody"]


@pytest.mark.parametrize("glob", ["**", "*:*", "*/*", ":", "*"])
def test_c4_a_pattern_of_nothing_but_stars_is_not_even_read(tmp_path: Path, glob: str) -> None:
    (problem,) = reviewed(tmp_path, f'{{issuer: dev, subject: {{glob: "{glob}"}}}}', at_hand=False)
    assert "literal text" in problem.message


def test_a_pattern_that_says_something_is_not_everybody(tmp_path: Path) -> None:
    for glob in ("system:serviceaccount:agents:*", "system:serviceaccount:*:refund", "agent-*", "repo:acme/*:ref:x"):
        found = rules(reviewed(tmp_path, f'{{issuer: cluster, subject: {{glob: "{glob}"}}}}'))
        assert "glob-of-everybody" not in {rule for rule, _, _ in found}


@pytest.mark.parametrize(("issuer", "glob"), [("github", "repo:acme*/agent:*"), ("gitlab", "project_path:*/agent:x")])
def test_c2_where_anybody_may_have_an_account_the_owner_is_no_pattern(tmp_path: Path, issuer: str, glob: str) -> None:
    entry = f'{{issuer: {issuer}, subject: {{glob: "{glob}"}}}}'

    def found(entry: str, **more: Any) -> bool:
        return "glob-of-strangers" in {rule for rule, _, _ in rules(reviewed(tmp_path, entry, **more))}

    assert rules(reviewed(tmp_path, entry)) == [("glob-of-strangers", 7, Severity.ERROR)]  # and nothing narrower
    assert not found(entry, github={"owner_ids": ["1"]}, gitlab={"namespace_ids": ["1"]})
    assert not found(entry.replace(f"issuer: {issuer}", "issuer: ours"))  # only our own people are there
    assert not found(entry, at_hand=False)
    assert not found(f'{{issuer: {issuer}, subject: {{glob: "{glob.replace("*/", "acme/", 1)}"}}}}')


@pytest.mark.parametrize(
    ("issuer", "claim", "why"),
    [
        ("github", "workflow", "a display name"),
        ("github", "enviroment", "no such claim"),
        ("cluster", "kubernetes.io/warnafter", "kubelet"),
        ("cluster", "kubernetes.io/pod/nam", "no such claim"),
        ("mesh", "iss", "which"),
        ("few", "groups", "do not name it"),
        ("few", "deep", "do not name it"),
        ("dev", "nonce", "log-in"),
        ("dev", "nonce/x", "log-in"),
    ],
)
def test_c4_a_claim_that_nobody_looks_at_is_found(tmp_path: Path, issuer: str, claim: str, why: str) -> None:
    entry = f"{{issuer: {issuer}, subject: agent, claims: {{team: billing, {claim}: x}}}}"
    told = f"nothing can be selected by {claim}: "
    found = [problem for problem in reviewed(tmp_path, entry) if problem.message.startswith(told)]
    assert rules(found) == [("unselectable-claim", 7, Severity.WARNING)]
    assert why in found[0].message
    assert reviewed(tmp_path, entry, at_hand=False) == ()


@pytest.mark.parametrize(
    ("issuer", "claim"),
    [
        ("github", "environment"),
        ("cluster", "kubernetes.io/pod/uid"),
        ("few", "deep/er"),
        ("few", "team/x"),
        ("dev", "any/thing"),
    ],
)
def test_a_claim_that_is_looked_at_is_nothing_to_find(tmp_path: Path, issuer: str, claim: str) -> None:
    assert reviewed(tmp_path, f"{{issuer: {issuer}, subject: agent, claims: {{{claim}: x}}}}") == ()


def test_c4_an_issuer_that_the_settings_do_not_have_is_found(tmp_path: Path) -> None:
    assert rules(reviewed(tmp_path, "{issuer: nowhere, subject: agent}")) == [("unknown-issuer", 7, Severity.WARNING)]


@pytest.mark.parametrize(
    "access",
    [
        [],
        [AccessRule(issuer=IssuerName("dev"), roles=frozenset({Role.APPROVER}), subject="ann")],
        [AccessRule(issuer=IssuerName("dev"), roles=frozenset({Role.AUDITOR}), subject="ann", groups="groups")],
        [
            AccessRule(issuer=IssuerName("dev"), roles=frozenset({Role.APPROVER}), subject="ann"),
            AccessRule(issuer=IssuerName("few"), roles=frozenset({Role.AUDITOR}), subject="ann", groups="team"),
        ],
        [AccessRule(issuer=IssuerName("few"), roles=frozenset({Role.APPROVER}), subject="ann", groups="groups")],
    ],
    ids=["no rule", "no groups", "no approver", "of two issuers", "a claim that nobody looks at"],
)
def test_y24_a_group_that_nobody_can_be_in_is_found(tmp_path: Path, access: list[AccessRule]) -> None:
    entry = "{issuer: dev, subject: agent}"
    assert rules(reviewed(tmp_path, entry, access=access, **HIGH)) == [("nobody-to-approve", 11, Severity.WARNING)]
    assert reviewed(tmp_path, entry, at_hand=False, **HIGH) == ()


def test_groups_and_role_may_come_by_two_rules_of_one_issuer(tmp_path: Path) -> None:
    access = [
        AccessRule(issuer=IssuerName("dev"), roles=frozenset({Role.APPROVER}), subject="ann"),
        AccessRule(issuer=IssuerName("dev"), roles=frozenset({Role.AUDITOR}), claims={"team": "x"}, groups="groups"),
    ]
    assert reviewed(tmp_path, "{issuer: dev, subject: agent}", access=access, **HIGH) == ()


def test_y21_what_is_compiled_is_bound_to_the_workload_and_never_to_an_audience_alone() -> None:
    for subject in ("agent", {"glob": "agent-*"}):
        compiled = compiled_entitlement(eligibility=[{"issuer": "dev", "subject": subject}])
        (role,) = (item.data for item in compiled.objects if item.kind is ObjectKind.JWT_ROLE)
        assert (role["token_type"], role["token_period"], role["token_no_default_policy"]) == ("service", 0, True)
        assert role["token_policies"] == [compiled.naming.base]
        assert role["bound_audiences"] == [LAYOUT.audience]
        assert role["user_claim"] == "sub"  # ours, which is a digest: nothing that a stranger wrote
        claims = role["bound_claims"]
        assert isinstance(claims, dict)
        assert claims["workload"]


def test_what_is_wrong_with_the_files_is_logged_once_by_whoever_grants_from_them(tmp_path: Path) -> None:
    text = DOCUMENT.format(risk="low", entry="{issuer: nowhere, subject: agent}", more="")
    (tmp_path / "orders-read.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "broken.yaml").write_text("entitlement: broken\n", encoding="utf-8")
    seconds = iter(range(0, 100, 2))
    catalog = Catalog(
        tmp_path, LAYOUT, FakeClock(), issuers=known(configured().issuers), monotonic=lambda: float(next(seconds))
    )
    with capture_logs() as logged:
        assert [item.entitlement.name for item in catalog.all()] == ["orders-read"]
        told = [(line["event"], line["log_level"], line["place"], line["rule"]) for line in logged]
        assert ("entitlement_doubtful", "warning", "orders-read.yaml:7:14", "unknown-issuer") in told
        assert ("entitlement_left_out", "error") in {line[:2] for line in told}
        catalog.all()
        assert len(logged) == len(told)


@pytest.mark.parametrize("rule", [{"claims": {"nonce": "x"}}, {"subject": "ann", "groups": "nonce"}])
def test_an_access_rule_by_a_claim_that_nobody_looks_at_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    load_or_create(tmp_path / "broker.pem")
    settings = Settings(
        vault=VaultSettings(broker=VaultIdentity(mount="b", role="broker", key_file=tmp_path / "broker.pem")),
        issuers=configured().issuers[:1],
        access=(AccessSettings(issuer="dev", roles=(Role.APPROVER,), **rule),),
    )
    with pytest.raises(ConfigurationError, match="access selects by nonce of the issuer dev"):
        wire(settings)


@pytest.mark.parametrize(
    ("rule", "glob", "pin"),
    [
        ("any-branch", "repo:acme/agent:ref:refs/heads/*", {"environment": "prod"}),
        ("any-branch", "repo:acme/agent:ref:refs/heads/*/*", {"ref": "refs/heads/main"}),
        ("any-branch", "project_path:acme/agent:ref_type:branch:ref:*", {"ref_protected": "true"}),
        ("any-owner", "repo:*/agent:ref:refs/heads/main", {"repository_owner_id": "4711"}),
        ("any-namespace", "system:serviceaccount:*:agent", {"kubernetes.io/namespace": "agents"}),
        ("any-namespace", "spiffe://acme.example/ns/*/sa/agent", {"kubernetes.io/namespace": "agents"}),
        ("pull-request-subject", "repo:acme/agent:*", None),
        ("pull-request-subject", "repo:acme/*:pull_request", None),
    ],
)
def test_c2_a_subject_that_others_can_make_their_own_is_found_and_weighs_more_above_tier_low(
    tmp_path: Path, rule: str, glob: str, pin: dict[str, str] | None
) -> None:
    def found(glob: str, claims: str = "", **more: Any) -> list[Severity]:
        entry = f'{{issuer: dev, subject: {{glob: "{glob}"}}{claims}}}'
        return [which.severity for which in reviewed(tmp_path, entry, **more) if which.rule == rule]

    assert found(glob) == [Severity.WARNING]
    assert found(glob, risk="medium") == [Severity.ERROR]
    assert found(glob, ", claims: {team: x}") == [Severity.WARNING]
    if pin is not None:
        assert found(glob, f", claims: {pin}") == []
        assert found(glob, f", claims: { ({path: {'glob': 'a*'} for path in pin}) }") == [Severity.WARNING]
    excepted = f"exceptions:\n  - {{rule: {rule}, owner: x, reason: y, expires: 2026-03-01}}"
    assert found(glob, risk="medium", more=excepted) == []


@pytest.mark.parametrize(
    "subject", ["repo:acme/agent:ref:refs/heads/main", "repo:acme/agent:environment:prod", "agent:pull_request"]
)
def test_a_subject_that_names_what_was_reviewed_is_fine(tmp_path: Path, subject: str) -> None:
    assert reviewed(tmp_path, f'{{issuer: dev, subject: "{subject}"}}') == ()


@pytest.mark.parametrize(
    ("approver", "reachable"),
    [("subject:dev/ann", True), ("subject:dev/eve", False), ("subject:nowhere/ann", False), ("subject:few/x", True)],
)
def test_y24_a_person_whom_no_rule_makes_an_approver_is_found(tmp_path: Path, approver: str, reachable: bool) -> None:
    access = [
        AccessRule(issuer=IssuerName("dev"), roles=frozenset({Role.APPROVER}), subject="ann"),
        AccessRule(issuer=IssuerName("few"), roles=frozenset({Role.APPROVER}), claims={"team": "x"}),
        AccessRule(issuer=IssuerName("dev"), roles=frozenset({Role.AUDITOR}), subject="eve"),
    ]
    more = f'approval: {{quorum: 1, from: ["{approver}"]}}'
    found = rules(reviewed(tmp_path, "{issuer: dev, subject: agent}", risk="high", more=more, access=access))
    assert found == ([] if reachable else [("nobody-to-approve", 11, Severity.WARNING)])
