"""Signing keys as files: P-256, PKCS #8 PEM, readable by their owner only."""

import base64
import hashlib
from pathlib import Path
from typing import Final, Never

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from jwt import PyJWS
from typing_extensions import override

from controlplane.keys import private_file
from controlplane.model.canonical import JsonObject, canonical
from controlplane.model.errors import ConfigurationError
from controlplane.model.secret import Secret

_WHAT: Final = "signing key"
_COORDINATE_BYTES: Final = 32


class SigningKey:
    """An ES256 key: signs, and says what the world may know of it. The private half never leaves it. Thread-safe."""

    __slots__ = ("_jws", "_private", "jwk", "kid", "public_pem")

    kid: str
    """The key's RFC 7638 thumbprint (SHA-256, base64url)."""
    jwk: dict[str, str]
    """The public half as a JWK with `kid`, `alg` and `use` (RFC 7517)."""
    public_pem: str
    """The public half as SubjectPublicKeyInfo in PEM, as Vault's `jwt_validation_pubkeys` takes it."""

    def __init__(self, private: EllipticCurvePrivateKey) -> None:
        public = private.public_key()
        numbers = public.public_numbers()
        point = {"kty": "EC", "crv": "P-256", "x": _coordinate(numbers.x), "y": _coordinate(numbers.y)}
        self._private = private
        self._jws = PyJWS(algorithms=["ES256"])
        self.kid = _base64url(hashlib.sha256(canonical(point)).digest())
        self.jwk = {**point, "kid": self.kid, "alg": "ES256", "use": "sig"}
        self.public_pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")

    def sign(self, claims: JsonObject, *, typ: str = "JWT") -> Secret:
        """A compact JWS (ES256) of `claims` with our `kid`. Source: RFC 7515 7.1, RFC 7518 3.4.

        Raises: ValueError: a claim that JSON cannot say.
        """
        return Secret(
            self._jws.encode(canonical(claims), self._private, "ES256", headers={"kid": self.kid, "typ": typ})
        )

    @override
    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r})"

    @override
    def __reduce__(self) -> Never:
        raise TypeError("a SigningKey is never pickled or copied")


def generate() -> SigningKey:
    """A new key that is stored nowhere."""
    return SigningKey(generate_private_key(SECP256R1()))


def load(path: Path) -> SigningKey:
    """The key at `path`.

    Raises: ConfigurationError: there is none, others may read it, or it is not an unencrypted P-256 key in PEM.
    """
    content = private_file.read(path, _WHAT)
    if content is None:
        raise ConfigurationError(
            f"there is no signing key at {path}: `shorthold vault bootstrap` makes those of identities"
        )
    return _parse(content, path)


def load_or_create(path: Path) -> SigningKey:
    """The key at `path`, made there (0600, in a directory made 0700) if it does not exist yet.

    Two processes that start at once get the same key. Raises: ConfigurationError: see `load`; not writable.
    """
    content = private_file.read(path, _WHAT)
    if content is None:
        made = generate_private_key(SECP256R1())
        private_file.create(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), _WHAT)
    return load(path)


def _parse(content: bytes, path: Path) -> SigningKey:
    try:
        private = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it wants a password
        # No cause is shown: the parser's message may quote what it read.
        raise ConfigurationError(f"{path} is no signing key: it must hold an unencrypted private key in PEM") from None
    if not isinstance(private, EllipticCurvePrivateKey) or not isinstance(private.curve, SECP256R1):
        raise ConfigurationError(f"{path} is no signing key of ours: it must be a P-256 key (ES256)")
    return SigningKey(private)


def _coordinate(number: int) -> str:
    return _base64url(number.to_bytes(_COORDINATE_BYTES, "big"))


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
