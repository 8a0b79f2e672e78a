"""Tasks: what is granted for one ends with it, and a part of one never has more than the whole (C9, C13, C21, P03)."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from typing_extensions import override

from controlplane.grants.decide import MIN_TTL
from controlplane.grants.finish_task import FinishedTask
from controlplane.grants.line import beyond, look
from controlplane.model.approval import Narrowing
from controlplane.model.decision import Allow, Deny
from controlplane.model.errors import (
    DeniedError,
    LapsedError,
    LostRaceError,
    NotFoundError,
    StoreUnavailableError,
)
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, State, TaskId, Why
from controlplane.model.identity import VerifiedClaims, WorkloadId
from controlplane.model.request import GrantRequest
from controlplane.model.task import DEEPEST
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane
from controlplane.testing.store import FakeStore

MINUTE = timedelta(minutes=1)
ANYBODY = [{"issuer": "dev", "subject": {"glob": "agent-*"}}]
AGREED: dict[str, Any] = {"risk": "high", "approval": {"quorum": 1, "from": ["group:oncall"]}}
TWO_SCOPES: dict[str, Any] = {
    "scopes": [
        {"name": name, "engine": "database", "connection": "orders", "privileges": [f"select on table shop.{name}"]}
        for name in ("orders", "customers")
    ]
}


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement())


def task(name: str) -> TaskId:
    return TaskId(name)


def ask(
    plane: FakePlane, name: str, parent: str | None = None, who: VerifiedClaims | None = None, **more: Any
) -> Grant:
    return plane.ask(who, task=task(name), parent=None if parent is None else task(parent), **more).grant


def finish(plane: FakePlane, name: str, why: Why = Why.COMPLETED) -> FinishedTask:
    return plane.finish_task(plane.agent(), task(name), why)


def codes(call: Callable[[], object]) -> list[str]:
    with pytest.raises(DeniedError) as refused:
        call()
    return [why.code for why in refused.value.reasons]


def approver(plane: FakePlane) -> VerifiedClaims:
    return plane.agent("ann", role="approver", groups=["oncall"])


def agree(plane: FakePlane, grant: Grant, narrow: Narrowing | None = None) -> None:
    asked = plane.watch.asked(plane.grant(grant.id))
    assert asked is not None
    plane.approve(approver(plane), grant.id, digest=asked.digest, narrow=narrow)


@pytest.mark.parametrize("why", [Why.COMPLETED, Why.FAILED])
def test_c9_finishing_a_task_ends_all_its_grants_and_proves_it(plane: FakePlane, why: Why) -> None:
    grants = [ask(plane, "T-1") for _ in range(3)]
    finished = finish(plane, "T-1", why)
    assert {grant.id for grant in finished.grants} == {grant.id for grant in grants}
    assert {(grant.state, grant.why) for grant in finished.grants} == {(State.REVOKING, why)}
    assert (finished.task.finished_at, finished.task.why) == (plane.clock.now(), why)
    assert plane.woken == 1
    plane.work()
    for grant in grants:
        ended = plane.grant(grant.id)
        assert ended.receipt is not None
        assert (ended.state, ended.receipt.verified) == (State.REVOKED, True)
    assert plane.alive() == []


def test_p4_the_task_and_all_its_grants_end_in_one_commit_that_wakes_the_worker(plane: FakePlane) -> None:
    ids = [ask(plane, "T-1").id for _ in range(100)]
    steps = len(plane.journal.steps)
    finish(plane, "T-1")
    assert plane.journal.steps[steps:] == [" ".join(["commit task.finished", *["grant.ended"] * 100])]
    (told,) = plane.events(Kind.TASK_FINISHED)
    assert (told.body["task"], told.body["why"]) == ("T-1", "completed")
    assert {event.grant for event in plane.events(Kind.GRANT_ENDED)} == set(ids)


@pytest.mark.parametrize("when", ["before", "after"])
def test_p4_a_control_plane_that_dies_at_the_commit_has_ended_all_of_it_or_nothing(plane: FakePlane, when: str) -> None:
    for _ in range(3):
        ask(plane, "T-1")
    step = "commit task.finished grant.ended grant.ended grant.ended"
    plane.journal.fail(when, step, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        finish(plane, "T-1")
    states = {grant.state for grant in plane.store.grants()}
    assert states == ({State.ACTIVE} if when == "before" else {State.REVOKING})
    if when == "before":
        finish(plane, "T-1")
    assert codes(lambda: ask(plane, "T-1")) == ["task-finished"]
    plane.work()
    assert {grant.state for grant in plane.store.grants()} == {State.REVOKED}
    assert plane.alive() == []


def test_c13_a_finished_task_stays_finished(plane: FakePlane) -> None:
    ask(plane, "T-1")
    finish(plane, "T-1")
    assert codes(lambda: ask(plane, "T-1")) == ["task-finished"]
    plane.wait(timedelta(days=30))
    assert codes(lambda: ask(plane, "T-1")) == ["task-finished"]
    asked = GrantRequest(entitlement="orders-read", task=task("T-1"), intent="answer-question")
    explained = plane.explain(plane.agent(), asked).decision
    assert isinstance(explained, Deny)
    assert [why.code for why in explained.reasons] == ["task-finished"]
    assert ask(plane, "T-2").state is State.ACTIVE


def test_repeating_a_finish_tells_what_is_still_not_gone_and_changes_nothing(plane: FakePlane) -> None:
    grant = ask(plane, "T-1")
    first = finish(plane, "T-1", Why.FAILED)
    again = finish(plane, "T-1", Why.COMPLETED)
    assert again == first
    plane.work()
    assert finish(plane, "T-1") == FinishedTask(task=first.task, grants=())
    assert plane.grant(grant.id).why is Why.FAILED
    assert len(plane.events(Kind.TASK_FINISHED)) == 1


def test_a_task_that_never_was_is_not_found_so_that_a_slip_of_the_hand_is_noticed(plane: FakePlane) -> None:
    ask(plane, "T-1")
    for name in ("T-2", "t-1"):
        with pytest.raises(NotFoundError):
            finish(plane, name)
        with pytest.raises(NotFoundError):
            plane.show_task(plane.agent(), task(name))


def test_a_task_whose_request_was_refused_was_never_begun(plane: FakePlane) -> None:
    assert codes(lambda: ask(plane, "T-1", intent="something-else")) == ["unknown-intent"]
    with pytest.raises(NotFoundError):
        finish(plane, "T-1")


def test_a_task_with_nothing_left_to_end_is_finished_with_an_empty_list(plane: FakePlane) -> None:
    grant = ask(plane, "T-1")
    plane.end(grant.id)
    assert finish(plane, "T-1").grants == ()
    assert codes(lambda: ask(plane, "T-1")) == ["task-finished"]


def test_a02_two_workloads_with_the_same_task_never_touch_each_other() -> None:
    plane = FakePlane(compiled_entitlement(eligibility=ANYBODY))
    mine, theirs = (ask(plane, "T-1", who=plane.agent(f"agent-{number}")) for number in (1, 2))
    finished = plane.finish_task(plane.agent("agent-1"), task("T-1"), Why.COMPLETED)
    assert [grant.id for grant in finished.grants] == [mine.id]
    assert plane.grant(theirs.id).state is State.ACTIVE
    assert ask(plane, "T-1", who=plane.agent("agent-2")).state is State.ACTIVE
    with pytest.raises(NotFoundError):
        plane.finish_task(plane.agent("agent-3"), task("T-1"), Why.COMPLETED)


def test_c13_two_grants_of_a_task_share_nothing_and_finishing_one_leaves_the_other(plane: FakePlane) -> None:
    one, other = ask(plane, "T-1"), ask(plane, "T-1")
    assert one.accessor != other.accessor
    assert {lease.id for lease in plane.store.leases(one.id)}.isdisjoint(
        lease.id for lease in plane.store.leases(other.id)
    )
    assert plane.end(one.id).state is State.REVOKED
    assert plane.grant(other.id).state is State.ACTIVE


def test_what_waits_for_people_lapses_with_its_task_and_can_be_neither_approved_nor_collected() -> None:
    plane = FakePlane(compiled_entitlement(**AGREED))
    pending, approved = ask(plane, "T-1"), ask(plane, "T-1")
    agree(plane, approved)
    asked = plane.watch.asked(pending)
    assert asked is not None
    finished = finish(plane, "T-1")
    assert {(grant.state, grant.why) for grant in finished.grants} == {(State.LAPSED, Why.COMPLETED)}
    with pytest.raises(LapsedError):
        plane.collect(plane.agent(), approved.id)
    with pytest.raises(LapsedError):
        plane.approve(approver(plane), pending.id, digest=asked.digest)
    assert not any(step.startswith("logins") for step in plane.journal.steps)


@pytest.mark.parametrize(
    ("when", "step"),
    [(when, step) for when in ("before", "after") for step in ("logins.login", "logins.read", "logins.wrap")],
)
def test_c13_a_grant_that_is_being_issued_while_its_task_ends_reaches_nobody(when: str, step: str) -> None:
    plane = FakePlane(compiled_entitlement())
    ask(plane, "T-1")
    hooks = plane.journal.before if when == "before" else plane.journal.after
    hooks[step] = lambda: finish(plane, "T-1")
    with pytest.raises(LostRaceError):
        ask(plane, "T-1")
    plane.wait(2 * MINUTE)
    assert {grant.state for grant in plane.store.grants()} == {State.REVOKED}
    assert plane.alive() == []


class Racing(FakeStore):
    """Something happens once a task that is to be finished has been looked up, and before anything is saved."""

    after_the_look: Callable[[], object] | None = None

    @override
    def lineage(self, workload: WorkloadId, task: TaskId) -> Any:
        found = super().lineage(workload, task)
        if self.after_the_look is not None:
            happens, self.after_the_look = self.after_the_look, None
            happens()
        return found


def test_c13_a_grant_that_comes_between_the_look_and_the_end_is_ended_too() -> None:
    store = Racing()
    plane = FakePlane(compiled_entitlement(), store=store)
    ask(plane, "T-1")
    late = list[Grant]()
    store.after_the_look = lambda: late.append(ask(plane, "T-1"))
    ended = {grant.id for grant in finish(plane, "T-1").grants}
    assert late[0].id in ended
    assert plane.grant(late[0].id).state is State.REVOKING


def test_p6_where_the_end_of_a_task_cannot_be_saved_vault_is_asked_to_revoke_all_of_it(plane: FakePlane) -> None:
    ids = [ask(plane, "T-1").id, ask(plane, "T-1").id, ask(plane, "T-1/a", "T-1").id]
    ended = " ".join(["commit task.finished", *["grant.ended"] * 3])
    plane.journal.fail("before", ended, StoreUnavailableError)
    with pytest.raises(StoreUnavailableError):
        finish(plane, "T-1")
    for id in ids:
        accessor = plane.grant(id).accessor
        assert accessor is not None
        assert plane.vault.logins.facts(accessor) is None
        assert plane.grant(id).state is State.ACTIVE


def test_c21_a_part_of_a_task_has_credentials_of_its_own_and_no_second_more(plane: FakePlane) -> None:
    whole = ask(plane, "T-1", ttl=10 * MINUTE)
    plane.clock.advance(7 * MINUTE)
    part = ask(plane, "T-1/a", "T-1", ttl=10 * MINUTE)
    assert (part.under, part.state) == (whole.id, State.ACTIVE)
    assert part.expires_at == whole.expires_at
    assert part.ttl == 3 * MINUTE
    assert part.accessor != whole.accessor
    shorter = ask(plane, "T-1/b", "T-1", ttl=MINUTE)
    assert shorter.ttl == MINUTE
    (event,) = plane.events(Kind.GRANT_ALLOWED, part.id)
    assert (event.body["parent"], event.body["under"]) == ("T-1", whole.id)


def test_c21_a_part_hangs_from_the_grant_that_lasts_longest(plane: FakePlane) -> None:
    ask(plane, "T-1", ttl=MINUTE)
    longest = ask(plane, "T-1", ttl=9 * MINUTE)
    ask(plane, "T-1", ttl=3 * MINUTE)
    assert ask(plane, "T-1/a", "T-1").under == longest.id


def test_c21_a_part_gets_no_entitlement_that_the_whole_does_not_hold_now() -> None:
    plane = FakePlane(compiled_entitlement(), compiled_entitlement(entitlement="orders-audit"))
    grant = ask(plane, "T-1")
    assert codes(lambda: ask(plane, "T-1/a", "T-1", entitlement="orders-audit")) == ["beyond-parent"]
    assert ask(plane, "T-1", entitlement="orders-audit").state is State.ACTIVE
    assert ask(plane, "T-1/a", "T-1", entitlement="orders-audit").state is State.ACTIVE
    plane.end(grant.id)
    assert codes(lambda: ask(plane, "T-1/a", "T-1")) == ["beyond-parent"]


def test_c21_a_part_gets_nothing_of_an_entitlement_that_reads_otherwise_by_now(plane: FakePlane) -> None:
    ask(plane, "T-1")
    plane.change(compiled_entitlement(**TWO_SCOPES))
    assert codes(lambda: ask(plane, "T-1/a", "T-1")) == ["beyond-parent"]


def test_c21_what_approvers_took_from_the_whole_no_part_gets() -> None:
    plane = FakePlane(compiled_entitlement(**AGREED, **TWO_SCOPES))
    whole = ask(plane, "T-1", ttl=5 * MINUTE)
    agree(plane, whole, Narrowing(ttl=2 * MINUTE, scopes=("orders",)))
    plane.collect(plane.agent(), whole.id)
    part = ask(plane, "T-1/a", "T-1", ttl=5 * MINUTE)
    assert (part.state, part.scopes, part.ttl) == (State.PENDING, ("orders",), 2 * MINUTE)
    asked = plane.watch.asked(part)
    assert asked is not None
    assert [scope.name for scope in asked.scopes] == ["orders"]
    plane.clock.advance(MINUTE)
    agree(plane, part)
    collected = plane.collect(plane.agent(), part.id).grant
    assert (collected.scopes, collected.under, collected.ttl) == (("orders",), whole.id, MINUTE)
    assert collected.expires_at <= plane.grant(whole.id).expires_at
    assert [lease.scope for lease in plane.store.leases(part.id)] == ["orders"]


def test_c21_an_approved_part_is_not_collected_once_what_it_hangs_from_has_ended() -> None:
    plane = FakePlane(compiled_entitlement(**AGREED))
    whole = ask(plane, "T-1")
    agree(plane, whole)
    plane.collect(plane.agent(), whole.id)
    part = ask(plane, "T-1/a", "T-1")
    agree(plane, part)
    plane.finish(plane.agent(), whole.id, Why.COMPLETED)
    assert codes(lambda: plane.collect(plane.agent(), part.id)) == ["beyond-parent"]
    plane.work()
    lapsed = plane.grant(part.id)
    assert (lapsed.state, lapsed.why) == (State.LAPSED, Why.PARENT_ENDED)


def test_c21_a_part_that_could_only_live_for_moments_is_refused(plane: FakePlane) -> None:
    ask(plane, "T-1", ttl=MINUTE)
    plane.clock.advance(timedelta(seconds=57))
    assert codes(lambda: ask(plane, "T-1/a", "T-1")) == ["parent-ends-too-soon"]


def test_c21_what_a_part_has_in_use_may_go_on_to_the_last_second_of_what_it_hangs_from(plane: FakePlane) -> None:
    ask(plane, "T-1", ttl=MINUTE)
    part = ask(plane, "T-1/a", "T-1")
    plane.clock.advance(timedelta(seconds=57))
    asked = GrantRequest(entitlement="orders-read", task=part.task, intent="answer-question")
    entitlement = compiled_entitlement().entitlement
    for collecting, code in ((None, ["parent-ends-too-soon"]), (part, [])):
        with plane.store.transaction() as tx:
            line = look(tx, plane.agent(), asked, part.revision, collecting)
        least = timedelta(seconds=5)
        assert [why.code for why in beyond(line, entitlement, asked, at=plane.clock.now(), least=least)] == code


def test_c21_a_part_stays_one_though_its_parent_is_left_out_of_a_request(plane: FakePlane) -> None:
    whole = ask(plane, "T-1", ttl=2 * MINUTE)
    ask(plane, "T-1/a", "T-1")
    again = ask(plane, "T-1/a", ttl=5 * MINUTE)
    assert (again.under, again.expires_at) == (whole.id, whole.expires_at)
    plane.end(whole.id)
    assert codes(lambda: ask(plane, "T-1/a")) == ["beyond-parent"]


def test_c21_a_task_cannot_be_moved_under_another_or_under_itself(plane: FakePlane) -> None:
    ask(plane, "T-1")
    ask(plane, "T-2")
    ask(plane, "T-1/a", "T-1")
    for name, parent in (("T-1/a", "T-2"), ("T-1", "T-2"), ("T-1", "T-1/a"), ("T-1", "T-1")):
        assert codes(lambda name=name, parent=parent: ask(plane, name, parent)) == ["other-parent"]


def test_c21_a_parent_that_is_unknown_or_finished_is_refused(plane: FakePlane) -> None:
    assert codes(lambda: ask(plane, "T-1/a", "T-1")) == ["parent-unknown"]
    assert codes(lambda: ask(plane, "T-1", "T-1")) == ["parent-unknown"]
    ask(plane, "T-1")
    ask(plane, "T-1/a", "T-1")
    ask(plane, "T-1/a/x", "T-1/a")
    finish(plane, "T-1")
    for name, parent in (("T-1/b", "T-1"), ("T-1/a", "T-1"), ("T-1/a/x", "T-1/a"), ("T-1/a/y", "T-1/a")):
        assert "parent-finished" in codes(lambda name=name, parent=parent: ask(plane, name, parent))


def test_c21_the_task_of_another_workload_is_no_parent() -> None:
    plane = FakePlane(compiled_entitlement(eligibility=ANYBODY))
    ask(plane, "T-1", who=plane.agent("agent-1"))
    assert codes(lambda: ask(plane, "T-1/a", "T-1", who=plane.agent("agent-2"))) == ["parent-unknown"]


def test_c21_a_workload_that_is_not_eligible_learns_nothing_of_parents_by_asking() -> None:
    plane = FakePlane(compiled_entitlement())
    stranger = plane.agent("agent-9")
    assert codes(lambda: ask(plane, "T-1/a", "T-1", who=stranger)) == ["not-eligible"]


def test_p03_tasks_are_parts_of_each_other_to_a_bounded_depth(plane: FakePlane) -> None:
    ask(plane, "T-1")
    for depth in range(2, DEEPEST + 1):
        ask(plane, f"T-{depth}", f"T-{depth - 1}")
    assert codes(lambda: ask(plane, "T-too-deep", f"T-{DEEPEST}")) == ["too-deep"]
    (deepest,) = plane.show_task(plane.agent(), task(f"T-{DEEPEST - 1}")).parts
    assert deepest.depth == DEEPEST


def test_p03_finishing_the_whole_ends_the_tree_and_the_reason_says_so(plane: FakePlane) -> None:
    whole, part = ask(plane, "T-1"), ask(plane, "T-1/a", "T-1")
    deeper, beside = ask(plane, "T-1/a/x", "T-1/a"), ask(plane, "T-2")
    finished = finish(plane, "T-1")
    whys = {grant.id: grant.why for grant in finished.grants}
    assert whys == {whole.id: Why.COMPLETED, part.id: Why.PARENT_ENDED, deeper.id: Why.PARENT_ENDED}
    plane.work()
    for grant in (whole, part, deeper):
        assert plane.grant(grant.id).state is State.REVOKED
    assert plane.grant(beside.id).state is State.ACTIVE
    shown = plane.show_task(plane.agent(), task("T-1/a"))
    assert (shown.task.finished_at, shown.task.why) == (finished.task.finished_at, Why.PARENT_ENDED)


def test_finishing_a_part_leaves_the_whole(plane: FakePlane) -> None:
    whole, part = ask(plane, "T-1"), ask(plane, "T-1/a", "T-1")
    assert [grant.id for grant in finish(plane, "T-1/a").grants] == [part.id]
    plane.work()
    assert plane.grant(whole.id).state is State.ACTIVE
    assert codes(lambda: ask(plane, "T-1/a")) == ["task-finished"]
    assert ask(plane, "T-1/b", "T-1").state is State.ACTIVE


def end_by_finish(plane: FakePlane, grant: Grant) -> None:
    plane.finish(plane.agent(), grant.id, Why.COMPLETED)


def end_by_time(plane: FakePlane, grant: Grant) -> None:
    plane.clock.advance(grant.expires_at - plane.clock.now())


@pytest.mark.parametrize("end", [end_by_finish, end_by_time])
def test_p03_a_part_s_grant_dies_with_the_grant_it_hangs_from_however_that_ends(
    plane: FakePlane, end: Callable[[FakePlane, Grant], None]
) -> None:
    whole = ask(plane, "T-1")
    part = ask(plane, "T-1/a", "T-1", ttl=4 * MINUTE)
    deeper = ask(plane, "T-1/a/x", "T-1/a", ttl=4 * MINUTE)
    end(plane, whole)
    plane.wait(MINUTE)
    for grant in (whole, part, deeper):
        assert plane.grant(grant.id).state is State.REVOKED
    assert plane.alive() == []


def test_p4_what_hangs_from_a_grant_is_on_its_way_out_before_that_grant_is_called_revoked(plane: FakePlane) -> None:
    whole = ask(plane, "T-1")
    part = ask(plane, "T-1/a", "T-1")
    plane.finish(plane.agent(), whole.id, Why.COMPLETED)
    plane.journal.fail("before", "leases.revoke_token", KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        plane.work()
    ending = plane.grant(part.id)
    assert (ending.state, ending.why, ending.due_at) == (State.REVOKING, Why.PARENT_ENDED, plane.clock.now())
    plane.clock.advance(2 * MINUTE)
    plane.work()
    assert plane.alive() == []


def test_p6_a_store_that_cannot_save_the_end_of_a_part_keeps_neither_token_alive(plane: FakePlane) -> None:
    whole = ask(plane, "T-1")
    part = ask(plane, "T-1/a", "T-1")
    plane.finish(plane.agent(), whole.id, Why.COMPLETED)
    plane.journal.fail("before", "commit grant.ended", StoreUnavailableError)
    with pytest.raises(StoreUnavailableError):
        plane.work()
    for grant in (whole, part):
        assert grant.accessor is not None
        assert plane.vault.logins.facts(grant.accessor) is None
    plane.wait(2 * MINUTE)
    assert {plane.grant(grant.id).state for grant in (whole, part)} == {State.REVOKED}


def test_only_a_request_that_names_a_parent_has_another_digest_than_before() -> None:
    plain = GrantRequest(entitlement="orders-read", task=task("T-1"), intent="answer-question")
    assert plain.digest == "ca557df3f65346b6af0aa54962eeea9dabc0009e8e2ee52652306207c48f1ccd"
    assert replace(plain, parent=task("T-0")).digest not in {plain.digest, replace(plain, parent=task("T-2")).digest}


def test_explaining_a_part_decides_as_its_request_would(plane: FakePlane) -> None:
    ask(plane, "T-1")
    asked = GrantRequest(entitlement="orders-read", task=task("T-1/a"), intent="answer-question", parent=task("T-1"))
    decision = plane.explain(plane.agent(), asked).decision
    assert isinstance(decision, Allow)
    assert "parent-goes-on" in {why.code for why in decision.reasons}
    with pytest.raises(NotFoundError):
        plane.show_task(plane.agent(), task("T-1/a"))


def test_c21_a_renewed_part_ends_no_later_than_what_it_hangs_from(plane: FakePlane) -> None:
    whole = ask(plane, "T-1", ttl=8 * MINUTE)
    part = ask(plane, "T-1/a", parent="T-1", ttl=2 * MINUTE)
    plane.clock.advance(MINUTE)
    renewed = plane.renew(plane.agent(), part.id)
    assert renewed.grant.expires_at == plane.clock.now() + 5 * MINUTE
    plane.clock.advance(4 * MINUTE)
    assert plane.renew(plane.agent(), part.id).grant.expires_at == whole.expires_at
    assert codes(lambda: plane.renew(plane.agent(), part.id, ttl=5 * MINUTE)) == ["ttl-above-maximum"]
    later = plane.renew(plane.agent(), whole.id).grant
    assert plane.renew(plane.agent(), part.id).grant.expires_at == later.expires_at


def test_c21_a_part_whose_parent_ends_soon_goes_on_until_then(plane: FakePlane) -> None:
    whole = ask(plane, "T-1", ttl=2 * MINUTE)
    part = ask(plane, "T-1/a", parent="T-1")
    plane.clock.advance(whole.ttl - MIN_TTL / 2)
    assert plane.heartbeat(plane.agent(), part.id).state is State.ACTIVE
    assert codes(lambda: plane.renew(plane.agent(), part.id)) == ["ttl-above-maximum"]
