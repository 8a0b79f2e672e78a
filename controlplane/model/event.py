"""The audit event: a fact in the past tense, committed with the change it tells of."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from controlplane.model.canonical import JsonObject


class Kind(StrEnum):
    """What can have happened: noun and past participle."""

    TOKEN_REJECTED = "token.rejected"
    TOKEN_REPLAYED = "token.replayed"  # a good one asked for a second grant
    SIGNAL_REFUSED = "signal.refused"  # a security event token that is not believed
    SIGNAL_RECEIVED = "signal.received"  # an issuer says what has happened to one of its subjects
    GRANT_REFUSED = "grant.refused"  # decided against at request: no grant was made
    GRANT_EXPLAINED = "grant.explained"  # somebody asked what would be decided: nothing was made
    GRANT_REQUESTED = "grant.requested"  # it waits for approval
    GRANT_DENIED = "grant.denied"
    APPROVAL_GIVEN = "approval.given"  # one yes of several that are needed
    GRANT_APPROVED = "grant.approved"  # by all who are needed
    GRANT_LAPSED = "grant.lapsed"
    GRANT_ALLOWED = "grant.allowed"  # every decision said yes; issuing begins
    GLASS_BROKEN = "glass.broken"  # in an emergency, without approval: it must be reviewed
    GLASS_REVIEWED = "glass.reviewed"
    TASK_TOKEN_ISSUED = "task_token.issued"
    LEASE_ISSUED = "lease.issued"
    GRANT_ISSUED = "grant.issued"
    RENEWAL_ALLOWED = "renewal.allowed"  # every decision said yes; Vault is asked
    RENEWAL_REFUSED = "renewal.refused"  # it ends when it would have ended
    RENEWAL_UNDONE = "renewal.undone"  # it did not come to its end: the end of before holds again
    GRANT_RENEWED = "grant.renewed"
    GRANT_ENDED = "grant.ended"  # revoking begins
    LEASE_REVOKED = "lease.revoked"
    SECRET_ROTATED = "secret.rotated"  # a static one was replaced; the grant's end is proved later
    LEASE_SURVIVED = "lease.survived"  # Vault let go of it, and the target has it still
    GRANT_STRANDED = "grant.stranded"  # Vault gave up: irrevocable
    GRANT_HEALED = "grant.healed"
    GRANT_REVOKED = "grant.revoked"  # proved
    ORPHAN_FOUND = "orphan.found"  # a token, lease or login of ours that no open grant covers
    ORPHAN_ENDED = "orphan.ended"
    ROLE_REMOVED = "role.removed"  # of a single grant, which needs it no more and had left it behind
    RESTORE_FOUND = "restore.found"  # the store, or Vault, is older than the other one remembers
    RESTORE_CONFIRMED = "restore.confirmed"  # an operator looked at it and decided
    GRANT_ADOPTED = "grant.adopted"  # taken over from Vault after a restore
    TASK_FINISHED = "task.finished"  # and with it every grant of it and of the tasks below it
    SELECTION_FROZEN = "selection.frozen"
    THAW_AGREED = "thaw.agreed"  # one of the two people who are needed
    SELECTION_THAWED = "selection.thawed"
    SELECTION_PREVIEWED = "selection.previewed"  # a responder looked at what a cut would end
    CUT_ORDERED = "cut.ordered"  # from now on, whatever it selects ends
    CUT_ENDED = "cut.ended"  # nothing of it is open any more
    INCIDENT_REPORTED = "incident.reported"  # somebody had a signed report of one made
    INCIDENT_PROVED = "incident.proved"  # somebody had Vault and the targets asked again
    PLAN_BEGUN = "plan.begun"  # somebody applies entitlements: who, from which commit, which plan
    PLAN_APPLIED = "plan.applied"
    DRIFT_FOUND = "drift.found"  # Vault or a target is not as entitlements and bootstrap say
    DRIFT_ENDED = "drift.ended"
    AUDIT_READ = "audit.read"  # over HTTP


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One fact. `grant` is None where the fact is not about a grant; `body` never holds a secret."""

    id: str
    at: datetime
    kind: Kind
    grant: str | None
    body: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An event in its place in the chain: `seq` counts from 1, `mac` covers the event and the link before it."""

    seq: int
    event: Event
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """How long the chain is and what its last link says, sealed, so that a cut-off tail is found."""

    seq: int
    mac: str
    seal: str
