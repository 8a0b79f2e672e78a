"""Keys as issuers publish them; a key that is weak, private or made for something else never gets in."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurve,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from controlplane.model.canonical import JsonObject, JsonValue

MAX_KEYS: Final = 64
"""More keys in one set are no key set but an attack on our time."""

_PRIVATE: Final = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
_MIN_RSA_BITS: Final = 2048  # NIST SP 800-131A
_MAX_RSA_BITS: Final = 8192  # verifying with a huge modulus is slow
_MIN_RSA_EXPONENT: Final = 65537
_MAX_RSA_EXPONENT: Final = 1 << 32
_CURVES: Final[Mapping[str, tuple[str, EllipticCurve]]] = {
    "P-256": ("ES256", SECP256R1()),
    "P-384": ("ES384", SECP384R1()),
}
_P25519: Final = (1 << 255) - 19
_Y8: Final = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
_SMALL_ORDER_Y: Final = {0, 1, _P25519 - 1, _Y8, _P25519 - _Y8}
"""The y of Ed25519's points of order 1, 2, 4 and 8: under such a key anybody can sign anything."""

PublicKey = EllipticCurvePublicKey | RSAPublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """One sound public key, for one algorithm only: a token cannot choose another for it."""

    kid: str | None
    algorithm: str
    public: PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """The sound keys of an issuer; `refused` says, one sentence each, which were left out and why."""

    keys: tuple[VerificationKey, ...]
    refused: tuple[str, ...] = ()

    def candidates(self, algorithm: str, kid: str | None) -> Sequence[VerificationKey]:
        """The keys that may have signed: all that share the `kid`, so that none wins by standing first.

        Without a `kid` the set must leave no choice. Source: OpenID Connect Core 10.1, RFC 7517 4.5.
        """
        able = [key for key in self.keys if key.algorithm == algorithm]
        if kid is None:
            return able if len(able) == 1 else ()
        return [key for key in able if key.kid == kid]


def parse_key_set(document: JsonObject, use: str = "sig") -> KeySet:
    """The key set in a JWKS document; single keys that are not sound are left out (RFC 7517 5).

    Other uses than `sig` must be said by each key: a SPIFFE bundle holds keys of several.

    Raises: ValueError: it is no key set, has over 64 keys, or none of them is sound.
    """
    entries = document.get("keys")
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError(f"is no key set: `keys` must be a list of at most {MAX_KEYS}")
    keys: list[VerificationKey] = []
    refused: list[str] = []
    for number, entry in enumerate(entries, start=1):
        try:
            keys.append(_key(entry, use))
        except ValueError as error:
            refused.append(f"key {number} {error}")
    if not keys:
        raise ValueError(f"has no usable key ({'; '.join(refused[:4]) or 'it is empty'})")
    return KeySet(keys=tuple(keys), refused=tuple(refused))


def _key(jwk: JsonValue, use: str) -> VerificationKey:
    if not isinstance(jwk, dict):
        raise ValueError("is not an object")  # noqa: TRY004 # a stranger's bad value, not our wrong type
    if _PRIVATE & jwk.keys():
        raise ValueError("shows its private half, or is a shared secret")
    kid, kty = jwk.get("kid"), jwk.get("kty")
    if kid is not None and not isinstance(kid, str):
        raise ValueError("has a kid that is no string")
    if not isinstance(kty, str) or kty not in _READERS:
        raise ValueError("is of an unknown kind (kty)")
    algorithm, public = _READERS[kty](jwk)
    if jwk.get("alg", algorithm) != algorithm:
        raise ValueError(f"says that it is for another algorithm than {algorithm}")
    if jwk.get("use", "sig") != use:
        raise ValueError("is not for signatures (use)" if use == "sig" else f"is not for {use} (use)")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("is not for verifying (key_ops)")
    return VerificationKey(kid=kid, algorithm=algorithm, public=public)


def _rsa(jwk: Mapping[str, JsonValue]) -> tuple[str, PublicKey]:
    modulus, exponent = int.from_bytes(_octets(jwk, "n"), "big"), int.from_bytes(_octets(jwk, "e"), "big")
    if not _MIN_RSA_BITS <= modulus.bit_length() <= _MAX_RSA_BITS:
        raise ValueError(f"is RSA of under {_MIN_RSA_BITS} or over {_MAX_RSA_BITS} bits")
    if not _MIN_RSA_EXPONENT <= exponent <= _MAX_RSA_EXPONENT or not exponent & modulus & 1:
        raise ValueError("is RSA with an unsafe exponent or an even modulus")
    return "RS256", RSAPublicNumbers(exponent, modulus).public_key()


def _ec(jwk: Mapping[str, JsonValue]) -> tuple[str, PublicKey]:
    crv = jwk.get("crv")
    if not isinstance(crv, str) or crv not in _CURVES:
        raise ValueError("is on a curve other than P-256 and P-384")
    algorithm, curve = _CURVES[crv]
    x, y = _octets(jwk, "x"), _octets(jwk, "y")
    if {len(x), len(y)} != {(curve.key_size + 7) // 8}:  # RFC 7518 6.2.1.2
        raise ValueError("has coordinates of a wrong length")
    numbers = EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve)
    try:
        return algorithm, numbers.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is not a point on its curve") from None


def _okp(jwk: Mapping[str, JsonValue]) -> tuple[str, PublicKey]:
    raw = _octets(jwk, "x")
    if jwk.get("crv") != "Ed25519" or len(raw) != 32:  # noqa: PLR2004 # RFC 8032 5.1.5
        raise ValueError("is no Ed25519 key of 32 bytes")
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    if y >= _P25519 or y in _SMALL_ORDER_Y:
        raise ValueError("is an Ed25519 point of small order or not canonical")
    try:
        return "EdDSA", Ed25519PublicKey.from_public_bytes(raw)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is no Ed25519 key") from None


_READERS: Final[Mapping[str, Callable[[Mapping[str, JsonValue]], tuple[str, PublicKey]]]] = {
    "RSA": _rsa,
    "EC": _ec,
    "OKP": _okp,
}


def _octets(jwk: Mapping[str, JsonValue], name: str) -> bytes:
    text = jwk.get(name)
    if not isinstance(text, str) or not text.isascii():
        raise ValueError(f"lacks {name}")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise ValueError(f"has an {name} that is not base64url") from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != text.encode():
        raise ValueError(f"has an {name} that is not canonical base64url")
    return raw
