"""Applying: just the plan, at most once, and from wherever it was killed it is finished by the next."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from controlplane.model.canonical import JsonValue
from controlplane.model.errors import CanaryFailedError, NotAppliedError, StalePlanError, VaultUnavailableError
from controlplane.model.plan import Action, Change, Compiled, Layout, ObjectKind, VaultObject
from controlplane.ports import Roles
from controlplane.sync.apply import ApplySync, Canary
from controlplane.sync.canary import closed
from controlplane.sync.diff import drift
from controlplane.sync.plan import PlanSync
from controlplane.testing.clock import FakeClock
from controlplane.testing.entitlements import LAYOUT, compiled_entitlement
from controlplane.testing.vault import FakeVault

OLD = compiled_entitlement()
NEW = compiled_entitlement(ttl={"default": "5m", "max": "10m"})


@dataclass
class Failing:
    """Vault's configuration that stops answering after some writes, or forgets a field of what is written."""

    roles: Roles
    calls_left: int = 10**6
    forgets: str | None = None

    def read(self, layout: Layout) -> Mapping[str, VaultObject]:
        return self.roles.read(layout)

    def write(self, item: VaultObject) -> None:
        self._count()
        kept = {name: value for name, value in item.data.items() if name != self.forgets}
        self.roles.write(replace(item, data=kept))

    def delete(self, item: VaultObject) -> None:
        self._count()
        self.roles.delete(item)

    def leases_under(self, item: VaultObject) -> int:
        return self.roles.leases_under(item)

    def _count(self) -> None:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise VaultUnavailableError("gone")


@pytest.fixture
def vault() -> FakeVault:
    return FakeVault(LAYOUT, FakeClock())


def sync(roles: Roles) -> tuple[PlanSync, ApplySync]:
    plan = PlanSync(roles=roles, layout=LAYOUT)
    return plan, ApplySync(roles=roles, plan=plan)


def applied(roles: Roles, *wanted: Compiled) -> Counter[Action]:
    plan, apply = sync(roles)
    return apply(wanted, plan(wanted)).done


def test_a_second_apply_changes_nothing(vault: FakeVault) -> None:
    assert applied(vault.roles, OLD) == {Action.CREATE: 3}
    assert applied(vault.roles, OLD) == {}
    plan, _ = sync(vault.roles)
    assert plan([OLD]).empty


def test_a_new_revision_replaces_the_old_one(vault: FakeVault) -> None:
    applied(vault.roles, OLD)
    assert applied(vault.roles, NEW) == {Action.CREATE: 3, Action.RETIRE: 3}
    assert set(vault.roles.read(LAYOUT)) == {item.path for item in NEW.objects}


def test_drift_is_repaired(vault: FakeVault) -> None:
    applied(vault.roles, OLD)
    for item in OLD.objects:
        data = {"policy": 'path "*" {}'} if item.kind is ObjectKind.POLICY else {**item.data, "max_ttl": 99}
        vault.roles.write(replace(item, data=data))
    assert applied(vault.roles, OLD) == {Action.REPAIR: 3}
    assert applied(vault.roles, OLD) == {}


@pytest.mark.parametrize("survives", range(6))
def test_killed_at_any_step_it_leaves_nothing_half_made_and_the_next_finishes_y26(
    vault: FakeVault, survives: int
) -> None:
    applied(vault.roles, OLD)
    with pytest.raises(VaultUnavailableError):
        applied(Failing(vault.roles, calls_left=survives), NEW)
    standing = vault.roles.read(LAYOUT)
    for one in (OLD, NEW):
        if f"auth/shorthold/role/{one.naming.base}" in standing:
            assert all(item.path in standing for item in one.objects)
    applied(vault.roles, NEW)
    assert set(vault.roles.read(LAYOUT)) == {item.path for item in NEW.objects}


def sings(compiled: Compiled) -> None:
    """A canary that is proved gone."""
    del compiled


def issuing(standing: Mapping[str, VaultObject]) -> list[Compiled]:
    """The revisions that a workload can log in to, whole as they were compiled."""
    return [
        one
        for one in (OLD, NEW)
        if all(item.path in standing and not drift(item, standing[item.path].data) for item in one.objects)
    ]


@pytest.mark.parametrize("survives", range(7))
@pytest.mark.parametrize("canary", [None, sings])
def test_after_every_single_write_the_old_or_the_new_revision_can_be_issued_y26(
    vault: FakeVault, survives: int, canary: Canary | None
) -> None:
    """P9: never neither. Both only between the two writes that follow each other, and the next plan shuts the old."""
    applied(vault.roles, OLD)
    roles = Failing(vault.roles, calls_left=survives)
    plan = PlanSync(roles=roles, layout=LAYOUT)
    with suppress(VaultUnavailableError):
        ApplySync(roles=roles, plan=plan, canary=canary)([NEW], plan([NEW]))
    able = issuing(vault.roles.read(LAYOUT))
    assert able
    if len(able) > 1:
        assert survives == (3 if canary is None else 4), "the new login has come, and the old one goes next"
        first = PlanSync(roles=vault.roles, layout=LAYOUT)([NEW]).changes[0]
        assert (first.action, first.path) == (Action.RETIRE, OLD.objects[-1].path)
    applied(vault.roles, NEW)
    assert issuing(vault.roles.read(LAYOUT)) == [NEW]
    assert set(vault.roles.read(LAYOUT)) == {item.path for item in NEW.objects}


def test_what_its_canary_does_not_leave_never_goes_live_and_the_old_revision_stays(vault: FakeVault) -> None:
    """C10, P3: nobody but the canary can log in while it is tried."""
    applied(vault.roles, OLD)
    login, seen = NEW.objects[-1], list[JsonValue]()

    def resists(compiled: Compiled) -> None:
        bound = vault.roles.read(LAYOUT)[login.path].data["bound_claims"]
        seen.append(bound["workload"] if isinstance(bound, dict) else None)
        raise CanaryFailedError(f"{compiled.revision}: it is still there")

    plan = PlanSync(roles=vault.roles, layout=LAYOUT)
    with pytest.raises(CanaryFailedError):
        ApplySync(roles=vault.roles, plan=plan, canary=resists)([NEW], plan([NEW]))
    assert seen == [["shorthold-canary canary"]]
    standing = vault.roles.read(LAYOUT)
    assert issuing(standing) == [OLD]
    assert login.path not in standing


def test_killed_while_the_canary_is_out_the_login_is_shut_and_the_next_plan_creates_it(vault: FakeVault) -> None:
    applied(vault.roles, OLD)
    for item in (*NEW.objects[:-1], closed(NEW.objects[-1])):
        vault.roles.write(item)
    assert issuing(vault.roles.read(LAYOUT)) == [OLD]
    first = PlanSync(roles=vault.roles, layout=LAYOUT)([NEW]).changes[0]
    assert (first.action, first.path) == (Action.CREATE, NEW.objects[-1].path)
    assert "canary" in first.why
    applied(vault.roles, NEW)
    assert issuing(vault.roles.read(LAYOUT)) == [NEW]


def test_a_role_that_was_moved_is_not_moved_back_under_its_leases(vault: FakeVault) -> None:
    """Vault revokes where the role points now: repaired while leases hang, those made meanwhile would live on."""
    applied(vault.roles, OLD)
    role = OLD.objects[0]
    vault.roles.write(replace(role, data={**role.data, "db_name": "other"}))
    lease = vault.plant_lease(f"database/creds/{OLD.naming.scope('orders')}", "v_1", timedelta(minutes=5))
    plan, apply = sync(vault.roles)
    made = plan([OLD])
    assert [change.action for change in made.changes] == [Action.BLOCK]
    assert "1 lease hangs" in made.changes[0].why
    assert made.empty
    assert made.blocked
    assert apply([OLD], made).done == {}
    assert vault.roles.read(LAYOUT)[role.path].data["db_name"] == "other"
    vault.leases.revoke(lease)
    assert applied(vault.roles, OLD) == {Action.REPAIR: 1}


def test_statements_that_somebody_edited_are_mended_under_their_leases(vault: FakeVault) -> None:
    """The other way round it would be worse: leases end by what the role says at that moment."""
    applied(vault.roles, OLD)
    role = OLD.objects[0]
    vault.roles.write(replace(role, data={**role.data, "revocation_statements": ["SELECT 1"]}))
    vault.plant_lease(f"database/creds/{OLD.naming.scope('orders')}", "v_1", timedelta(minutes=5))
    assert applied(vault.roles, OLD) == {Action.REPAIR: 1}


def test_many_entitlements_are_applied_at_once_and_once_something_fails_nothing_more_is_begun(
    vault: FakeVault,
) -> None:
    many = [compiled_entitlement(entitlement=f"orders-{number}") for number in range(40)]
    with pytest.raises(VaultUnavailableError):
        applied(Failing(vault.roles, calls_left=5), *many)
    assert len(vault.roles.read(LAYOUT)) == 5
    assert applied(vault.roles, *many) == {Action.CREATE: 115}
    assert applied(vault.roles, *many) == {}


def test_a_plan_that_has_been_overtaken_is_refused_and_nothing_is_done_y25(vault: FakeVault) -> None:
    plan, apply = sync(vault.roles)
    shown = plan([OLD])
    with pytest.raises(StalePlanError):
        apply([NEW], shown)
    assert vault.roles.read(LAYOUT) == {}
    applied(vault.roles, OLD)
    with pytest.raises(StalePlanError):
        apply([OLD], shown)


def test_live_leases_are_never_orphaned_y27(vault: FakeVault) -> None:
    applied(vault.roles, OLD)
    role = OLD.objects[0]
    lease = vault.plant_lease(f"database/creds/{OLD.naming.scope('orders')}", "v_1", timedelta(minutes=5))
    plan, apply = sync(vault.roles)
    result = apply([NEW], plan([NEW]))
    assert result.done == {Action.CREATE: 3, Action.RETIRE: 1}
    assert {change.path for change in result.waiting} == {role.path, f"sys/policies/acl/{OLD.naming.base}"}
    assert role.path in vault.roles.read(LAYOUT)
    vault.leases.revoke(lease)
    assert applied(vault.roles, NEW) == {Action.RETIRE: 2}


def test_a_role_that_got_a_lease_after_the_plan_is_kept(vault: FakeVault) -> None:
    applied(vault.roles, OLD)
    plan, apply = sync(vault.roles)
    shown = plan([])

    def read_a_credential(change: Change) -> None:
        if change.kind is ObjectKind.JWT_ROLE:
            vault.plant_lease(f"database/creds/{OLD.naming.scope('orders')}", "v_1", timedelta(minutes=5))

    result = apply([], shown, progress=read_a_credential)
    assert OLD.objects[0].path in vault.roles.read(LAYOUT)
    assert OLD.objects[0].path in {change.path for change in result.waiting}


def test_what_vault_does_not_keep_is_found_by_reading_back_y20(vault: FakeVault) -> None:
    with pytest.raises(NotAppliedError, match="token_no_default_policy"):
        applied(Failing(vault.roles, forgets="token_no_default_policy"), OLD)


def test_progress_is_told_of_every_change_in_order(vault: FakeVault) -> None:
    plan, apply = sync(vault.roles)
    shown = plan([OLD])
    heard: list[Change] = []
    apply([OLD], shown, progress=heard.append)
    assert heard == list(shown.changes)
