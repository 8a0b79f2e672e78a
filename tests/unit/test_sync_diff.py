"""The difference: pure, complete, in a safe order, and blind to everything that is not ours."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model.canonical import JsonValue
from controlplane.model.plan import Action, Compiled, ObjectKind, Plan, VaultObject
from controlplane.sync.diff import difference, drift
from controlplane.testing.entitlements import LAYOUT, compiled_entitlement

State = dict[str, VaultObject]

POOL = [
    compiled_entitlement(entitlement=name, ttl={"default": "1m", "max": longest}, scopes=scopes)
    for name in ("orders-read", "orders-refund", "foo-deadbeef")
    for longest in ("5m", "6m")
    for scopes in (
        [{"name": "a1b2c3d4", "engine": "database", "connection": "c", "privileges": ["select on table x.y"]}],
        [
            {"name": "db", "engine": "database", "connection": "c", "privileges": ["select on table x.y"]},
            {"name": "cert", "engine": "pki", "common_name": "a.example.com"},
        ],
    )
]
FOREIGN = [
    VaultObject(kind=kind, path=path, entitlement="?", data={"x": 1})
    for kind, path in (
        (ObjectKind.SECRET_ROLE, "database/roles/readonly"),
        (ObjectKind.SECRET_ROLE, "database/roles/sh-prober-orders"),
        (ObjectKind.SECRET_ROLE, "database/roles/sh-prober-0a1b2c3d-orders"),
        (ObjectKind.SECRET_ROLE, "database/roles/sh2-orders-read-0a1b2c3d-orders"),
        (ObjectKind.SECRET_ROLE, "other/roles/sh-orders-read-0a1b2c3d-orders"),
        (ObjectKind.POLICY, "sys/policies/acl/default"),
        (ObjectKind.POLICY, "sys/policies/acl/sh-admins"),
        (ObjectKind.POLICY, "sys/policies/acl/shorthold-broker"),
        (ObjectKind.POLICY, "sys/policies/acl/sh-orders-read-0a1b2c3"),
        (ObjectKind.POLICY, "sys/policies/acl/sh-orders-read-0A1B2C3D"),
        (ObjectKind.JWT_ROLE, "auth/shorthold/role/somebody"),
        (ObjectKind.JWT_ROLE, "auth/other/role/sh-orders-read-0a1b2c3d"),
    )
]

wanted_lists = st.lists(st.sampled_from(POOL), unique_by=lambda item: item.entitlement.name, max_size=3)


def standing(compiled: Sequence[Compiled]) -> State:
    return {item.path: item for one in compiled for item in one.objects}


def plan(wanted: Sequence[Compiled], state: State, leases: dict[str, int] | None = None) -> Plan:
    return difference(LAYOUT, wanted, state, leases=leases or {})


def after(state: State, done: Plan) -> State:
    """The state once a plan has been done; every step of it is checked to leave nothing half-made to log in to."""
    state = dict(state)
    for change in done.changes:
        if change.action is Action.DRAIN:
            continue
        if change.after is None:
            del state[change.path]
        else:
            state[change.path] = VaultObject(
                kind=change.kind, path=change.path, entitlement=change.entitlement, data=change.after
            )
    return state


@st.composite
def states(draw: st.DrawFn) -> State:
    """What may stand in Vault: any of ours, whole or in part, changed by hand or not, and what is not ours."""
    state = {item.path: item for item in draw(st.lists(st.sampled_from(FOREIGN), unique_by=lambda item: item.path))}
    for one in draw(st.lists(st.sampled_from(POOL), unique_by=lambda item: item.naming.base)):
        for item in draw(st.lists(st.sampled_from(one.objects), unique_by=lambda item: item.path)):
            state[item.path] = _tampered(item, draw) if draw(st.booleans()) else item
    return state


def _tampered(item: VaultObject, draw: st.DrawFn) -> VaultObject:
    name = draw(st.sampled_from([*sorted(item.data), "something_new"]))
    if item.kind is ObjectKind.POLICY:
        return replace(item, data={"policy": draw(st.sampled_from(['{"path": {}}', 'path "*" {}', ""]))})
    value: JsonValue = draw(st.sampled_from(["x", 7, True, ["x"], {"x": "y"}]))
    return replace(item, data={**item.data, name: value})


@given(wanted_lists, st.lists(st.sampled_from(FOREIGN), unique_by=lambda item: item.path))
def test_what_stands_as_compiled_needs_nothing(wanted: list[Compiled], foreign: list[VaultObject]) -> None:
    assert plan(wanted, standing(wanted) | {item.path: item for item in foreign}).changes == ()


@given(wanted_lists, states())
def test_what_a_plan_did_need_not_be_done_again(wanted: list[Compiled], state: State) -> None:
    done = after(state, plan(wanted, state))
    assert plan(wanted, done).changes == ()


@given(wanted_lists, states())
def test_what_is_not_ours_is_never_touched(wanted: list[Compiled], state: State) -> None:
    ours = {item.path for one in POOL for item in one.objects}
    assert {change.path for change in plan(wanted, state).changes} <= ours


@given(wanted_lists, states())
def test_at_no_step_can_anybody_log_in_to_something_half_made_y26(wanted: list[Compiled], state: State) -> None:
    steps = plan(wanted, state).changes
    complete = {one.naming.base: [item.path for item in one.objects] for one in wanted}
    for count in range(len(steps) + 1):
        now = after(state, replace(plan(wanted, state), changes=steps[:count]))
        for base, paths in complete.items():
            role = f"auth/shorthold/role/{base}"
            if role in now and role not in state:
                assert all(path in now for path in paths)
                assert all(not drift(item, now[item.path].data) for one in wanted if one.naming.base == base
                           for item in one.objects)  # fmt: skip


@given(wanted_lists, states())
def test_the_login_goes_before_its_policy_and_the_policy_before_its_roles(wanted: list[Compiled], state: State) -> None:
    going = [change for change in plan(wanted, state).changes if change.after is None]
    for entitlement in {change.entitlement for change in going}:
        kinds = [change.kind for change in going if change.entitlement == entitlement]
        assert kinds == sorted(kinds, key=list(ObjectKind).index, reverse=True)


def test_a_role_with_leases_drains_and_its_login_goes_at_once_y27() -> None:
    old, new = POOL[0], POOL[1]
    role = old.objects[0].path
    made = plan([new], standing([old]), {role: 3})
    actions = {change.path: change.action for change in made.changes}
    assert actions[f"auth/shorthold/role/{old.naming.base}"] is Action.RETIRE
    assert actions[role] is actions[f"sys/policies/acl/{old.naming.base}"] is Action.DRAIN
    assert "3 leases hang" in next(change.why for change in made.changes if change.path == role)


def test_only_waiting_is_nothing_to_do() -> None:
    old = POOL[0]
    state = {item.path: item for item in old.objects if item.kind is not ObjectKind.JWT_ROLE}
    made = plan([], state, {old.objects[0].path: 1})
    assert made.changes
    assert made.empty


def test_the_digest_is_of_what_changes_and_not_of_how_many_leases_hang() -> None:
    old = POOL[0]
    role = old.objects[0].path
    digests = [plan([], standing([old]), leases).digest for leases in ({}, {role: 1}, {role: 2})]
    assert len(set(digests)) == 1
    assert plan([], standing([POOL[1]])).digest != digests[0]


def test_drift_names_every_field_and_repairing_it_writes_empty_what_others_added() -> None:
    one = POOL[0]
    item = one.objects[0]
    edited = replace(item, data={**item.data, "max_ttl": 99, "rollback_statements": ["x"], "added": ["y"]})
    change = plan([one], standing([one]) | {item.path: edited}).changes[0]
    assert change.action is Action.REPAIR
    assert "added, max_ttl, rollback_statements" in change.why
    assert change.before == edited.data
    assert change.after == {**item.data, "added": []}


@pytest.mark.parametrize(
    ("extra", "drifts"),
    [({"new_field": False}, False), ({"new_field": ""}, False), ({"new_field": []}, False), ({"new_field": True}, True),
     ({"callback_mode": "client"}, False), ({"callback_mode": "direct"}, True)],
)  # fmt: skip
def test_a_field_we_do_not_know_is_drift_only_if_it_says_something(extra: dict[str, Any], drifts: bool) -> None:
    role = POOL[0].objects[-1]
    assert bool(drift(role, {**role.data, **extra})) is drifts


def test_a_field_that_a_server_does_not_have_is_no_drift_but_a_missing_protection_is() -> None:
    certificate = POOL[1].objects[0]
    assert certificate.path.startswith("pki/")
    without = {name: value for name, value in certificate.data.items() if not name.endswith("_bound")}
    assert drift(certificate, without) == ()
    role = POOL[0].objects[-1]
    unprotected = {name: value for name, value in role.data.items() if name != "token_no_default_policy"}
    assert drift(role, unprotected) == ("token_no_default_policy",)


def test_a_policy_is_compared_by_what_it_says() -> None:
    policy = POOL[0].objects[-2]
    text = str(policy.data["policy"])
    assert drift(policy, {"policy": text.replace(",", " ,\n"), "name": "x", "version": 3}) == ()
    assert drift(policy, {"policy": text.replace("read", "list")}) == ("policy",)
    assert drift(policy, {}) == ("policy",)
