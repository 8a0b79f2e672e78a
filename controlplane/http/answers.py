"""What the answers look like, for the description only: nothing is checked against these while it is answered.

The tests check every answer against them. `None` stands where something has not happened yet.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from controlplane.model.decision import Decides
from controlplane.model.entitlement import Revocability, Risk
from controlplane.model.grant import State, Why
from controlplane.model.task import DEEPEST

GRANT_ID = r"^gr_[a-z2-7]{24}$"
DIGEST = r"^[0-9a-f]{64}$"


class Answer(BaseModel):
    """A closed object: a field that is answered and not described fails the tests."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Reason(Answer):
    """Which of the decisions says so, and why."""

    decision: Decides
    code: str
    detail: str


class Problem(Answer):
    """Every error, as RFC 9457 has it. `code` is stable; `title` and `detail` are for people."""

    type: Literal["about:blank"]
    title: str
    status: int = Field(ge=400, le=599)
    code: str = Field(pattern=r"^[a-z]+(-[a-z]+)*$", examples=["denied"])
    detail: str
    hint: str
    reasons: list[Reason] = Field(default=[], description="Of a decision: every no, in the order of deciding.")


class Ended(Answer):
    """How one lease ended, and by what it is known."""

    lease: str
    principal: str | None
    method: str
    at: datetime
    verified: bool
    evidence: str


class Receipt(Answer):
    """The proof that a grant's credentials are gone."""

    verified: bool
    ended: list[Ended]


class Grant(Answer):
    """A grant as its owner may see it."""

    id: str = Field(pattern=GRANT_ID)
    state: State
    entitlement: str
    revision: str
    issuer: str
    subject: str
    task: str
    intent: str
    reason: str
    ttl: str = Field(examples=["5m"])
    under: str | None = Field(description="The grant of the parent task that it hangs from, and ends with.")
    scopes: list[str] | None = Field(
        description="Those that approvers left, it may be of the grant above; null where all of the entitlement's."
    )
    parameters: dict[str, str] = Field(description="The values that it is narrowed to.")
    requested_at: datetime
    expires_at: datetime
    issued_at: datetime | None
    heartbeat_due_at: datetime | None = Field(description="By when the next beat has to come; null where none does.")
    why: Why | None
    revoking_at: datetime | None
    revoked_at: datetime | None
    failing: str | None = Field(description="What stands in the way of its revocation now.")
    receipt: Receipt | None


class Lease(Answer):
    """One credential of a grant: what it is called, never what it is."""

    id: str
    scope: str
    engine: str
    principal: str | None
    expires_at: datetime


class AskedScope(Answer):
    """What the credential of one scope can touch, and what ending it can mean."""

    name: str
    engine: str
    reach: list[str]
    revocability: Revocability


class Asked(Answer):
    """All that an approver is shown of a grant. A yes brings the digest, so that it is a yes to exactly this."""

    digest: str = Field(pattern=DIGEST)
    grant: str = Field(pattern=GRANT_ID)
    issuer: str
    subject: str
    person: str | None
    entitlement: str
    revision: str
    owner: str
    purpose: str
    risk: Risk
    sensitivity: str | None
    delivery: str
    task: str
    intent: str
    reason: str
    ttl: str
    scopes: list[AskedScope]
    unusual: list[str]
    parameters: dict[str, str]
    quorum: int
    approvers: list[str] = Field(alias="from")
    not_from: list[str]
    requested_at: datetime
    until: datetime


class Narrowed(Answer):
    """What an approver took away; null is nothing."""

    ttl: str | None
    scopes: list[str] | None


class Approval(Answer):
    """One yes of one person."""

    issuer: str
    subject: str
    person: str | None
    at: datetime
    reason: str
    digest: str
    narrow: Narrowed


class Denial(Answer):
    """The no of one person, which is enough."""

    issuer: str
    subject: str
    person: str | None
    at: datetime
    reason: str


class Decided(Answer):
    """What people were asked and what they said, as far as there is any of it."""

    asked: Asked | None = None
    approvals: list[Approval] = []
    denial: Denial | None = None


class Group(Answer):
    """What one requester asks of one entitlement."""

    entitlement: str
    issuer: str
    subject: str
    count: int
    until: datetime
    waiting: list[Decided]


class Approvals(Answer):
    """What the caller may decide on now."""

    groups: list[Group]
    next: str | None


class OneGrant(Answer):
    """A grant."""

    grant: Grant


class ApprovedGrant(Answer):
    """A grant and every yes to it."""

    grant: Grant
    approvals: list[Approval]


class Kept(Answer):
    """A grant that goes on: when it ends, and by when its next beat has to come."""

    grant: Grant
    expires_at: datetime
    heartbeat_due_at: datetime | None


class RenewedGrant(Kept):
    """A grant with its end of now, and every yes that led to it."""

    leases: list[Lease]
    reasons: list[Reason]


class ShownGrant(Decided):
    """A grant and its leases, and what people say to it."""

    grant: Grant
    leases: list[Lease]


class Grants(Answer):
    """A page of grants, newest first. The next one is asked for with `before` and the last id of this one."""

    grants: list[Grant]


class Task(Answer):
    """A task of the caller's. A part of what is finished is finished, too: `parent-ended`."""

    task: str
    parent: str | None
    depth: int = Field(ge=1, le=DEEPEST)
    begun_at: datetime
    finished_at: datetime | None
    why: Why | None


class FinishedTask(Answer):
    """A finished task, and those grants of it and of its parts that had not ended by then."""

    task: Task
    grants: list[Grant]


class ShownTask(Answer):
    """A task, the tasks that are parts of it, and its newest grants."""

    task: Task
    parts: list[Task]
    grants: list[Grant]


class Requested(Decided):
    """A grant that was asked for. A credential is told once: repeated with its key, a request shows the grant only."""

    grant: Grant
    leases: list[Lease]
    expires_at: datetime
    reasons: list[Reason]
    wrapping_token: str | None = Field(default=None, description="Opens the credentials once, at Vault itself.")
    credentials: dict[str, dict[str, str]] | None = Field(
        default=None, description="Where delivery is inline: the fields of each scope's credential."
    )


class Said(Reason):
    """One decision, and what it would say."""

    says: Literal["yes", "no", "wait"]


class Explained(Answer):
    """What would be decided, and every reason for it."""

    only_explained: Literal[True] = Field(alias="dry_run")
    decision: Literal["allow", "deny", "needs-approval"]
    status: Annotated[int, Field(description="What the request itself would be answered with.", ge=200, le=499)]
    token_spent: bool = Field(description="Whether the token that was shown has asked for a grant before.")
    retry_after: int | None = Field(description="Seconds.")
    reasons: list[Said]


class Span(Answer):
    """How long a grant lasts when nothing else is asked for, and at most."""

    default: str = Field(examples=["5m"])
    max: str = Field(examples=["15m"])


class Entitlement(Answer):
    """What the caller may ask for."""

    entitlement: str
    revision: str
    purpose: str
    intents: list[str]
    risk: Risk
    ttl: Span
    parameters: dict[str, str] = Field(description="What a request has to narrow it to: the pattern of each by name.")
    approval: bool
    break_glass: bool


class Entitlements(Answer):
    """Those that the caller is eligible for."""

    entitlements: list[Entitlement]


class Alive(Answer):
    """The process answers."""

    status: Literal["ok"]


class Ready(Answer):
    """Whether a grant could be made now."""

    status: Literal["ok", "not ready"]
    missing: list[str]


class Key(Answer):
    """A public key (RFC 7517)."""

    kty: Literal["EC"]
    crv: Literal["P-256"]
    x: str
    y: str
    kid: str
    alg: Literal["ES256"]
    use: Literal["sig"]


class Keys(Answer):
    """The public keys that sign task JWTs."""

    keys: list[Key]
