"""What many ends at once are asked for before each is proved: the last of them does not wait for all others' proofs."""

from dataclasses import dataclass, field
from typing import cast

import pytest

from controlplane.grants.ask_to_end import AskAhead, AskToEnd
from controlplane.model.access import Role, Standing
from controlplane.model.errors import VaultUnavailableError
from controlplane.model.grant import Grant, TaskId, Why
from controlplane.model.lease import LeaseId
from controlplane.ports import Leases
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane

MANY = 32


@dataclass
class Asked:
    """Vault as far as it is asked to end leases."""

    leases: list[LeaseId] = field(default_factory=list[LeaseId])
    down: bool = False

    def ask_to_revoke(self, lease: LeaseId) -> None:
        if self.down:
            raise VaultUnavailableError("it is down")
        self.leases.append(lease)


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement())


@pytest.fixture
def vault() -> Asked:
    return Asked()


def ahead(plane: FakePlane, vault: Asked) -> AskAhead:
    return AskAhead(store=plane.store, ask=AskToEnd(store=plane.store, leases=cast("Leases", vault), hands=lambda: 3))


def finished(plane: FakePlane, count: int, *, first: int = 0) -> list[Grant]:
    """So many grants that end, and of which the worker has not heard."""
    grants = [plane.ask(task=TaskId(f"T-{number}")).grant for number in range(first, first + count)]
    for grant in grants:
        plane.finish(plane.agent(), grant.id, Why.COMPLETED)
    return grants


def leases_of(plane: FakePlane, grants: list[Grant]) -> set[LeaseId]:
    return {lease.id for grant in grants for lease in plane.store.leases(grant.id)}


def test_of_many_that_end_each_lease_is_asked_for_once_before_any_is_proved(plane: FakePlane, vault: Asked) -> None:
    grants, asking = finished(plane, MANY), ahead(plane, vault)
    assert asking() == MANY
    assert asking() == 0
    more = finished(plane, 1, first=MANY)
    assert asking() == 1
    assert len(vault.leases) == MANY + 1
    assert set(vault.leases) == leases_of(plane, [*grants, *more])


def test_few_that_end_are_the_worker_s_alone(plane: FakePlane, vault: Asked) -> None:
    finished(plane, MANY - 1)
    assert ahead(plane, vault)() == 0
    assert vault.leases == []


def test_while_a_cut_asks_nobody_else_does(plane: FakePlane, vault: Asked) -> None:
    plane.ask(task=TaskId("T-cut"))
    finished(plane, MANY)
    responder = Standing(roles=frozenset({Role.RESPONDER}))
    shown = plane.preview(plane.agent("ann"), responder, "task=T-cut")
    plane.cut(plane.agent("ann"), responder, shown.digest or "", incident="INC-7", reason="key leaked")
    assert ahead(plane, vault)() == 0
    assert vault.leases == []


def test_what_runs_on_is_not_asked_for(plane: FakePlane, vault: Asked) -> None:
    runs_on = plane.ask(task=TaskId("T-on")).grant
    ended = finished(plane, MANY)
    ahead(plane, vault)()
    assert set(vault.leases) == leases_of(plane, ended)
    assert not set(vault.leases) & leases_of(plane, [runs_on])


def test_without_an_answer_of_vault_all_are_asked_for_again_when_it_is_back(plane: FakePlane, vault: Asked) -> None:
    grants, asking = finished(plane, MANY), ahead(plane, vault)
    vault.down = True
    asking()
    vault.down = False
    assert asking() == MANY
    assert set(vault.leases) == leases_of(plane, grants)
