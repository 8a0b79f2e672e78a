"""A compact JWS, taken apart strictly; nothing in it is true before `signed_by` has said so."""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from jwt import PyJWS

from controlplane.issuers.jose.jwk import VerificationKey
from controlplane.issuers.jose.strict_json import parse_object
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import NotAuthenticatedError
from controlplane.model.secret import Secret

MAX_CHARS: Final = 16 * 1024
"""The longest token that is looked at."""

_SEGMENTS: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)
_JWS: Final = PyJWS()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedToken:
    """What somebody claims: header and claims of a well-formed token whose signature nobody has checked yet."""

    header: Mapping[str, JsonValue]
    claims: Mapping[str, JsonValue]
    signature: bytes
    compact: Secret

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what was signed, for tokens without a `jti`.

        Not of the signature: whoever has an ECDSA signature (r, s) also has (r, n - s), which is as good.
        """
        return hashlib.sha256(self._signed).hexdigest()

    def signed_by(self, key: VerificationKey) -> bool:
        """Whether `key` signed exactly this, with the key's own algorithm (RFC 8725 3.1).

        PyJWT's `decode` would take the token apart a second time, more slowly and less strictly than `take_apart`.
        """
        if self.header.get("alg") != key.algorithm:
            return False
        algorithm: Any = _JWS.get_algorithm_by_name(key.algorithm)
        return algorithm.verify(self._signed, key.public, self.signature)

    @property
    def _signed(self) -> bytes:
        """JWS Signing Input. Source: RFC 7515 5.1."""
        return self.compact.reveal().rpartition(".")[0].encode()


def take_apart(token: Secret) -> UnverifiedToken:
    """Header and claims of `token`: three segments of canonical base64url, the first two JSON objects.

    Raises: NotAuthenticatedError: it is anything else: JWE, JSON serialisation, detached or empty segments.
    Source: RFC 7515 3.1 and 7.1, RFC 7519 7.2.
    """
    compact = token.reveal()
    if len(compact) > MAX_CHARS:
        raise NotAuthenticatedError(f"the token is longer than {MAX_CHARS} characters")
    segments = _SEGMENTS.fullmatch(compact)
    if segments is None:
        raise NotAuthenticatedError("the token is not three segments of base64url (a compact JWS)")
    header, claims, signature = (_decoded(segment) for segment in segments.groups())
    return UnverifiedToken(
        header=_object(header, "header"), claims=_object(claims, "payload"), signature=signature, compact=token
    )


def _decoded(segment: str) -> bytes:
    # Canonical only: otherwise one token has several spellings, and a list of used tokens knows but one of them.
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        raw = b""
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != segment.encode():
        raise NotAuthenticatedError("a segment of the token is not canonical base64url")
    return raw


def _object(raw: bytes, what: str) -> dict[str, JsonValue]:
    try:
        return parse_object(raw)
    except ValueError as error:
        raise NotAuthenticatedError(f"the token's {what} {error}") from None
