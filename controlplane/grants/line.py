"""Look where a task stands: may it still get a grant, and what does its parent leave it, if it is a part of one.

A name says nothing of who uses it, so a task is its workload's own, and so is the parent that it names. A grant of a
part never has more than a grant of the whole: same entitlement and revision, no scope more, no second longer; it hangs
from that one grant and ends with it.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from controlplane.grants.context import Broken, Held
from controlplane.model.decision import Decides, Reason
from controlplane.model.entitlement import Entitlement
from controlplane.model.errors import LostRaceError
from controlplane.model.grant import Grant, Revision, State, TaskId
from controlplane.model.identity import VerifiedClaims
from controlplane.model.request import GrantRequest
from controlplane.model.task import DEEPEST, Line, Task
from controlplane.ports import Transaction

_WHOLE = timedelta(seconds=1)


def look(
    tx: Transaction, who: VerifiedClaims, asked: GrantRequest, revision: Revision | None, collecting: Grant | None
) -> Line:
    """Where the task stands. Until `tx` ends, neither it nor what is above it is finished, nor does the cover end."""
    own = tx.lineage(who.workload, asked.task)
    task = own[0] if own else None
    above = own[1:] if task is not None or asked.parent is None else tx.lineage(who.workload, asked.parent)
    parent = _parent(task, asked)
    if parent is None or revision is None or (collecting is not None and collecting.under is None):
        return Line(task=task, above=tuple(above))
    only = None if collecting is None else collecting.under
    cover = tx.cover(who.workload, parent, asked.entitlement, revision, only=only)
    in_use = collecting is not None and collecting.state is State.ACTIVE
    return Line(task=task, above=tuple(above), cover=cover, in_use=in_use)


def begin(tx: Transaction, who: VerifiedClaims, asked: GrantRequest, line: Line, *, at: datetime) -> None:
    """Save the task with its first grant. Raises: LostRaceError: it was begun elsewhere or finished meanwhile."""
    if line.task is not None:
        return
    new = Task(workload=who.workload, id=asked.task, parent=asked.parent, depth=len(line.above) + 1, begun_at=at)
    stands = tx.begin_task(new)
    if stands.parent != new.parent or stands.finished_at is not None:
        raise LostRaceError(f"task {asked.task} was begun or finished by another request meanwhile")


def conditions(line: Line | None, asked: GrantRequest) -> Iterator[Held | Broken]:
    """Whether the task may get anything now. Nothing is said of one that stands by itself and goes on."""
    task = None if line is None else line.task
    if task is not None and task.finished_at is not None:
        yield _broken("task-finished", f"task {asked.task} is finished: begin another one")
    if task is not None and asked.parent not in {None, task.parent}:
        begun = "by itself" if task.parent is None else f"as a part of {task.parent}"
        yield _broken("other-parent", f"task {asked.task} was begun {begun}, and stays so")
        return
    parent = _parent(task, asked)
    if parent is None:
        return
    if line is None or not line.above:
        yield _broken("parent-unknown", f"this workload has no task {parent}")
    elif over := next((above for above in line.above if above.finished_at is not None), None):
        yield _broken("parent-finished", f"task {over.id} is finished, and all that is a part of it")
    elif len(line.above) >= DEEPEST:
        yield _broken("too-deep", f"{parent} is the {len(line.above)}th task in its line; {DEEPEST} are allowed")
    else:
        detail = f"task {asked.task} is a part of {parent}, which goes on"
        yield Held(reason=Reason(decision=Decides.CONTEXT, code="parent-goes-on", detail=detail))


def beyond(
    line: Line | None, entitlement: Entitlement, asked: GrantRequest, *, at: datetime, least: timedelta
) -> Iterator[Reason]:
    """What is asked for and the parent does not have; `least` is how long a grant must be able to live."""
    parent = None if line is None else _parent(line.task, asked)
    if line is None or parent is None or not line.above:
        return
    if line.cover is None:
        yield Reason(
            decision=Decides.SCOPE,
            code="beyond-parent",
            detail=f"task {parent} has no active grant of {entitlement.name} as it reads now, and a part of it never "
            "gets more than it has: ask for it as a task of its own",
        )
    elif line.cover.parameters != asked.parameters:
        yield Reason(
            decision=Decides.SCOPE,
            code="beyond-parent",
            detail=f"grant {line.cover.id} of task {parent} is narrowed to other values, and a part of it never gets "
            "more than it has",
        )
    elif not line.in_use and line.cover.expires_at - at < least:
        yield Reason(
            decision=Decides.SCOPE,
            code="parent-ends-too-soon",
            detail=f"grant {line.cover.id} of task {parent} ends at {line.cover.expires_at.isoformat()}",
        )


def within(ttl: timedelta, line: Line | None, *, at: datetime) -> timedelta:
    """As long as was granted, and in whole seconds no longer than what it hangs from."""
    if line is None or line.cover is None:
        return ttl
    return min(ttl, (line.cover.expires_at - at) // _WHOLE * _WHOLE)


def _parent(task: Task | None, asked: GrantRequest) -> TaskId | None:
    """Once begun, a task stays where it is: leaving its parent out of a request is no way to get more."""
    return asked.parent if task is None else task.parent


def _broken(code: str, detail: str) -> Broken:
    return Broken(reason=Reason(decision=Decides.CONTEXT, code=code, detail=detail))
