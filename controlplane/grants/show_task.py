"""Look at a task of one's own: where it stands, what is a part of it, and its grants."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from controlplane.model.errors import NotFoundError
from controlplane.model.grant import Grant, GrantId, TaskId, Why
from controlplane.model.identity import VerifiedClaims
from controlplane.model.task import Task
from controlplane.ports import Store

MOST_PARTS = 1_000
"""How many parts of a task are told: the oldest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTask:
    """A task, its parts, and its newest grants; those of its parts are shown with them."""

    task: Task
    parts: Sequence[Task]
    grants: Sequence[Grant]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowTask:
    """What the store knows of a task."""

    store: Store

    def __call__(self, who: VerifiedClaims, id: TaskId, *, limit: int = 100) -> ShownTask:
        """The task with its newest grants, `limit` at most; a part of what is finished is finished.

        Raises: NotFoundError: this workload never had a grant of such a task; others' tasks are others' names.
        """
        line = self.store.lineage(who.workload, id)
        if not line:
            raise NotFoundError(f"this workload has no task {id}")
        parts = self.store.parts(who.workload, id, limit=MOST_PARTS)
        grants = self.store.grants(workload=who.workload, task=id, limit=limit)
        return ShownTask(task=settled(line), parts=parts, grants=grants)

    def each(self, ids: Sequence[GrantId]) -> tuple[Grant, ...]:
        """Those grants as they stand now."""
        return tuple(grant for id in ids if (grant := self.store.grant(id)) is not None)


def settled(line: Sequence[Task]) -> Task:
    """The first task of a line: finished where one above it is."""
    task, *above = line
    over = next((one for one in above if one.finished_at is not None), None)
    if task.finished_at is not None or over is None:
        return task
    return replace(task, finished_at=over.finished_at, why=Why.PARENT_ENDED)
