"""Grants over HTTP: ask, look, finish."""

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from controlplane.grants.issue import Delivered
from controlplane.http.answers import GRANT_ID, Explained, Grants, OneGrant, Requested, ShownGrant
from controlplane.http.asked import decided_json
from controlplane.http.caller import Caller, From, Plane, Stands
from controlplane.http.description import answers
from controlplane.http.explained import explained
from controlplane.http.threads import ENDING, in_thread
from controlplane.http.waiting import Span, seconds, until
from controlplane.model.access import NOBODY, Standing
from controlplane.model.canonical import JsonValue
from controlplane.model.duration import format_duration
from controlplane.model.entitlement import ParameterName, Text
from controlplane.model.errors import (
    ClockOffError,
    ConflictError,
    DeniedError,
    FrozenError,
    KeyNeededError,
    LostRaceError,
    NotFoundError,
    NotSyncedError,
    OverBudgetError,
    ParametersOffError,
    StoreBehindError,
    TokenReplayedError,
    UnexpectedTokenError,
    VaultRefusedError,
    VaultUnavailableError,
)
from controlplane.model.grant import Grant, GrantId, State, TaskId, Why
from controlplane.model.identity import VerifiedClaims
from controlplane.model.lease import Lease
from controlplane.model.parameter import VALUE
from controlplane.model.request import GrantRequest
from controlplane.wiring.plane import ControlPlane

router = APIRouter(prefix="/v1/grants", tags=["grants"])

_AT_OTHERS: Final = frozenset({State.PENDING, State.ISSUING, State.REVOKING})
"""States in which somebody else has to do something: people, or we."""

Id = Annotated[str, Field(pattern=GRANT_ID, examples=["gr_e4mzjr3vudzjgvyorq6xlzsn"])]
EntitlementName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z][a-z0-9-]*$")]
TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$", examples=["T-1042"])]
ISSUES = (
    DeniedError,
    FrozenError,
    LostRaceError,
    VaultRefusedError,
    UnexpectedTokenError,
    VaultUnavailableError,
    NotSyncedError,
    ClockOffError,
    StoreBehindError,
    ParametersOffError,
)
"""What whatever issues a credential may answer."""


class Body(BaseModel):
    """What every body is: a field it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Ask(Body):
    """What a workload asks for."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"entitlement": "orders-read", "task": "T-1042", "intent": "answer-question", "ttl": "5m"},
                {
                    "entitlement": "orders-read",
                    "task": "T-1042/lines",
                    "intent": "answer-question",
                    "parent": "T-1042",
                },
                {
                    "entitlement": "orders-refund",
                    "task": "T-1043",
                    "intent": "answer-question",
                    "reason": "the customer returned order 7",
                },
            ]
        }
    )

    entitlement: EntitlementName
    task: TaskName
    intent: str = Field(min_length=1, max_length=64, pattern=r"^[a-z][a-z0-9-]*$")
    reason: Text | None = None
    ttl: Span | None = None
    parent: TaskName | None = None
    parameters: dict[ParameterName, Annotated[str, Field(pattern=VALUE)]] = Field(
        default={},
        max_length=8,
        description="The values that the entitlement is narrowed to, by name.",
        json_schema_extra={"additionalProperties": False},
    )


class Finish(Body):
    """How the task ended."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"outcome": "completed"}]})

    outcome: Annotated[str, Field(pattern="^(completed|failed)$")] = "completed"


_REQUESTED = answers(
    {200: Explained, 201: Requested, 202: Requested},
    KeyNeededError,
    TokenReplayedError,
    ConflictError,
    OverBudgetError,
    *ISSUES,
)


@router.post("", status_code=201, responses=_REQUESTED, response_model=None)
def request_grant(
    ask: Ask,
    *,
    plane: Plane,
    who: Caller,
    address: From,
    idempotency_key: Annotated[str | None, Header(pattern=r"^[\x21-\x7e]{1,128}$")] = None,
    only_explain: Annotated[bool, Query(alias="dry_run")] = False,
) -> JSONResponse:
    """Ask for a grant: 201 with a wrapping token, or 202 where people have to agree first.

    With `?dry_run=1` nothing is made, whatever the key: 200 with the whole decision, every yes and every no.
    """
    asked = GrantRequest(
        entitlement=ask.entitlement,
        task=TaskId(ask.task),
        intent=ask.intent,
        reason=ask.reason or "",
        ttl=ask.ttl,
        parent=None if ask.parent is None else TaskId(ask.parent),
        parameters=ask.parameters,
    )
    if only_explain:
        return JSONResponse(explained(plane.explain(who, asked, address=address)))
    delivered = plane.request(who, asked, key=idempotency_key, address=address)
    grant = delivered.grant
    answer, status = delivered_json(delivered), 202 if grant.waits else 201
    if grant.waits:
        answer |= decided_json(plane, grant)
    return JSONResponse(answer, status, {"Location": f"/v1/grants/{grant.id}"})


@router.get("", responses=answers({200: Grants}), response_model=None)
def list_grants(
    plane: Plane,
    who: Caller,
    standing: Stands,
    *,
    entitlement: EntitlementName | None = None,
    task: TaskName | None = None,
    state: Annotated[list[State], Query(max_length=len(State))] = [],  # noqa: B006 # FastAPI copies what it fills
    before: Id | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, JsonValue]:
    """The grants that the caller may see, newest first: his own; for responder, auditor and platform everybody's."""
    page = plane.show.page(
        who,
        standing,
        entitlement=entitlement,
        task=TaskId(task) if task else None,
        states=state,
        before=GrantId(before) if before else None,
        limit=limit,
    )
    return {"grants": [grant_json(grant) for grant in page]}


@router.get("/{id}", responses=answers({200: ShownGrant}, NotFoundError), response_model=None)
async def show_grant(
    id: Id, *, request: Request, plane: Plane, who: Caller, standing: Stands, wait: Span | None = None
) -> dict[str, JsonValue]:
    """A grant that the caller may see, with its leases and its receipt, or one that waits for the caller's approval.

    With `?wait=30s` (a minute at most) the answer comes once it does not wait for anybody else: not `pending`,
    `issuing` or `revoking`; at once where too many wait already. Any other grant is unknown.
    """

    def look() -> tuple[Grant, Sequence[Lease]]:
        return _look(plane, who, GrantId(id), standing)

    grant, leases = await until(
        look,
        lambda seen: seen[0].state not in _AT_OTHERS,
        seen=await in_thread(request, look),
        waiters=request.app.state.waiters,
        whose=who.workload,
        patience=seconds(wait),
    )
    decided = await in_thread(request, decided_json, plane, grant)
    return {"grant": grant_json(grant), "leases": [lease_json(lease) for lease in leases], **decided}


_COMPLETED: Final = Finish()
_FINISHED = answers({202: OneGrant}, NotFoundError, LostRaceError)


@router.post("/{id}/finish", status_code=202, tags=[ENDING], responses=_FINISHED, response_model=None)
async def finish_grant(
    id: Id, *, request: Request, plane: Plane, who: Caller, finish: Finish = _COMPLETED, wait: Span | None = None
) -> JSONResponse:
    """End a grant. The answer is `revoking`; with `?wait=10s` it waits for `revoked` and its receipt.

    Where too many wait already, the answer comes at once; the grant ends all the same.
    """
    grant = await until(
        lambda: _look(plane, who, GrantId(id))[0],
        lambda seen: not seen.open,
        seen=await in_thread(request, plane.finish, who, GrantId(id), Why(finish.outcome)),
        waiters=request.app.state.waiters,
        whose=who.workload,
        patience=seconds(wait),
    )
    return JSONResponse({"grant": grant_json(grant)}, 202)


def grant_json(grant: Grant) -> dict[str, JsonValue]:
    """A grant as its owner may see it: no accessor, nothing that opens or revokes anything."""
    return {
        "id": grant.id,
        "state": grant.state,
        "entitlement": grant.entitlement,
        "revision": grant.revision,
        "issuer": grant.issuer,
        "subject": grant.subject,
        "task": grant.task,
        "intent": grant.intent,
        "reason": grant.reason,
        "ttl": format_duration(grant.ttl),
        "under": grant.under,
        "scopes": None if grant.scopes is None else [*grant.scopes],
        "parameters": {**grant.parameters},
        "requested_at": grant.requested_at.isoformat(),
        "expires_at": grant.expires_at.isoformat(),
        "issued_at": grant.issued_at.isoformat() if grant.issued_at else None,
        "heartbeat_due_at": grant.heartbeat_due_at.isoformat() if grant.heartbeat_due_at else None,
        "why": grant.why,
        "revoking_at": grant.revoking_at.isoformat() if grant.revoking_at else None,
        "revoked_at": grant.revoked_at.isoformat() if grant.revoked_at else None,
        "failing": grant.failing,
        "receipt": None
        if grant.receipt is None
        else {
            "verified": grant.receipt.verified,
            "signed": grant.receipt.signed,
            "ended": [
                {
                    "lease": end.lease,
                    "principal": end.principal,
                    "method": end.method,
                    "at": end.at.isoformat(),
                    "verified": end.verified,
                    "evidence": end.evidence,
                }
                for end in grant.receipt.ended
            ],
        },
    }


def _look(
    plane: ControlPlane, who: VerifiedClaims, id: GrantId, standing: Standing = NOBODY
) -> tuple[Grant, Sequence[Lease]]:
    """The caller's own, or what waits for his approval. Raises: NotFoundError, with the same words for both."""
    try:
        return plane.show(who, id, standing)
    except NotFoundError as not_own:
        try:
            return plane.watch.show(who, id).grant, ()
        except NotFoundError:
            raise not_own from None


def lease_json(lease: Lease) -> JsonValue:
    """A lease as the grant's owner may see it."""
    return {
        "id": lease.id,
        "scope": lease.scope,
        "engine": lease.engine,
        "principal": lease.principal,
        "expires_at": lease.expires_at.isoformat(),
    }


def delivered_json(delivered: Delivered) -> dict[str, JsonValue]:
    """What a request or a collect is answered with; besides `decided_json` where the grant waits."""
    answer: dict[str, JsonValue] = {
        "grant": grant_json(delivered.grant),
        "leases": [lease_json(lease) for lease in delivered.leases],
        "expires_at": delivered.grant.expires_at.isoformat(),
        "reasons": [{"decision": why.decision, "code": why.code, "detail": why.detail} for why in delivered.reasons],
    }
    # The two places where something secret leaves the process, to the workload it was made for.
    if delivered.wrapping_token is not None:
        answer["wrapping_token"] = delivered.wrapping_token.reveal()
    if delivered.credentials:
        answer["credentials"] = {
            scope: {name: value.reveal() for name, value in fields.items()}
            for scope, fields in delivered.credentials.items()
        }
    return answer
