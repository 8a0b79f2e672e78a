"""Vault's handles, and the lease: Vault's record of one issued credential. Never the credential itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NewType

from controlplane.model.canonical import JsonObject, instant
from controlplane.model.rotation import Rotation
from controlplane.model.secret import Secret

Accessor = NewType("Accessor", str)
LeaseId = NewType("LeaseId", str)

_UNLEASED = "unleased:"


def unleased(path: str, request: str) -> LeaseId:
    """An id of ours for a credential of which Vault keeps no lease: `request` is what Vault called its making."""
    return LeaseId(f"{_UNLEASED}{path}/{request}")


def is_leased(id: LeaseId) -> bool:
    """Whether Vault knows this id. No mount's name has a colon, so the two cannot be mistaken for each other."""
    return not id.startswith(_UNLEASED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a credential opens a door: `kind` names the prober (`postgresql`), `name` the configured target."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One issued credential as the store knows it.

    `path` is the Vault path it was read from; `principal` is what the target calls its holder (user name,
    serial number): enough to ask the target, useless to log in with.
    """

    id: LeaseId
    scope: str
    engine: str
    path: str
    target: Target
    principal: str
    issued_at: datetime
    expires_at: datetime
    rotation: Rotation | None = None
    """None where it ends otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request to Vault that makes a credential: `PUT path` with `body`, or `GET path` where body is None."""

    path: str
    body: JsonObject | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What actually opens a door, in memory only: `fields` go to the agent, `principal` to the store.

    `lease_ttl` is None where it ends with its task token, and no sooner by a clock of its own; one that is not
    `renewable` lives that long, whatever the grant's TTL is.
    """

    lease: LeaseId
    lease_ttl: timedelta | None
    principal: str
    fields: Mapping[str, Secret]
    renewable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer of Vault that made a credential; every value of `data` that is text counts as secret.

    `lease` is Vault's, or one of `unleased` where Vault keeps none.
    """

    lease: LeaseId
    lease_ttl: timedelta
    data: Mapping[str, Secret | int | bool | list[Secret] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFacts:
    """What Vault says of a token by its accessor (OpenBao docs, api/auth/token, "Lookup a token (accessor)")."""

    accessor: Accessor
    kind: str
    orphan: bool
    policies: frozenset[str]
    ttl: timedelta
    explicit_max_ttl: timedelta
    period: timedelta
    num_uses: int
    metadata: Mapping[str, str]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskToken:
    """The Vault token a task logged in to; all its leases hang from it. It is never handed out."""

    token: Secret
    accessor: Accessor


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapped:
    """A wrapping token: whoever opens it first, once, within `ttl`, gets the credentials."""

    token: Secret
    accessor: Accessor
    ttl: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseFacts:
    """What Vault says of a lease. A `ttl` of zero or less is a lease whose revocation has not succeeded.

    `renewable`: its end can be moved. That of a certificate cannot: it stands in the certificate itself.
    """

    id: LeaseId
    issued_at: datetime
    ttl: timedelta
    revoke_error: str | None
    renewable: bool = True

    @property
    def irrevocable(self) -> bool:
        """Whether Vault has given it up: after six tries, or at once where its error is of a kind that never mends.

        It keeps an error with a lease in no other case. Source: OpenBao `vault/expiration.go`, `markLeaseIrrevocable`.
        """
        return self.revoke_error is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a target answered: `gone` only if it says so itself; `detail` says what was asked and seen."""

    gone: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The end of one lease: how Vault let go of it, and what the target says.

    `verified` is the target's word; where a target cannot be asked it is False and `evidence` says so.
    """

    lease: LeaseId
    principal: str
    method: str
    at: datetime
    verified: bool
    evidence: str

    def told(self) -> JsonObject:
        """As it is signed, stored and reported."""
        return {
            "lease": self.lease,
            "principal": self.principal,
            "method": self.method,
            "at": instant(self.at),
            "verified": self.verified,
            "evidence": self.evidence,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The proof of a grant's end: one entry per lease.

    `signed` is a compact JWS of it and of what was granted, None in those that are older than signing.
    """

    ended: tuple[Ended, ...]
    signed: str | None = None

    @property
    def verified(self) -> bool:
        """Whether every target said itself that its credential is gone."""
        return all(entry.verified for entry in self.ended)
