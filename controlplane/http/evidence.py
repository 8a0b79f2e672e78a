"""Evidence over HTTP: the signed report of an incident, a proof of now, and whose a name is."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from controlplane.http.answers import GRANT_ID, Answer, Approval
from controlplane.http.asked import approvals_json
from controlplane.http.caller import Caller, Plane, Stands
from controlplane.http.description import answers
from controlplane.http.incidents import IncidentName
from controlplane.http.threads import in_thread
from controlplane.incident.ask import Fact, Found, What
from controlplane.incident.prove import About, Asked, Proved
from controlplane.incident.strays import Stray
from controlplane.incident.whois import Behind, Whose
from controlplane.model.canonical import JsonValue
from controlplane.model.entitlement import ONE_LINE
from controlplane.model.errors import InvalidRequestError, NotAllowedError, NotFoundError
from controlplane.model.grant import Grant, GrantId, State, Why
from controlplane.model.lease import Lease
from controlplane.model.orphan import OrphanKind

router = APIRouter(prefix="/v1", tags=["incidents"])

Id = Annotated[str, Field(pattern=GRANT_ID)]
Name = Annotated[str, Field(min_length=1, max_length=512, pattern=ONE_LINE)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AboutIncident(_Body):
    """Which incident: its name, or the id of one cut."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"incident": "INC-7"}]})

    incident: IncidentName


class AboutAny(_Body):
    """About what, and its name. `strays`: also look for what should not exist at all."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"about": "incident", "name": "INC-7"}]})

    about: About
    name: Name
    strays: bool = Field(default=True, strict=True)
    before: Id | None = Field(default=None, description="The `next` of the answer before.")


class Named(_Body):
    """A name as it stands in a log."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "v-sh-orders-read-1a2b3c4d-…"}]})

    name: Name


class Report(Answer):
    """A report. `bundle` is the file, byte for byte: save it in UTF-8 as it is."""

    incident: str
    grants: int
    records: int = Field(description="Records of the audit log that are in it in full.")
    bundle: str


class ShownFact(Answer):
    """What `place` answered about one thing, or why it could not be asked."""

    what: What
    name: str
    place: str
    found: Found
    evidence: str
    at: datetime
    due: bool = Field(description="Whether it should be gone.")


class AskedGrant(Answer):
    """A grant, what the store believes of it, and what was answered."""

    grant: str = Field(pattern=GRANT_ID)
    state: State
    entitlement: str
    issuer: str
    subject: str
    task: str
    due: bool
    facts: list[ShownFact]


class ShownStray(Answer):
    """Something under our names that no open grant covers."""

    kind: OrphanKind
    name: str
    place: str
    grant: str | None
    detail: str


class ShownProof(Answer):
    """What Vault and the targets say now. `proved`: everything of this answer that should be gone is."""

    at: datetime
    proved: bool
    grants: list[AskedGrant]
    names: list[ShownFact] = Field(description="Answers about a principal that no grant knows.")
    strays: list[ShownStray] | None = Field(description="Null where nobody looked for them.")
    unasked: list[str] = Field(description="Who was to say what is there and did not answer.")
    next: str | None = Field(description="The `before` of the answer that follows; null where this was the last.")


class HeldLease(Answer):
    """A credential that a grant had: what it is called, and when."""

    id: str
    scope: str
    engine: str
    target: str
    principal: str
    issued_at: datetime
    expires_at: datetime


class BehindGrant(Answer):
    """Who asked for what, for which task, and from when to when."""

    id: str = Field(pattern=GRANT_ID)
    state: State
    issuer: str
    subject: str
    person: str | None
    entitlement: str
    revision: str
    task: str
    intent: str
    reason: str
    requested_at: datetime
    issued_at: datetime | None
    expires_at: datetime
    revoked_at: datetime | None
    why: Why | None


class ShownBehind(Answer):
    """A grant behind a name."""

    grant: BehindGrant
    leases: list[HeldLease]
    approvals: list[Approval]


class ShownWhose(Answer):
    """Whose a name is: of which grants and agents, ours and unknown, or not ours."""

    name: str
    whose: Whose
    by: str
    detail: str
    behind: list[ShownBehind]


_REPORTED = answers({200: Report}, NotAllowedError, NotFoundError, InvalidRequestError)


@router.post("/incidents/report", responses=_REPORTED, response_model=None)
async def report_incident(
    about: AboutIncident, request: Request, plane: Plane, who: Caller, standing: Stands
) -> dict[str, JsonValue]:
    """Everything that is known of an incident, in one signed file that verifies offline. Making it is an event."""
    made = await in_thread(request, plane.report, who, standing, about.incident)
    return {"incident": made.incident, "grants": made.grants, "records": made.records, "bundle": made.bundle}


_PROVED = answers({200: ShownProof}, NotAllowedError, NotFoundError)


@router.post("/incidents/prove", responses=_PROVED, response_model=None)
async def prove_gone(
    about: AboutAny, request: Request, plane: Plane, who: Caller, standing: Stands
) -> dict[str, JsonValue]:
    """Ask Vault and the targets again, now, whatever the store believes. Nothing is changed; asking is an event."""
    proved = await in_thread(
        request,
        plane.prove,
        who,
        standing,
        about.about,
        about.name,
        strays=about.strays,
        before=None if about.before is None else GrantId(about.before),
    )
    return _proof_json(proved)


@router.post("/whois", responses=answers({200: ShownWhose}, NotAllowedError), response_model=None)
async def who_is(named: Named, request: Request, plane: Plane, who: Caller, standing: Stands) -> dict[str, JsonValue]:
    """Whose a name is that stands in a target's or in Vault's log."""
    del who  # proved to be somebody; what he may see is his standing
    told = await in_thread(request, plane.whois, standing, named.name)
    return {
        "name": named.name,
        "whose": told.whose,
        "by": told.by,
        "detail": told.detail,
        "behind": [_behind_json(one) for one in told.behind],
    }


def _proof_json(proved: Proved) -> dict[str, JsonValue]:
    strays = proved.strays
    return {
        "at": proved.at.isoformat(),
        "proved": proved.proved,
        "grants": [_asked_json(one) for one in proved.asked],
        "names": [_fact_json(fact) for fact in proved.names],
        "strays": None if strays is None else [_stray_json(one) for one in strays.found],
        "unasked": [] if strays is None else [*strays.unasked],
        "next": proved.next,
    }


def _asked_json(asked: Asked) -> JsonValue:
    grant = asked.grant
    return {
        "grant": grant.id,
        "state": grant.state,
        "entitlement": grant.entitlement,
        "issuer": grant.issuer,
        "subject": grant.subject,
        "task": grant.task,
        "due": asked.due,
        "facts": [_fact_json(fact) for fact in asked.facts],
    }


def _fact_json(fact: Fact) -> JsonValue:
    return {
        "what": fact.what,
        "name": fact.name,
        "place": fact.place,
        "found": fact.found,
        "evidence": fact.evidence,
        "at": fact.at.isoformat(),
        "due": fact.due,
    }


def _stray_json(stray: Stray) -> JsonValue:
    return {
        "kind": stray.kind,
        "name": stray.name,
        "place": stray.place,
        "grant": stray.grant,
        "detail": stray.detail,
    }


def _behind_json(behind: Behind) -> JsonValue:
    return {
        "grant": _grant_json(behind.grant),
        "leases": [_lease_json(lease) for lease in behind.leases],
        "approvals": approvals_json(behind.approvals),
    }


def _grant_json(grant: Grant) -> JsonValue:
    return {
        "id": grant.id,
        "state": grant.state,
        "issuer": grant.issuer,
        "subject": grant.subject,
        "person": grant.person,
        "entitlement": grant.entitlement,
        "revision": grant.revision,
        "task": grant.task,
        "intent": grant.intent,
        "reason": grant.reason,
        "requested_at": grant.requested_at.isoformat(),
        "issued_at": grant.issued_at.isoformat() if grant.issued_at else None,
        "expires_at": grant.expires_at.isoformat(),
        "revoked_at": grant.revoked_at.isoformat() if grant.revoked_at else None,
        "why": grant.why,
    }


def _lease_json(lease: Lease) -> JsonValue:
    return {
        "id": lease.id,
        "scope": lease.scope,
        "engine": lease.engine,
        "target": lease.target.name,
        "principal": lease.principal,
        "issued_at": lease.issued_at.isoformat(),
        "expires_at": lease.expires_at.isoformat(),
    }
