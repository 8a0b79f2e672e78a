"""A security event token, held against the issuer that signed it: the checks, in one straight line.

Source: RFC 8417 (SET), RFC 9493 (its subject), OpenID Shared Signals Framework 1.0, 4.1.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from controlplane.issuers.jose.compact import UnverifiedToken
from controlplane.issuers.trust.issuer import Issuer, check_audience, instant_of, name_of
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import NotAuthenticatedError
from controlplane.model.signal import Signal

TYPES: Final = frozenset({"secevent+jwt", "application/secevent+jwt"})


def read_signal(issuer: Issuer, token: UnverifiedToken, now: datetime) -> Signal:
    """What `token` says has happened, as of the instant `now`.

    Raises: NotAuthenticatedError: the first check that failed.
    """
    options, claims = issuer.options, token.claims
    if not options.signals:
        raise NotAuthenticatedError("the settings name no audience for this issuer's signals")

    # RFC 8417 2.3 and 4.1: an explicit type, so that neither passes for the other: this, and a token that logs in.
    issuer.check_signed(token, TYPES)

    # RFC 8417 2.2: this issuer, and for us.
    if claims.get("iss") != options.url:
        raise NotAuthenticatedError("iss is not the issuer whose key signed")
    check_audience(claims, options.signals)

    # Shared Signals 4.1: it has neither, so that nobody takes it for a token that logs in.
    if present := sorted({"sub", "exp"} & claims.keys()):
        raise NotAuthenticatedError(f"a security event token has no {' and no '.join(present)}")

    # Whoever kept one must not be able to send it when nobody expects it any more. Source: RFC 8417 5.3.
    issued = instant_of(claims, "iat")
    if issued > now + options.leeway:
        raise NotAuthenticatedError("the signal is of the future (iat): do the clocks differ?")
    if issued <= now - options.max_lifetime - options.leeway:
        raise NotAuthenticatedError(f"the signal is older than {options.max_lifetime}: no token of before is good now")

    return Signal(
        issuer=issuer.name,
        id=name_of(claims, "jti"),  # RFC 8417 2.2: required
        event=_event(claims),
        subject=_subject(claims, options.url),
        over_in=options.max_lifetime + options.leeway,
    )


def _event(claims: Mapping[str, JsonValue]) -> str:
    """The one event that it tells of. Source: Shared Signals 4.1."""
    events = claims.get("events")
    if not isinstance(events, dict) or len(events) != 1:
        raise NotAuthenticatedError("events is not an object with one event")
    ((event, said),) = events.items()
    if not isinstance(said, dict):
        raise NotAuthenticatedError("what events says of the event is not an object")
    return name_of({"event": event}, "event")


def _subject(claims: Mapping[str, JsonValue], url: str) -> str | None:
    """Whom it is about: a subject of this issuer; nobody else is its to judge. Source: RFC 9493 3.2.4 (`iss_sub`)."""
    told = claims.get("sub_id")
    if not isinstance(told, dict) or told.get("format") != "iss_sub" or told.get("iss") != url:
        return None
    return name_of(told, "sub")
