"""What an issuer says has happened to one of its subjects since it vouched for it: a security event."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from controlplane.model.identity import IssuerName, WorkloadId, workload_id

SESSION_REVOKED: Final = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
"""The subject's session is over before its time. Source: OpenID CAEP 1.0, 3.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A verified security event. Only `issuers/` makes these.

    `id` is its `jti`, its issuer's for ever; `event` is the URI of what has happened; `subject` is None where it is not
    about a subject of that issuer; from `over_in` after now on, no token is good that the issuer signed before it.
    """

    issuer: IssuerName
    id: str
    event: str
    subject: str | None
    over_in: timedelta

    @property
    def about(self) -> WorkloadId:
        """Whose it is, for counting how often it is signalled."""
        return workload_id(self.issuer, self.subject or "")
