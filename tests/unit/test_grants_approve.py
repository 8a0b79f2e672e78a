"""Approvals: one yes of one named person for exactly what was shown (C17, C18, A08, A09, A11, A12, A18)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from typing_extensions import override

from controlplane.model.access import AccessRule, Role
from controlplane.model.approval import Asked, GivenApproval, Narrowing
from controlplane.model.decision import Decides
from controlplane.model.errors import (
    AlreadyApprovedError,
    ControlPlaneError,
    DeniedError,
    IllegalTransitionError,
    InvalidRequestError,
    LapsedError,
    MayNotApproveError,
    NotAllowedError,
    NotFoundError,
    OtherDigestError,
    OverBudgetError,
    StoreUnavailableError,
)
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State, TaskId, Why
from controlplane.model.identity import IssuerName, VerifiedClaims
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane
from controlplane.testing.store import FakeStore

ONCALL = {"quorum": 1, "from": ["group:oncall"], "within": "30m"}
TWO = {**ONCALL, "quorum": 2}
SCOPES = [
    {"name": "orders", "engine": "database", "connection": "orders", "privileges": ["select on table sales.orders"]},
    {"name": "lines", "engine": "database", "connection": "orders", "privileges": ["select on table sales.lines"]},
]
MINUTE = timedelta(minutes=1)


def made(approval: dict[str, Any] = ONCALL, **changes: Any) -> FakePlane:
    return FakePlane(compiled_entitlement(risk="high", approval=approval, scopes=SCOPES, **changes))


@pytest.fixture
def plane() -> FakePlane:
    return made()


def person(
    plane: FakePlane, name: str = "ann", *, groups: tuple[str, ...] = ("oncall",), **more: Any
) -> VerifiedClaims:
    who = plane.agent(name, role="approver", groups=list(groups))
    return replace(who, **more)


def shown(plane: FakePlane, id: GrantId) -> Asked:
    asked = plane.watch.asked(plane.grant(id))
    assert asked is not None
    return asked


def agree(plane: FakePlane, id: GrantId, who: VerifiedClaims | None = None, **narrow: Any) -> Grant:
    digest = shown(plane, id).digest
    return plane.approve(who or person(plane), id, digest=digest, narrow=Narrowing(**narrow))


# What is asked ----------------------------------------------------------------------------------------------------


def test_c17_what_is_asked_says_who_what_how_long_and_what_it_reaches(plane: FakePlane) -> None:
    asked = shown(plane, plane.ask(reason="order 7 is wrong").grant.id)
    assert (asked.subject, asked.entitlement, asked.intent) == (AGENT, "orders-read", "answer-question")
    assert (asked.reason, asked.ttl, asked.quorum, asked.from_) == (
        "order 7 is wrong",
        timedelta(minutes=5),
        1,
        ("group:oncall",),
    )
    assert [scope.name for scope in asked.scopes] == ["orders", "lines"]
    assert "sales.orders" in asked.scopes[0].reach[0]
    assert asked.until == plane.clock.now() + timedelta(minutes=30)


def test_c17_what_is_unusual_is_told_and_becomes_usual(plane: FakePlane) -> None:
    assert shown(plane, plane.ask().grant.id).unusual == ("this workload was never granted it before",)
    id = plane.newest().id
    agree(plane, id)
    plane.collect(plane.agent(), id)
    assert shown(plane, plane.ask().grant.id).unusual == ()
    assert shown(plane, plane.ask(ttl=timedelta(minutes=10)).grant.id).unusual == (
        "10m is longer than this workload ever had it: 5m",
        "10m is longer than the default of 5m",
    )


def test_c17_another_intent_and_another_revision_are_unusual() -> None:
    plane = made(intents=["answer-question", "prepare-report"])
    id = plane.ask().grant.id
    agree(plane, id)
    plane.collect(plane.agent(), id)
    changed(plane, intents=["answer-question", "prepare-report"], scopes=SCOPES[:1])
    assert shown(plane, plane.ask(intent="prepare-report").grant.id).unusual == (
        "this workload was never granted it for prepare-report before",
        "the entitlement has changed since this workload was last granted it",
    )


def test_a09_the_digest_covers_all_that_would_be_issued(plane: FakePlane) -> None:
    asked = shown(plane, plane.ask().grant.id)
    others: list[dict[str, Any]] = [
        {"subject": "x"}, {"issuer": "x"}, {"person": "x"}, {"entitlement": "x"}, {"revision": "x"}, {"task": "x"},
        {"intent": "x"}, {"reason": "x"}, {"ttl": MINUTE}, {"scopes": asked.scopes[:1]}, {"unusual": ("x",)},
        {"until": asked.until + MINUTE}, {"delivery": "inline"}, {"risk": "low"}, {"sensitivity": "pii"},
        {"grant": "gr_x"}, {"scopes": (replace(asked.scopes[0], reach=("x",)), asked.scopes[1])},
    ]  # fmt: skip
    digests = {replace(asked, **other).digest for other in others}
    assert len(digests) == len(others)
    assert asked.digest not in digests
    # Who may agree is held against the rules at every step instead, and a page that explains may be reworded.
    for free in ({"quorum": 3}, {"from_": ("group:x",)}, {"owner": "x"}, {"purpose": "x"}):
        assert replace(asked, **free).digest == asked.digest


# Agreeing ---------------------------------------------------------------------------------------------------------


def test_c18_a_yes_makes_it_approved_and_nothing_else(plane: FakePlane) -> None:
    id = plane.ask().grant.id
    plane.journal.steps.clear()
    assert agree(plane, id).state is State.APPROVED
    assert plane.journal.steps == ["commit grant.approved"]
    assert plane.alive() == []
    (event,) = plane.events(Kind.GRANT_APPROVED, id)
    said: dict[str, Any] = {
        "issuer": "dev",
        "subject": "ann",
        "person": None,
        "groups": ["oncall"],
        "reason": "",
        "narrowed": {},
    }
    assert event.body["approvals"] == [said]
    assert event.body["digest"] == plane.store.approvals(id)[0].digest


def test_c18_a_quorum_of_two_needs_two_people_and_tells_of_each() -> None:
    plane = made(TWO)
    id = plane.ask().grant.id
    assert agree(plane, id).state is State.PENDING
    assert agree(plane, id, person(plane, "eve")).state is State.APPROVED
    kinds = [event.kind for event in plane.events(grant=id)]
    assert kinds == [Kind.GRANT_REQUESTED, Kind.APPROVAL_GIVEN, Kind.APPROVAL_GIVEN, Kind.GRANT_APPROVED]


def test_a09_a_yes_to_anything_else_is_refused_and_leaves_nothing(plane: FakePlane) -> None:
    id, other = plane.ask().grant.id, plane.ask(task=TaskId("T-2")).grant.id
    with pytest.raises(OtherDigestError):
        plane.approve(person(plane), id, digest=shown(plane, other).digest)
    assert plane.grant(id).state is State.PENDING
    assert plane.store.approvals(id) == []


def test_a08_nobody_approves_without_the_role_and_nobody_learns_what_waits(plane: FakePlane) -> None:
    id = plane.ask().grant.id
    digest = shown(plane, id).digest
    for who in (plane.agent("ann", groups=["oncall"]), plane.agent(), plane.agent("ann", role="responder")):
        with pytest.raises(NotAllowedError):
            plane.approve(who, id, digest=digest)
    for there in (id, GrantId("gr_none")):
        with pytest.raises(NotFoundError):
            plane.approve(person(plane, groups=("sales",)), there, digest=digest)
    assert plane.grant(id).state is State.PENDING


@pytest.mark.parametrize("asks", [AGENT, "Bob"])
def test_a08_never_ones_own_nor_by_a_second_identity_of_the_same_person(asks: str) -> None:
    plane = FakePlane(
        compiled_entitlement(
            risk="high", approval=ONCALL, eligibility=[{"issuer": "dev", "subject": asks}], scopes=SCOPES
        )
    )
    plane.access = (*plane.access, replace(plane.access[0], issuer=IssuerName("other")))
    requester = replace(plane.agent(asks), person="bob@acme.example")
    id = plane.ask(requester).grant.id
    assert plane.grant(id).person == "bob@acme.example"
    digest = shown(plane, id).digest
    for who in (
        person(plane, asks),
        person(plane, asks.upper(), issuer=IssuerName("other")),
        person(plane, "b0b", person="BOB@acme.example"),
        person(plane, "bob@acme.example"),
    ):
        for decide in (
            lambda who=who: plane.approve(who, id, digest=digest),
            lambda who=who: plane.deny(who, id, reason="mine"),
        ):
            with pytest.raises(MayNotApproveError):
                decide()
    assert plane.grant(id).state is State.PENDING
    assert agree(plane, id, person(plane, "ann")).state is State.APPROVED


def test_a08_the_requesters_team_may_be_kept_from_deciding() -> None:
    plane = made({**ONCALL, "not_from": ["group:sales", "subject:dev/eve"]})
    id = plane.ask().grant.id
    for who in (person(plane, groups=("oncall", "sales")), person(plane, "eve")):
        with pytest.raises(MayNotApproveError):
            agree(plane, id, who)
    assert agree(plane, id).state is State.APPROVED


def test_a08_twice_by_the_same_person_is_once_whatever_the_identity() -> None:
    plane = made(TWO)
    id = plane.ask().grant.id
    agree(plane, id, person(plane, person="ann@acme.example"))
    for who in (
        person(plane, person="ann@acme.example"),
        person(plane, "ann-at-github", person="ANN@acme.example"),
        person(plane, "ann@acme.example"),
    ):
        with pytest.raises(AlreadyApprovedError):
            agree(plane, id, who)
    assert plane.grant(id).state is State.PENDING
    assert len(plane.store.approvals(id)) == 1


def test_a08_one_person_may_be_named_without_a_group() -> None:
    plane = made({**ONCALL, "from": ["subject:dev/ann"]})
    id = plane.ask().grant.id
    with pytest.raises(NotFoundError):
        agree(plane, id, person(plane, "eve"))
    assert agree(plane, id, person(plane, groups=())).state is State.APPROVED


@pytest.mark.parametrize("worker", [True, False])
def test_a08_nobody_approves_what_has_run_out(plane: FakePlane, worker: bool) -> None:
    id = plane.ask().grant.id
    digest = shown(plane, id).digest
    plane.clock.advance(timedelta(minutes=30))
    if worker:
        plane.work()
    with pytest.raises(LapsedError):
        plane.approve(person(plane), id, digest=digest)
    assert (plane.grant(id).state, plane.grant(id).why) == (State.LAPSED, Why.EXPIRED)
    assert len(plane.events(Kind.GRANT_LAPSED, id)) == 1


def test_a08_nobody_approves_what_was_withdrawn_denied_or_approved(plane: FakePlane) -> None:
    ids = [plane.ask(task=TaskId(f"T-{number}")).grant.id for number in range(3)]
    digests = [shown(plane, id).digest for id in ids]
    plane.finish(plane.agent(), ids[0], Why.FAILED)
    plane.deny(person(plane), ids[1], reason="no")
    agree(plane, ids[2])
    errors: list[type[ControlPlaneError]] = [LapsedError, DeniedError, IllegalTransitionError]
    for id, digest, error in zip(ids, digests, errors, strict=True):
        with pytest.raises(error):
            plane.approve(person(plane, "eve"), id, digest=digest)


def test_a09_a_changed_entitlement_ends_what_waits_for_it(plane: FakePlane) -> None:
    id = plane.ask().grant.id
    digest = shown(plane, id).digest
    changed(plane, scopes=SCOPES[:1])
    with pytest.raises(LapsedError, match="changed"):
        plane.approve(person(plane), id, digest=digest)
    assert (plane.grant(id).state, plane.grant(id).why) == (State.LAPSED, Why.CHANGED)


def changed(plane: FakePlane, **changes: Any) -> None:
    """Let the entitlement read otherwise from now on."""
    sound: dict[str, Any] = {"risk": "high", "approval": ONCALL, "scopes": SCOPES}
    plane.change(compiled_entitlement(**sound | changes))


# Narrowing --------------------------------------------------------------------------------------------------------


def test_c17_narrowing_only_ever_takes_away(plane: FakePlane) -> None:
    id = plane.ask(ttl=timedelta(minutes=2)).grant.id
    wrongs: list[dict[str, Any]] = [
        {"ttl": timedelta(minutes=3)},
        {"ttl": timedelta(seconds=4)},
        {"scopes": ("customers",)},
        {"scopes": ("orders", "customers")},
        {"scopes": ()},
    ]
    for wrong in wrongs:
        with pytest.raises(InvalidRequestError, match="narrow"):
            agree(plane, id, **wrong)
    assert plane.store.approvals(id) == []


def test_c17_of_several_narrowings_the_shortest_ttl_and_what_all_left_hold() -> None:
    plane = made(TWO)
    id = plane.ask().grant.id
    agree(plane, id, ttl=MINUTE, scopes=("orders", "lines"))
    with pytest.raises(InvalidRequestError, match="nothing would be left"):
        agree(plane, id, person(plane, "eve"), scopes=())
    agree(plane, id, person(plane, "eve"), ttl=2 * MINUTE, scopes=("lines",))
    delivered = plane.collect(plane.agent(), id)
    assert (delivered.grant.ttl, delivered.grant.scopes) == (MINUTE, ("lines",))
    assert [lease.scope for lease in delivered.leases] == ["lines"]


# Denying ----------------------------------------------------------------------------------------------------------


def test_c18_one_no_is_enough_and_tells_who_and_why(plane: FakePlane) -> None:
    id = plane.ask().grant.id
    assert plane.deny(person(plane), id, reason="not at night").state is State.DENIED
    with pytest.raises(DeniedError) as told:
        plane.collect(plane.agent(), id)
    assert told.value.reasons[0].decision is Decides.APPROVAL
    assert "ann said no: not at night" in told.value.reasons[0].detail
    (event,) = plane.events(Kind.GRANT_DENIED, id)
    assert (event.body["subject"], event.body["reason"]) == ("ann", "not at night")


def test_a12_a_no_beats_what_was_approved_until_it_is_collected(plane: FakePlane) -> None:
    id, collected = plane.ask().grant.id, plane.ask(task=TaskId("T-2")).grant.id
    agree(plane, id)
    assert plane.deny(person(plane, "eve"), id, reason="wait").state is State.DENIED
    with pytest.raises(DeniedError):
        plane.deny(person(plane), id, reason="again")
    agree(plane, collected)
    plane.collect(plane.agent(), collected)
    with pytest.raises(IllegalTransitionError):
        plane.deny(person(plane), collected, reason="too late")
    assert len(plane.events(Kind.GRANT_DENIED, id)) == 1


class _Interrupted(FakeStore):
    """Does something, once, after whoever decides has read what was said and before he saves what he says."""

    meanwhile: Callable[[], object] | None = None

    @override
    def approvals(self, grant: GrantId) -> Sequence[GivenApproval]:
        found = super().approvals(grant)
        act, self.meanwhile = self.meanwhile, None
        if act is not None:
            act()
        return found


@pytest.mark.parametrize("rival", ["approve", "deny"])
def test_a12_a_no_between_two_approvals_wins_once(rival: str) -> None:
    store = _Interrupted()
    plane = FakePlane(compiled_entitlement(risk="high", approval=TWO), store=store)
    id = plane.ask().grant.id
    digest = shown(plane, id).digest
    agree(plane, id)
    eve, zoe = person(plane, "eve"), person(plane, "zoe")
    if rival == "deny":
        store.meanwhile = lambda: plane.deny(zoe, id, reason="stop")
        with pytest.raises(DeniedError):
            plane.approve(eve, id, digest=digest)
    else:
        store.meanwhile = lambda: plane.approve(eve, id, digest=digest)
        plane.deny(zoe, id, reason="stop")
    assert plane.grant(id).state is State.DENIED
    assert len(plane.events(Kind.GRANT_DENIED, id)) == 1


def test_p6_without_the_audit_log_nobody_agrees_or_refuses(plane: FakePlane) -> None:
    id = plane.ask().grant.id
    digest, ann = shown(plane, id).digest, person(plane)
    plane.store.down = "the disk is full"
    for decide in (lambda: plane.approve(ann, id, digest=digest), lambda: plane.deny(ann, id, reason="x")):
        with pytest.raises(StoreUnavailableError):
            decide()
    plane.store.down = None
    assert plane.grant(id).state is State.PENDING
    assert plane.store.approvals(id) == []


# What waits for me ------------------------------------------------------------------------------------------------


def listed(plane: FakePlane, who: VerifiedClaims) -> list[GrantId]:
    return [waiting.grant.id for waiting in plane.watch.page(who, before=None, limit=100)[0]]


def test_a18_an_approver_sees_what_he_may_decide_on_now_and_nothing_else() -> None:
    plane = made(TWO)
    bob = replace(plane.agent(), person="bob@acme.example")
    first, second = plane.ask(bob).grant.id, plane.ask(task=TaskId("T-2")).grant.id
    ann = person(plane)
    assert sorted(listed(plane, ann)) == sorted([first, second])
    assert listed(plane, person(plane, "bob", person="bob@acme.example")) == [second]
    assert listed(plane, person(plane, groups=("sales",))) == []
    agree(plane, first, ann)
    assert listed(plane, ann) == [second]
    assert len(listed(plane, person(plane, "eve"))) == 2
    with pytest.raises(NotAllowedError):
        plane.watch.page(plane.agent(), before=None, limit=1)
    changed(plane, scopes=SCOPES[:1])
    assert listed(plane, person(plane, "eve")) == []


def test_a18_one_workload_cannot_flood_those_who_decide() -> None:
    plane = FakePlane(
        compiled_entitlement(risk="high", approval=ONCALL),
        compiled_entitlement(entitlement="free-of-people"),
        compiled_entitlement(
            entitlement="others-too",
            risk="high",
            approval=ONCALL,
            eligibility=[{"issuer": "dev", "subject": {"glob": "repo:acme/*:ref:refs/heads/main"}}],
        ),
    )
    ids = [plane.ask(task=TaskId(f"T-{number}")).grant.id for number in range(20)]
    for entitlement in ("orders-read", "others-too"):
        with pytest.raises(OverBudgetError) as told:
            plane.ask(entitlement=entitlement)
        assert [why.code for why in told.value.reasons] == ["too-many-waiting"]
    # Whoever nobody has to agree to goes on, and so do the others.
    assert plane.ask(entitlement="free-of-people").grant.state is State.ACTIVE
    plane.ask(plane.agent("repo:acme/other:ref:refs/heads/main"), entitlement="others-too")
    plane.deny(person(plane), ids[0], reason="one less")
    assert plane.ask().grant.state is State.PENDING


def test_a11_the_role_of_an_approver_is_that_of_the_rules_as_they_stand_now(plane: FakePlane) -> None:
    id = plane.ask().grant.id
    ann = person(plane)
    plane.access = (AccessRule(issuer=plane.issuer.name, roles=frozenset({Role.APPROVER}), subject="eve"),)
    with pytest.raises(NotAllowedError):
        agree(plane, id, ann)
    assert plane.grant(id).state is State.PENDING
