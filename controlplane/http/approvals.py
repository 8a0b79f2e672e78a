"""Approvals over HTTP: what waits for me, agree, refuse, and collect what was agreed to."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import Field

from controlplane.http.asked import approvals_json, asked_json
from controlplane.http.caller import Caller, From, Plane
from controlplane.http.grants import Body, Id, delivered_json, grant_json
from controlplane.model.approval import Narrowing, Waiting
from controlplane.model.canonical import JsonValue
from controlplane.model.duration import Duration
from controlplane.model.entitlement import ScopeName, Text
from controlplane.model.grant import GrantId

router = APIRouter(prefix="/v1", tags=["approvals"])


class Narrow(Body):
    """Less than was asked for: a shorter TTL, only these scopes, or both."""

    ttl: Duration | None = None
    scopes: tuple[ScopeName, ...] | None = Field(default=None, min_length=1, max_length=100)


class Approve(Body):
    """A yes to exactly what has this digest."""

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    reason: Text | None = None
    narrow: Narrow = Narrow()


class Deny(Body):
    """A no; the requester is told who said it and why."""

    reason: Text


@router.get("/approvals")
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


@router.post("/grants/{id}/approve")
def approve_grant(id: Id, approve: Approve, plane: Plane, who: Caller) -> dict[str, JsonValue]:
    """Agree, as one person, to what was shown or to less; the workload collects it once enough have."""
    narrow = Narrowing(ttl=approve.narrow.ttl, scopes=approve.narrow.scopes)
    grant = plane.approve(who, GrantId(id), digest=approve.digest, reason=approve.reason or "", narrow=narrow)
    return {"grant": grant_json(grant), "approvals": approvals_json(plane.watch.said(grant)[0])}


@router.post("/grants/{id}/deny")
def deny_grant(id: Id, deny: Deny, plane: Plane, who: Caller) -> dict[str, JsonValue]:
    """Refuse: one no is enough, until the grant is collected."""
    return {"grant": grant_json(plane.deny(who, GrantId(id), reason=deny.reason))}


@router.post("/grants/{id}/collect", status_code=201)
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
