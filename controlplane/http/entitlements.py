"""Entitlements over HTTP: only those the caller is eligible for; the platform team sees all."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from controlplane.grants.who import told
from controlplane.http.answers import Answer, Entitlements, Span
from controlplane.http.caller import Caller, Plane, Stands
from controlplane.http.description import answers
from controlplane.model.access import Role
from controlplane.model.canonical import JsonValue
from controlplane.model.duration import format_duration
from controlplane.model.entitlement import Risk
from controlplane.model.errors import NoEntitlementError

router = APIRouter(prefix="/v1/entitlements", tags=["entitlements"])


class Glob(Answer):
    """A pattern."""

    glob: str


class Candidate(Answer):
    """One entry of an entitlement's eligibility."""

    issuer: str
    kind: str | None
    subject: str | Glob
    claims: dict[str, str | Glob]
    says: str


class When(Answer):
    """In which windows."""

    windows: list[str]
    open: bool
    opens_at: datetime | None
    says: str


class Where(Answer):
    """From where, and in which environments."""

    networks: list[str]
    environments: list[str]
    says: str


class MaxActive(Answer):
    """How many grants at once."""

    per_subject: int | None
    total: int | None


class Budgets(Answer):
    """How often."""

    max_active: MaxActive | None
    max_requests: str | None
    says: str


class Agreement(Answer):
    """Who must agree."""

    quorum: int
    approvers: list[str] = Field(alias="from")
    within: str
    says: str


class WhoCould(Answer):
    """Who could have an entitlement, when, from where, how often and with whose approval."""

    entitlement: str
    purpose: str
    owner: str
    risk: Risk
    intents: list[str]
    opens: list[str]
    who: list[Candidate]
    when: When
    where: Where
    budgets: Budgets
    ttl: Span
    heartbeat: str | None
    delivery: str
    approval: Agreement | None


@router.get("", responses=answers({200: Entitlements}), response_model=None)
def list_entitlements(plane: Plane, who: Caller, standing: Stands) -> dict[str, JsonValue]:
    """What the caller may ask for, with the intents it may name and for how long; to a platform team, everything."""
    everything = Role.PLATFORM in standing.roles
    return {
        "entitlements": [
            {
                "entitlement": compiled.entitlement.name,
                "revision": compiled.revision,
                "purpose": compiled.entitlement.purpose,
                "intents": list(compiled.entitlement.intents),
                "risk": compiled.entitlement.risk,
                "ttl": {
                    "default": format_duration(compiled.entitlement.ttl.default),
                    "max": format_duration(compiled.entitlement.ttl.max),
                },
                "parameters": {name: parameter.pattern for name, parameter in compiled.entitlement.parameters.items()},
                "approval": compiled.entitlement.approval is not None,
                "break_glass": compiled.entitlement.break_glass,
            }
            for compiled in plane.entitlements.all()
            if everything or compiled.entitlement.admits(who)
        ]
    }


@router.get("/{name}", responses=answers({200: WhoCould}, NoEntitlementError), response_model=None)
def who_could(
    name: Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[a-z][a-z0-9-]*$")],
    plane: Plane,
    who: Caller,
    stands: Stands,
) -> dict[str, JsonValue]:
    """Who could have it, when, from where and with whose approval: all of it for the role platform, else one's own."""
    return told(plane.who_could(who, stands, name))
