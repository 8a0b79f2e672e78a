"""Freezes over HTTP: make one, list them, thaw one."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from controlplane.http.answers import Answer
from controlplane.http.caller import Caller, Plane, Stands
from controlplane.http.description import answers
from controlplane.http.threads import ENDING, in_thread
from controlplane.http.waiting import Span
from controlplane.model.canonical import JsonValue
from controlplane.model.entitlement import Text
from controlplane.model.errors import (
    InvalidSelectionError,
    NotAllowedError,
    NotFoundError,
    OtherPersonNeededError,
)
from controlplane.model.freeze import Freeze, FreezeId
from controlplane.model.selection import MAX_LENGTH

router = APIRouter(prefix="/v1/freezes", tags=["freezes"])

FREEZE_ID = r"^fz_[a-z2-7]{24}$"
Id = Annotated[str, Field(pattern=FREEZE_ID)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Make(_Body):
    """What is to be frozen, what those are told whom it refuses, why, and for how long if not until it is thawed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"selection": "label.team=billing", "message": "Billing is stopped.", "reason": "INC-7"}]
        }
    )

    selection: str = Field(max_length=MAX_LENGTH, examples=["label.team=billing", "all"])
    message: Text
    reason: Text
    expires_in: Annotated[Span, Field(le=timedelta(days=3650))] | None = None


class Why(_Body):
    """Why it ends."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "INC-7 is over"}]})

    reason: Text


class ShownThaw(Answer):
    """One person's wish that a freeze end."""

    issuer: str
    subject: str
    at: datetime
    reason: str


class ShownFreeze(Answer):
    """A freeze, with everybody who had a hand in it."""

    id: str = Field(pattern=FREEZE_ID)
    selection: str
    message: str
    reason: str
    issuer: str
    subject: str
    created_at: datetime
    expires_at: datetime | None
    thaws: list[ShownThaw]
    thawed_at: datetime | None


class OneFreeze(Answer):
    """A freeze; while `thawed_at` is null it holds, and another responder may have to agree."""

    freeze: ShownFreeze


class MadeFreeze(OneFreeze):
    """A new freeze, and whether every replica obeys it already."""

    settled: bool


class Freezes(Answer):
    """A page of freezes, newest first."""

    freezes: list[ShownFreeze]


_MADE = answers({201: MadeFreeze}, NotAllowedError, InvalidSelectionError)


@router.post("", status_code=201, tags=[ENDING], responses=_MADE, response_model=None)
async def make_freeze(make: Make, request: Request, plane: Plane, who: Caller, standing: Stands) -> JSONResponse:
    """Freeze a selection: no new grant of it, on any replica, from before this answer on.

    `settled` false: a replica hangs amid a decision that may have been made without it; everything else obeys it.
    """
    frozen = await in_thread(
        request,
        plane.freeze,
        who,
        standing,
        make.selection,
        message=make.message,
        reason=make.reason,
        expires_in=make.expires_in,
    )
    body: dict[str, JsonValue] = {"freeze": freeze_json(frozen.freeze), "settled": frozen.settled}
    return JSONResponse(body, 201)


@router.get("", responses=answers({200: Freezes}, NotAllowedError), response_model=None)
def list_freezes(
    plane: Plane,
    who: Caller,
    standing: Stands,
    *,
    ended: bool = False,
    before: Id | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, JsonValue]:
    """The freezes that refuse now, newest first; with `?ended=1` also those that have expired or were thawed."""
    del who  # proved to be somebody; what he may see is his standing
    page = plane.freezes(standing, ended=ended, before=FreezeId(before) if before else None, limit=limit)
    return {"freezes": [freeze_json(freeze) for freeze in page]}


_THAWED = answers({200: OneFreeze, 202: OneFreeze}, NotAllowedError, OtherPersonNeededError, NotFoundError)


@router.post("/{id}/thaw", responses=_THAWED, response_model=None)
def thaw_freeze(id: Id, why: Why, plane: Plane, who: Caller, standing: Stands) -> JSONResponse:
    """End a freeze: 200, or 202 where everything was frozen and another responder has to do the same."""
    freeze = plane.thaw(who, standing, FreezeId(id), reason=why.reason)
    waits = freeze.thawed_at is None and freeze.thaws != ()
    return JSONResponse({"freeze": freeze_json(freeze)}, 202 if waits else 200)


def freeze_json(freeze: Freeze) -> dict[str, JsonValue]:
    """A freeze, with everybody who had a hand in it."""
    return {
        "id": freeze.id,
        "selection": freeze.selection,
        "message": freeze.message,
        "reason": freeze.reason,
        "issuer": freeze.issuer,
        "subject": freeze.subject,
        "created_at": freeze.created_at.isoformat(),
        "expires_at": freeze.expires_at.isoformat() if freeze.expires_at else None,
        "thaws": [
            {"issuer": thaw.issuer, "subject": thaw.subject, "at": thaw.at.isoformat(), "reason": thaw.reason}
            for thaw in freeze.thaws
        ],
        "thawed_at": freeze.thawed_at.isoformat() if freeze.thawed_at else None,
    }
