"""Tasks over HTTP: look and finish. They begin with their first grant."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from starlette.convertors import StringConvertor, register_url_convertor

from controlplane.http.answers import FinishedTask, ShownTask
from controlplane.http.caller import Caller, Plane
from controlplane.http.description import answers
from controlplane.http.grants import Finish, TaskName, grant_json
from controlplane.http.threads import ENDING, in_thread
from controlplane.http.waiting import Span, seconds, until
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import NotFoundError
from controlplane.model.grant import TaskId, Why
from controlplane.model.task import Task


class _Name(StringConvertor):
    """All of the path that is left, because a task's name may hold slashes; but what finishes a task is no name."""

    regex = ".*(?<!/finish)"


register_url_convertor("task", _Name())
router = APIRouter(prefix="/v1/tasks", tags=["tasks"])

_COMPLETED: Final = Finish()
_FINISHED = answers({202: FinishedTask}, NotFoundError)


@router.post("/{task:path}/finish", status_code=202, tags=[ENDING], responses=_FINISHED, response_model=None)
async def finish_task(
    task: TaskName,
    *,
    request: Request,
    plane: Plane,
    who: Caller,
    finish: Finish = _COMPLETED,
    wait: Span | None = None,
) -> JSONResponse:
    """End a task of the caller's, for good, with every grant of it and of the tasks that are parts of it.

    The answer lists the grants that had not ended; those that only waited lapse. With `?wait=10s` it waits until all
    are `revoked`, with their receipts. Repeating it lists what has still not ended, perhaps nothing.
    """
    finished = await in_thread(request, plane.finish_task, who, TaskId(task), Why(finish.outcome))
    ids = [grant.id for grant in finished.grants]
    grants = await until(
        lambda: plane.show_task.each(ids),
        lambda seen: not any(grant.open for grant in seen),
        seen=finished.grants,
        waiters=request.app.state.waiters,
        whose=who.workload,
        patience=seconds(wait),
    )
    return JSONResponse({"task": task_json(finished.task), "grants": [grant_json(grant) for grant in grants]}, 202)


@router.get("/{task:task}", responses=answers({200: ShownTask}, NotFoundError), response_model=None)
def show_task(
    task: TaskName, *, plane: Plane, who: Caller, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> dict[str, JsonValue]:
    """A task of the caller's, the tasks that are parts of it, and its own newest grants.

    `GET /v1/grants?task=…` has all its grants, page by page.
    """
    shown = plane.show_task(who, TaskId(task), limit=limit)
    return {
        "task": task_json(shown.task),
        "parts": [task_json(part) for part in shown.parts],
        "grants": [grant_json(grant) for grant in shown.grants],
    }


def task_json(task: Task) -> JsonValue:
    """A task as its workload may see it."""
    return {
        "task": task.id,
        "parent": task.parent,
        "depth": task.depth,
        "begun_at": task.begun_at.isoformat(),
        "finished_at": None if task.finished_at is None else task.finished_at.isoformat(),
        "why": task.why,
    }
