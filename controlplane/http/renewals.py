"""Keeping a grant over HTTP: a later end, and the beat that says that somebody is still there."""

from fastapi import APIRouter
from pydantic import ConfigDict

from controlplane.http.answers import Kept, RenewedGrant
from controlplane.http.caller import Caller, From, Plane
from controlplane.http.description import answers
from controlplane.http.grants import Body, Id, grant_json, lease_json
from controlplane.http.waiting import Span
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import (
    ClockOffError,
    ContextChangedError,
    DeniedError,
    EndedError,
    FrozenError,
    IllegalTransitionError,
    LostRaceError,
    NotFoundError,
    OverBudgetError,
    StoreBehindError,
    VaultRefusedError,
    VaultUnavailableError,
)
from controlplane.model.grant import Grant, GrantId

router = APIRouter(prefix="/v1/grants", tags=["grants"])


class Renew(Body):
    """How long it is to live from now; without it the entitlement's default, as far as it may."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ttl": "5m"}]})

    ttl: Span | None = None


_PLAIN = Renew()
_KEPT = (NotFoundError, IllegalTransitionError, EndedError, ContextChangedError, LostRaceError)
_RENEWED = answers(
    {200: RenewedGrant},
    *_KEPT,
    DeniedError,
    FrozenError,
    OverBudgetError,
    ClockOffError,
    StoreBehindError,
    VaultUnavailableError,
    VaultRefusedError,
)


@router.post("/{id}/renew", responses=_RENEWED, response_model=None)
def renew_grant(id: Id, plane: Plane, who: Caller, address: From, renew: Renew = _PLAIN) -> dict[str, JsonValue]:
    """Let a grant end later, within its entitlement's maximum from its beginning; everything is decided anew.

    What would not be granted any more ends by it: `403 context-changed`. Any other error leaves the end as it was.
    """
    renewed = plane.renew(who, GrantId(id), ttl=renew.ttl, address=address)
    return {
        **_kept(renewed.grant),
        "leases": [lease_json(lease) for lease in renewed.leases],
        "reasons": [{"decision": why.decision, "code": why.code, "detail": why.detail} for why in renewed.reasons],
    }


@router.post("/{id}/heartbeat", responses=answers({200: Kept}, *_KEPT), response_model=None)
def take_heartbeat(id: Id, plane: Plane, who: Caller, address: From) -> dict[str, JsonValue]:
    """Say that the task goes on; everything is decided anew. The answer has when the grant ends, and the next beat.

    A freeze ends nothing that is in use, so a beat is taken all the same; what would not be granted any more ends.
    """
    return _kept(plane.heartbeat(who, GrantId(id), address=address))


def _kept(grant: Grant) -> dict[str, JsonValue]:
    due = grant.heartbeat_due_at
    return {
        "grant": grant_json(grant),
        "expires_at": grant.expires_at.isoformat(),
        "heartbeat_due_at": due.isoformat() if due else None,
    }
