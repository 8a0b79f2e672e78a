"""Freezes: at once, before everything, for whom they select and nobody else (P8, P12; C20, A10, A19, I04, I05)."""

from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from controlplane.cli.incident import incident
from controlplane.incident.freeze import Frozen
from controlplane.model.access import Role, Standing
from controlplane.model.decision import Decides, Deny
from controlplane.model.errors import (
    DeniedError,
    FrozenError,
    InvalidSelectionError,
    NotAllowedError,
    NotFoundError,
    OtherPersonNeededError,
    OverBudgetError,
    StoreUnavailableError,
)
from controlplane.model.event import Kind
from controlplane.model.freeze import Freeze, FreezeId
from controlplane.model.grant import State, TaskId, Why
from controlplane.model.identity import IssuerName
from controlplane.model.request import GrantRequest
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane

RESPONDER = Standing(roles=frozenset({Role.RESPONDER}))
STRANGER = "repo:mallory/fork:ref:refs/heads/main"
HOUR = timedelta(hours=1)


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement(), compiled_entitlement(entitlement="orders-other"))


def freeze(plane: FakePlane, text: str, *, by: str = "ann", **more: Any) -> Freeze:
    return frozen(plane, text, by=by, **more).freeze


def frozen(plane: FakePlane, text: str, *, by: str = "ann", **more: Any) -> Frozen:
    return plane.freeze(plane.agent(by), RESPONDER, text, message="Incident 7: stop.", reason="key leaked", **more)


def codes(error: DeniedError) -> list[tuple[Decides, str]]:
    return [(why.decision, why.code) for why in error.reasons]


def test_p8_a_frozen_request_is_refused_with_the_message_and_makes_nothing(plane: FakePlane) -> None:
    made = freeze(plane, "entitlement=orders-read")
    plane.journal.steps.clear()
    with pytest.raises(FrozenError) as refused:
        plane.ask()
    assert (refused.value.status, refused.value.code, refused.value.exit_status) == (423, "frozen", 3)
    (why,) = refused.value.reasons
    assert (why.decision, why.code, why.detail) == (Decides.FREEZE, "frozen", f"Incident 7: stop. ({made.id})")
    assert plane.journal.steps == ["commit grant.refused"]
    assert plane.store.grants() == []
    assert plane.alive() == []
    assert plane.ask(entitlement="orders-other").grant.state is State.ACTIVE


@pytest.mark.parametrize(
    "text",
    ["all", "subject=" + AGENT, "issuer=dev", "task=T-1", "intent=answer-question", "risk=low", "claim.team=billing"],
)
def test_c20_every_selector_that_fits_refuses(plane: FakePlane, text: str) -> None:
    freeze(plane, text)
    with pytest.raises(FrozenError):
        plane.ask(plane.agent(team="billing"))


def test_c7_every_other_no_is_told_beside_the_freeze_which_beats_them(plane: FakePlane) -> None:
    freeze(plane, "all")
    freeze(plane, "issuer=dev")
    with pytest.raises(FrozenError) as refused:
        plane.ask(intent="drop-tables")
    assert codes(refused.value) == [
        (Decides.FREEZE, "frozen"),
        (Decides.FREEZE, "frozen"),
        (Decides.SCOPE, "unknown-intent"),
    ]


def test_a_used_up_budget_does_not_hide_a_freeze() -> None:
    plane = FakePlane(compiled_entitlement(context={"max_active": {"total": 1}}))
    plane.ask()
    with pytest.raises(OverBudgetError):
        plane.ask()
    freeze(plane, "all")
    with pytest.raises(FrozenError):
        plane.ask()


def test_explaining_tells_of_the_freeze(plane: FakePlane) -> None:
    freeze(plane, "all")
    wish = GrantRequest(entitlement="orders-read", task=TaskId("T-1"), intent="answer-question")
    decision = plane.explain(plane.agent(), wish).decision
    assert isinstance(decision, Deny)
    assert decision.frozen
    assert [why.decision for why in decision.reasons] == [Decides.FREEZE]
    assert {why.decision for why in decision.passed} >= {Decides.ELIGIBILITY, Decides.CONTEXT, Decides.SCOPE}


@pytest.mark.parametrize(
    "text",
    [
        "entitlement=orders-read",
        "entitlement!=orders-read",
        "entitlement",
        "label.team!=x",
        "owner",
        "risk notin (high)",
        "task=T-1",
        "intent!=x",
        f"subject={STRANGER},!label.team",
    ],
)
def test_p12_a_stranger_learns_nothing_by_a_freeze_that_looks_at_more_than_himself(plane: FakePlane, text: str) -> None:
    freeze(plane, text)
    for entitlement in ("orders-read", "no-such-thing"):
        with pytest.raises(DeniedError) as denied:
            plane.ask(plane.agent(STRANGER), entitlement=entitlement)
        assert codes(denied.value) == [(Decides.ELIGIBILITY, "not-eligible")]
        assert denied.value.status == 403


@pytest.mark.parametrize("text", ["all", "issuer=dev", f"subject={STRANGER}", "claim.team=x"])
def test_p12_a_stranger_is_frozen_the_same_for_what_is_there_and_for_what_is_not(plane: FakePlane, text: str) -> None:
    freeze(plane, text)
    told: list[str] = []
    for entitlement in ("orders-read", "no-such-thing"):
        with pytest.raises(FrozenError) as refused:
            plane.ask(plane.agent(STRANGER, team="x"), entitlement=entitlement)
        told.append(str([why.detail for why in refused.value.reasons]).replace(entitlement, "…"))
    assert told[0] == told[1]


@pytest.mark.parametrize("step", ["signer.sign", "logins.login", "logins.facts", "logins.read", "logins.wrap"])
def test_a10_a_grant_in_flight_when_the_freeze_comes_never_reaches_its_agent(plane: FakePlane, step: str) -> None:
    plane.journal.before[step] = lambda: freeze(plane, "claim.team=billing")
    with pytest.raises(FrozenError) as refused:
        plane.ask(plane.agent(team="billing"))
    assert codes(refused.value) == [(Decides.FREEZE, "frozen")]
    burnt = plane.newest()
    assert (burnt.state, burnt.why, burnt.issued_at) == (State.REVOKING, Why.FROZEN, None)
    plane.work()
    assert plane.grant(burnt.id).state is State.REVOKED
    assert plane.alive() == []
    assert not plane.events(Kind.GRANT_ISSUED)


def test_a10_a_grant_in_flight_that_it_does_not_select_is_delivered(plane: FakePlane) -> None:
    plane.journal.before["logins.wrap"] = lambda: freeze(plane, "entitlement=orders-other")
    assert plane.ask().grant.state is State.ACTIVE


def test_a19_what_is_frozen_can_be_shown_finished_and_revoked(plane: FakePlane) -> None:
    grant = plane.ask().grant
    freeze(plane, "all")
    assert plane.show(plane.agent(), grant.id)[0].state is State.ACTIVE
    assert plane.end(grant.id).state is State.REVOKED
    assert plane.alive() == []


def test_a19_what_is_frozen_still_ends_when_its_time_has_come(plane: FakePlane) -> None:
    grant = plane.ask().grant
    freeze(plane, "all")
    plane.wait(timedelta(minutes=6))
    assert plane.grant(grant.id).state is State.REVOKED


def test_a_freeze_stops_by_itself_when_it_expires(plane: FakePlane) -> None:
    freeze(plane, "all", expires_in=HOUR)
    plane.clock.advance(HOUR - timedelta(seconds=1))
    with pytest.raises(FrozenError):
        plane.ask()
    plane.clock.advance(timedelta(seconds=1))
    assert plane.ask().grant.state is State.ACTIVE
    assert plane.freezes(RESPONDER) == []
    assert len(plane.freezes(RESPONDER, ended=True)) == 1


def test_what_cannot_be_read_freezes_everything_and_takes_two_people(plane: FakePlane) -> None:
    odd = Freeze(
        id=FreezeId("fz_odd"),
        selection="moon=full",
        message="From a newer release.",
        reason="?",
        issuer=IssuerName("dev"),
        subject="ann",
        created_at=plane.clock.now(),
    )
    with plane.store.transaction() as tx:
        tx.freeze(odd)
    for subject in (AGENT, STRANGER):
        with pytest.raises(FrozenError):
            plane.ask(plane.agent(subject))
    assert plane.thaw(plane.agent("ann"), RESPONDER, odd.id, reason="seen").thawed_at is None
    assert plane.thaw(plane.agent("bob"), RESPONDER, odd.id, reason="seen").thawed_at is not None


def test_one_responder_thaws_a_part_with_a_reason(plane: FakePlane) -> None:
    made = freeze(plane, "entitlement=orders-read")
    plane.clock.advance(HOUR)
    thawed = plane.thaw(plane.agent("bob"), RESPONDER, made.id, reason="key replaced")
    assert thawed.thawed_at == plane.clock.now()
    assert plane.ask().grant.state is State.ACTIVE
    again = plane.thaw(plane.agent("cleo"), RESPONDER, made.id, reason="me too")
    assert again == thawed
    (event,) = plane.events(Kind.SELECTION_THAWED)
    told = (event.body["freeze"], event.body["subject"], event.body["reason"], event.body["selection"])
    assert told == (made.id, "bob", "key replaced", "entitlement=orders-read")


def test_i05_everything_is_thawed_by_two_different_people_only(plane: FakePlane) -> None:
    made = freeze(plane, "all")
    first = plane.thaw(plane.agent("ann@acme.example"), RESPONDER, made.id, reason="over")
    assert (first.thawed_at, len(first.thaws)) == (None, 1)
    with pytest.raises(FrozenError):
        plane.ask()
    for same in (plane.agent("ann@acme.example"), plane.agent("ANN@acme.example")):
        with pytest.raises(OtherPersonNeededError):
            plane.thaw(same, RESPONDER, made.id, reason="over")
    assert plane.thaw(plane.agent("bob"), RESPONDER, made.id, reason="agreed").thawed_at == plane.clock.now()
    assert plane.ask().grant.state is State.ACTIVE
    assert [event.kind for event in plane.events() if event.kind in {Kind.THAW_AGREED, Kind.SELECTION_THAWED}] == [
        Kind.THAW_AGREED,
        Kind.SELECTION_THAWED,
    ]


def test_i05_nobody_thaws_what_freezes_himself_by_name(plane: FakePlane) -> None:
    made = freeze(plane, "subject in (ann, Dora)", by="bob")
    for who in ("ann", "dora"):
        with pytest.raises(OtherPersonNeededError):
            plane.thaw(plane.agent(who), RESPONDER, made.id, reason="I am innocent")
    assert plane.thaw(plane.agent("bob"), RESPONDER, made.id, reason="she is").thawed_at is not None


def test_i05_a_responder_freezes_and_thaws_and_gets_no_grant_by_it(plane: FakePlane) -> None:
    with pytest.raises(DeniedError):
        plane.ask(plane.agent("ann", role="responder"))


@pytest.mark.parametrize("roles", [(), (Role.APPROVER,), (Role.PLATFORM, Role.AUDITOR, Role.APPROVER)])
def test_only_a_responder_freezes_and_thaws(plane: FakePlane, roles: tuple[Role, ...]) -> None:
    made = freeze(plane, "all")
    standing = Standing(roles=frozenset(roles))
    with pytest.raises(NotAllowedError, match="responder"):
        plane.freeze(plane.agent("eve"), standing, "all", message="x", reason="y")
    with pytest.raises(NotAllowedError, match="responder"):
        plane.thaw(plane.agent("eve"), standing, made.id, reason="y")
    assert len(plane.store.freezes()) == 1


def test_a_freeze_leaves_who_what_and_why_in_the_audit_log(plane: FakePlane) -> None:
    made = freeze(plane, " label.team = billing ", expires_in=HOUR)
    (event,) = plane.events(Kind.SELECTION_FROZEN)
    assert event.body == {
        "freeze": made.id,
        "selection": "label.team=billing",
        "message": "Incident 7: stop.",
        "reason": "key leaked",
        "issuer": "dev",
        "subject": "ann",
        "expires_at": (plane.clock.now() + HOUR).isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }


def test_a_selection_that_cannot_be_read_freezes_nothing(plane: FakePlane) -> None:
    with pytest.raises(InvalidSelectionError):
        freeze(plane, "")
    assert plane.store.freezes() == []
    assert plane.events() == []
    with pytest.raises(NotFoundError):
        plane.thaw(plane.agent("ann"), RESPONDER, FreezeId("fz_none"), reason="x")


def test_without_the_audit_log_nothing_is_frozen_and_nothing_is_granted(plane: FakePlane) -> None:
    plane.store.down = "the disk is full"
    with pytest.raises(StoreUnavailableError):
        freeze(plane, "all")
    with pytest.raises(StoreUnavailableError):
        plane.ask()


def test_i04_a_replica_that_hangs_does_not_keep_a_freeze_from_being_and_is_told_of(
    plane: FakePlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs() -> None:
        raise StoreUnavailableError("something keeps it locked")

    monkeypatch.setattr(plane.store, "settle_freezes", hangs)
    assert not frozen(plane, "all").settled
    with pytest.raises(FrozenError):
        plane.ask()


def test_a_freeze_of_everything_and_of_a_part_at_once_is_no_freeze() -> None:
    asked = ["freeze", "--all", "-l", "label.team=sales", "--message", "Stop.", "--reason", "we do not know yet"]
    run = CliRunner().invoke(incident, asked)
    assert run.exit_code != 0
    assert "leave out either it or -l" in run.stderr
