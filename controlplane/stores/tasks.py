"""Tasks in SQL: whoever asks for one keeps it from being finished, and whoever finishes it sees all that was added."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Dialect,
    Row,
    Select,
    Text,
    and_,
    bindparam,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from controlplane.model.errors import LostRaceError
from controlplane.model.grant import Grant, GrantId, Revision, State, TaskId, Why
from controlplane.model.identity import WorkloadId
from controlplane.model.task import Task
from controlplane.stores import rows
from controlplane.stores.orphans import OrphanBook
from controlplane.stores.prepared import Prepared
from controlplane.stores.schema import OPEN, grants, tasks

_WORKLOAD: Final = bindparam("its_workload", type_=Text)
_ITS: Final = and_(tasks.c.workload == _WORKLOAD, tasks.c.id == bindparam("its_id", type_=Text))
_ONE: Final = select(tasks).where(_ITS)
_KEPT: Final = _ONE.with_for_update(read=True)
"""On PostgreSQL nobody finishes it before the transaction ends, and who finishes it now is waited for."""
_IS_THERE: Final = select(tasks.c.id).where(_ITS)
_FINISH: Final = update(tasks).where(_ITS, tasks.c.finished_at.is_(None))
_PARTS: Final = (
    select(tasks)
    .where(tasks.c.workload == _WORKLOAD, tasks.c.parent == bindparam("its_id", type_=Text))
    .order_by(tasks.c.begun_at, tasks.c.id)
    .limit(bindparam("limit"))
)
_NOT_ENDING: Final = (State.PENDING, State.APPROVED, State.ISSUING, State.ACTIVE)
_UNDER: Final = select(grants).where(
    grants.c.under == bindparam("its_grant", type_=Text), grants.c.state.in_([state.value for state in _NOT_ENDING])
)


def _tree() -> Select[*tuple[Any, ...]]:
    tree = select(tasks.c.workload, tasks.c.id).where(_ITS).cte("tree", recursive=True)
    below = select(tasks.c.workload, tasks.c.id).join(
        tree, and_(tasks.c.workload == tree.c.workload, tasks.c.parent == tree.c.id)
    )
    tree = tree.union(below)
    return (
        select(grants)
        .where(text(OPEN), tuple_(grants.c.workload, grants.c.task).in_(select(tree.c.workload, tree.c.id)))
        # In one order, so that no two who lock them wait for each other.
        .order_by(grants.c.requested_at.desc(), grants.c.id.desc())
    )


_OPEN_IN_TREE: Final = _tree()
_LOCKED_IN_TREE: Final = _OPEN_IN_TREE.with_for_update(of=grants)


class TaskStatements:
    """What a transaction says of tasks with every grant, in one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        insert_ = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
        self._begin = Prepared(insert_(tasks).on_conflict_do_nothing(index_elements=["workload", "id"]), dialect)
        self._is_there = Prepared(_IS_THERE, dialect)

    def lineage(self, connection: Connection, workload: WorkloadId, id: TaskId) -> Sequence[Task]:
        """Fits `ports.TaskChanges.lineage`. For a new task it costs one look into an index."""
        if self._is_there.first(connection, {"its_workload": workload, "its_id": id}) is None:
            return []
        return _line(lambda values: connection.execute(_KEPT, values).first(), workload, id)

    def begin(self, connection: Connection, begun: Task) -> Task:
        """Fits `ports.TaskChanges.begin_task`. Raises: DBAPIError; LostRaceError."""
        # Another replica's insert that is not yet committed is waited for: then that one stands.
        if self._begin.run(connection, _row(begun)) == 1:
            return begun
        standing = connection.execute(_KEPT, {"its_workload": begun.workload, "its_id": begun.id}).first()
        if standing is None:
            raise LostRaceError(f"task {begun.id} cannot be seen")
        return _noun(standing)


def finish(connection: Connection, ended: Task, *, at: datetime, why: Why) -> tuple[bool, Task]:
    """Whether it was finished by this, and how it stands. Raises: DBAPIError; LostRaceError: there is no such task."""
    its = {"its_workload": ended.workload, "its_id": ended.id}
    moved = connection.execute(_FINISH.values(finished_at=at, why=why.value), its).rowcount == 1
    standing = connection.execute(_ONE, its).first()
    if standing is None:
        raise LostRaceError(f"there is no task {ended.id}")
    return moved, _noun(standing)


def cover(
    connection: Connection, what: tuple[WorkloadId, TaskId, str, Revision], *, only: GrantId | None
) -> Grant | None:
    """Fits `ports.TaskChanges.cover`. Raises: DBAPIError."""
    workload, id, entitlement, revision = what
    found = (
        select(grants)
        .where(
            grants.c.workload == workload,
            grants.c.task == id,
            grants.c.entitlement == entitlement,
            grants.c.revision == revision,
            grants.c.state == State.ACTIVE.value,
            text(OPEN),  # so that the index is used
        )
        .order_by(grants.c.expires_at.desc(), grants.c.id)
        .limit(1)
        .with_for_update(read=True)
    )
    row = connection.execute(found if only is None else found.where(grants.c.id == only)).first()
    return None if row is None else rows.grant(row)


def open_in_tree(connection: Connection, workload: WorkloadId, id: TaskId) -> Sequence[Grant]:
    """Fits `ports.TaskChanges.open_in_tree`. Raises: DBAPIError."""
    found = connection.execute(_LOCKED_IN_TREE, {"its_workload": workload, "its_id": id})
    return [rows.grant(row) for row in found]


class TaskBook(OrphanBook):
    """Fits the port Tasks; a part of the store."""

    def lineage(self, workload: WorkloadId, task: TaskId) -> Sequence[Task]:
        """The task and those above it."""
        return _line(lambda values: next(iter(self._read(_ONE, **values)), None), workload, task)

    def parts(self, workload: WorkloadId, task: TaskId, *, limit: int) -> Sequence[Task]:
        """The tasks right below it, oldest first."""
        return [_noun(row) for row in self._read(_PARTS, its_workload=workload, its_id=task, limit=limit)]

    def open_in_tree(self, workload: WorkloadId, task: TaskId) -> Sequence[Grant]:
        """Every grant of the task and of all below it that has not ended."""
        return [rows.grant(row) for row in self._read(_OPEN_IN_TREE, its_workload=workload, its_id=task)]

    def under(self, grant: GrantId) -> Sequence[Grant]:
        """Grants that hang from this one and have not begun to end."""
        return [rows.grant(row) for row in self._read(_UNDER, its_grant=grant)]


def _line(
    look: Callable[[Mapping[str, Any]], Row[*tuple[Any, ...]] | None], workload: WorkloadId, id: TaskId
) -> Sequence[Task]:
    """A task and those above it, as `look` finds each; parents never change, and the schema bounds how deep."""
    line: list[Task] = []
    above: TaskId | None = id
    while above is not None and (row := look({"its_workload": workload, "its_id": above})) is not None:
        line.append(_noun(row))
        above = line[-1].parent
    return line


def _noun(row: Row[*tuple[Any, ...]]) -> Task:
    return Task(
        workload=WorkloadId(row.workload),
        id=TaskId(row.id),
        parent=None if row.parent is None else TaskId(row.parent),
        depth=row.depth,
        begun_at=row.begun_at,
        finished_at=row.finished_at,
        why=None if row.why is None else Why(row.why),
    )


def _row(task: Task) -> dict[str, Any]:
    return {
        "workload": task.workload,
        "id": task.id,
        "parent": task.parent,
        "depth": task.depth,
        "begun_at": task.begun_at,
        "finished_at": task.finished_at,
        "why": None if task.why is None else task.why.value,
    }
