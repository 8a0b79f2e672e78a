"""The review of a broken glass: opened with the grant, and closed by somebody else with a note."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from controlplane.model.grant import GrantId
from controlplane.model.identity import IssuerName, VerifiedClaims, WorkloadId, names_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """Who looked at what was done, when, and what he found."""

    at: datetime
    issuer: IssuerName
    subject: str
    person: str | None
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What is owed for one break-glass grant. Who broke the glass is kept as his token named him then."""

    grant: GrantId
    issuer: IssuerName
    subject: str
    person: str | None
    workload: WorkloadId
    opened_at: datetime
    closing: Closing | None = None

    @property
    def names(self) -> frozenset[str]:
        """The names of whoever broke the glass, as `VerifiedClaims.names`: one open review blocks them all."""
        return names_of(self.subject, self.person)

    def closed(self, who: VerifiedClaims, note: str, *, at: datetime) -> Self:
        """The review as `who` closes it; whether he may is for others to decide."""
        closing = Closing(at=at, issuer=who.issuer, subject=who.subject, person=who.person, note=note)
        return replace(self, closing=closing)


def opened(grant: GrantId, who: VerifiedClaims, *, at: datetime) -> Review:
    """The open review of a grant that `who` got without approval."""
    return Review(
        grant=grant, issuer=who.issuer, subject=who.subject, person=who.person, workload=who.workload, opened_at=at
    )
