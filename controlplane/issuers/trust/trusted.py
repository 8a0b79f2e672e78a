"""The issuers whose tokens are believed, and no others."""

from collections.abc import Iterable, Mapping
from typing import Final

from controlplane.issuers.jose.compact import UnverifiedToken, take_apart
from controlplane.issuers.trust.issuer import Issuer
from controlplane.issuers.trust.signals import read_signal
from controlplane.model.errors import ConfigurationError, NotAuthenticatedError
from controlplane.model.identity import VerifiedClaims
from controlplane.model.secret import Secret
from controlplane.model.signal import Signal
from controlplane.ports import Clock

_SPIFFE: Final = "spiffe://"


class TrustedIssuers:
    """Fits the Issuers port. Thread-safe.

    Raises: ConfigurationError: two issuers share a name or an address, or nearly: one could speak for the other.
    """

    def __init__(self, issuers: Iterable[Issuer], clock: Clock) -> None:
        configured = tuple(issuers)
        self._by_iss: Mapping[str, Issuer] = {one.options.url: one for one in configured if not one.kind.by_subject}
        self._by_domain: Mapping[str, Issuer] = {one.options.url: one for one in configured if one.kind.by_subject}
        self._clock = clock
        addresses = {one.options.url.rstrip("/").casefold() for one in configured}
        if len(addresses) < len(configured) or len({one.name for one in configured}) < len(configured):
            raise ConfigurationError("two issuers have the same name or the same url")

    def verify(self, token: Secret) -> VerifiedClaims:
        """Whom `token` proves now. Any string may come in; it is only ever believed or refused.

        Raises: NotAuthenticatedError: whatever failed; `detail` is for the audit log, never for the caller.
        Source: RFC 7519 7.2, RFC 8725.
        """
        unverified = take_apart(token)
        return self._chosen(unverified).verify(unverified, self._clock.now())

    def signal(self, token: Secret) -> Signal:
        """What one of our issuers says has happened to a subject of its own. Any string may come in.

        Raises: NotAuthenticatedError: whatever failed; `detail` is for the audit log, never for the sender.
        """
        unverified = take_apart(token)
        return read_signal(self._named(unverified), unverified, self._clock.now())

    def _chosen(self, unverified: UnverifiedToken) -> Issuer:
        # An SVID may have an `iss`, which says nothing; its trust domain stands in `sub` (SPIFFE JWT-SVID 3).
        subject = unverified.claims.get("sub")
        if isinstance(subject, str) and subject.startswith(_SPIFFE) and not self._by_name(unverified):
            domain = _SPIFFE + subject.removeprefix(_SPIFFE).partition("/")[0]
            if domain in self._by_domain:
                return self._by_domain[domain]
        return self._named(unverified)

    def _named(self, unverified: UnverifiedToken) -> Issuer:
        if issuer := self._by_name(unverified):
            return issuer
        claimed = unverified.claims.get("iss")
        shown = f" {claimed[:100]!a}" if isinstance(claimed, str) else ""
        raise NotAuthenticatedError(f"iss{shown} is not a configured issuer")

    def _by_name(self, unverified: UnverifiedToken) -> Issuer | None:
        # The one thing that is read before it is verified: which of our issuers to hold it against.
        claimed = unverified.claims.get("iss")
        return self._by_iss.get(claimed) if isinstance(claimed, str) else None
