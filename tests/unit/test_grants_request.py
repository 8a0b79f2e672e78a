"""Asking for a grant: nothing exists before every decision says yes, and one key makes one grant (P1, P6, A02, A15)."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from typing_extensions import override

from controlplane.model.decision import Decides
from controlplane.model.errors import (
    ConflictError,
    DeniedError,
    LostRaceError,
    OverBudgetError,
    StoreUnavailableError,
)
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State, TaskId, Why
from controlplane.model.identity import WorkloadId
from controlplane.model.request import GrantRequest
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, ISSUING_WITHIN, SETTLING, FakePlane
from controlplane.testing.store import FakeStore

STRANGER = "repo:mallory/fork:ref:refs/heads/main"
APPROVED_FIRST: dict[str, Any] = {
    "risk": "high",
    "approval": {"quorum": 1, "from": ["group:billing-oncall"], "within": "30m"},
}


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement())


@pytest.mark.parametrize(
    ("subject", "asked", "changes", "said"),
    [
        (STRANGER, {}, {}, [(Decides.ELIGIBILITY, "not-eligible")]),
        (AGENT, {"entitlement": "no-such-thing"}, {}, [(Decides.ELIGIBILITY, "not-eligible")]),
        (AGENT, {"intent": "drop-tables"}, {}, [(Decides.SCOPE, "unknown-intent")]),
        (AGENT, {"ttl": timedelta(hours=1)}, {}, [(Decides.SCOPE, "ttl-above-maximum")]),
        (AGENT, {"ttl": timedelta(seconds=1)}, {}, [(Decides.SCOPE, "ttl-below-minimum")]),
        (AGENT, {}, {"context": {"networks": ["10.0.0.0/8"]}}, [(Decides.CONTEXT, "address-unknown")]),
        (AGENT, {"intent": "drop-tables"}, APPROVED_FIRST, [(Decides.SCOPE, "unknown-intent")]),
    ],
)
def test_a_denied_request_leaves_a_refusal_in_the_audit_log_and_nothing_else_anywhere(
    subject: str, asked: dict[str, Any], changes: dict[str, Any], said: list[tuple[Decides, str]]
) -> None:
    plane = FakePlane(compiled_entitlement(**changes))
    with pytest.raises(DeniedError) as denied:
        plane.ask(plane.agent(subject), **asked)
    assert [(why.decision, why.code) for why in denied.value.reasons] == said
    assert plane.journal.steps == ["commit grant.refused"]  # no signature, no login, no look-up
    assert plane.alive() == []
    assert plane.store.grants() == []
    (refused,) = plane.events()
    assert refused.body["subject"] == subject
    assert refused.body["reasons"] == [
        {"decision": why.decision, "code": why.code, "detail": why.detail} for why in denied.value.reasons
    ]


def test_what_needs_approval_waits_without_a_call_to_vault_and_lapses_by_itself() -> None:
    plane = FakePlane(compiled_entitlement(**APPROVED_FIRST))
    asked = plane.ask()
    assert asked.grant.state is State.PENDING
    assert (asked.wrapping_token, asked.credentials, asked.leases) == (None, {}, ())
    assert plane.journal.steps == ["commit grant.requested"]
    plane.wait(timedelta(minutes=30))
    plane.work()
    lapsed = plane.grant(asked.grant.id)
    assert (lapsed.state, lapsed.why, lapsed.due_at) == (State.LAPSED, Why.EXPIRED, None)
    assert plane.journal.steps == ["commit grant.requested", "commit grant.lapsed"]


def test_a_pending_grant_does_not_lapse_before_its_time() -> None:
    plane = FakePlane(compiled_entitlement(**APPROVED_FIRST))
    asked = plane.ask()
    plane.wait(timedelta(minutes=30) - timedelta(seconds=1))
    assert plane.grant(asked.grant.id).state is State.PENDING


def test_without_a_store_nothing_is_asked_of_vault(plane: FakePlane) -> None:
    who = plane.agent()
    plane.journal.before["commit grant.allowed"] = _store_fails
    with pytest.raises(StoreUnavailableError):
        plane.ask(who)
    assert plane.journal.steps == []
    assert plane.store.grants() == []


def test_the_wish_is_on_disk_with_its_reasons_and_deadlines_before_anything_is_signed(plane: FakePlane) -> None:
    seen: list[Grant] = []
    plane.journal.before["signer.sign"] = lambda: seen.append(plane.newest())
    plane.ask(reason="who ordered?", ttl=timedelta(minutes=2))
    (grant,) = seen
    now = plane.clock.now()
    assert (grant.state, grant.version, grant.accessor) == (State.ISSUING, 1, None)
    assert (grant.requested_at, grant.expires_at) == (now, now + timedelta(minutes=2))
    assert (grant.due_at, grant.settles_at) == (now + ISSUING_WITHIN, now + SETTLING)
    (allowed,) = plane.events(Kind.GRANT_ALLOWED, grant.id)
    assert allowed.body["reason"] == "who ordered?"
    assert allowed.body["revision"] == grant.revision
    reasons = allowed.body["reasons"]
    assert isinstance(reasons, list)
    assert len(reasons) == len(list(Decides)) - 1  # freeze has nothing to say yet


def test_the_same_key_and_request_again_tells_of_the_first_grant_and_makes_nothing(plane: FakePlane) -> None:
    first = plane.ask(key="k-1")
    steps = list(plane.journal.steps)
    again = plane.ask(key="k-1")
    assert again.grant.id == first.grant.id
    assert again.leases == first.leases
    assert (again.wrapping_token, again.credentials) == (None, {})
    assert plane.journal.steps == steps


@pytest.mark.parametrize(
    "other",
    [
        {"task": "T-2"},
        {"intent": "prepare-report"},
        {"reason": "another"},
        {"ttl": timedelta(minutes=1)},
        {"entitlement": "no-such-thing"},
    ],
)
def test_the_same_key_for_another_request_is_refused_and_makes_nothing(plane: FakePlane, other: dict[str, Any]) -> None:
    plane.ask(key="k-1")
    steps = list(plane.journal.steps)
    with pytest.raises(ConflictError):
        plane.ask(key="k-1", **other)
    assert plane.journal.steps == steps


def test_the_key_of_another_workload_is_another_key() -> None:
    plane = FakePlane(compiled_entitlement(eligibility=[{"issuer": "dev", "subject": {"glob": "agent-*"}}]))
    mine = plane.ask(plane.agent("agent-1"), key="k-1")
    yours = plane.ask(plane.agent("agent-2"), key="k-1", task="T-2")
    assert mine.grant.id != yours.grant.id
    assert yours.wrapping_token is not None


def test_a_key_is_used_up_even_when_issuing_failed(plane: FakePlane) -> None:
    plane.vault.faults.sealed = True
    with pytest.raises(Exception, match="sealed"):
        plane.ask(key="k-1")
    plane.vault.faults.sealed = False
    again = plane.ask(key="k-1")
    assert again.grant.state is State.REVOKING  # the id is burnt: what it may have made is being ended
    assert again.wrapping_token is None


def test_two_requests_with_one_key_that_cross_make_one_grant() -> None:
    store = _Crossing()
    plane = FakePlane(compiled_entitlement(), store=store)
    who = plane.agent()
    store.between = lambda: plane.ask(who, key="k-1")
    second = plane.ask(who, key="k-1")
    assert [grant.id for grant in store.grants()] == [second.grant.id]
    assert plane.journal.steps.count("logins.login") == 1
    assert second.wrapping_token is None  # the one that came first has it


def test_two_different_requests_with_one_key_that_cross_make_one_grant_and_one_refusal() -> None:
    store = _Crossing()
    plane = FakePlane(compiled_entitlement(), store=store)
    who = plane.agent()
    store.between = lambda: plane.ask(who, key="k-1", task="T-9")
    with pytest.raises(ConflictError):
        plane.ask(who, key="k-1")
    assert [grant.task for grant in store.grants()] == ["T-9"]
    assert plane.journal.steps.count("logins.login") == 1


ONE_AT_A_TIME: list[dict[str, Any]] = [
    {"max_requests": {"per_subject": "1/h"}},
    {"max_active": {"per_subject": 1}},
    {"max_active": {"total": 1}},
]


@pytest.mark.parametrize("budget", ONE_AT_A_TIME)
def test_a_request_whose_twin_used_the_budget_up_is_told_of_the_twin_s_grant(budget: dict[str, Any]) -> None:  # A15
    store = _Crossing()
    plane = FakePlane(compiled_entitlement(context=budget), store=store)
    who = plane.agent()
    store.between = lambda: plane.ask(who, key="k-1")
    second = plane.ask(who, key="k-1")
    assert [grant.id for grant in store.grants()] == [second.grant.id]
    assert plane.events(Kind.GRANT_REFUSED) == []


@pytest.mark.parametrize("budget", ONE_AT_A_TIME)
def test_over_budget_another_request_with_a_twin_s_key_is_a_conflict_and_one_without_is_refused(
    budget: dict[str, Any],
) -> None:  # A15
    store = _Crossing()
    plane = FakePlane(compiled_entitlement(context=budget), store=store)
    who = plane.agent()
    store.between = lambda: plane.ask(who, key="k-1", task="T-9")
    with pytest.raises(ConflictError):
        plane.ask(who, key="k-1")
    with pytest.raises(OverBudgetError):
        plane.ask(key="k-2")
    assert len(plane.events(Kind.GRANT_REFUSED)) == 1
    assert len(store.grants()) == 1


def test_sixteen_requests_with_one_key_at_once_make_one_grant(plane: FakePlane) -> None:
    who, ready = plane.agent(), threading.Barrier(16)
    told: list[GrantId] = []

    def ask() -> None:
        ready.wait(60)
        told.append(plane.ask(who, key="k-1").grant.id)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(told) == 16
    assert len(set(told)) == 1
    assert plane.journal.steps.count("logins.login") == 1
    assert len(plane.events(Kind.GRANT_ALLOWED)) == 1


def test_a_race_that_no_key_explains_is_told_and_makes_nothing(plane: FakePlane) -> None:
    plane.ask()
    request = replace(plane.request, ids=_Repeating(plane.newest().id))
    asked = GrantRequest(entitlement="orders-read", task=TaskId("T-2"), intent="answer-question")
    with pytest.raises(LostRaceError):
        request(plane.agent(), asked, key="k-1")
    assert plane.journal.steps.count("logins.login") == 1


def test_a_request_never_names_what_only_vault_and_the_entitlement_decide() -> None:
    named = {"entitlement", "task", "intent", "reason", "ttl", "parent", "parameters"}
    assert set(GrantRequest.__dataclass_fields__) == named


@dataclass
class _Repeating:
    id: str

    def new(self, prefix: str) -> str:
        del prefix
        return self.id


class _Crossing(FakeStore):
    """A store in which, right after one workload's key was looked up in vain, something else happens."""

    between: Callable[[], object] | None = None

    @override
    def asked_before(self, workload: WorkloadId, key: str) -> Grant | None:
        found = super().asked_before(workload, key)
        between, self.between = self.between, None
        if between is not None:
            between()
        return found


def _store_fails() -> None:
    raise StoreUnavailableError("the disk is full")
