"""The approval: one recorded yes of one named person for one grant, bound to exactly what that person was shown."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from controlplane.model.canonical import JsonValue, canonical, instant
from controlplane.model.grant import Grant, GrantId
from controlplane.model.identity import IssuerName, names_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Approver:
    """A person at the moment of a yes or a no: fits `access.Known`, so that later rules can be held against it.

    `claims` are those that the access rules looked at then, by path; `groups` are what they brought.
    """

    issuer: IssuerName
    subject: str
    person: str | None = None
    groups: tuple[str, ...] = ()
    claims: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])

    def claim(self, path: str) -> JsonValue:
        """The claim at `path` as it was then; None where it was not there, or no rule looked at it."""
        return self.claims.get(path)

    @property
    def names(self) -> frozenset[str]:
        """What this person is called: whoever shares a name may be the same."""
        return names_of(self.subject, self.person)


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """Less than was asked for: a shorter TTL, fewer scopes by name; None leaves it as it was asked."""

    ttl: timedelta | None = None
    scopes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenApproval:
    """One yes. `digest` is that of what was shown; `reason` is for people, and may be empty."""

    by: Approver
    digest: str
    reason: str = ""
    narrow: Narrowing = Narrowing()
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """One no, which is enough."""

    by: Approver
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedScope:
    """One scope in plain words: what its credential can touch, and what ending it can mean."""

    name: str
    engine: str
    reach: tuple[str, ...]
    revocability: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of approvers: all that they are shown of one grant.

    The digest covers what would be issued, to whom, what for and until when. It does not cover who may agree
    (`quorum`, `from_`, `not_from`), because that is held against the rules anew at every step, nor `owner` and
    `purpose`, which explain the entitlement and grant nothing.
    """

    grant: GrantId
    issuer: IssuerName
    subject: str
    person: str | None
    entitlement: str
    revision: str
    owner: str
    purpose: str
    risk: str
    sensitivity: str | None
    delivery: str
    task: str
    intent: str
    reason: str
    ttl: timedelta
    scopes: tuple[AskedScope, ...]
    unusual: tuple[str, ...]
    parameters: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    quorum: int
    from_: tuple[str, ...]
    not_from: tuple[str, ...]
    requested_at: datetime
    until: datetime

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what an approval binds to."""
        bound: dict[str, JsonValue] = {
            "grant": self.grant,
            "issuer": self.issuer,
            "subject": self.subject,
            "person": self.person,
            "entitlement": self.entitlement,
            "revision": self.revision,
            "risk": self.risk,
            "sensitivity": self.sensitivity,
            "delivery": self.delivery,
            "task": self.task,
            "intent": self.intent,
            "reason": self.reason,
            "ttl": self.ttl.total_seconds(),
            "scopes": [
                {
                    "name": scope.name,
                    "engine": scope.engine,
                    "reach": [*scope.reach],
                    "revocability": scope.revocability,
                }
                for scope in self.scopes
            ],
            "unusual": [*self.unusual],
            "requested_at": instant(self.requested_at),
            "until": instant(self.until),
        }
        if self.parameters:  # left out otherwise: what was approved before there were any stays approved
            bound["parameters"] = {**self.parameters}
        return hashlib.sha256(canonical(bound)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A grant that waits, what is asked with it, and who has agreed so far."""

    grant: Grant
    asked: Asked
    approvals: tuple[GivenApproval, ...] = ()
