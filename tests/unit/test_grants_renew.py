"""Renewing: everything decided anew, all of it extended or none, and revoking always wins (C8, C11, C15, P2, P8)."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplane.grants.renew import Renewed
from controlplane.model.access import Role, Standing
from controlplane.model.approval import Narrowing
from controlplane.model.decision import Decides
from controlplane.model.errors import (
    ClockOffError,
    ContextChangedError,
    DeniedError,
    EndedError,
    FrozenError,
    IllegalTransitionError,
    LostRaceError,
    NotFoundError,
    OverBudgetError,
    StoreBehindError,
    StoreUnavailableError,
    VaultRefusedError,
    VaultUnavailableError,
)
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State, Why
from controlplane.model.lease import LeaseId
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane
from controlplane.testing.policies import policy_of

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
RESPONDER = Standing(roles=frozenset({Role.RESPONDER}))
ANYBODY = [{"issuer": "dev", "subject": {"glob": "agent-*"}}]
ORDERS = {
    "name": "orders",
    "engine": "database",
    "connection": "orders",
    "privileges": ["select on table sales.orders"],
}
CERTIFICATE = {"name": "client", "engine": "pki", "common_name": "a.agents.acme.example", "usages": ["client"]}


class KilledError(BaseException):
    """What kill -9 is to a process: nothing of ours runs any more."""


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement())


def renew(plane: FakePlane, id: GrantId, **wish: Any) -> Renewed:
    return plane.renew(plane.agent(), id, **wish)


def freeze(plane: FakePlane) -> None:
    plane.freeze(plane.agent("ann"), RESPONDER, "all", message="Stop.", reason="drill")


def ends_at_vault(plane: FakePlane, id: GrantId) -> tuple[timedelta, ...]:
    """What is left at Vault of the token, and then of each lease."""
    grant = plane.grant(id)
    assert grant.accessor is not None
    token = plane.vault.logins.facts(grant.accessor)
    leases = [plane.vault.leases.facts(lease.id) for lease in plane.store.leases(id)]
    return tuple(facts.ttl for facts in (token, *leases) if facts is not None)


def codes(error: DeniedError) -> list[tuple[Decides, str]]:
    return [(why.decision, why.code) for why in error.reasons]


def test_a_renewal_moves_the_end_of_token_leases_and_store_alike(plane: FakePlane) -> None:
    first = plane.ask().grant
    plane.clock.advance(4 * MINUTE)
    renewed = renew(plane, first.id)
    now = plane.clock.now()
    assert renewed.grant == plane.grant(first.id)
    assert renewed.grant.expires_at == now + 5 * MINUTE
    assert (renewed.grant.ttl, renewed.grant.began_at) == (9 * MINUTE, first.began_at)
    assert {lease.expires_at for lease in renewed.leases} == {now + 5 * MINUTE}
    assert ends_at_vault(plane, first.id) == (5 * MINUTE, 5 * MINUTE)
    assert (renewed.grant.renewing_to, renewed.grant.renewing_by) == (None, None)
    plane.wait(4 * MINUTE)
    assert plane.grant(first.id).state is State.ACTIVE
    plane.wait(2 * MINUTE)
    assert (plane.grant(first.id).state, plane.grant(first.id).why) == (State.REVOKED, Why.EXPIRED)
    assert plane.alive() == []


def test_p4_the_intent_is_on_disk_before_vault_is_asked_and_the_end_only_after_it_has_given_all(
    plane: FakePlane,
) -> None:
    id = plane.ask().grant.id
    old = plane.grant(id)
    plane.clock.advance(MINUTE)
    plane.journal.steps.clear()
    seen: list[Grant] = []
    plane.journal.before["leases.extend"] = lambda: seen.append(plane.grant(id))
    new = renew(plane, id).grant
    assert plane.journal.steps == ["commit renewal.allowed", "leases.facts", "leases.extend", "commit grant.renewed"]
    (during,) = seen
    assert (during.expires_at, during.renewing_to) == (old.expires_at, new.expires_at)
    (allowed,), (done,) = plane.events(Kind.RENEWAL_ALLOWED, id), plane.events(Kind.GRANT_RENEWED, id)
    assert allowed.body["until"] == done.body["until"] == new.expires_at.isoformat(timespec="seconds")


def test_the_maximum_counts_from_the_beginning_and_a_wish_beyond_it_is_refused_and_ends_nothing(
    plane: FakePlane,
) -> None:
    first = plane.ask().grant
    plane.clock.advance(4 * MINUTE)
    with pytest.raises(DeniedError, match="later end") as refused:
        renew(plane, first.id, ttl=12 * MINUTE)
    assert codes(refused.value) == [(Decides.SCOPE, "ttl-above-maximum")]
    assert plane.grant(first.id).expires_at == first.expires_at
    assert len(plane.events(Kind.RENEWAL_REFUSED, first.id)) == 1
    assert renew(plane, first.id, ttl=11 * MINUTE).grant.expires_at == first.began_at + 15 * MINUTE
    plane.clock.advance(8 * MINUTE)
    with pytest.raises(DeniedError, match="later end"):
        renew(plane, first.id)
    plane.clock.advance(2 * MINUTE)
    assert plane.grant(first.id).state is State.ACTIVE


def test_without_a_wish_it_gets_what_is_left_of_its_maximum(plane: FakePlane) -> None:
    first = plane.ask(ttl=14 * MINUTE).grant
    plane.clock.advance(13 * MINUTE)
    assert renew(plane, first.id).grant.expires_at == first.began_at + 15 * MINUTE
    assert max(ends_at_vault(plane, first.id)) == 2 * MINUTE


def test_c15_however_often_it_is_renewed_it_ends_at_its_maximum(plane: FakePlane) -> None:
    delivered = plane.ask()
    id = delivered.grant.id
    assert delivered.wrapping_token is not None
    plane.vault.unwrap(delivered.wrapping_token)
    for _ in range(40):
        plane.wait(30 * SECOND)
        if plane.grant(id).state is State.ACTIVE:
            try:
                renew(plane, id)
            except DeniedError as error:
                assert codes(error) == [(Decides.SCOPE, "ttl-above-maximum")]  # noqa: PT017 # not every one is refused
    gone = plane.grant(id)
    assert (gone.state, gone.why, gone.ttl) == (State.REVOKED, Why.EXPIRED, 15 * MINUTE)
    assert plane.alive() == []


def test_no_renewal_lets_a_grant_end_sooner_and_one_for_nothing_asks_vault_nothing(plane: FakePlane) -> None:
    first = plane.ask().grant
    plane.journal.steps.clear()
    assert renew(plane, first.id, ttl=MINUTE).grant.expires_at == first.expires_at
    assert plane.journal.steps == []


def test_two_renewals_after_each_other_are_as_good_as_one(plane: FakePlane) -> None:
    first = plane.ask().grant
    plane.clock.advance(MINUTE)
    assert renew(plane, first.id) == renew(plane, first.id)
    assert len(plane.events(Kind.GRANT_RENEWED)) == 1


def test_c10_a_certificate_cannot_live_longer_so_nothing_of_its_grant_does() -> None:
    plane = FakePlane(compiled_entitlement(scopes=[ORDERS, CERTIFICATE]))
    first = plane.ask().grant
    plane.clock.advance(2 * MINUTE)
    before = ends_at_vault(plane, first.id)
    with pytest.raises(DeniedError) as refused:
        renew(plane, first.id)
    assert codes(refused.value) == [(Decides.SCOPE, "not-renewable")]
    assert "client" in refused.value.reasons[0].detail
    plane.work()
    assert ends_at_vault(plane, first.id) == before
    now = plane.grant(first.id)
    assert (now.state, now.expires_at, now.renewing_to) == (State.ACTIVE, first.expires_at, None)


def test_a02_another_workloads_grant_and_one_that_never_was_are_refused_in_the_same_words() -> None:
    plane = FakePlane(compiled_entitlement(eligibility=ANYBODY))
    id, none = plane.ask(plane.agent("agent-1")).grant.id, GrantId("gr_" + "z" * 24)
    told: list[str] = []
    for wanted in (id, none):
        for act in (plane.renew, plane.heartbeat):
            with pytest.raises(NotFoundError) as error:
                act(plane.agent("agent-2"), wanted)
            told.append(error.value.detail.replace(wanted, "x"))
    assert len(set(told)) == 1


def test_what_is_not_in_use_yet_or_any_more_is_not_renewed() -> None:
    plane = FakePlane(
        compiled_entitlement(),
        compiled_entitlement(entitlement="asks-people", approval={"quorum": 1, "from": ["group:o"]}),
    )
    waits = plane.ask(entitlement="asks-people").grant.id
    with pytest.raises(IllegalTransitionError, match="pending"):
        renew(plane, waits)
    over = plane.ask(task="T-2").grant.id
    plane.clock.advance(5 * MINUTE)
    with pytest.raises(EndedError, match="expired"):
        renew(plane, over)
    done = plane.ask(task="T-3").grant.id
    plane.end(done)
    with pytest.raises(EndedError, match="revoked: completed"):
        renew(plane, done)
    assert not plane.events(Kind.RENEWAL_ALLOWED)


# Decided anew -----------------------------------------------------------------------------------------------------


def removed(plane: FakePlane) -> None:
    plane.entitlements.by_name.clear()


def narrower(plane: FakePlane) -> None:
    plane.change(compiled_entitlement(scopes=[{**ORDERS, "privileges": ["select (id) on table sales.orders"]}]))


def not_eligible(plane: FakePlane) -> None:
    plane.change(compiled_entitlement(eligibility=ANYBODY))


def other_intents(plane: FakePlane) -> None:
    plane.change(compiled_entitlement(intents=["another-thing"]))


def closed_window(plane: FakePlane) -> None:
    plane.change(compiled_entitlement(context={"windows": ["Tue 03:00-03:01 UTC"]}))


def elsewhere(plane: FakePlane) -> None:
    plane.change(compiled_entitlement(context={"networks": ["10.0.0.0/8"]}))


def asks_people(plane: FakePlane) -> None:
    plane.change(compiled_entitlement(approval={"quorum": 1, "from": ["group:oncall"]}))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (removed, (Decides.ELIGIBILITY, "not-eligible")),
        (narrower, (Decides.SCOPE, "entitlement-changed")),
        (not_eligible, (Decides.ELIGIBILITY, "not-eligible")),
        (other_intents, (Decides.SCOPE, "unknown-intent")),
        (closed_window, (Decides.CONTEXT, "outside-window")),
        (elsewhere, (Decides.CONTEXT, "address-unknown")),
        (asks_people, (Decides.APPROVAL, "approval-void")),
    ],
)
@pytest.mark.parametrize("verb", ["renew", "heartbeat"])
def test_c11_what_would_not_be_granted_any_more_ends_and_says_why(
    plane: FakePlane, verb: str, change: Callable[[FakePlane], None], expected: tuple[Decides, str]
) -> None:
    id = plane.ask().grant.id
    change(plane)
    with pytest.raises(ContextChangedError, match="has ended") as told:
        getattr(plane, verb)(plane.agent(), id)
    assert expected in codes(told.value)
    ended = plane.grant(id)
    assert (ended.state, ended.why) == (State.REVOKING, Why.CONTEXT_CHANGED)
    (event,) = plane.events(Kind.GRANT_ENDED, id)
    assert event.body["why"] == "context-changed"
    assert expected[1] in str(event.body["reasons"])
    plane.work()
    assert plane.grant(id).state is State.REVOKED
    assert plane.alive() == []
    with pytest.raises(EndedError, match="context-changed"):
        getattr(plane, verb)(plane.agent(), id)


def test_p12_whoever_is_not_eligible_any_more_learns_nothing_else_of_the_entitlement(plane: FakePlane) -> None:
    id = plane.ask().grant.id
    plane.change(
        compiled_entitlement(eligibility=ANYBODY, intents=["another-thing"], ttl={"default": "1m", "max": "2m"})
    )
    with pytest.raises(ContextChangedError) as told:
        renew(plane, id)
    assert codes(told.value) == [(Decides.ELIGIBILITY, "not-eligible")]


@pytest.mark.parametrize("verb", ["renew", "heartbeat"])
def test_c7_a_policy_that_says_no_now_ends_what_it_said_yes_to(tmp_path: Path, verb: str) -> None:
    plane = FakePlane(compiled_entitlement(), policy=policy_of(tmp_path, ""))
    id = plane.ask().grant.id
    no = '@id("never") @reason("not now") forbid (principal, action, resource);'
    later = FakePlane(
        compiled_entitlement(), store=plane.store, vault=plane.vault, clock=plane.clock, policy=policy_of(tmp_path, no)
    )
    with pytest.raises(ContextChangedError) as told:
        getattr(later, verb)(later.agent(), id)
    assert codes(told.value) == [(Decides.POLICY, "policy-forbids")]


def test_c7_a_policy_can_refuse_a_later_end_and_leave_the_grant_what_it_has(tmp_path: Path) -> None:
    short = (
        '@id("short") @reason("no longer than 7m") forbid (principal, action == Action::"renew", resource)'
        ' when { context.ttl > duration("7m") };'
    )
    plane = FakePlane(compiled_entitlement(), policy=policy_of(tmp_path, short))
    first = plane.ask(ttl=8 * MINUTE).grant
    plane.clock.advance(4 * MINUTE)
    with pytest.raises(DeniedError) as refused:
        renew(plane, first.id)
    assert codes(refused.value) == [(Decides.POLICY, "policy-forbids")]
    assert plane.grant(first.id).ttl == 8 * MINUTE
    assert plane.heartbeat(plane.agent(), first.id).state is State.ACTIVE
    short_lived = plane.ask(task="T-2", ttl=2 * MINUTE).grant
    plane.clock.advance(MINUTE)
    assert renew(plane, short_lived.id).grant.ttl == 6 * MINUTE


def test_p8_a_freeze_refuses_a_later_end_and_ends_nothing(plane: FakePlane) -> None:
    first = plane.ask().grant
    plane.clock.advance(MINUTE)
    freeze(plane)
    plane.journal.steps.clear()
    with pytest.raises(FrozenError):
        renew(plane, first.id)
    assert plane.journal.steps == ["commit renewal.refused"]
    assert plane.heartbeat(plane.agent(), first.id).state is State.ACTIVE
    assert plane.grant(first.id).expires_at == first.expires_at


def test_p8_a_freeze_that_comes_while_vault_is_asked_takes_the_later_end_back(plane: FakePlane) -> None:
    first = plane.ask().grant
    plane.clock.advance(MINUTE)
    plane.journal.after["leases.extend"] = lambda: freeze(plane)
    with pytest.raises(FrozenError):
        renew(plane, first.id)
    plane.work()
    assert (plane.grant(first.id).expires_at, plane.grant(first.id).renewing_to) == (first.expires_at, None)
    assert ends_at_vault(plane, first.id) == (4 * MINUTE, 4 * MINUTE)


def test_a_freeze_does_not_hide_that_the_entitlement_is_gone(plane: FakePlane) -> None:
    id = plane.ask().grant.id
    freeze(plane)
    removed(plane)
    with pytest.raises(ContextChangedError):
        renew(plane, id)
    assert plane.grant(id).why is Why.CONTEXT_CHANGED


def test_c22_a_budget_does_not_count_the_grant_itself_and_ends_nothing() -> None:
    plane = FakePlane(
        compiled_entitlement(context={"max_active": {"per_subject": 2}, "max_requests": {"per_subject": "2/h"}})
    )
    first, _ = plane.ask(task="T-1").grant, plane.ask(task="T-2").grant
    plane.clock.advance(MINUTE)
    assert renew(plane, first.id).grant.expires_at > first.expires_at
    plane.change(compiled_entitlement(context={"max_active": {"per_subject": 1}}))
    plane.clock.advance(MINUTE)
    with pytest.raises(OverBudgetError) as refused:
        renew(plane, first.id)
    assert codes(refused.value) == [(Decides.CONTEXT, "over-max-active-per-subject")]
    assert plane.heartbeat(plane.agent(), first.id).state is State.ACTIVE


def test_c17_what_people_agreed_to_is_never_made_longer() -> None:
    plane = FakePlane(compiled_entitlement(approval={"quorum": 1, "from": ["group:oncall"]}))
    id = plane.ask(ttl=10 * MINUTE).grant.id
    asked = plane.watch.asked(plane.grant(id))
    assert asked is not None
    ann = plane.agent("ann", role="approver", groups=["oncall"])
    plane.approve(ann, id, digest=asked.digest, narrow=Narrowing(ttl=3 * MINUTE))
    plane.collect(plane.agent(), id)
    plane.clock.advance(2 * MINUTE)
    with pytest.raises(DeniedError, match="later end") as refused:
        renew(plane, id, ttl=2 * MINUTE)
    assert "people have agreed to no more" in refused.value.reasons[0].detail
    assert plane.grant(id).ttl == 3 * MINUTE
    assert plane.heartbeat(plane.agent(), id).state is State.ACTIVE


def test_c17_an_approval_of_somebody_who_may_not_approve_any_more_ends_what_it_allowed() -> None:
    plane = FakePlane(compiled_entitlement(approval={"quorum": 1, "from": ["group:oncall"]}))
    id = plane.ask().grant.id
    asked = plane.watch.asked(plane.grant(id))
    assert asked is not None
    plane.approve(plane.agent("ann", role="approver", groups=["oncall"]), id, digest=asked.digest)
    plane.collect(plane.agent(), id)
    assert plane.heartbeat(plane.agent(), id).state is State.ACTIVE
    plane.access = ()
    with pytest.raises(ContextChangedError) as told:
        plane.heartbeat(plane.agent(), id)
    assert codes(told.value) == [(Decides.APPROVAL, "approval-void")]


def test_c19_broken_glass_is_renewed_although_its_own_review_is_open() -> None:
    plane = FakePlane(compiled_entitlement(break_glass=True, ttl={"default": "5m", "max": "10m"}))
    first = plane.ask(reason="the checkout is down").grant
    plane.clock.advance(MINUTE)
    assert renew(plane, first.id).grant.expires_at == first.expires_at + MINUTE


def test_neither_a_wrong_clock_nor_a_restored_store_gives_a_later_end(plane: FakePlane) -> None:
    first = plane.ask().grant
    plane.clock.advance(MINUTE)
    plane.ahead = MINUTE
    with pytest.raises(ClockOffError):
        renew(plane, first.id)
    plane.ahead = timedelta(0)
    backup = plane.store.backup()
    plane.ask(task="T-2")
    plane.reconcile()
    restored = FakePlane(compiled_entitlement(), store=backup, vault=plane.vault, clock=plane.clock, started=True)
    with pytest.raises(StoreBehindError):
        restored.renew(restored.agent(), first.id)
    assert restored.heartbeat(restored.agent(), first.id).expires_at == first.expires_at


# Interrupted ------------------------------------------------------------------------------------------------------


def sealed(plane: FakePlane) -> None:
    plane.vault.faults.sealed = True


def lost_halfway(plane: FakePlane) -> None:
    plane.vault.faults.lose_extend = True


def lost_at_the_end(plane: FakePlane) -> None:
    plane.vault.faults.lose_extended = True


@pytest.mark.parametrize("fault", [sealed, lost_halfway, lost_at_the_end])
def test_p2_when_vault_does_not_answer_the_end_of_before_stands_and_is_made_so(
    plane: FakePlane, fault: Callable[[FakePlane], None]
) -> None:
    first = plane.ask().grant
    plane.clock.advance(MINUTE)
    fault(plane)
    with pytest.raises(VaultUnavailableError):
        renew(plane, first.id)
    assert plane.grant(first.id).expires_at == first.expires_at
    plane.work()
    plane.vault.faults.sealed = False
    plane.wait(5 * SECOND)
    now = plane.grant(first.id)
    assert (now.state, now.expires_at, now.renewing_to) == (State.ACTIVE, first.expires_at, None)
    left = first.expires_at - plane.clock.now()
    assert all(ttl <= left + SECOND for ttl in ends_at_vault(plane, first.id))
    assert len(plane.events(Kind.RENEWAL_UNDONE, first.id)) == 1
    assert renew(plane, first.id).grant.expires_at > first.expires_at


def test_a_lease_that_vault_lets_live_less_long_takes_back_what_the_others_got(plane: FakePlane) -> None:
    first = plane.ask().grant
    plane.clock.advance(MINUTE)
    plane.vault.target.down = True
    with pytest.raises(VaultRefusedError):
        renew(plane, first.id)
    plane.work()
    plane.vault.target.down = False
    plane.wait(5 * SECOND)
    assert plane.grant(first.id).renewing_to is None
    assert max(ends_at_vault(plane, first.id)) <= 4 * MINUTE


def test_while_vault_cannot_take_it_back_the_worker_still_ends_it_by_the_end_of_before(plane: FakePlane) -> None:
    first = plane.ask().grant
    plane.clock.advance(MINUTE)
    plane.vault.faults.lose_extended = True
    plane.journal.after["leases.extend"] = lambda: None
    with pytest.raises(VaultUnavailableError):
        renew(plane, first.id)
    sealed(plane)
    plane.wait(4 * MINUTE)
    assert (plane.grant(first.id).state, plane.grant(first.id).why) == (State.REVOKING, Why.EXPIRED)
    plane.vault.faults.sealed = False
    plane.wait(MINUTE)
    assert plane.grant(first.id).state is State.REVOKED
    assert plane.alive() == []


@pytest.mark.parametrize(
    ("when", "step"),
    [
        ("before", "commit renewal.allowed"),
        ("after", "commit renewal.allowed"),
        ("before", "leases.extend"),
        ("after", "leases.extend"),
        ("before", "commit grant.renewed"),
        ("after", "commit grant.renewed"),
    ],
)
def test_p4_killed_at_any_step_it_ends_no_later_than_the_store_says(plane: FakePlane, when: str, step: str) -> None:
    first = plane.ask().grant
    plane.clock.advance(MINUTE)
    plane.journal.fail(when, step, KilledError)
    with pytest.raises(KilledError):
        renew(plane, first.id)
    plane.wait(MINUTE)  # another process, with the same store
    now = plane.grant(first.id)
    assert now.renewing_to is None
    done = (when, step) == ("after", "commit grant.renewed")
    assert now.expires_at == first.expires_at + (MINUTE if done else timedelta(0))
    left = now.expires_at - plane.clock.now()
    assert all(abs(ttl - left) <= SECOND for ttl in ends_at_vault(plane, first.id))
    plane.wait(left)
    assert plane.grant(first.id).state is State.REVOKED
    assert plane.alive() == []


def test_a_commit_that_fails_after_vault_gave_all_is_taken_back(plane: FakePlane) -> None:
    first = plane.ask().grant
    plane.clock.advance(MINUTE)
    plane.journal.fail("before", "commit grant.renewed", StoreUnavailableError)
    with pytest.raises(StoreUnavailableError):
        renew(plane, first.id)
    plane.wait(SECOND)
    assert plane.grant(first.id).expires_at == first.expires_at
    assert max(ends_at_vault(plane, first.id)) <= 4 * MINUTE


def test_a_store_that_is_down_while_it_decides_ends_nothing(plane: FakePlane) -> None:
    id = plane.ask().grant.id
    plane.journal.fail("before", "commit renewal.allowed", StoreUnavailableError)
    plane.clock.advance(MINUTE)
    with pytest.raises(StoreUnavailableError):
        renew(plane, id)
    assert plane.grant(id).state is State.ACTIVE
    assert renew(plane, id).grant.state is State.ACTIVE


def test_what_must_end_is_revoked_at_vault_even_if_its_end_cannot_be_saved(plane: FakePlane) -> None:
    id = plane.ask().grant.id
    removed(plane)
    plane.journal.fail("before", "commit grant.ended", StoreUnavailableError)
    with pytest.raises(StoreUnavailableError):
        renew(plane, id)
    assert plane.alive() == []


# Races ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before leases.extend", "after leases.extend", "before commit grant.renewed"])
@pytest.mark.parametrize("revoked_at_once", [True, False])
def test_revoking_wins_over_a_renewal_at_every_moment(plane: FakePlane, moment: str, *, revoked_at_once: bool) -> None:
    first = plane.ask().grant
    plane.clock.advance(MINUTE)
    when, _, step = moment.partition(" ")

    def finish() -> None:
        plane.finish(plane.agent(), first.id, Why.COMPLETED)
        if revoked_at_once:
            plane.work()

    if step.startswith("commit"):
        plane.journal.after["leases.extend"] = finish
    else:
        getattr(plane.journal, when)[step] = finish
    with pytest.raises((EndedError, VaultRefusedError, DeniedError)):
        renew(plane, first.id)
    plane.work()
    ended = plane.grant(first.id)
    assert (ended.state, ended.why, ended.expires_at) == (State.REVOKED, Why.COMPLETED, first.expires_at)
    assert plane.alive() == []
    assert not plane.events(Kind.GRANT_RENEWED)


def test_an_end_that_comes_between_deciding_and_saving_wins(plane: FakePlane) -> None:
    first = plane.ask().grant
    plane.clock.advance(5 * MINUTE - SECOND)

    def late() -> None:
        plane.clock.advance(2 * SECOND)
        plane.work()

    plane.journal.before["leases.extend"] = late
    with pytest.raises((EndedError, VaultRefusedError)):
        renew(plane, first.id)
    assert (plane.grant(first.id).state, plane.grant(first.id).why) == (State.REVOKED, Why.EXPIRED)
    assert plane.alive() == []


def test_of_two_renewals_at_once_one_wins_and_the_other_is_told(plane: FakePlane) -> None:
    first = plane.ask().grant
    plane.clock.advance(MINUTE)
    lost: list[Exception] = []

    def second() -> None:
        with pytest.raises(LostRaceError) as error:
            renew(plane, first.id, ttl=10 * MINUTE)
        lost.append(error.value)

    plane.journal.before["leases.extend"] = second
    assert renew(plane, first.id).grant.expires_at == plane.clock.now() + 5 * MINUTE
    assert len(lost) == 1
    assert ends_at_vault(plane, first.id) == (5 * MINUTE, 5 * MINUTE)


def test_a_renewal_that_was_undone_because_it_took_too_long_is_not_saved_afterwards(plane: FakePlane) -> None:
    first = plane.ask(ttl=10 * MINUTE).grant
    plane.clock.advance(MINUTE)

    def slow() -> None:
        plane.clock.advance(31 * SECOND)
        plane.work()

    plane.journal.after["leases.extend"] = slow
    with pytest.raises(LostRaceError, match="undone"):
        renew(plane, first.id, ttl=12 * MINUTE)
    now = plane.grant(first.id)
    assert (now.expires_at, now.renewing_to) == (first.expires_at, None)
    left = first.expires_at - plane.clock.now()
    assert ends_at_vault(plane, first.id) == (left, left)


def test_a_lease_of_somebody_else_is_never_touched(plane: FakePlane) -> None:
    first, other = plane.ask(task="T-1").grant, plane.ask(task="T-2").grant
    plane.clock.advance(MINUTE)
    before = ends_at_vault(plane, other.id)
    leases: list[LeaseId] = [lease.id for lease in plane.store.leases(other.id)]
    renew(plane, first.id)
    assert ends_at_vault(plane, other.id) == before
    assert [lease.id for lease in plane.store.leases(other.id)] == leases
    assert {lease.expires_at for lease in plane.store.leases(other.id)} == {other.expires_at}
