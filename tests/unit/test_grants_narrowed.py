"""A grant that is narrowed to values has roles of its own in Vault: made just before its login, gone with its end."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controlplane.model.access import Role, Standing
from controlplane.model.errors import (
    ConflictError,
    DeniedError,
    ParametersOffError,
    VaultRefusedError,
    VaultUnavailableError,
)
from controlplane.model.grant import GrantId, State, TaskId, Why
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane

CUSTOMER = {"customer": {"pattern": "[a-z]{3,15}"}}
SCOPE = {"name": "client", "engine": "pki", "common_name": "{customer}.customers.acme.example"}
APPROVAL = {"quorum": 1, "from": ["group:oncall"]}


class KilledError(BaseException):
    """What kill -9 looks like from inside."""


def narrowed(**changes: Any) -> FakePlane:
    wanted: dict[str, Any] = {"scopes": [SCOPE], "parameters": CUSTOMER, **changes}
    return FakePlane(compiled_entitlement(**wanted))


@pytest.fixture
def plane() -> FakePlane:
    return narrowed()


def roles(plane: FakePlane) -> list[GrantId]:
    return [*plane.vault.grant_roles.present()]


def codes(error: DeniedError) -> set[str]:
    return {why.code for why in error.reasons}


def test_a_grant_has_the_role_of_its_value_and_leaves_none_behind(plane: FakePlane) -> None:
    """C6: narrower than the entitlement; P1: no role before every decision says yes."""
    grant = plane.ask(parameters={"customer": "initech"}).grant
    steps = plane.journal.steps
    assert steps.index("commit grant.allowed") < steps.index("roles.write") < steps.index("logins.login")
    (role,) = plane.vault.roles_of_grants
    assert role.path.endswith(f"-client-{grant.id.removeprefix('gr_')}")
    assert role.data["allowed_domains"] == ["initech.customers.acme.example"]
    ended = plane.end(grant.id)
    assert (ended.state, roles(plane)) == (State.REVOKED, [])


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({}, "parameter-missing"),
        ({"customer": "In-itech"}, "parameter-outside"),
        ({"customer": "a'; --"}, "parameter-outside"),
        ({"customer": "initech", "ticket": "1"}, "unknown-parameter"),
    ],
)
def test_y15_a_value_outside_its_pattern_is_refused_and_nothing_is_made(
    plane: FakePlane, values: dict[str, str], code: str
) -> None:
    with pytest.raises(DeniedError) as error:
        plane.ask(parameters=values)
    assert codes(error.value) == {code}
    assert "a'" not in str(error.value.reasons)
    assert not [step for step in plane.journal.steps if step.startswith(("roles", "logins"))]


def test_p12_who_is_not_eligible_does_not_learn_of_parameters(plane: FakePlane) -> None:
    with pytest.raises(DeniedError) as error:
        plane.ask(plane.agent("repo:evil/agent"), parameters={"customer": "A"})
    assert codes(error.value) == {"not-eligible"}


def test_a_value_is_shown_wherever_the_grant_is_told_of(plane: FakePlane) -> None:
    grant = plane.ask(parameters={"customer": "initech"}).grant
    assert plane.grant(grant.id).parameters == {"customer": "initech"}
    (allowed,) = [link.event for link in plane.store.links() if link.event.kind == "grant.allowed"]
    assert allowed.body["parameters"] == {"customer": "initech"}
    assert "customer is initech" in str(allowed.body["reasons"])


def test_a15_a_key_brings_the_same_grant_for_the_same_value_only(plane: FakePlane) -> None:
    first = plane.ask(key="k", parameters={"customer": "initech"}).grant
    assert plane.ask(key="k", parameters={"customer": "initech"}).grant.id == first.id
    with pytest.raises(ConflictError):
        plane.ask(key="k", parameters={"customer": "globex"})


def test_a09_an_approver_agrees_to_one_value() -> None:
    plane = narrowed(approval=APPROVAL)
    grant = plane.ask(parameters={"customer": "initech"}).grant
    asked = plane.watch.asked(grant)
    assert asked is not None
    assert asked.parameters == {"customer": "initech"}
    assert asked.scopes[0].reach == ("may prove to be initech.customers.acme.example as a TLS client",)
    other = plane.watch.asked(plane.ask(parameters={"customer": "globex"}).grant)
    assert other is not None
    assert other.digest != asked.digest
    assert roles(plane) == []  # nothing is made while people think
    ann = plane.agent("ann", role="approver", groups=["oncall"])
    plane.approve(ann, grant.id, digest=asked.digest)
    delivered = plane.collect(plane.agent(), grant.id)
    assert (roles(plane), delivered.grant.parameters) == ([grant.id], {"customer": "initech"})
    plane.end(grant.id)
    assert roles(plane) == []


def test_c21_a_part_of_a_task_never_has_another_value_than_the_whole(plane: FakePlane) -> None:
    plane.ask(task=TaskId("T-1"), parameters={"customer": "initech"})
    plane.ask(task=TaskId("T-1/a"), parent=TaskId("T-1"), parameters={"customer": "initech"})
    with pytest.raises(DeniedError) as error:
        plane.ask(task=TaskId("T-1/b"), parent=TaskId("T-1"), parameters={"customer": "globex"})
    assert codes(error.value) == {"beyond-parent"}


@pytest.mark.parametrize("step", ["roles.write", "logins.login", "logins.read"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_p4_killed_around_the_making_of_a_role_nothing_of_it_is_left(plane: FakePlane, step: str, when: str) -> None:
    plane.journal.fail(when, step, KilledError)
    with pytest.raises(KilledError):
        plane.ask(parameters={"customer": "initech"})
    for _ in range(8):
        plane.clock.advance(timedelta(seconds=40))
        plane.work()
    (grant,) = plane.store.grants()
    assert (grant.state, roles(plane), plane.alive()) == (State.REVOKED, [], [])


def test_a_lost_answer_to_the_making_of_a_role_burns_the_grant(plane: FakePlane) -> None:
    plane.vault.faults.lose_write = True
    with pytest.raises(VaultUnavailableError):
        plane.ask(parameters={"customer": "initech"})
    assert len(roles(plane)) == 1
    for _ in range(4):
        plane.clock.advance(timedelta(seconds=40))
        plane.work()
    assert roles(plane) == []


def test_a_role_whose_removal_fails_keeps_the_grant_from_being_called_revoked(plane: FakePlane) -> None:
    """P3: `revoked` says that everything is gone, the role that would make another credential too."""
    grant = plane.ask(parameters={"customer": "initech"}).grant
    plane.journal.fail("before", "roles.remove", VaultRefusedError)
    assert plane.end(grant.id, Why.COMPLETED).state is State.REVOKING
    plane.clock.advance(timedelta(seconds=40))
    plane.work()
    assert (plane.grant(grant.id).state, roles(plane)) == (State.REVOKED, [])


def test_what_was_left_behind_is_swept_and_told_of_and_what_is_in_use_stays(plane: FakePlane) -> None:
    """Y28: also a role that somebody made by hand under such a name."""
    used = plane.ask(parameters={"customer": "initech"}).grant
    (item,) = plane.vault.roles_of_grants
    left = replace(item, path=item.path[:-24] + "a" * 24)
    plane.vault.grant_roles.write([left])
    assert set(roles(plane)) == {used.id, GrantId("gr_" + "a" * 24)}
    plane.reconcile()
    assert roles(plane) == [used.id]
    assert [link.event.grant for link in plane.store.links() if link.event.kind == "role.removed"] == ["gr_" + "a" * 24]


def test_without_the_identity_that_makes_roles_nothing_is_granted(plane: FakePlane) -> None:
    plane.request = replace(plane.request, issue=replace(plane.issue, roles=None))
    with pytest.raises(ParametersOffError):
        plane.ask(parameters={"customer": "initech"})
    plane.work()
    (grant,) = plane.store.grants()
    assert (grant.state, grant.why) == (State.REVOKED, Why.REFUSED)


def test_a_platform_team_sees_the_pattern_of_a_parameter(plane: FakePlane) -> None:
    found = plane.who_could(plane.agent(), Standing(roles=frozenset({Role.PLATFORM})), "orders-read")
    assert found.opens == ("may prove to be {customer}.customers.acme.example as a TLS client",)
