"""One configured issuer: the checks that a token of it must pass, in one straight line.

Nothing is fetched that a token names, nothing is believed before the signature holds, and whoever fails any check
gets the same error outside; which check it was is the error's `detail`, for the audit log.
"""

import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from controlplane.issuers.jose.compact import UnverifiedToken
from controlplane.issuers.jose.fetch import Fetcher
from controlplane.issuers.jose.keystore import DiscoveredKeys, FileKeys, KeyStore
from controlplane.issuers.trust.accounts import misshapen, sort_out
from controlplane.issuers.trust.kind import Kind
from controlplane.issuers.trust.options import IssuerOptions
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import ConfigurationError, NotAuthenticatedError
from controlplane.model.identity import IssuerName, SingleUse, VerifiedClaims

MAX_NAME: Final = 255
"""Characters of `sub` and `jti`. Source: OpenID Connect Core 2, `sub`."""

# `jwk`, `jku`, `x5u`, `x5c` bring the signer's own key; `b64`, `enc`, `zip`, `cty` mean another format than ours.
_FORBIDDEN: Final = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "enc", "zip", "cty"})
_UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_LAST_SECOND: Final = 253_402_300_799  # 9999-12-31T23:59:59Z
_FETCH_TIMEOUT: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """One configured issuer: its kind, what the operator said of it, and its keys.

    Every audience of a token must be among the configured ones: one that is made for others as well could be
    replayed by them. `leeway` is how far clocks may differ, `max_lifetime` how long a token may live in all.
    """

    kind: Kind[Any]
    options: IssuerOptions
    keys: KeyStore

    @property
    def name(self) -> IssuerName:
        """What entitlements call it."""
        return IssuerName(self.options.name)

    def verify(self, token: UnverifiedToken, now: datetime) -> VerifiedClaims:
        """Whom `token` proves at the instant `now`.

        Raises: NotAuthenticatedError: the first check that failed.
        Source: RFC 7519 7.2, RFC 8725 3, OpenID Connect Core 3.1.3.7, SPIFFE JWT-SVID 4.
        """
        self.check_signed(token, self.kind.types)

        # RFC 7800 3, RFC 9449 7.2, RFC 8705 3: it is good only with a proof that nothing here can check.
        if "cnf" in token.claims:
            raise NotAuthenticatedError("the token is bound to a key (cnf): it is not for whoever bears it")

        subject = name_of(token.claims, "sub")  # RFC 7519 4.1.2, OpenID Connect Core 2
        self._checked_origin(token.claims, subject)
        issued, expires = self._checked_times(token.claims, now)
        jti = name_of(token.claims, "jti") if "jti" in token.claims else None  # RFC 7519 4.1.7
        claims, others = sort_out(token.claims, self.kind.claims, self.options.claims)
        single = SingleUse(
            issuer=self.name,
            id=f"jti:{jti}" if jti else f"sha256:{token.digest}",
            until=expires + self.options.leeway,
        )
        who = VerifiedClaims(
            issuer=self.name,
            subject=subject,
            claims=claims,
            issued_at=issued,
            expires_at=expires,
            others=others,
            single_use=single if self.options.replay == "single-use" else None,
            person=None if self.options.person is None else name_of(token.claims, self.options.person),
        )
        self._checked_table(who)
        self.kind.check(who, self.options)
        return who

    def check_signed(self, token: UnverifiedToken, types: frozenset[str]) -> None:
        """That a key of this issuer signed it, as a token of one of these `types`.

        Raises: NotAuthenticatedError: it did not, or the header asks for what is never done.
        """
        algorithm, kid = self._checked_header(token.header, types)

        # RFC 8725 3.3 and 3.4: the signature, by a key that this issuer has for this algorithm.
        if not any(token.signed_by(key) for key in self.keys.candidates(algorithm, kid)):
            raise NotAuthenticatedError("the signature does not hold under the issuer's key")

    def _checked_table(self, who: VerifiedClaims) -> None:
        """The kind's own claims, each by its shape, and those that must be there."""
        table = {path: claim for path, claim in self.kind.claims.items() if not claim.ignored}
        values = {path: who.claim(path) for path in table}
        needed = (*(path for path, claim in table.items() if claim.needed), *self.options.required)
        if missing := [path for path in needed if who.claim(path) is None]:
            raise NotAuthenticatedError(f"required claims are missing: {', '.join(missing)}")
        if wrong := misshapen(values, table):
            raise NotAuthenticatedError(f"claims are not as a {self.kind.word} issuer writes them: {', '.join(wrong)}")

    def _checked_header(self, header: Mapping[str, JsonValue], types: frozenset[str]) -> tuple[str, str | None]:
        """Algorithm and key id."""
        # RFC 7515 4.1.9, RFC 8725 3.11: another type of token is not taken for this one.
        kind = header.get("typ", "JWT")
        if not isinstance(kind, str) or kind.lower() not in types:
            raise NotAuthenticatedError("the header's typ is that of another kind of token")

        # RFC 8725 3.10, RFC 7515 4.1.11: keys come from configuration only, and no extension is understood.
        if present := sorted(_FORBIDDEN & header.keys()):
            raise NotAuthenticatedError(f"the header has {', '.join(present)}, which is never accepted")

        # RFC 8725 3.1 and 3.2: the algorithm is ours to choose, not the token's.
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self.options.algorithms:
            raise NotAuthenticatedError(f"the header's alg is not of {', '.join(sorted(self.options.algorithms))}")

        # RFC 7515 4.1.4: an opaque string, compared and nothing else.
        kid = header.get("kid")
        if kid is not None and not isinstance(kid, str):
            raise NotAuthenticatedError("the header's kid is not a string")
        return algorithm, kid

    def _checked_origin(self, claims: Mapping[str, JsonValue], subject: str) -> None:
        """That this issuer made it, for us."""
        # RFC 7519 4.1.1, RFC 8725 3.8: this issuer, and no other whose name looks like it.
        if self.kind.by_subject:
            if not subject.startswith(f"{self.options.url}/"):  # SPIFFE JWT-SVID 3.1
                raise NotAuthenticatedError("sub is not of the trust domain whose bundle has the key")
        elif claims.get("iss") != self.options.url:
            raise NotAuthenticatedError("iss is not the issuer whose key signed")

        check_audience(claims, self.options.audiences)

    def _checked_times(self, claims: Mapping[str, JsonValue], now: datetime) -> tuple[datetime, datetime]:
        """When the token was issued and when it expires."""
        # RFC 7519 4.1.4 to 4.1.6: it has begun, it has not ended, and it does not live too long.
        leeway, limit = self.options.leeway, self.options.max_lifetime
        needed = self.kind.claims["iat"].needed
        issued = instant_of(claims, "iat") if needed or "iat" in claims else now - leeway
        expires = instant_of(claims, "exp")
        begins = instant_of(claims, "nbf") if "nbf" in claims else issued
        if expires <= now - leeway:
            raise NotAuthenticatedError(f"the token expired at {expires.isoformat()}")
        if max(issued, begins) > now + leeway:
            raise NotAuthenticatedError("the token is of the future (iat or nbf): do the clocks differ?")
        if not timedelta() < expires - issued <= limit:
            raise NotAuthenticatedError(f"the token lives longer than {limit}, or ends before it begins")
        return issued, expires


def issuer_of(kind: Kind[Any], options: IssuerOptions) -> Issuer:
    """The issuer that `options` tell of, with its keys from a file or by discovery; nothing is fetched yet.

    Raises: ConfigurationError: a file of it cannot be used, or an address is none.
    """
    for path in options.claims or ():
        if path in kind.claims and (why := kind.claims[path].ignored):
            raise ConfigurationError(f"issuer {options.name}: nothing can be selected by {path}: {why}")
    if options.signals and kind.by_subject:
        raise ConfigurationError(f"issuer {options.name}: a {kind.word} issuer has no iss to signal by")
    if options.jwks_file is not None:
        return Issuer(kind=kind, options=options, keys=FileKeys(options.jwks_file, use=kind.key_use))
    fetch = Fetcher(timeout=_FETCH_TIMEOUT, cacert=options.cacert)
    keys = DiscoveredKeys(options.url, jwks_uri=options.jwks_uri, use=kind.key_use, fetch=fetch)
    return Issuer(kind=kind, options=options, keys=keys)


def check_audience(claims: Mapping[str, JsonValue], ours: Collection[str]) -> None:
    """That it was made for us, and for nobody else. Raises: NotAuthenticatedError: it was not.

    Source: RFC 7519 4.1.3, RFC 8725 3.9, OpenID Connect Core 3.1.3.7 (3).
    """
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if not audiences or not all(isinstance(one, str) and one in ours for one in audiences):
        raise NotAuthenticatedError("aud is missing, not ours, or also somebody else's")


def instant_of(claims: Mapping[str, JsonValue], name: str) -> datetime:
    """A NumericDate of whole seconds. A string, a boolean or a fraction is refused though some parsers take it."""
    value = claims.get(name)
    if type(value) is not int or not 0 <= value <= _LAST_SECOND:
        raise NotAuthenticatedError(f"{name} is missing or not a whole number of seconds")
    return datetime.fromtimestamp(value, UTC)


def name_of(claims: Mapping[str, JsonValue], name: str) -> str:
    """Text that logs, terminals and databases can hold: one line, nothing invisible, no half characters."""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME:
        raise NotAuthenticatedError(f"{name} is missing, not a string, empty or longer than {MAX_NAME} characters")
    # What Python calls printable has none of these; only the rest is worth a look at each character.
    if not value.isprintable() and any(unicodedata.category(char) in _UNPRINTABLE for char in value):
        raise NotAuthenticatedError(f"{name} has control, format or surrogate characters")
    return value
