"""An issuer for tests: mints honestly, forges anything, and serves its keys on loopback with faults to choose."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self, cast

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import get_algorithm_by_name
from typing_extensions import override

from controlplane.issuers.jose.keystore import KeyStore, static_keys
from controlplane.issuers.oidc import KIND
from controlplane.issuers.trust.issuer import Issuer
from controlplane.issuers.trust.kind import Kind
from controlplane.issuers.trust.trusted import TrustedIssuers
from controlplane.model.identity import IssuerName
from controlplane.model.secret import Secret
from controlplane.model.signal import SESSION_REVOKED
from controlplane.ports import Clock

Json = dict[str, Any]
SIGNALS: Final = "shorthold-signals"
"""The audience of a FakeIssuer's security event tokens."""
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_MAKERS: Final[Mapping[str, Callable[[], PrivateKey]]] = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


def base64url(raw: bytes) -> str:
    """`raw` as base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


class IssuerKey:
    """One key pair of an issuer and the JWK that it publishes; the JWK is a plain dict, to be spoiled at will."""

    def __init__(self, algorithm: str = "ES256", *, kid: str | None = None, private: PrivateKey | None = None) -> None:
        self.algorithm = algorithm
        self.private = private or _MAKERS[algorithm]()
        jwk = cast("Json", json.loads(get_algorithm_by_name(algorithm).to_jwk(self.private.public_key())))
        jwk.pop("key_ops", None)
        self.kid = kid or base64url(hashlib.sha256(json.dumps(jwk, sort_keys=True).encode()).digest()[:12])
        self.jwk: Json = {**jwk, "kid": self.kid, "alg": algorithm, "use": "sig"}

    def sign(self, message: bytes, algorithm: str | None = None) -> bytes:
        """The signature of `message`, by another algorithm of the same kind of key if one is named."""
        return get_algorithm_by_name(algorithm or self.algorithm).sign(message, self.private)


class FakeIssuer:
    """An OpenID Connect issuer in this process. Its first key signs unless another is named."""

    def __init__(
        self,
        url: str = "https://issuer.example",
        *,
        clock: Clock,
        name: str = "acme",
        audience: str = "shorthold",
        keys: Sequence[IssuerKey] = (),
    ) -> None:
        self.url = url
        self.name = IssuerName(name)
        self.audience = audience
        self.keys = list(keys) or [IssuerKey()]
        self._clock = clock

    @property
    def jwks(self) -> Json:
        """The key set as it is published now."""
        return {"keys": [dict(key.jwk) for key in self.keys]}

    @property
    def discovery(self) -> Json:
        """The discovery document (OpenID Connect Discovery 3)."""
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": sorted({key.algorithm for key in self.keys}),
        }

    @property
    def configured(self) -> Issuer:
        """How somebody configures it who pins the keys that it publishes now."""
        return self.of_kind(KIND)

    def of_kind(self, kind: Kind[Any], **settings: Any) -> Issuer:
        """The same as an issuer of another kind; `settings` are its kind's options."""
        plain = {
            "name": self.name,
            "kind": kind.word,
            "url": self.url,
            "audiences": [self.audience],
            "algorithms": sorted({key.algorithm for key in self.keys}),
        }
        options = kind.options.model_validate({**plain, **settings})
        return Issuer(kind=kind, options=options, keys=static_keys(self.jwks, use=kind.key_use))

    def claims(self, subject: str = "agent-1", *, ttl: timedelta = timedelta(minutes=5), **others: Any) -> Json:
        """What an honest token of now says; `others` are added or take the place of what stands there."""
        now = int(self._clock.now().timestamp())
        return {
            "iss": self.url,
            "sub": subject,
            "aud": self.audience,
            "iat": now,
            "exp": now + int(ttl.total_seconds()),
            **others,
        }

    def mint(
        self,
        subject: str = "agent-1",
        *,
        ttl: timedelta = timedelta(minutes=5),
        key: IssuerKey | None = None,
        without: Sequence[str] = (),
        **others: Any,
    ) -> Secret:
        """A token that is honestly signed, whatever it says; `without` names claims to leave out."""
        claims = self.claims(subject, ttl=ttl, **others)
        return self.forge({}, {name: value for name, value in claims.items() if name not in without}, key=key)

    def signal(self, subject: str = "agent-1", *, key: IssuerKey | None = None, **others: Any) -> Secret:
        """A security event token: the session of `subject` is over; `others` as in `claims`, None takes one away."""
        claims = {
            "iss": self.url,
            "aud": SIGNALS,
            "iat": int(self._clock.now().timestamp()),
            "jti": "signal-1",
            "sub_id": {"format": "iss_sub", "iss": self.url, "sub": subject},
            "events": {SESSION_REVOKED: {"initiating_entity": "policy"}},
            **others,
        }
        body = {name: value for name, value in claims.items() if value is not None}
        return self.forge({"typ": "secevent+jwt"}, body, key=key)

    def forge(
        self,
        header: Mapping[str, Any] | bytes,
        payload: Mapping[str, Any] | bytes | None = None,
        *,
        key: IssuerKey | None = None,
        algorithm: str | None = None,
        signature: bytes | None = None,
    ) -> Secret:
        """Any header over any payload, correctly signed unless a `signature` is given.

        A mapping as header is added to an honest one, and a value of None takes a name away; bytes stand as they are.
        """
        signer = key or self.keys[0]
        if not isinstance(header, bytes):
            honest = {"alg": algorithm or signer.algorithm, "kid": signer.kid, "typ": "JWT"}
            header = _json({name: value for name, value in {**honest, **header}.items() if value is not None})
        body = payload if isinstance(payload, bytes) else _json(self.claims() if payload is None else payload)
        message = f"{base64url(header)}.{base64url(body)}"
        signed = signer.sign(message.encode(), algorithm) if signature is None else signature
        return Secret(f"{message}.{base64url(signed)}")

    def rotate(self, *, keep: bool = False) -> IssuerKey:
        """A new first key of the same kind; the old ones are published on only if they are to be kept."""
        new = IssuerKey(self.keys[0].algorithm)
        self.keys = [new, *(self.keys if keep else [])]
        return new


def trusting(*issuers: FakeIssuer, clock: Clock, keys: KeyStore | None = None, **settings: Any) -> TrustedIssuers:
    """The Issuers port, trusting the `keys` that `issuers` publish now; `settings` are OidcOptions', unchecked."""

    def changed(one: Issuer) -> Issuer:
        return replace(one, keys=keys or one.keys, options=one.options.model_copy(update=settings))

    return TrustedIssuers([changed(issuer.configured) for issuer in issuers], clock)


class Fault(StrEnum):
    """What can be wrong with an issuer's server."""

    DOWN = "down"  # takes the connection and hangs up
    BROKEN = "broken"  # 503
    SLOW = "slow"  # takes the connection and says nothing until the server is told to go on
    DRIP = "drip"  # sends one byte of its headers after the other, for ever
    REDIRECT = "redirect"  # sends one on to /elsewhere, which would answer
    HUGE = "huge"
    NOT_JSON = "not-json"
    WRONG_ISSUER = "wrong-issuer"  # discovery names another issuer
    FOREIGN_KEYS = "foreign-keys"  # discovery names a key set of another origin


_SPOILED: Final[Mapping[Fault | None, Json]] = {
    Fault.HUGE: {"padding": "x" * 2_000_000},
    Fault.WRONG_ISSUER: {"issuer": "https://issuer.example"},
    Fault.FOREIGN_KEYS: {"jwks_uri": "https://elsewhere.example/jwks"},
}


class IssuerServer:
    """Serves a FakeIssuer on a free loopback port while the `with` block lasts; its `url` becomes the issuer's.

    `fault` may be set at any time; `paths` are what was asked for, in order; `go_on` releases those who wait.
    """

    def __init__(self, issuer: FakeIssuer) -> None:
        self.issuer = issuer
        self.fault: Fault | None = None
        self.paths: list[str] = []
        self.go_on = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        issuer.url = self.url

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()  # waits for every handler


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    owner: IssuerServer

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up on a faulty server is what tests are about."""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = cast("_Server", self.server).owner
        server.paths.append(self.path)
        match server.fault:
            case Fault.DOWN:
                self.close_connection = True
            case Fault.SLOW:
                server.go_on.wait(30)
                self._answer(self._document(server.issuer))
            case Fault.DRIP:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not server.go_on.wait(0.02):
                    self.wfile.write(b"x")
            case Fault.REDIRECT if self.path != "/elsewhere":
                self._answer({}, HTTPStatus.FOUND, location="/elsewhere")
            case Fault.BROKEN:
                self._answer({}, HTTPStatus.SERVICE_UNAVAILABLE)
            case Fault.NOT_JSON:
                self._answer(b"<html>")
            case fault:
                self._answer({**self._document(server.issuer), **_SPOILED.get(fault, {})})

    def _document(self, issuer: FakeIssuer) -> Json:
        return issuer.discovery if self.path.startswith("/.well-known/") else issuer.jwks

    def _answer(self, body: Json | bytes, status: HTTPStatus = HTTPStatus.OK, *, location: str | None = None) -> None:
        content = body if isinstance(body, bytes) else _json(body)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(content)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Silence: tests look at `paths`."""


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode()
