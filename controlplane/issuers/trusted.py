"""The issuers whose tokens are believed, and no others."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Protocol

from controlplane.issuers.jose.compact import UnverifiedToken, take_apart
from controlplane.model.errors import ConfigurationError, NotAuthenticatedError
from controlplane.model.identity import IssuerName, VerifiedClaims
from controlplane.model.secret import Secret
from controlplane.ports import Clock


class Issuer(Protocol):
    """One configured issuer, of whatever kind."""

    @property
    def name(self) -> IssuerName:
        """What entitlements call it."""
        ...

    @property
    def url(self) -> str:
        """What `iss` says in its tokens."""
        ...

    def verify(self, token: UnverifiedToken, now: datetime) -> VerifiedClaims:
        """Whom `token` proves at the instant `now`. Raises: NotAuthenticatedError: the first check that failed."""
        ...


class TrustedIssuers:
    """Fits the Issuers port. Thread-safe.

    Raises: ConfigurationError: two issuers share a name or an address: one could speak for the other.
    """

    def __init__(self, issuers: Iterable[Issuer], clock: Clock) -> None:
        configured = tuple(issuers)
        self._by_url: Mapping[str, Issuer] = {issuer.url: issuer for issuer in configured}
        self._clock = clock
        if len(self._by_url) < len(configured) or len({issuer.name for issuer in configured}) < len(configured):
            raise ConfigurationError("two issuers have the same name or the same url")

    def verify(self, token: Secret) -> VerifiedClaims:
        """Whom `token` proves now. Any string may come in; it is only ever believed or refused.

        Raises: NotAuthenticatedError: whatever failed; `detail` is for the audit log, never for the caller.
        Source: RFC 7519 7.2, RFC 8725.
        """
        unverified = take_apart(token)
        # The one thing that is read before it is verified: which of our issuers to hold it against.
        claimed = unverified.claims.get("iss")
        issuer = self._by_url.get(claimed) if isinstance(claimed, str) else None
        if issuer is None:
            shown = f" {claimed[:100]!a}" if isinstance(claimed, str) else ""
            raise NotAuthenticatedError(f"iss{shown} is not a configured issuer")
        return issuer.verify(unverified, self._clock.now())
