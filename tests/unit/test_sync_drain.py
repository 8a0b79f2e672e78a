"""Draining by force: live grants of what is retired are cut first, by name and reason; nothing is orphaned (Y27)."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from controlplane.incident.cuts import Seen
from controlplane.incident.drain import DrainRevision
from controlplane.model.event import Kind
from controlplane.model.grant import State, TaskId, Why
from controlplane.model.plan import Action, Change, Compiled
from controlplane.sync.apply import Applied, ApplySync
from controlplane.sync.ours import Origin
from controlplane.sync.plan import PlanSync
from controlplane.testing.entitlements import LAYOUT, compiled_entitlement
from controlplane.testing.plane import FakePlane

OLD = compiled_entitlement()
NEW = compiled_entitlement(ttl={"default": "5m", "max": "10m"})
OTHER = compiled_entitlement(entitlement="orders-other")
PATIENCE = timedelta(seconds=90)


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(OLD, OTHER)


def cutting(plane: FakePlane) -> tuple[Callable[[Origin], bool], list[Seen | None]]:
    """What `--force-drain` brings, with the worker at work meanwhile; and what it saw."""

    def pause(span: timedelta) -> None:
        plane.clock.advance(span)
        plane.work()

    drain = DrainRevision(
        clock=plane.clock, preview=plane.preview, order=plane.cut, cuts=plane.cuts, pause=pause, within=PATIENCE
    )
    heard: list[Seen | None] = []

    def ends(old: Origin) -> bool:
        seen = drain("ann", old.entitlement, old.revision, incident="drain-0a1b", reason="it was too wide")
        heard.append(seen)
        return seen is None or seen.cut.ended_at is not None

    return ends, heard


def applied(plane: FakePlane, *wanted: Compiled, drain: Callable[[Origin], bool] | None = None) -> Applied:
    roles = plane.vault.roles
    plan = PlanSync(roles=roles, layout=LAYOUT)
    return ApplySync(roles=roles, plan=plan, drain=drain)(wanted, plan(wanted))


def standing(plane: FakePlane) -> set[str]:
    return set(plane.vault.roles.read(LAYOUT))


def paths(*wanted: Compiled) -> set[str]:
    return {item.path for one in wanted for item in one.objects}


def test_without_it_a_retired_revision_lives_until_no_lease_hangs_from_it(plane: FakePlane) -> None:
    grant = plane.ask().grant
    assert len(applied(plane, NEW, OTHER).waiting) == 2
    assert plane.grant(grant.id).state is State.ACTIVE
    plane.end(grant.id)
    assert applied(plane, NEW, OTHER).done == {Action.RETIRE: 2}


def test_c29_live_grants_of_a_retired_revision_are_cut_and_proved_gone_before_it_is_removed(plane: FakePlane) -> None:
    grant, kept = plane.ask().grant, plane.ask(entitlement="orders-other", task=TaskId("T-2")).grant
    drain, heard = cutting(plane)
    done = applied(plane, NEW, OTHER, drain=drain)
    assert (done.done, done.waiting) == ({Action.CREATE: 3, Action.RETIRE: 3}, ())
    assert standing(plane) == paths(NEW, OTHER)
    ended = plane.grant(grant.id)
    assert (ended.state, ended.why) == (State.REVOKED, Why.CUT)
    assert ended.receipt is not None
    assert ended.receipt.verified
    assert plane.grant(kept.id).state is State.ACTIVE
    (seen,) = heard
    assert seen is not None
    assert seen.progress.proved
    (told,) = plane.events(Kind.CUT_ORDERED)
    assert (told.body["issuer"], told.body["subject"], told.body["reason"]) == (
        "shorthold-sync",
        "ann",
        "it was too wide",
    )
    assert told.body["incident"] == "drain-0a1b"


def test_what_only_waits_for_its_leases_since_an_earlier_apply_is_drained_too(plane: FakePlane) -> None:
    grant = plane.ask().grant
    applied(plane, NEW, OTHER)
    drain, _ = cutting(plane)
    assert applied(plane, NEW, OTHER, drain=drain).done == {Action.RETIRE: 2}
    assert plane.grant(grant.id).state is State.REVOKED


def test_what_resists_keeps_its_role_and_is_ended_by_it_when_the_target_is_back(plane: FakePlane) -> None:
    """P9: Vault revokes with what the role says, so it stays as long as a login may."""
    grant = plane.ask().grant
    plane.vault.target.down = True
    drain, heard = cutting(plane)
    done = applied(plane, NEW, OTHER, drain=drain)
    assert done.done == {Action.CREATE: 3, Action.RETIRE: 1}
    assert OLD.objects[0].path in standing(plane)
    assert plane.grant(grant.id).open
    (seen,) = heard
    assert seen is not None
    assert [left.grant.id for left in seen.residual] == [grant.id]
    plane.vault.target.down = False
    plane.wait(timedelta(minutes=2))
    assert plane.grant(grant.id).state is State.REVOKED
    assert applied(plane, NEW, OTHER, drain=drain).done == {Action.RETIRE: 2}


def test_a_lease_that_no_grant_knows_is_not_cut_and_keeps_its_role(plane: FakePlane) -> None:
    plane.vault.plant_lease(f"database/creds/{OLD.naming.scope('orders')}", "v_1", timedelta(minutes=5))
    drain, heard = cutting(plane)
    done = applied(plane, NEW, OTHER, drain=drain)
    assert heard == [None]
    assert {change.path for change in done.waiting} == paths(OLD) - {OLD.objects[-1].path}


def test_what_was_never_issued_is_not_cut() -> None:
    asked = compiled_entitlement(approval={"quorum": 1, "from": ["group:oncall"]})
    plane = FakePlane(asked)
    grant = plane.ask().grant
    drain, heard = cutting(plane)
    applied(plane, drain=drain)
    assert heard == [None]
    assert plane.grant(grant.id).state is State.PENDING


def test_a_lease_that_ends_while_an_apply_runs_is_no_failure(plane: FakePlane) -> None:
    lease = plane.vault.plant_lease(f"database/creds/{OLD.naming.scope('orders')}", "v_1", timedelta(minutes=5))
    roles = plane.vault.roles
    plan = PlanSync(roles=roles, layout=LAYOUT)

    def ends(change: Change) -> None:
        if change.path == OLD.objects[0].path:
            plane.vault.leases.revoke(lease)

    wanted = [NEW, OTHER]
    done = ApplySync(roles=roles, plan=plan)(wanted, plan(wanted), progress=ends)
    assert {change.action for change in done.waiting} == {Action.RETIRE}
    assert applied(plane, *wanted).done == {Action.RETIRE: 2}
