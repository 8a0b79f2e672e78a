"""Who asks: a workload, as its issuer vouched for it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NewType

from controlplane.model.canonical import JsonValue

IssuerName = NewType("IssuerName", str)
WorkloadId = NewType("WorkloadId", str)


def workload_id(issuer: IssuerName, subject: str) -> WorkloadId:
    """Our stable id for a workload: `wl_` and 32 hex digits, safe wherever Vault puts it.

    A subject chosen by others never reaches Vault's `user_claim`: `'";--'` once reached `CREATE ROLE`.
    """
    digest = hashlib.sha256(f"{issuer}\x00{subject}".encode()).hexdigest()
    return WorkloadId(f"wl_{digest[:32]}")


def names_of(subject: str, person: str | None) -> frozenset[str]:
    """The names by which one person is known again under another identity: subject and person, case folded."""
    return frozenset(name.casefold() for name in (subject, person) if name)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownIssuer:
    """A configured issuer, as far as an entitlement can say anything of it.

    `selectable` are the claims that may be selected by, None where that is whatever it signs; `ignored` are those
    that prove nothing, and why. `open_to_all`: anybody in the world can get a token of it.
    """

    name: IssuerName
    kind: str
    selectable: frozenset[str] | None
    ignored: Mapping[str, str]
    open_to_all: bool = False

    def why_not(self, path: str) -> str | None:
        """Why nothing can be selected by the claim at `path`; None where it can."""
        above = [path, *(path[:place] for place, char in enumerate(path) if char == "/")]
        if why := next((self.ignored[part] for part in above if part in self.ignored), None):
            return why
        if self.selectable is None or self.selectable.intersection(above):
            return None
        return f"a {self.kind} issuer has no such claim, and the settings do not name it in the issuer's claims"


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleUse:
    """What tells a token that may ask for one grant only from every other: `id` is its `jti` or its digest.

    From `until` on the token is refused anyway, so that nobody need remember it any longer.
    """

    issuer: IssuerName
    id: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedClaims:
    """What a token proved. Only `issuers/` makes these; holding one means that every check has passed.

    `issuer` is the configured name, not the URL; `subject` is `sub` (RFC 7519 4.1.2); `claims` are those that the
    issuer's kind or its settings answer for; `others` are kept, and nothing is ever selected by them. `single_use`
    is None where the issuer's tokens may be used again. `person` is who is behind the subject, where the issuer says.
    """

    issuer: IssuerName
    subject: str
    claims: Mapping[str, JsonValue]
    issued_at: datetime
    expires_at: datetime
    others: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    single_use: SingleUse | None = None
    person: str | None = None

    @property
    def workload(self) -> WorkloadId:
        """The stable id of issuer and subject together."""
        return workload_id(self.issuer, self.subject)

    @property
    def names(self) -> frozenset[str]:
        """What this person is called, folded: who shares one with another may be the same, and is taken for him."""
        return names_of(self.subject, self.person)

    def claim(self, path: str) -> JsonValue:
        """The claim at `path`, `None` where there is none; `/` descends: `kubernetes.io/namespace`.

        A top-level claim whose own name contains `/` wins over the descent.
        """
        return claim_at(self.claims, path)


def claim_at(claims: Mapping[str, JsonValue], path: str) -> JsonValue:
    """The claim at `path` of `claims`, as `VerifiedClaims.claim` finds it."""
    if path in claims:
        return claims[path]
    value: JsonValue = dict(claims)
    for part in path.split("/"):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value
