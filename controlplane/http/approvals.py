"""Approvals over HTTP: what waits for me, agree, refuse, and collect what was agreed to."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field

from controlplane.http.answers import Approvals, ApprovedGrant, OneGrant, Requested
from controlplane.http.asked import approvals_json, asked_json
from controlplane.http.caller import Caller, From, Plane
from controlplane.http.description import answers
from controlplane.http.grants import ISSUES, Body, Id, delivered_json, grant_json
from controlplane.http.threads import ENDING, in_thread
from controlplane.http.waiting import Span
from controlplane.model.approval import Narrowing, Waiting
from controlplane.model.canonical import JsonValue
from controlplane.model.entitlement import ScopeName, Text
from controlplane.model.errors import (
    AlreadyApprovedError,
    FrozenError,
    IllegalTransitionError,
    LapsedError,
    LostRaceError,
    MayNotApproveError,
    NotAllowedError,
    NotApprovedYetError,
    NotFoundError,
    OtherDigestError,
    OverBudgetError,
    TokenReplayedError,
)
from controlplane.model.grant import GrantId

router = APIRouter(prefix="/v1", tags=["approvals"])


class Narrow(Body):
    """Less than was asked for: a shorter TTL, only these scopes, or both."""

    ttl: Span | None = None
    scopes: tuple[ScopeName, ...] | None = Field(default=None, min_length=1, max_length=100)


class Approve(Body):
    """A yes to exactly what has this digest."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"digest": "0" * 64, "narrow": {"ttl": "5m"}}]})

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    reason: Text | None = None
    narrow: Narrow = Narrow()


class Deny(Body):
    """A no; the requester is told who said it and why."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "not while the release is on"}]})

    reason: Text


@router.get("/approvals", responses=answers({200: Approvals}, NotAllowedError), response_model=None)
def list_approvals(
    plane: Plane, who: Caller, before: Id | None = None, limit: Annotated[int, Query(ge=1, le=200)] = 100
) -> dict[str, JsonValue]:
    """What the caller may decide on now, grouped by entitlement and requester, newest first.

    A page looks at the next `limit` grants that wait; where there are more, `next` is the `before` of the next page.
    """
    found, more = plane.watch.page(who, before=None if before is None else GrantId(before), limit=limit)
    groups: dict[tuple[str, str, str], list[Waiting]] = {}
    for waiting in found:
        grant = waiting.grant
        groups.setdefault((grant.entitlement, grant.issuer, grant.subject), []).append(waiting)
    return {"groups": [_group(*key, of) for key, of in groups.items()], "next": more}


_DECIDED = (NotAllowedError, MayNotApproveError, NotFoundError, LapsedError, LostRaceError, IllegalTransitionError)


@router.post(
    "/grants/{id}/approve",
    responses=answers({200: ApprovedGrant}, *_DECIDED, OtherDigestError, AlreadyApprovedError, FrozenError),
    response_model=None,
)
def approve_grant(id: Id, approve: Approve, plane: Plane, who: Caller) -> dict[str, JsonValue]:
    """Agree, as one person, to what was shown or to less; the workload collects it once enough have."""
    narrow = Narrowing(ttl=approve.narrow.ttl, scopes=approve.narrow.scopes)
    grant = plane.approve(who, GrantId(id), digest=approve.digest, reason=approve.reason or "", narrow=narrow)
    return {"grant": grant_json(grant), "approvals": approvals_json(plane.watch.said(grant)[0])}


@router.post("/grants/{id}/deny", tags=[ENDING], responses=answers({200: OneGrant}, *_DECIDED), response_model=None)
async def deny_grant(id: Id, deny: Deny, request: Request, plane: Plane, who: Caller) -> dict[str, JsonValue]:
    """Refuse: one no is enough, until the grant is collected."""
    return {"grant": grant_json(await in_thread(request, plane.deny, who, GrantId(id), reason=deny.reason))}


_COLLECTED = answers(
    {201: Requested}, TokenReplayedError, NotFoundError, NotApprovedYetError, LapsedError, OverBudgetError, *ISSUES
)


@router.post("/grants/{id}/collect", status_code=201, responses=_COLLECTED, response_model=None)
def collect_grant(id: Id, plane: Plane, who: Caller, address: From) -> JSONResponse:
    """Get the credential of an approved grant, once; everything is decided anew before."""
    delivered = plane.collect(who, GrantId(id), address=address)
    return JSONResponse(delivered_json(delivered), 201, {"Location": f"/v1/grants/{delivered.grant.id}"})


def _group(entitlement: str, issuer: str, subject: str, of: list[Waiting]) -> JsonValue:
    return {
        "entitlement": entitlement,
        "issuer": issuer,
        "subject": subject,
        "count": len(of),
        "until": min(waiting.grant.expires_at for waiting in of).isoformat(),
        "waiting": [
            {"asked": asked_json(waiting.asked), "approvals": approvals_json(waiting.approvals)} for waiting in of
        ],
    }
