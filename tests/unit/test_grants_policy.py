"""Policy within the whole decision: its place, its words in answer and audit, and what nobody learns (C7; P1, P12)."""

import re
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from controlplane.grants.decide import decide
from controlplane.http.explained import explained
from controlplane.model.decision import Decides, Decision, Deny, NeedsApproval, Ruling
from controlplane.model.entitlement import Entitlement
from controlplane.model.errors import DeniedError, OverBudgetError
from controlplane.model.event import Kind
from controlplane.model.grant import TaskId
from controlplane.model.identity import VerifiedClaims
from controlplane.model.request import GrantRequest
from controlplane.model.situation import Situation
from controlplane.policies.cedar import CedarPolicy
from controlplane.ports import Rule, Transaction
from controlplane.testing.entitlements import compiled_entitlement, entitlement
from controlplane.testing.plane import FakePlane
from controlplane.testing.policies import BASE, policy_of
from controlplane.testing.store import FakeStore

Http = Callable[..., httpx.Response]

NO = '@id("never-on-thursdays") @reason("nobody works on a Thursday") forbid (principal, action, resource);'


@pytest.fixture
def plane(tmp_path: Path) -> FakePlane:
    return FakePlane(compiled_entitlement(), policy=policy_of(tmp_path, NO))


def codes(decision: Decision) -> list[tuple[Decides, str]]:
    return [(why.decision, why.code) for why in decision.reasons]


def test_p1_c7_what_a_policy_forbids_touches_nothing_and_the_audit_log_names_the_policy(plane: FakePlane) -> None:
    with pytest.raises(DeniedError) as denied:
        plane.ask()
    assert plane.journal.steps == ["commit grant.refused"]
    (why,) = denied.value.reasons
    assert (why.decision, why.code) == (Decides.POLICY, "policy-forbids")
    assert why.detail == "never-on-thursdays: nobody works on a Thursday"
    (event,) = plane.events(Kind.GRANT_REFUSED)
    (told,) = cast("list[dict[str, str]]", event.body["reasons"])
    assert re.fullmatch(r"[0-9a-f]{8}", told.pop("revision"))
    assert told == {"decision": "policy", "code": "policy-forbids", "detail": why.detail}


def test_c7_a_workload_that_was_permitted_before_is_forbidden_once_its_token_says_otherwise(tmp_path: Path) -> None:
    tag = 'principal.hasTag("environment") && principal.getTag("environment").contains("prod")'
    only_prod = f'@id("only-prod") @reason("prod only") forbid (principal, action, resource) unless {{ {tag} }};'
    plane = FakePlane(compiled_entitlement(), policy=policy_of(tmp_path, only_prod))
    for environment, permitted in (("prod", True), ("test", False), ("prod", True), (None, False)):
        who = plane.agent(**({} if environment is None else {"environment": environment}))
        if permitted:
            plane.ask(who)
            continue
        with pytest.raises(DeniedError, match="not granted"):
            plane.ask(who)


def test_c7_the_audit_log_also_names_the_policy_that_permitted() -> None:
    plane = FakePlane(compiled_entitlement())
    grant = plane.ask().grant
    (event,) = plane.events(Kind.GRANT_ALLOWED, grant.id)
    reasons = event.body["reasons"]
    assert isinstance(reasons, list)
    (told,) = [cast("dict[str, str]", why) for why in reasons if cast("dict[str, str]", why)["decision"] == "policy"]
    assert re.fullmatch(r"[0-9a-f]{8}", told.pop("revision"))
    assert told == {
        "decision": "policy",
        "code": "policy-permits",
        "detail": "reviewed-entitlement: what the reviewed entitlement admits is permitted",
    }


def test_c7_the_answer_over_http_names_the_policy(plane: FakePlane, http: Http) -> None:
    answer = http(
        plane,
        "POST",
        "/v1/grants",
        json={"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"},
        headers={"Authorization": f"Bearer {plane.issuer.mint('repo:acme/agent:ref:refs/heads/main').reveal()}"},
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "denied")
    assert answer.json()["reasons"] == [
        {
            "decision": "policy",
            "code": "policy-forbids",
            "detail": "never-on-thursdays: nobody works on a Thursday",
        }
    ]


def test_c2_c6_every_no_is_told_at_once_in_the_order_of_the_decisions(tmp_path: Path) -> None:
    plane = FakePlane(
        compiled_entitlement(context={"environments": ["prod"]}), policy=policy_of(tmp_path, NO), environment="dev"
    )
    asked = GrantRequest(entitlement="orders-read", task=TaskId("T-1"), intent="other", ttl=timedelta(hours=1))
    explanation = plane.explain(plane.agent(), asked)
    assert codes(explanation.decision) == [
        (Decides.CONTEXT, "other-environment"),
        (Decides.SCOPE, "unknown-intent"),
        (Decides.SCOPE, "ttl-above-maximum"),
        (Decides.POLICY, "policy-forbids"),
    ]
    reasons = explained(explanation)["reasons"]
    assert isinstance(reasons, list)
    assert [why["decision"] for why in reasons if isinstance(why, dict)] == [
        "eligibility",
        "context",
        "scope",
        "scope",
        "policy",
    ]


def test_c2_no_policy_lets_a_stranger_in_and_none_is_even_asked() -> None:
    asked_of: list[str] = []

    def rule(entitlement: Entitlement, who: VerifiedClaims, asked: GrantRequest, situation: Situation) -> Ruling:
        del entitlement, asked, situation
        asked_of.append(who.subject)
        return Ruling(permitted=True, reasons=())

    plane = FakePlane(compiled_entitlement())
    stranger = plane.agent("mallory")
    wish = GrantRequest(entitlement="orders-read", task=TaskId("T-1"), intent="answer-question")
    decision = decide(entitlement(), stranger, wish, Situation(at=plane.clock.now()), rule)
    assert codes(decision) == [(Decides.ELIGIBILITY, "not-eligible")]
    assert asked_of == []


def test_p12_a_stranger_learns_nothing_of_policies(plane: FakePlane) -> None:
    stranger = plane.agent("mallory")
    wish = GrantRequest(entitlement="orders-read", task=TaskId("T-1"), intent="answer-question")
    there = plane.explain(stranger, wish)
    assert there == FakePlane().explain(stranger, wish)
    assert "thursday" not in str(there).casefold()


def test_c6_no_policy_widens_the_scope(tmp_path: Path) -> None:
    wide = '@id("open-to-all") @reason("r") permit (principal, action, resource) when { resource.quorum >= 0 };'
    plane = FakePlane(compiled_entitlement(), policy=policy_of(tmp_path, wide))
    wider: list[dict[str, Any]] = [{"intent": "other"}, {"ttl": timedelta(hours=1)}]
    for asked in wider:
        with pytest.raises(DeniedError) as denied:
            plane.ask(**asked)
        assert {why.decision for why in denied.value.reasons} == {Decides.SCOPE}


def test_c17_a_policy_that_permits_does_not_stand_for_an_approval_and_one_that_forbids_asks_nobody(
    tmp_path: Path,
) -> None:
    high: dict[str, Any] = {"risk": "high", "approval": {"quorum": 1, "from": ["group:oncall"]}}
    wish = GrantRequest(entitlement="orders-read", task=TaskId("T-1"), intent="answer-question")
    free, bound = FakePlane(compiled_entitlement(**high)), policy_of(tmp_path, NO)
    assert isinstance(free.explain(free.agent(), wish).decision, NeedsApproval)
    refusing = FakePlane(compiled_entitlement(**high), policy=bound)
    assert isinstance(refusing.explain(refusing.agent(), wish).decision, Deny)


def test_c22_what_a_policy_forbids_is_not_merely_over_budget(tmp_path: Path) -> None:
    never = 'when { context.task == "T-2" };'
    plane = FakePlane(
        compiled_entitlement(context={"max_active": {"total": 1}}),
        policy=policy_of(tmp_path, NO.removesuffix(";") + never),
    )
    plane.ask()
    with pytest.raises(OverBudgetError):
        plane.ask()
    with pytest.raises(DeniedError) as denied:
        plane.ask(task=TaskId("T-2"))
    assert not isinstance(denied.value, OverBudgetError)
    assert [why.code for why in denied.value.reasons] == ["over-max-active-total", "policy-forbids"]


class OneWriter:
    """The store, and whether somebody is in its transaction, where every other writer waits for him."""

    def __init__(self, store: FakeStore) -> None:
        self._store, self.busy = store, False

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    @contextmanager
    def transaction(self) -> Generator[Transaction]:
        with self._store.transaction() as tx:
            self.busy = True
            try:
                yield tx
            finally:
                self.busy = False


@pytest.mark.parametrize("asking", ["request", "explain", "collect"])
def test_p4_y33_policies_are_read_before_the_transaction_so_that_no_end_of_access_waits_for_it(asking: str) -> None:
    read: list[bool] = []

    class Reading:
        def now(self) -> Rule:
            read.append(store.busy)
            return judged

    def judged(entitlement: Entitlement, who: VerifiedClaims, asked: GrantRequest, situation: Situation) -> Ruling:
        del entitlement, who, asked, situation
        assert store.busy  # decided within: requests that race exceed no budget
        return Ruling(permitted=True, reasons=())

    high: dict[str, Any] = {"risk": "high", "approval": {"quorum": 1, "from": ["group:oncall"], "within": "30m"}}
    plane = FakePlane(compiled_entitlement(), compiled_entitlement(entitlement="refunds", **high))
    waiting = plane.ask(entitlement="refunds").grant
    wanted = plane.watch.asked(waiting)
    assert wanted is not None
    plane.approve(plane.agent("ann", role="approver", groups=["oncall"]), waiting.id, digest=wanted.digest)
    store = OneWriter(plane.store)
    parts: dict[str, Any] = {"store": store, "policy": Reading()}
    wish = GrantRequest(entitlement="orders-read", task=TaskId("T-2"), intent="answer-question")
    asks: dict[str, Callable[[], object]] = {
        "request": lambda: replace(plane.request, **parts)(plane.agent(), wish),
        "explain": lambda: replace(plane.explain, **parts)(plane.agent(), wish),
        "collect": lambda: replace(plane.collect, **parts)(plane.agent(), waiting.id),
    }
    asks[asking]()
    assert read == [False]


def test_c7_a_rule_holds_as_it_was_read_whatever_happens_to_the_files(tmp_path: Path) -> None:
    now = [0.0]
    policy_of(tmp_path, {"guardrails.cedar": BASE})
    policy = CedarPolicy(tmp_path, monotonic=lambda: now[0])
    plane = FakePlane()
    rule = policy.now()
    shutil.rmtree(tmp_path)
    now[0] += 1
    wish = GrantRequest(entitlement="orders-read", task=TaskId("T-1"), intent="answer-question")
    facts = (entitlement(), plane.agent(), wish, Situation(at=plane.clock.now()))
    assert rule(*facts).permitted
    assert not policy.now()(*facts).permitted


def test_broken_policies_grant_nothing_and_say_so(tmp_path: Path) -> None:
    plane = FakePlane(compiled_entitlement(), policy=policy_of(tmp_path, "forbid (principal"))
    with pytest.raises(DeniedError) as denied:
        plane.ask()
    assert [why.code for why in denied.value.reasons] == ["policy-broken"]
    assert plane.alive() == []
