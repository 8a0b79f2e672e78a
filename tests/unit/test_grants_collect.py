"""Collecting: once, by its own workload, what was approved as it was approved (C16, C18, A09, A11, G14, P1)."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controlplane.model.access import Role, Standing
from controlplane.model.approval import Narrowing
from controlplane.model.decision import Decides
from controlplane.model.errors import (
    AlreadyApprovedError,
    DeniedError,
    FrozenError,
    IllegalTransitionError,
    LapsedError,
    LostRaceError,
    NotApprovedYetError,
    NotFoundError,
    OverBudgetError,
    VaultUnavailableError,
)
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State, TaskId, Why
from controlplane.model.identity import VerifiedClaims
from controlplane.model.plan import Compiled
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane

ONCALL: dict[str, Any] = {"quorum": 1, "from": ["group:oncall"], "within": "30m"}
SCOPES = [
    {"name": "orders", "engine": "database", "connection": "orders", "privileges": ["select on table sales.orders"]},
    {"name": "lines", "engine": "database", "connection": "orders", "privileges": ["select on table sales.lines"]},
]
MINUTE = timedelta(minutes=1)


def made(approval: dict[str, Any] = ONCALL, **changes: Any) -> FakePlane:
    return FakePlane(compiled(approval, **changes))


def compiled(approval: dict[str, Any] = ONCALL, **changes: Any) -> Compiled:
    plain: dict[str, Any] = {"risk": "high", "approval": approval, "scopes": SCOPES}
    return compiled_entitlement(**plain | changes)


@pytest.fixture
def plane() -> FakePlane:
    return made()


def person(plane: FakePlane, name: str = "ann") -> VerifiedClaims:
    return plane.agent(name, role="approver", groups=["oncall"])


def agree(plane: FakePlane, id: GrantId, name: str = "ann", **narrow: Any) -> Grant:
    asked = plane.watch.asked(plane.grant(id))
    assert asked is not None
    return plane.approve(person(plane, name), id, digest=asked.digest, narrow=Narrowing(**narrow))


def approved(plane: FakePlane, **asked: Any) -> GrantId:
    id = plane.ask(**asked).grant.id
    agree(plane, id)
    return id


def test_c18_what_was_approved_is_issued_when_it_is_collected_and_not_before(plane: FakePlane) -> None:
    id = approved(plane)
    plane.clock.advance(20 * MINUTE)
    assert plane.alive() == []
    plane.journal.steps.clear()
    delivered = plane.collect(plane.agent(), id)
    assert plane.journal.steps[:3] == ["commit grant.allowed", "signer.sign", "logins.login"]
    assert delivered.wrapping_token is not None
    assert (delivered.grant.id, delivered.grant.state) == (id, State.ACTIVE)
    assert delivered.grant.expires_at == plane.clock.now() + timedelta(minutes=5)
    assert [why.code for why in delivered.reasons if why.decision is Decides.APPROVAL] == ["approved"]
    (event,) = plane.events(Kind.GRANT_ALLOWED, id)
    assert event.body["digest"] == plane.store.approvals(id)[0].digest
    assert plane.end(id).state is State.REVOKED
    assert plane.alive() == []


def test_c17_the_narrowed_form_is_what_is_issued(plane: FakePlane) -> None:
    id = plane.ask(ttl=10 * MINUTE).grant.id
    agree(plane, id, ttl=2 * MINUTE, scopes=("lines",))
    delivered = plane.collect(plane.agent(), id)
    (lease,) = delivered.leases
    assert (lease.scope, delivered.grant.ttl) == ("lines", 2 * MINUTE)
    assert delivered.grant.expires_at == plane.clock.now() + 2 * MINUTE
    assert len(delivered.grant.paths) == 1
    (token,) = plane.vault.logins.accessors_of(id)
    facts = plane.vault.logins.facts(token)
    assert facts is not None
    assert facts.ttl <= 2 * MINUTE
    plane.wait(3 * MINUTE)
    assert plane.grant(id).state is State.REVOKED
    assert plane.alive() == []


def test_only_once_only_its_own_workload_and_only_what_was_approved(plane: FakePlane) -> None:
    id = plane.ask().grant.id
    with pytest.raises(NotApprovedYetError):
        plane.collect(plane.agent(), id)
    agree(plane, id)
    with pytest.raises(NotFoundError) as foreign:
        plane.collect(plane.agent("repo:mallory/fork:ref:refs/heads/main"), id)
    with pytest.raises(NotFoundError) as unknown:
        plane.collect(plane.agent(), GrantId("gr_" + "z" * 24))
    assert foreign.value.detail.replace(id, "x") == unknown.value.detail.replace("gr_" + "z" * 24, "x")
    plane.collect(plane.agent(), id)
    with pytest.raises(IllegalTransitionError, match="collected before"):
        plane.collect(plane.agent(), id)
    assert len(plane.assertions) == 1


def test_g14_many_who_collect_at_once_get_one_grant(plane: FakePlane) -> None:
    id = approved(plane)
    agents = [plane.agent() for _ in range(12)]
    outcomes: list[object] = []

    def collect(who: VerifiedClaims) -> None:
        try:
            outcomes.append(plane.collect(who, id).wrapping_token)
        except (IllegalTransitionError, LostRaceError) as error:
            outcomes.append(error)

    threads = [threading.Thread(target=collect, args=(who,)) for who in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 1
    assert (len(outcomes), len(plane.assertions)) == (12, 1)


def test_c18_an_approval_that_nobody_collects_lapses_by_itself(plane: FakePlane) -> None:
    id = approved(plane)
    plane.wait(30 * MINUTE)
    assert (plane.grant(id).state, plane.grant(id).why) == (State.LAPSED, Why.EXPIRED)
    with pytest.raises(LapsedError):
        plane.collect(plane.agent(), id)
    assert plane.assertions == []


def test_a_late_collect_is_refused_also_where_no_worker_has_looked(plane: FakePlane) -> None:
    id = approved(plane)
    plane.clock.advance(30 * MINUTE)
    with pytest.raises(LapsedError):
        plane.collect(plane.agent(), id)
    assert plane.grant(id).state is State.LAPSED


def test_what_was_withdrawn_is_not_collected(plane: FakePlane) -> None:
    id = approved(plane)
    plane.finish(plane.agent(), id, Why.FAILED)
    with pytest.raises(LapsedError):
        plane.collect(plane.agent(), id)


# Everything is decided anew ---------------------------------------------------------------------------------------


def test_p1_a_workload_that_is_not_eligible_any_more_gets_nothing() -> None:
    plane = made(
        eligibility=[{"issuer": "dev", "subject": {"glob": "repo:acme/agent:ref:*/*/*"}, "claims": {"a": "b"}}]
    )
    id = plane.ask(plane.agent(a="b")).grant.id
    agree(plane, id)
    with pytest.raises(DeniedError) as told:
        plane.collect(plane.agent(a="c"), id)
    assert [why.decision for why in told.value.reasons] == [Decides.ELIGIBILITY]
    assert plane.grant(id).state is State.APPROVED
    (event,) = plane.events(Kind.GRANT_REFUSED)
    assert event.grant == id
    assert plane.collect(plane.agent(a="b"), id).grant.state is State.ACTIVE


def test_c7_a_window_that_has_closed_closes_for_what_was_approved_too() -> None:
    plane = made(context={"windows": ["Mon 09:00-09:40 UTC"]})
    id = approved(plane)
    plane.clock.advance(15 * MINUTE)
    with pytest.raises(DeniedError) as told:
        plane.collect(plane.agent(), id)
    assert [why.code for why in told.value.reasons] == ["outside-window"]
    assert plane.alive() == []


def test_c22_a_grant_keeps_its_place_in_a_budget_and_does_not_count_against_itself() -> None:
    plane = made(context={"max_active": {"per_subject": 1, "total": 1}, "max_requests": {"per_subject": "1/h"}})
    id = approved(plane)
    with pytest.raises(OverBudgetError):
        plane.ask(task=TaskId("T-2"))
    assert plane.collect(plane.agent(), id).grant.state is State.ACTIVE


def test_c22_a_budget_that_was_lowered_meanwhile_holds() -> None:
    plane = made(context={"max_active": {"per_subject": 3}})
    ids = [approved(plane, task=TaskId(f"T-{number}")) for number in range(3)]
    plane.change(compiled(context={"max_active": {"per_subject": 2}}))
    with pytest.raises(OverBudgetError):
        plane.collect(plane.agent(), ids[0])
    plane.finish(plane.agent(), ids[2], Why.FAILED)
    assert plane.collect(plane.agent(), ids[0]).grant.state is State.ACTIVE


def test_p8_a_freeze_stops_agreeing_and_collecting_and_a_thaw_lets_both_go_on(plane: FakePlane) -> None:
    waits, agreed = plane.ask().grant.id, approved(plane, task=TaskId("T-2"))
    responder = Standing(roles=frozenset({Role.RESPONDER}))
    rita, rolf = plane.agent("rita"), plane.agent("rolf")
    made = plane.freeze(rita, responder, "entitlement=orders-read", message="we look into it", reason="odd reads")
    with pytest.raises(FrozenError):
        agree(plane, waits)
    with pytest.raises(FrozenError):
        plane.collect(plane.agent(), agreed)
    assert (plane.grant(waits).state, plane.grant(agreed).state) == (State.PENDING, State.APPROVED)
    assert plane.store.approvals(waits) == []
    assert plane.assertions == []
    plane.deny(person(plane), waits, reason="not while it is looked into")
    plane.thaw(rolf, responder, made.freeze.id, reason="it was nothing")
    assert plane.collect(plane.agent(), agreed).grant.state is State.ACTIVE


@pytest.mark.parametrize("selection", ["claim.env!=prod", "!claim.env"])
def test_p8_a_freeze_by_what_a_claim_is_not_also_stops_the_yes_because_no_claims_are_known_then(
    plane: FakePlane, selection: str
) -> None:
    id = plane.ask(plane.agent(env="prod")).grant.id
    responder = Standing(roles=frozenset({Role.RESPONDER}))
    made = plane.freeze(plane.agent("rita"), responder, selection, message="we look into it", reason="odd reads")
    with pytest.raises(FrozenError):
        agree(plane, id)
    plane.thaw(plane.agent("rolf"), responder, made.freeze.id, reason="it was nothing")
    agree(plane, id)
    plane.freeze(plane.agent("rita"), responder, selection, message="we look into it", reason="odd reads")
    with pytest.raises(FrozenError):
        plane.collect(plane.agent(), id)
    assert plane.collect(plane.agent(env="prod"), id).grant.state is State.ACTIVE


def test_a11_a_yes_that_became_void_cannot_be_given_again_but_somebody_else_makes_up_for_it() -> None:
    plane = made({**ONCALL, "quorum": 2})
    id = plane.ask().grant.id
    agree(plane, id, "ann")
    plane.access = tuple(replace(rule, claims={**rule.claims, "mfa": "yes"}) for rule in plane.access)
    asked = plane.watch.asked(plane.grant(id))
    assert asked is not None
    ann, eve, zoe = (plane.agent(name, role="approver", groups=["oncall"], mfa="yes") for name in ("ann", "eve", "zoe"))
    with pytest.raises(AlreadyApprovedError):
        plane.approve(ann, id, digest=asked.digest)
    assert plane.approve(eve, id, digest=asked.digest).state is State.PENDING
    assert plane.approve(zoe, id, digest=asked.digest).state is State.APPROVED


# What was approved is what is issued ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"scopes": SCOPES[:1]},
        {"ttl": {"default": "4m", "max": "15m"}},
        {"delivery": "inline"},
        {"risk": "medium"},
        {"sensitivity": "pii"},
        {"approval": None},
    ],
)
def test_a09_a_changed_entitlement_makes_an_approval_void(plane: FakePlane, changes: dict[str, Any]) -> None:
    id = approved(plane)
    plane.change(compiled(**changes))
    with pytest.raises(LapsedError):
        plane.collect(plane.agent(), id)
    assert (plane.grant(id).state, plane.grant(id).why) == (State.LAPSED, Why.CHANGED)
    assert plane.assertions == []


@pytest.mark.parametrize("first", ["as approved", "changed"])
def test_a09_an_entitlement_that_changes_between_two_looks_is_issued_as_it_was_approved_or_not_at_all(
    plane: FakePlane, first: str
) -> None:
    id = approved(plane)
    good, other = compiled(), compiled(delivery="inline", risk="medium")
    looks = iter([good, *[other] * 9] if first == "as approved" else [other, *[good] * 9])

    class Moving:
        def get(self, name: str) -> Compiled | None:
            del name
            return next(looks)

        def all(self) -> Sequence[Compiled]:
            return ()

    collect = replace(plane.collect, watch=replace(plane.watch, entitlements=Moving()))
    if first == "as approved":
        delivered = collect(plane.agent(), id)
        assert (delivered.grant.revision, delivered.wrapping_token is not None) == (good.revision, True)
    else:
        with pytest.raises(LapsedError):
            collect(plane.agent(), id)
        assert plane.assertions == []


def test_a09_reworded_and_relabelled_is_the_same_grant(plane: FakePlane) -> None:
    id = approved(plane)
    plane.change(compiled(purpose="Read orders, and nothing else."))
    assert plane.collect(plane.agent(), id).grant.state is State.ACTIVE


def test_a09_what_was_touched_in_the_store_is_not_what_was_approved(plane: FakePlane) -> None:
    id = approved(plane)
    with plane.store.transaction() as tx:
        tx.save(plane.grant(id).but(ttl=14 * MINUTE))
    with pytest.raises(LapsedError):
        plane.collect(plane.agent(), id)


def test_a11_an_approver_who_is_none_any_more_does_not_count_when_it_is_issued(plane: FakePlane) -> None:
    id = approved(plane)
    plane.access = tuple(rule for rule in plane.access if "approver" not in rule.roles)
    with pytest.raises(LapsedError, match="0 of 1 approvals"):
        plane.collect(plane.agent(), id)
    assert plane.alive() == []


def test_a11_a_rule_that_now_wants_more_of_an_approver_than_was_known_of_him_does_not_fit(plane: FakePlane) -> None:
    id = approved(plane)
    plane.access = tuple(replace(rule, claims={**rule.claims, "mfa": "yes"}) for rule in plane.access)
    with pytest.raises(LapsedError):
        plane.collect(plane.agent(), id)


@pytest.mark.parametrize(
    "approval",
    [
        {**ONCALL, "from": ["group:night-shift"]},
        {**ONCALL, "not_from": ["group:oncall"]},
        {**ONCALL, "quorum": 2},
    ],
)
def test_a11_who_must_agree_is_asked_of_the_entitlement_as_it_stands_now(
    plane: FakePlane, approval: dict[str, Any]
) -> None:
    id = approved(plane)
    plane.change(compiled(approval))
    with pytest.raises(LapsedError):
        plane.collect(plane.agent(), id)


def test_a11_with_two_needed_one_who_lost_his_place_is_made_up_for_by_another() -> None:
    two = {**ONCALL, "quorum": 2, "from": ["group:oncall", "subject:dev/ann"]}
    plane = made(two)
    id = plane.ask().grant.id
    agree(plane, id, "ann")
    plane.change(compiled({**two, "not_from": ["subject:dev/ann"]}))
    assert agree(plane, id, "eve").state is State.PENDING
    assert agree(plane, id, "zoe").state is State.APPROVED
    assert plane.collect(plane.agent(), id).grant.state is State.ACTIVE


def test_p4_a_collect_that_fails_at_vault_is_burnt_like_any_grant(plane: FakePlane) -> None:
    id = approved(plane)
    plane.journal.fail("after", "logins.login", VaultUnavailableError)
    with pytest.raises(VaultUnavailableError):
        plane.collect(plane.agent(), id)
    assert plane.grant(id).state is State.REVOKING
    plane.wait(2 * MINUTE)
    assert plane.grant(id).state is State.REVOKED
    assert plane.alive() == []
    with pytest.raises(IllegalTransitionError):
        plane.collect(plane.agent(), id)


def behind(plane: FakePlane, person: str | None) -> VerifiedClaims:
    """A run of the one workload; its issuer says who started it."""
    return replace(plane.agent(), person=person)


@pytest.mark.parametrize("name", ["ann@acme.example", "ANN@acme.example", "ann", "bea@acme.example"])
def test_a08_c17_nobody_collects_what_he_agreed_to_from_a_run_of_his_own(name: str) -> None:
    plane = made({**ONCALL, "quorum": 2})
    id = plane.ask(behind(plane, "bob@acme.example")).grant.id
    asked = plane.watch.asked(plane.grant(id))
    assert asked is not None
    for one in ("ann", "bea"):
        plane.approve(replace(person(plane, one), person=f"{one}@acme.example"), id, digest=asked.digest)
    with pytest.raises(DeniedError) as told:
        plane.collect(behind(plane, name), id)
    assert [(why.decision, why.code) for why in told.value.reasons] == [(Decides.APPROVAL, "approver-collects")]
    assert (plane.grant(id).state, plane.assertions) == (State.APPROVED, [])
    (refused,) = plane.events(Kind.GRANT_REFUSED, id)
    assert refused.body["person"] == name
    assert plane.collect(behind(plane, "bob@acme.example"), id).grant.state is State.ACTIVE
    (allowed,) = plane.events(Kind.GRANT_ALLOWED, id)
    assert allowed.body["person"] == "bob@acme.example"


def test_a08_somebody_who_did_not_agree_may_collect_for_the_workload(plane: FakePlane) -> None:
    id = plane.ask(behind(plane, "bob@acme.example")).grant.id
    agree(plane, id)
    assert plane.collect(behind(plane, "carl@acme.example"), id).grant.state is State.ACTIVE


def test_a08_an_approver_whose_yes_counts_no_more_is_nobody_to_be_kept_from_collecting() -> None:
    two = {**ONCALL, "from": ["group:oncall", "subject:dev/ann"]}
    plane = made({**two, "quorum": 2})
    id = plane.ask(behind(plane, "bob@acme.example")).grant.id
    agree(plane, id, "ann")
    agree(plane, id, "eve")
    plane.change(compiled({**two, "not_from": ["subject:dev/ann"]}))
    assert plane.collect(behind(plane, "ann"), id).grant.state is State.ACTIVE


def test_j40_collecting_takes_any_token_of_the_workload_and_spends_none(plane: FakePlane) -> None:
    asked = plane.agent()
    id = plane.ask(asked).grant.id
    agree(plane, id)
    assert plane.collect(asked, id).grant.state is State.ACTIVE
    later = plane.agent()
    other = approved(plane, task=TaskId("T-2"))
    plane.collect(later, other)
    assert plane.ask(later, task=TaskId("T-3")).grant.state is State.PENDING
