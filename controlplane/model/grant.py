"""The grant: one entitlement held by one subject for one task, with a state and an end."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NewType, Self

from controlplane.model.errors import IllegalTransitionError
from controlplane.model.identity import IssuerName, WorkloadId, names_of
from controlplane.model.lease import Accessor, Receipt

GrantId = NewType("GrantId", str)
TaskId = NewType("TaskId", str)
Revision = NewType("Revision", str)


class State(StrEnum):
    """`-ing` is what we decided, `-ed` is what is so."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    LAPSED = "lapsed"
    ISSUING = "issuing"
    ACTIVE = "active"
    REVOKING = "revoking"
    IRREVOCABLE = "irrevocable"
    REVOKED = "revoked"


class Step(StrEnum):
    """What moves a grant on."""

    APPROVE = "approve"
    DENY = "deny"
    LAPSE = "lapse"
    ISSUE = "issue"
    DELIVER = "deliver"
    END = "end"
    CONFIRM_GONE = "confirm-gone"
    STRAND = "strand"
    HEAL = "heal"


TRANSITIONS: dict[tuple[State, Step], State] = {
    (State.PENDING, Step.APPROVE): State.APPROVED,
    (State.PENDING, Step.DENY): State.DENIED,
    (State.PENDING, Step.LAPSE): State.LAPSED,
    (State.APPROVED, Step.DENY): State.DENIED,  # until it is collected, a no beats every yes
    (State.APPROVED, Step.ISSUE): State.ISSUING,
    (State.APPROVED, Step.LAPSE): State.LAPSED,
    (State.ISSUING, Step.DELIVER): State.ACTIVE,
    (State.ISSUING, Step.END): State.REVOKING,
    (State.ACTIVE, Step.END): State.REVOKING,
    (State.REVOKING, Step.CONFIRM_GONE): State.REVOKED,
    (State.REVOKING, Step.STRAND): State.IRREVOCABLE,
    (State.IRREVOCABLE, Step.HEAL): State.REVOKING,
}
INITIAL = frozenset({State.PENDING, State.ISSUING})
"""Where a grant may begin: waiting for people, or at once where nobody has to agree."""
TERMINAL = frozenset(State) - {before for before, _ in TRANSITIONS}
"""Tombstones: kept and immutable, so that an id is never used twice."""


class Why(StrEnum):
    """Why a grant ends."""

    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    UNCLAIMED = "unclaimed"  # nobody opened the wrapping token in time
    INTERRUPTED = "interrupted"  # issuing did not come to its end; what it made is unknown
    FROZEN = "frozen"  # a freeze came while it was being issued: its agent got nothing
    REFUSED = "refused"  # Vault said no to the login: nothing was made
    LOST = "lost"  # Vault does not know its token any more: somebody ended it there, or Vault was restored
    PARENT_ENDED = "parent-ended"  # the task it was a part of, or the grant of it that it hung from, ended
    CHANGED = "changed"  # what was asked for, or who may agree to it, is not as it was
    CONTEXT_CHANGED = "context-changed"  # decided anew, it would not be granted any more
    CUT = "cut"  # a responder ended it, with everything else that his selection selected
    HEARTBEAT_LOST = "heartbeat-lost"  # a beat did not come in time


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A grant as it was last saved. Instants are aware UTC.

    `revision` names the entitlement's compiled content, `paths` are the Vault paths its credentials are read
    from; `due_at` is when the worker looks at it next (None:
    never again); `settles_at` is until when an unseen effect of issuing may still appear in Vault, None once
    everything that was made is known; `failing` says, without secrets, why the last attempt to end it failed.
    `person` is who is behind the subject, where the issuer says; `unusual` is what differed from what the workload
    was granted before, for approvers; `scopes` are the names of those that approvers left, None for all; `parameters`
    are the values that narrow them. `under` is
    the grant of the parent task that it hangs from: it never has more than that one, and ends with it.
    `ttl` is all of its life, with what renewals added; `heartbeat_due_at` is by when the next beat has to come, None
    where none does. While a renewal is under way, Vault may let it live until `renewing_to` already; one that has not
    come to its end at `renewing_by` is undone.
    """

    id: GrantId
    state: State
    version: int = 1
    entitlement: str
    revision: Revision
    issuer: IssuerName
    subject: str
    person: str | None = None
    workload: WorkloadId
    task: TaskId
    intent: str
    reason: str
    ttl: timedelta
    unusual: tuple[str, ...] = ()
    scopes: tuple[str, ...] | None = None
    parameters: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    under: GrantId | None = None
    idempotency_key: str | None = None
    request_digest: str
    paths: tuple[str, ...] = ()
    requested_at: datetime
    expires_at: datetime
    due_at: datetime | None
    settles_at: datetime | None = None
    accessor: Accessor | None = None
    wrap_accessor: Accessor | None = None
    issued_at: datetime | None = None
    why: Why | None = None
    revoking_at: datetime | None = None
    revoked_at: datetime | None = None
    receipt: Receipt | None = None
    attempts: int = 0
    failing: str | None = None
    heartbeat_due_at: datetime | None = None
    renewing_to: datetime | None = None
    renewing_by: datetime | None = None

    def after(self, step: Step, **changes: Any) -> Self:
        """The grant one step on, with `changes` made.

        Raises: IllegalTransitionError: no such step leads out of this state; nothing has happened.
        """
        state = TRANSITIONS.get((self.state, step))
        if state is None:
            raise IllegalTransitionError(f"grant {self.id} is {self.state}: it cannot {step}")
        return replace(self, state=state, version=self.version + 1, **changes)

    def but(self, **changes: Any) -> Self:
        """The same grant in the same state with `changes` made."""
        return replace(self, version=self.version + 1, **changes)

    def watched(self, **changes: Any) -> Self:
        """The same active grant with `changes` made, due when it has to be looked at next.

        That is at its end, at a beat that did not come, at a renewal that broke off; and not later than before, as long
        as it is not known whether its wrapping token was opened.
        """
        changed = self.but(**changes)
        unopened = changed.due_at if changed.wrap_accessor is not None else None
        instants = (changed.expires_at, changed.heartbeat_due_at, changed.renewing_by, unopened)
        return replace(changed, due_at=min(at for at in instants if at is not None))

    @property
    def began_at(self) -> datetime:
        """When the life of one that is open began to count: every renewal moves its end and its `ttl` alike."""
        return self.expires_at - self.ttl

    def over(self, now: datetime) -> "Why | None":
        """Why a grant that is in use, or being issued, ends by itself; None where it goes on."""
        if now >= self.expires_at:
            return Why.EXPIRED
        if self.heartbeat_due_at is not None and now >= self.heartbeat_due_at:
            return Why.HEARTBEAT_LOST
        return None

    @property
    def waits(self) -> bool:
        """Whether it waits: for people to agree, or for its workload to collect it."""
        return self.state in {State.PENDING, State.APPROVED}

    @property
    def names(self) -> frozenset[str]:
        """The requester's names: whoever shares one may be the same person."""
        return names_of(self.subject, self.person)

    @property
    def open(self) -> bool:
        """Whether a credential of this grant exists or may exist."""
        return self.state in {State.ISSUING, State.ACTIVE, State.REVOKING, State.IRREVOCABLE}
