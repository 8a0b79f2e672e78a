"""What agents and people do with grants and tasks in memory, besides asking for one and finishing it."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

from controlplane.grants.issue import Delivered
from controlplane.model.access import Role, Standing
from controlplane.model.freeze import Freeze
from controlplane.model.grant import Grant, State, TaskId, Why
from controlplane.model.identity import VerifiedClaims
from controlplane.testing.plane import AGENT, FakePlane

RESPONDER: Final = Standing(roles=frozenset({Role.RESPONDER}))
EVERYBODY: Final = f"subject={AGENT}"
FROZEN: Final = (EVERYBODY, "entitlement=orders-read", "entitlement=two-scopes", "entitlement=agreed")
TTLS: Final = (None, timedelta(minutes=3), timedelta(minutes=14))


def renew(plane: FakePlane, which: int) -> None:
    """Have one live longer."""
    if grant := _one(plane, which, State.ACTIVE):
        plane.renew(plane.agent(), grant.id, ttl=TTLS[which % len(TTLS)])


def beat(plane: FakePlane, which: int) -> None:
    """Say of one that its task goes on."""
    if grant := _one(plane, which, State.ACTIVE):
        plane.heartbeat(plane.agent(), grant.id)


def part(plane: FakePlane, which: int) -> Delivered | None:
    """Ask for another grant of the same, for a part of its task."""
    grant = _one(plane, which, State.ACTIVE)
    if grant is None:
        return None
    task = TaskId(f"{grant.task}/{which}")
    return plane.ask(entitlement=grant.entitlement, task=task, parent=grant.task)


def finish_task(plane: FakePlane, which: int) -> None:
    """End the task of one, with its parts."""
    if grant := _one(plane, which, State.ACTIVE, State.ISSUING, State.PENDING):
        plane.finish_task(plane.agent(), grant.task, Why.FAILED)


def approve(plane: FakePlane, which: int) -> None:
    """Somebody agrees to one."""
    grant = _one(plane, which, State.PENDING)
    if grant is not None and (asked := plane.watch.asked(grant)) is not None:
        plane.approve(_person(plane), grant.id, digest=asked.digest)


def deny(plane: FakePlane, which: int) -> None:
    """Somebody says no to one."""
    if grant := _one(plane, which, State.PENDING, State.APPROVED):
        plane.deny(_person(plane), grant.id, reason="not today")


def collect(plane: FakePlane, which: int) -> Delivered | None:
    """Get what was approved."""
    grant = _one(plane, which, State.APPROVED)
    return None if grant is None else plane.collect(plane.agent(), grant.id)


def freeze(plane: FakePlane, which: int) -> Freeze:
    """Let nobody have something any more, until somebody thaws it."""
    selection = FROZEN[which % len(FROZEN)]
    return plane.freeze(plane.agent("rita"), RESPONDER, selection, message="Wait.", reason="to see").freeze


def thaw(plane: FakePlane, _: int) -> None:
    """Let everything be granted again."""
    for each in plane.freezes(RESPONDER):
        plane.thaw(plane.agent("rolf"), RESPONDER, each.id, reason="seen")


DEEDS: Final[Mapping[str, Callable[[FakePlane, int], Delivered | Freeze | None]]] = {
    "renew": renew,
    "beat": beat,
    "part": part,
    "finish-task": finish_task,
    "approve": approve,
    "deny": deny,
    "collect": collect,
    "freeze": freeze,
    "thaw": thaw,
}
"""By what a walk calls them; each says what it was given."""


def _person(plane: FakePlane) -> VerifiedClaims:
    return plane.agent("ann", role="approver", groups=["oncall"])


def _one(plane: FakePlane, which: int, *states: State) -> Grant | None:
    found = plane.store.grants(states=states)
    return found[which % len(found)] if found else None
