"""A freeze: no new grant of what its selection selects, until it expires or is thawed."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import NewType, Self

from controlplane.model.canonical import instant
from controlplane.model.identity import IssuerName, names_of

FreezeId = NewType("FreezeId", str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thaw:
    """One person's wish to end a freeze. `person` is who is behind the subject, where the issuer says."""

    issuer: IssuerName
    subject: str
    person: str | None
    at: datetime
    reason: str

    @property
    def names(self) -> frozenset[str]:
        """The names that nobody may share who is to be another person."""
        return names_of(self.subject, self.person)


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """A freeze as it was last saved. Instants are aware UTC.

    `message` is for those who are refused, `reason` for the audit log; `expires_at` None means until it is thawed.
    `thaws` are those who want it to end; it has ended from `thawed_at` on.
    """

    id: FreezeId
    selection: str
    message: str
    reason: str
    issuer: IssuerName
    subject: str
    created_at: datetime
    expires_at: datetime | None = None
    thaws: tuple[Thaw, ...] = ()
    thawed_at: datetime | None = None

    def active(self, at: datetime) -> bool:
        """Whether it refuses at `at`."""
        return self.thawed_at is None and (self.expires_at is None or at < self.expires_at)

    def agreed(self, thaw: Thaw, *, enough: bool) -> Self:
        """The same with one more who wants it to end; where that is `enough`, ended."""
        return replace(self, thaws=(*self.thaws, thaw), thawed_at=thaw.at if enough else None)

    def told(self) -> dict[str, str | None]:
        """What the event says that tells of it."""
        return {
            "freeze": self.id,
            "selection": self.selection,
            "message": self.message,
            "reason": self.reason,
            "issuer": self.issuer,
            "subject": self.subject,
            "expires_at": None if self.expires_at is None else instant(self.expires_at),
        }

    def told_of(self, thaw: Thaw) -> dict[str, str]:
        """What the event says that tells of somebody who wants it to end."""
        return {
            "freeze": self.id,
            "selection": self.selection,
            "reason": thaw.reason,
            "issuer": thaw.issuer,
            "subject": thaw.subject,
        }
