"""The task: the unit of work that justifies grants; begun and ended by its owner, perhaps as a part of another one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from controlplane.model.grant import Grant, TaskId, Why
from controlplane.model.identity import WorkloadId

DEEPEST: Final = 8
"""How deep tasks may hang from each other, the first one included: deeper is a loop that nobody meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task of one workload: the name is the caller's word, so that of another workload is another task.

    `parent` is the task that it is a part of, None where it stands by itself; `depth` counts from 1. Neither ever
    changes. `why` is how it ended, None as long as it has not.
    """

    workload: WorkloadId
    id: TaskId
    parent: TaskId | None = None
    depth: int = 1
    begun_at: datetime
    finished_at: datetime | None = None
    why: Why | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A task in its place. `task` is None where it has not begun yet; `above` are its parent, that one's, and so on.

    `cover` is the grant of its parent that one of it would hang from: active, of the same entitlement, as it reads
    now. None where there is none, or no parent. `in_use`: it is asked whether a grant of it may go on, not begin.
    """

    task: Task | None
    above: tuple[Task, ...] = ()
    cover: Grant | None = None
    in_use: bool = False
