"""Previews and cuts: what is cut is what was previewed, frozen first, and proved (P8, P10; C9, C10, C20, C23)."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest

from controlplane.grants.ask_to_end import AskToEnd
from controlplane.incident.cut import Ordered
from controlplane.incident.cuts import Seen
from controlplane.incident.preview import Previewed
from controlplane.model.access import Role, Standing
from controlplane.model.cut import FRESH, CutId, Outcome, outcome
from controlplane.model.entitlement import Revocability
from controlplane.model.errors import (
    EverythingSelectedError,
    FrozenError,
    InvalidRequestError,
    InvalidSelectionError,
    NotAllowedError,
    NotFoundError,
    StalePreviewError,
    StoreUnavailableError,
    VaultUnavailableError,
)
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, State, TaskId, Why
from controlplane.model.lease import LeaseId
from controlplane.ports import Leases
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane

RESPONDER = Standing(roles=frozenset({Role.RESPONDER}))
REST = timedelta(seconds=20)
"""Less than a wrapping token waits to be opened."""


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(
        compiled_entitlement(owner="team-a@acme.example", labels={"team": "a"}),
        compiled_entitlement(
            entitlement="orders-other", owner="team-b@acme.example", risk="high", labels={"team": "b"}
        ),
    )


def ask(plane: FakePlane, task: str, **more: Any) -> Grant:
    return plane.ask(plane.agent(team=task), task=TaskId(task), **more).grant


def preview(plane: FakePlane, text: str) -> Previewed:
    return plane.preview(plane.agent("ann"), RESPONDER, text)


def cut(plane: FakePlane, text: str, **more: Any) -> Ordered:
    return order(plane, preview(plane, text).digest or "", **more)


def order(plane: FakePlane, digest: str, **more: Any) -> Ordered:
    return plane.cut(plane.agent("ann"), RESPONDER, digest, incident="INC-7", reason="key leaked", **more)


def rest(plane: FakePlane) -> None:
    """Let the worker finish, and look once more."""
    plane.wait(REST)
    plane.work()


def now(plane: FakePlane, grant: Grant) -> Grant:
    return plane.store.grant(grant.id) or grant


def seen(plane: FakePlane, ordered: Ordered) -> Seen:
    return plane.cuts(RESPONDER, ordered.cut.id)


def test_c20_a_preview_says_exactly_what_would_end_and_changes_nothing(plane: FakePlane) -> None:
    one, _ = ask(plane, "T-1"), ask(plane, "T-2", entitlement="orders-other")
    before, alive = plane.store.grants(), plane.alive()
    shown = preview(plane, "label.team=a")
    (group,) = shown.surveyed.groups
    assert (group.subject, group.entitlement, group.state, group.count) == (AGENT, "orders-read", State.ACTIVE, 1)
    assert shown.owners == {"orders-read": "team-a@acme.example"}
    (opened,) = shown.opened
    assert (opened.engine, opened.target, opened.count, opened.revocability, opened.sessions) == (
        "database",
        "orders",
        1,
        Revocability.PROVABLE,
        0,
    )
    assert [(doing.task, doing.grants) for doing in shown.surveyed.doing] == [("T-1", 1)]
    assert [grant.id for grant in shown.sample] == [one.id]
    assert (shown.preview.count, shown.surveyed.of, shown.everything) == (1, 2, False)
    assert (plane.store.grants(), plane.alive(), plane.store.freezes()) == (before, alive, [])
    (told,) = plane.events(Kind.SELECTION_PREVIEWED)
    assert told.body["digest"] == shown.digest


def test_a_target_that_does_not_answer_is_told_and_hides_nothing_else(plane: FakePlane) -> None:
    ask(plane, "T-1")
    plane.vault.target.down = True
    (opened,) = preview(plane, "task=T-1").opened
    assert (opened.sessions, opened.unknown) == (None, "orders does not answer")


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("all", [("orders-read", ""), ("orders-other", "")]),
        ("owner=team-a@acme.example", [("orders-read", "")]),
        (f"subject={AGENT}", [("orders-read", f"subject={AGENT}"), ("orders-other", f"subject={AGENT}")]),
        ("subject=somebody-else", []),
        ("task=T-1,risk=high", [("orders-other", "task=T-1")]),
        ("intent=no-such-intent", []),
        ("state=active", []),
    ],
)
def test_c20_a_preview_says_which_requests_its_freeze_would_refuse(
    plane: FakePlane, text: str, refused: list[tuple[str, str]]
) -> None:
    assert [(one.entitlement, one.when) for one in preview(plane, text).refusals] == refused


def test_what_selects_nothing_has_no_digest_and_leaves_no_trace(plane: FakePlane) -> None:
    ask(plane, "T-1")
    assert preview(plane, "task=T-9").digest is None
    assert plane.events(Kind.SELECTION_PREVIEWED) == []


def test_p10_a_cut_ends_what_was_previewed_and_proves_it(plane: FakePlane) -> None:
    mine, other = [ask(plane, "T-1") for _ in range(3)], ask(plane, "T-2")
    ordered = cut(plane, "task=T-1")
    assert ordered.settled
    assert seen(plane, ordered).progress.counts == {Outcome.WAITING: 3}
    rest(plane)
    over = seen(plane, ordered)
    assert (over.progress.counts, over.progress.proved) == ({Outcome.VERIFIED: 3}, True)
    assert over.cut.ended_at is not None
    assert {plane.grant(grant.id).why for grant in mine} == {Why.CUT}
    assert plane.grant(other.id).state is State.ACTIVE
    ends = [event for event in plane.events(Kind.GRANT_ENDED) if event.body.get("cut") == ordered.cut.id]
    assert [event.body["incident"] for event in ends] == ["INC-7"] * 3
    (ordered_event,), (ended,) = plane.events(Kind.CUT_ORDERED), plane.events(Kind.CUT_ENDED)
    assert (ordered_event.body["reason"], ordered_event.body["subject"]) == ("key leaked", "ann")
    assert (ended.body["cut"], ended.body["verified"]) == (ordered.cut.id, 3)


def test_p8_what_is_cut_is_frozen_first_and_in_the_same_moment(plane: FakePlane) -> None:
    ask(plane, "T-1")
    ordered = cut(plane, "task=T-1")
    with pytest.raises(FrozenError, match="orders-read"):
        ask(plane, "T-1")
    (frozen,) = plane.store.freezes()
    assert (frozen.id, frozen.selection, frozen.reason) == (ordered.cut.freeze, "task=T-1", "key leaked")
    assert "commit selection.frozen cut.ordered" in plane.journal.steps


def test_i04_without_a_freeze_what_is_granted_while_it_runs_is_cut_too(plane: FakePlane) -> None:
    ask(plane, "T-1")
    ordered = cut(plane, "task=T-1", freeze=False)
    assert ordered.cut.freeze is None
    plane.carry_out()
    late = ask(plane, "T-1")
    rest(plane)
    assert plane.grant(late.id).state is State.REVOKED
    assert seen(plane, ordered).progress.counts == {Outcome.VERIFIED: 2}
    after = ask(plane, "T-1")
    rest(plane)
    assert plane.grant(after.id).state is State.ACTIVE, "a cut that is over cuts no more"


def test_p10_a_preview_is_cut_once_however_often_it_is_ordered(plane: FakePlane) -> None:
    ask(plane, "T-1")
    digest = preview(plane, "task=T-1").digest or ""
    first = order(plane, digest)
    rest(plane)
    again = order(plane, digest)
    assert again.cut.id == first.cut.id
    assert (again.changed.new, again.changed.ended) == (0, 1)
    assert len(plane.store.freezes()) == len(plane.events(Kind.CUT_ORDERED)) == 1


def test_p10_an_old_preview_is_refused_with_what_has_changed_since(plane: FakePlane) -> None:
    ask(plane, "T-1")
    second = ask(plane, "T-1")
    digest = preview(plane, "task=T-1").digest or ""
    plane.end(second.id)
    plane.clock.advance(FRESH + timedelta(seconds=1))
    third = ask(plane, "T-1")
    with pytest.raises(StalePreviewError) as refused:
        order(plane, digest)
    assert "of its 2 grants 1 have ended since, and 1 are new" in refused.value.detail
    assert plane.grant(third.id).state is State.ACTIVE
    assert plane.store.cuts() == plane.store.freezes() == []


@pytest.mark.parametrize("text", ["all", "subject", "label.team!=zzz", "state notin (revoked)"])
def test_a27_everything_is_cut_only_where_that_is_said_in_words(plane: FakePlane, text: str) -> None:
    grants = [ask(plane, "T-1"), ask(plane, "T-2")]
    shown = preview(plane, text)
    assert shown.everything
    with pytest.raises(EverythingSelectedError):
        order(plane, shown.digest or "", freeze=False)
    order(plane, shown.digest or "", freeze=False, everything=True)
    rest(plane)
    assert {plane.grant(grant.id).state for grant in grants} == {State.REVOKED}
    assert plane.alive() == []


def test_what_nothing_can_be_frozen_by_is_cut_without_a_freeze_only(plane: FakePlane) -> None:
    ask(plane, "T-1")
    shown = preview(plane, "state=active")
    assert list(shown.unfreezable) == ["state"]
    with pytest.raises(InvalidSelectionError, match="or cut without a freeze"):
        order(plane, shown.digest or "")
    assert plane.store.cuts() == []
    assert order(plane, shown.digest or "", freeze=False).cut.freeze is None


def test_what_only_waits_for_people_is_withdrawn(plane: FakePlane) -> None:
    plane.change(
        compiled_entitlement(approval={"quorum": 1, "from": ["group:oncall"]}, labels={"team": "a"}, risk="high")
    )
    waiting = ask(plane, "T-1", reason="because")
    assert waiting.state is State.PENDING
    ordered = cut(plane, "task=T-1")
    rest(plane)
    assert plane.grant(waiting.id).state is State.LAPSED
    assert seen(plane, ordered).progress.counts == {Outcome.WITHDRAWN: 1}
    assert seen(plane, ordered).progress.proved


def test_c20_the_riskiest_is_due_first(plane: FakePlane) -> None:
    low, high = ask(plane, "T-1"), ask(plane, "T-1", entitlement="orders-other")
    cut(plane, "task=T-1")
    plane.carry_out()
    due = [plane.grant(grant.id).due_at for grant in (high, low)]
    assert due[0] is not None
    assert due[1] is not None
    assert due[0] < due[1]


def test_i01_vault_is_asked_for_every_end_of_a_cut_before_any_is_proved(plane: FakePlane) -> None:
    grants = [ask(plane, f"T-{number}") for number in range(5)]
    assert len(plane.vault.target.users) == 5
    cut(plane, "label.team=a")
    assert plane.carry_out() == 5
    assert not plane.vault.target.users, "nobody has looked yet, and all of them are gone"
    assert {now(plane, grant).state for grant in grants} == {State.REVOKING}
    rest(plane)
    assert {outcome(now(plane, grant)) for grant in grants} == {Outcome.VERIFIED}


def test_r24_a_lease_that_somebody_wrote_into_a_grant_of_a_cut_is_left_alone(plane: FakePlane) -> None:
    victim, mine = ask(plane, "T-1", entitlement="orders-other"), ask(plane, "T-2")
    (lease,) = plane.store.leases(victim.id)
    with plane.store.transaction() as tx:
        tx.add_leases(mine.id, [replace(lease, id=LeaseId(f"{lease.id}x"))])
    asked: list[LeaseId] = []
    leases = _Asked(asked)
    AskToEnd(store=plane.store, leases=cast("Leases", leases), hands=lambda: 1)([now(plane, mine)])
    assert asked == [its.id for its in plane.store.leases(mine.id) if its.path in mine.paths]


def test_i02_without_an_answer_of_vault_nothing_more_is_asked_and_the_worker_goes_on(plane: FakePlane) -> None:
    grants = [ask(plane, f"T-{number}") for number in range(3)]
    plane.vault.faults.sealed = True
    cut(plane, "label.team=a")
    assert plane.carry_out() == 3
    plane.vault.faults.sealed = False
    plane.wait(timedelta(minutes=1))
    assert {outcome(now(plane, grant)) for grant in grants} == {Outcome.VERIFIED}


class _Asked:
    """Keeps what it is asked for."""

    def __init__(self, asked: list[LeaseId]) -> None:
        self._asked = asked

    def ask_to_revoke(self, lease: LeaseId) -> None:
        self._asked.append(lease)


def test_i08_what_resists_is_residual_and_keeps_nothing_else_from_being_verified(plane: FakePlane) -> None:
    stuck = ask(plane, "T-1")
    ordered = cut(plane, "task=T-1")
    plane.vault.target.down = True
    rest(plane)
    now = seen(plane, ordered)
    assert (now.progress.counts, now.progress.proved, now.cut.ended_at) == ({Outcome.RESIDUAL: 1}, False, None)
    (left,) = now.residual
    assert left.grant.id == stuck.id
    assert left.why
    assert left.todo
    plane.vault.target.down = False
    plane.wait(timedelta(hours=25))
    rest(plane)
    assert seen(plane, ordered).progress.counts == {Outcome.VERIFIED: 1}
    assert seen(plane, ordered).cut.ended_at is not None


def test_i02_a_cut_that_was_ordered_goes_on_after_the_store_or_vault_was_away(plane: FakePlane) -> None:
    grant = ask(plane, "T-1")
    ordered = cut(plane, "task=T-1")
    plane.store.down = "away"
    with pytest.raises(StoreUnavailableError):
        plane.carry_out()
    plane.store.down = None
    plane.journal.fail("before", "leases.revoke_token", VaultUnavailableError)
    rest(plane)
    assert plane.grant(grant.id).state is State.REVOKED
    assert seen(plane, ordered).progress.proved


def test_a10_a_grant_in_flight_is_cut_and_never_reaches_its_agent(plane: FakePlane) -> None:
    other = ask(plane, "T-1")

    def meanwhile() -> None:
        cut(plane, "task=T-1")
        plane.carry_out()

    plane.journal.before["logins.wrap"] = meanwhile
    with pytest.raises(Exception, match=r"frozen|not at version|interrupted"):
        ask(plane, "T-1")
    plane.wait(timedelta(hours=1))
    assert {grant.state for grant in plane.store.grants()} == {State.REVOKED}
    assert plane.grant(other.id).why is Why.CUT
    assert plane.alive() == []


@pytest.mark.parametrize("roles", [(), (Role.APPROVER,), (Role.PLATFORM,), (Role.AUDITOR,)])
def test_only_a_responder_previews_and_cuts(plane: FakePlane, roles: tuple[Role, ...]) -> None:
    ask(plane, "T-1")
    digest = preview(plane, "task=T-1").digest or ""
    standing, who = Standing(roles=frozenset(roles)), plane.agent("bob")
    with pytest.raises(NotAllowedError):
        plane.preview(who, standing, "all")
    with pytest.raises(NotAllowedError):
        plane.cut(who, standing, digest, incident="I", reason="r")
    assert plane.store.cuts() == []


def test_a_digest_that_nobody_was_shown_cuts_nothing(plane: FakePlane) -> None:
    with pytest.raises(NotFoundError):
        order(plane, "0" * 64)
    with pytest.raises(NotFoundError):
        plane.cuts(RESPONDER, CutId("ct_nothing"))


def test_a_cut_that_this_release_cannot_read_is_left_to_one_that_can(plane: FakePlane) -> None:
    ask(plane, "T-1")
    ordered = cut(plane, "task=T-1")
    made = plane.store.cut(ordered.cut.id)
    assert made is not None
    object.__setattr__(made, "selection", "moon=full")
    assert plane.carry_out() == 0
    assert seen(plane, ordered).progress.counts == {Outcome.WAITING: 1}


def test_hardening_names_whose_sessions_may_outlive_them_and_needs_somebody_who_may_look(plane: FakePlane) -> None:
    one, other = ask(plane, "T-1"), ask(plane, "T-2", entitlement="orders-other")
    with pytest.raises(InvalidRequestError, match=r"the settings have no vault\.drift"):
        plane.preview(plane.agent("ann"), RESPONDER, "all", harden=True)
    assert preview(plane, "all").soft is None

    def softness(path: str) -> str:
        return "edited" if path == other.paths[0] else ""

    plane.preview = replace(plane.preview, softness=softness)
    shown = plane.preview(plane.agent("ann"), RESPONDER, "all", harden=True)
    assert shown.soft is not None
    (found,) = shown.soft
    assert (found.path, found.grants, found.sessions, found.why) == (other.paths[0], [other.id], 0, "edited")
    plane.vault.target.down = True
    unknown = plane.preview(plane.agent("ann"), RESPONDER, "task=T-2", harden=True).soft or ()
    assert [one.sessions for one in unknown] == [None]
    assert plane.preview(plane.agent("ann"), RESPONDER, f"task={one.task}", harden=True).soft == []
