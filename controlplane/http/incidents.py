"""Cuts over HTTP: preview a selection, cut it, and see how far that has come, as often as it changes."""

import json
from collections import Counter
from collections.abc import AsyncGenerator
from datetime import datetime
from functools import partial
from typing import Annotated, Final

import anyio
import anyio.to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.convertors import StringConvertor, register_url_convertor

from controlplane.http.answers import DIGEST, GRANT_ID, Answer, Grant
from controlplane.http.caller import Caller, Plane, Stands
from controlplane.http.description import answers
from controlplane.http.freezes import FREEZE_ID
from controlplane.http.grants import grant_json
from controlplane.http.threads import ENDING, in_thread
from controlplane.incident.cuts import Left, Seen
from controlplane.incident.preview import Previewed, Soft
from controlplane.model.canonical import JsonValue
from controlplane.model.cut import FRESH, Changed, Cut, CutId, Outcome
from controlplane.model.entitlement import Revocability, Text
from controlplane.model.errors import (
    ControlPlaneError,
    EverythingSelectedError,
    InvalidRequestError,
    InvalidSelectionError,
    LostRaceError,
    NotAllowedError,
    NotFoundError,
    StalePreviewError,
)
from controlplane.model.grant import State
from controlplane.model.selection import MAX_LENGTH


class _Name(StringConvertor):
    """A segment that begins as ids of cuts do: `preview` and `cut` are none, and have methods of their own."""

    regex = "ct_[^/]*"


register_url_convertor("cut", _Name())
router = APIRouter(prefix="/v1/incidents", tags=["incidents"])

_ID: Final = r"^ct_[a-z2-7]{24}$"
Id = Annotated[str, Field(pattern=_ID)]
IncidentName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}$", examples=["INC-7"])]
_BETWEEN: Final = 0.5
_STREAM: Final = 600
"""Seconds between two looks, and looks until a stream ends and has to be asked for anew: tokens expire."""


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Look(_Body):
    """What is to be looked at."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"selection": "label.team=billing"}]})

    selection: str = Field(max_length=MAX_LENGTH, examples=["label.team=billing", "all"])
    harden: bool = Field(default=False, strict=True, description="Also look whether open sessions would outlive it.")


class Order(_Body):
    """Which preview is to be cut, about which incident and why.

    `freeze`: no new grant of it either; `message` is told to whom that refuses. `all`: everything is meant.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"digest": "0" * 64, "incident": "INC-7", "reason": "the key leaked"}]}
    )

    digest: str = Field(pattern=DIGEST)
    incident: IncidentName
    reason: Text
    freeze: bool = True
    message: Text | None = None
    all: bool = False


class EntitlementCount(Answer):
    """How many grants of an entitlement, and who answers for it."""

    entitlement: str
    owner: str | None
    grants: int


class AgentCount(Answer):
    """How many grants of an agent."""

    issuer: str
    subject: str
    grants: int


class StateCount(Answer):
    """How many grants in a state."""

    state: State
    grants: int


class OpenedCount(Answer):
    """Leases of an engine at a target; `sessions` open there now, null where nobody can say: `unknown` says why."""

    engine: str
    target: str
    leases: int
    revocability: Revocability | None
    sessions: int | None
    unknown: str


class TaskCount(Answer):
    """A task that works with it now."""

    subject: str
    task: str
    grants: int


class SoftRole(Answer):
    """Grants whose open sessions may outlive them, by the path that their credentials were read at."""

    path: str
    grants: list[str]
    sessions: int | None = Field(description="How many they have open now; null where the target does not say.")
    why: str


class RefusedRequests(Answer):
    """Requests that the freeze would refuse: all for the entitlement, or those of which `when` is true."""

    entitlement: str
    when: str


class Preview(Answer):
    """What a cut would end; every figure is exact. `digest` is null where nothing is selected."""

    digest: str | None = Field(pattern=DIGEST)
    selection: str
    at: datetime
    fresh_until: datetime
    count: int
    of: int = Field(description="How many have not ended at all.")
    everything: bool = Field(description='Whether a cut needs `"all": true`.')
    entitlements: list[EntitlementCount]
    agents: list[AgentCount]
    states: list[StateCount]
    opened: list[OpenedCount]
    tasks: list[TaskCount] = Field(description="Those that work with it now, a thousand at most.")
    refuses: list[RefusedRequests]
    unfreezable: list[str] = Field(description="Keys by which nothing can be frozen: cut with `freeze: false`.")
    grants: list[Grant] = Field(description="The newest thousand.")
    soft: list[SoftRole] | None = Field(description="Of these grants; null unless `harden` was asked for.")


class ShownCut(Answer):
    """A cut; it runs until `ended_at`."""

    id: str = Field(pattern=_ID)
    incident: str
    selection: str
    digest: str
    reason: str
    issuer: str
    subject: str
    freeze: str | None = Field(pattern=FREEZE_ID)
    ordered_at: datetime
    ended_at: datetime | None


class ProgressCounts(Answer):
    """How many grants have come how far."""

    total: int
    waiting: int
    ending: int
    residual: int
    verified: int
    unverifiable: int
    withdrawn: int


class LeftOver(Answer):
    """A grant that is not verified gone: why, and what a person can do."""

    grant: str = Field(pattern=GRANT_ID)
    entitlement: str
    subject: str
    state: State
    why: str
    todo: str


class SeenCut(Answer):
    """A cut and what has become of it; those that are left are named, a thousand of each at most."""

    cut: ShownCut
    progress: ProgressCounts
    residual: list[LeftOver]
    unverifiable: list[LeftOver]


class ChangedSince(Answer):
    """What differs from the preview: `new` are cut too, `ended` needed no cut."""

    new: int
    ended: int


class OrderedCut(SeenCut):
    """An ordered cut, and whether every replica obeys its freeze already."""

    changed: ChangedSince
    settled: bool


class Cuts(Answer):
    """A page of cuts, newest first."""

    cuts: list[ShownCut]


_PREVIEWED = answers({200: Preview}, NotAllowedError, InvalidSelectionError, InvalidRequestError)


@router.post("/preview", tags=[ENDING], responses=_PREVIEWED, response_model=None)
async def preview_cut(look: Look, request: Request, plane: Plane, who: Caller, standing: Stands) -> JSONResponse:
    """Show what a cut of a selection would end, by agent, owner and target; nothing is changed by it."""
    preview = partial(plane.preview, harden=look.harden)
    return JSONResponse(_preview_json(await in_thread(request, preview, who, standing, look.selection)))


_ORDERED = answers(
    {202: OrderedCut},
    NotAllowedError,
    NotFoundError,
    InvalidSelectionError,
    EverythingSelectedError,
    StalePreviewError,
    LostRaceError,
)


@router.post("/cut", status_code=202, tags=[ENDING], responses=_ORDERED, response_model=None)
async def order_cut(order: Order, request: Request, plane: Plane, who: Caller, standing: Stands) -> JSONResponse:
    """End everything that a preview showed, and what its selection selects meanwhile; freeze it first.

    202 as soon as that is on disk. The same preview is cut once: asking again tells how it stands.
    """
    ordered = await in_thread(
        request,
        plane.cut,
        who,
        standing,
        order.digest,
        incident=order.incident,
        reason=order.reason,
        freeze=order.freeze,
        message=order.message,
        everything=order.all,
    )
    seen = await in_thread(request, plane.cuts, standing, ordered.cut.id)
    body = {**seen_json(seen), "changed": _changed_json(ordered.changed), "settled": ordered.settled}
    return JSONResponse(body, 202, {"Location": f"/v1/incidents/{ordered.cut.id}"})


@router.get("", responses=answers({200: Cuts}, NotAllowedError), response_model=None)
def list_cuts(
    plane: Plane,
    who: Caller,
    standing: Stands,
    *,
    running: bool = False,
    before: Id | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, JsonValue]:
    """The cuts, newest first; with `?running=1` those that have not ended."""
    del who  # proved to be somebody; what he may see is his standing
    page = plane.cuts.page(standing, running=running, before=CutId(before) if before else None, limit=limit)
    return {"cuts": [_cut_json(cut) for cut in page]}


_SEEN = answers({200: SeenCut}, NotAllowedError, NotFoundError)


@router.get("/{id:cut}", tags=[ENDING], responses=_SEEN, response_model=None)
async def show_cut(id: Id, request: Request, plane: Plane, who: Caller, standing: Stands) -> dict[str, JsonValue]:
    """How far a cut has come, and what is left of it."""
    del who
    return seen_json(await in_thread(request, plane.cuts, standing, CutId(id)))


_FOLLOWED = answers({}, NotAllowedError, NotFoundError)


@router.get(
    "/{id:cut}/events",
    response_class=StreamingResponse,
    responses={**_FOLLOWED, 200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    response_model=None,
)
async def follow_cut(id: Id, request: Request, plane: Plane, who: Caller, standing: Stands) -> StreamingResponse:
    """How far a cut has come, told anew whenever that changes, until it has ended: server-sent events.

    Each is a `progress`, whose data has `cut` and `progress` as the cut itself has them. After five minutes, with the
    token, or where too many follow already, the stream ends before: ask again.
    """
    waiters = request.app.state.waiters

    def look() -> Seen:
        return plane.cuts(standing, CutId(id), details=False)

    seen = await in_thread(request, look)

    async def told() -> AsyncGenerator[str]:
        nonlocal seen
        last = ""
        with waiters.enter(who.workload) as may_wait:
            for _ in range(_STREAM if may_wait else 1):
                data = json.dumps({"cut": _cut_json(seen.cut), "progress": _progress_json(seen)})
                if data != last:
                    yield f"event: progress\ndata: {data}\n\n"
                last = data
                if seen.cut.ended_at is not None:
                    return
                await anyio.sleep(_BETWEEN if may_wait else 0)
                if plane.clock.now() >= who.expires_at:
                    return  # nobody is told more than his token would let him ask
                try:
                    seen = await anyio.to_thread.run_sync(look, limiter=waiters.threads)
                except ControlPlaneError:
                    return  # the store is away: whoever follows asks again, and is told so

    return StreamingResponse(told(), media_type="text/event-stream")


def _preview_json(seen: Previewed) -> dict[str, JsonValue]:
    by_entitlement, by_agent, by_state = Counter[str](), Counter[tuple[str, str]](), Counter[State]()
    for group in seen.surveyed.groups:
        by_entitlement[group.entitlement] += group.count
        by_agent[group.issuer, group.subject] += group.count
        by_state[group.state] += group.count
    return {
        "digest": seen.digest,
        "selection": seen.preview.selection,
        "at": seen.preview.at.isoformat(),
        "fresh_until": (seen.preview.at + FRESH).isoformat(),
        "count": seen.preview.count,
        "of": seen.surveyed.of,
        "everything": seen.everything,
        "entitlements": [
            {"entitlement": name, "owner": seen.owners.get(name), "grants": count}
            for name, count in by_entitlement.most_common()
        ],
        "agents": [
            {"issuer": issuer, "subject": subject, "grants": count}
            for (issuer, subject), count in by_agent.most_common()
        ],
        "states": [{"state": state, "grants": count} for state, count in by_state.most_common()],
        "opened": [
            {
                "engine": one.engine,
                "target": one.target,
                "leases": one.count,
                "revocability": one.revocability,
                "sessions": one.sessions,
                "unknown": one.unknown,
            }
            for one in seen.opened
        ],
        "tasks": [{"subject": one.subject, "task": one.task, "grants": one.grants} for one in seen.surveyed.doing],
        "refuses": [{"entitlement": one.entitlement, "when": one.when} for one in seen.refusals],
        "unfreezable": [*seen.unfreezable],
        "grants": [grant_json(grant) for grant in seen.sample],
        "soft": None if seen.soft is None else [_soft_json(one) for one in seen.soft],
    }


def _soft_json(one: Soft) -> JsonValue:
    return {"path": one.path, "grants": [*one.grants], "sessions": one.sessions, "why": one.why}


def seen_json(seen: Seen) -> dict[str, JsonValue]:
    """A cut as it stands."""
    return {
        "cut": _cut_json(seen.cut),
        "progress": _progress_json(seen),
        "residual": [_left_json(left) for left in seen.residual],
        "unverifiable": [_left_json(left) for left in seen.unverifiable],
    }


def _cut_json(cut: Cut) -> dict[str, JsonValue]:
    return {
        "id": cut.id,
        "incident": cut.incident,
        "selection": cut.selection,
        "digest": cut.digest,
        "reason": cut.reason,
        "issuer": cut.issuer,
        "subject": cut.subject,
        "freeze": cut.freeze,
        "ordered_at": cut.ordered_at.isoformat(),
        "ended_at": cut.ended_at.isoformat() if cut.ended_at else None,
    }


def _progress_json(seen: Seen) -> dict[str, JsonValue]:
    counts: dict[str, JsonValue] = {one.value: seen.progress.of(one) for one in Outcome}
    return {"total": seen.progress.total, **counts}


def _left_json(left: Left) -> JsonValue:
    return {
        "grant": left.grant.id,
        "entitlement": left.grant.entitlement,
        "subject": left.grant.subject,
        "state": left.grant.state,
        "why": left.why,
        "todo": left.todo,
    }


def _changed_json(changed: Changed) -> JsonValue:
    return {"new": changed.new, "ended": changed.ended}
