"""An OpenID Connect issuer: the checks that a token of it must pass, in one straight line.

Nothing is fetched that a token names, nothing is believed before the signature holds, and whoever fails any check
gets the same error outside; which check it was is the error's `detail`, for the audit log.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from controlplane.issuers.jose.compact import UnverifiedToken
from controlplane.issuers.jose.keystore import KeyStore
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import NotAuthenticatedError
from controlplane.model.identity import IssuerName, VerifiedClaims

MAX_NAME: Final = 255
"""Characters of `sub` and `jti`. Source: OpenID Connect Core 2, `sub`."""

_TYPES: Final = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
# `jwk`, `jku`, `x5u`, `x5c` bring the signer's own key; `b64`, `enc`, `zip`, `cty` mean another format than ours.
_FORBIDDEN: Final = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "enc", "zip", "cty"})
_UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_LAST_SECOND: Final = 253_402_300_799  # 9999-12-31T23:59:59Z


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcIssuer:
    """One configured issuer.

    `url` is what `iss` must say, byte for byte. Every audience of a token must be among `audiences`: one that is
    made for others as well could be replayed by them. `leeway` is how far clocks may differ; `max_lifetime` how long
    a token may live in all; `required` names claims that must be there (`/` descends).
    """

    name: IssuerName
    url: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    keys: KeyStore
    leeway: timedelta = timedelta(seconds=30)
    max_lifetime: timedelta = timedelta(hours=1)
    required: tuple[str, ...] = ()

    def verify(self, token: UnverifiedToken, now: datetime) -> VerifiedClaims:
        """Whom `token` proves at the instant `now`.

        Raises: NotAuthenticatedError: the first check that failed.
        Source: RFC 7519 7.2, RFC 8725 3, OpenID Connect Core 3.1.3.7.
        """
        algorithm, kid = self._checked_header(token.header)

        # RFC 8725 3.3 and 3.4: the signature, by a key that this issuer has for this algorithm.
        if not any(token.signed_by(key) for key in self.keys.candidates(algorithm, kid)):
            raise NotAuthenticatedError("the signature does not hold under the issuer's key")

        issued, expires = self._checked_claims(token.claims, now)
        subject = _name(token.claims, "sub")  # RFC 7519 4.1.2, OpenID Connect Core 2
        if "jti" in token.claims:
            _name(token.claims, "jti")  # RFC 7519 4.1.7: what tells tokens apart must be comparable
        who = VerifiedClaims(
            issuer=self.name, subject=subject, claims=token.claims, issued_at=issued, expires_at=expires
        )
        if missing := [path for path in self.required if who.claim(path) is None]:
            raise NotAuthenticatedError(f"required claims are missing: {', '.join(missing)}")
        return who

    def _checked_header(self, header: Mapping[str, JsonValue]) -> tuple[str, str | None]:
        """Algorithm and key id."""
        # RFC 7515 4.1.9, RFC 8725 3.11: another type of token is not taken for this one.
        kind = header.get("typ", "JWT")
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise NotAuthenticatedError("the header's typ is neither JWT nor at+jwt")

        # RFC 8725 3.10, RFC 7515 4.1.11: keys come from configuration only, and no extension is understood.
        if present := sorted(_FORBIDDEN & header.keys()):
            raise NotAuthenticatedError(f"the header has {', '.join(present)}, which is never accepted")

        # RFC 8725 3.1 and 3.2: the algorithm is ours to choose, not the token's.
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self.algorithms:
            raise NotAuthenticatedError(f"the header's alg is not of {', '.join(sorted(self.algorithms))}")

        # RFC 7515 4.1.4: an opaque string, compared and nothing else.
        kid = header.get("kid")
        if kid is not None and not isinstance(kid, str):
            raise NotAuthenticatedError("the header's kid is not a string")
        return algorithm, kid

    def _checked_claims(self, claims: Mapping[str, JsonValue], now: datetime) -> tuple[datetime, datetime]:
        """When the token was issued and when it expires."""
        # RFC 7519 4.1.1, RFC 8725 3.8: this issuer, and no other whose name looks like it.
        if claims.get("iss") != self.url:
            raise NotAuthenticatedError("iss is not the issuer whose key signed")

        # RFC 7519 4.1.3, RFC 8725 3.9, OpenID Connect Core 3.1.3.7 (3): made for us, and for nobody else.
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if not audiences or not all(isinstance(one, str) and one in self.audiences for one in audiences):
            raise NotAuthenticatedError("aud is missing, not ours, or also somebody else's")

        # RFC 7519 4.1.4 to 4.1.6: it has begun, it has not ended, and it does not live too long.
        issued, expires = _instant(claims, "iat"), _instant(claims, "exp")
        begins = _instant(claims, "nbf") if "nbf" in claims else issued
        if expires <= now - self.leeway:
            raise NotAuthenticatedError(f"the token expired at {expires.isoformat()}")
        if max(issued, begins) > now + self.leeway:
            raise NotAuthenticatedError("the token is of the future (iat or nbf): do the clocks differ?")
        if not timedelta() < expires - issued <= self.max_lifetime:
            raise NotAuthenticatedError(f"the token lives longer than {self.max_lifetime}, or ends before it begins")
        return issued, expires


def _instant(claims: Mapping[str, JsonValue], name: str) -> datetime:
    """A NumericDate of whole seconds. A string, a boolean or a fraction is refused though some parsers take it."""
    value = claims.get(name)
    if type(value) is not int or not 0 <= value <= _LAST_SECOND:
        raise NotAuthenticatedError(f"{name} is missing or not a whole number of seconds")
    return datetime.fromtimestamp(value, UTC)


def _name(claims: Mapping[str, JsonValue], name: str) -> str:
    """Text that logs, terminals and databases can hold: one line, nothing invisible, no half characters."""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME:
        raise NotAuthenticatedError(f"{name} is missing, not a string, empty or longer than {MAX_NAME} characters")
    if any(unicodedata.category(char) in _UNPRINTABLE for char in value):
        raise NotAuthenticatedError(f"{name} has control, format or surrogate characters")
    return value
