"""Tasks in memory: they refuse what SQL refuses; the contract suite proves it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from typing_extensions import override

from controlplane.model.errors import IllegalTransitionError, LostRaceError
from controlplane.model.grant import TERMINAL, Grant, GrantId, Revision, State, TaskId, Why
from controlplane.model.identity import WorkloadId
from controlplane.model.task import DEEPEST, Task
from controlplane.testing import orphans

Tasks = dict[tuple[WorkloadId, TaskId], Task]


class Seen(orphans.Seen, Protocol):
    """What such a store holds at one instant."""

    @property
    def tasks(self) -> Tasks:
        """Every task."""
        ...


def lineage(tasks: Tasks, workload: WorkloadId, id: TaskId) -> Sequence[Task]:
    """The task and those above it."""
    line: list[Task] = []
    above: TaskId | None = id
    while above is not None and (task := tasks.get((workload, above))) is not None:
        line.append(task)
        above = task.parent
    return line


def begin(tasks: Tasks, task: Task) -> Task:
    """Save a new task, or give back the one that stands. Raises: LostRaceError; IllegalTransitionError."""
    if (standing := tasks.get((task.workload, task.id))) is not None:
        return standing
    rules = {
        "a task is not its own parent": task.parent != task.id,
        "a task is as deep as it may be": 1 <= task.depth <= DEEPEST and (task.depth == 1) == (task.parent is None),
        "a finished task says why": (task.finished_at is None) == (task.why is None),
    }
    for sentence, holds in rules.items():
        if not holds:
            raise IllegalTransitionError(f"the store refuses: {sentence}")
    if task.parent is not None and (task.workload, task.parent) not in tasks:
        raise LostRaceError("the grant of a lease or token is not in the store")
    tasks[task.workload, task.id] = task
    return task


def finish(tasks: Tasks, task: Task, *, at: datetime, why: Why) -> tuple[bool, Task]:
    """Whether it was finished by this, and how it stands. Raises: LostRaceError: there is no such task."""
    standing = tasks.get((task.workload, task.id))
    if standing is None:
        raise LostRaceError(f"there is no task {task.id}")
    if standing.finished_at is not None:
        return False, standing
    tasks[task.workload, task.id] = finished = replace(standing, finished_at=at, why=why)
    return True, finished


def cover(
    grants: Mapping[GrantId, Grant],
    what: tuple[WorkloadId, TaskId, str, Revision],
    *,
    only: GrantId | None,
) -> Grant | None:
    """The active grant of a task that lasts longest."""
    found = [
        grant
        for grant in grants.values()
        if (grant.workload, grant.task, grant.entitlement, grant.revision) == what
        and grant.state is State.ACTIVE
        and only in {None, grant.id}
    ]
    return min(found, key=lambda grant: (-grant.expires_at.timestamp(), grant.id), default=None)


def open_in_tree(tasks: Tasks, grants: Mapping[GrantId, Grant], workload: WorkloadId, id: TaskId) -> Sequence[Grant]:
    """Every grant of the task and of all below it that has not ended, newest first."""
    found = [
        grant
        for grant in grants.values()
        if grant.workload == workload
        and grant.state not in TERMINAL
        and any(task.id == id for task in lineage(tasks, workload, grant.task))
    ]
    return sorted(found, key=lambda grant: (grant.requested_at, grant.id), reverse=True)


class FakeTaskBook(orphans.FakeOrphanBook):
    """Fits the port Tasks."""

    def lineage(self, workload: WorkloadId, task: TaskId) -> Sequence[Task]:
        """The task and those above it."""
        return lineage(self._seen().tasks, workload, task)

    def parts(self, workload: WorkloadId, task: TaskId, *, limit: int) -> Sequence[Task]:
        """The tasks right below it, oldest first."""
        found = [one for one in self._seen().tasks.values() if (one.workload, one.parent) == (workload, task)]
        return sorted(found, key=lambda one: (one.begun_at, one.id))[:limit]

    def open_in_tree(self, workload: WorkloadId, task: TaskId) -> Sequence[Grant]:
        """Every grant of the task and of all below it that has not ended."""
        seen = self._seen()
        return open_in_tree(seen.tasks, seen.grants, workload, task)

    def under(self, grant: GrantId) -> Sequence[Grant]:
        """Grants that hang from this one and have not begun to end."""
        moving = {State.PENDING, State.APPROVED, State.ISSUING, State.ACTIVE}
        return [one for one in self._seen().grants.values() if one.under == grant and one.state in moving]

    @override
    def _seen(self) -> Seen:
        raise NotImplementedError
