"""The development OIDC issuer: a process of its own, outside the control plane, which trusts it by configuration only.

It serves two documents and never sees the private key; `mint` signs with the key file, as `shorthold dev token` does.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, cast

from typing_extensions import override

from controlplane.dev import loopback
from controlplane.dev.home import Home, write_private
from controlplane.dev.process import Process
from controlplane.keys.files import SigningKey, load, load_or_create
from controlplane.model.canonical import JsonObject, JsonValue
from controlplane.model.errors import InvalidRequestError, LocalServerError
from controlplane.model.secret import Secret
from controlplane.model.signal import SESSION_REVOKED
from controlplane.outgoing import Exchange, place_of
from controlplane.ports import Ids

NAME: Final = "dev"
AUDIENCE: Final = "shorthold"
SIGNALS: Final = "shorthold-signals"
"""The audience of its security event tokens."""
LIFETIME: Final = timedelta(minutes=10)

_READY = timedelta(seconds=60)
_OWN = frozenset({"iss", "sub", "aud", "iat", "nbf", "exp", "jti"})


def mint(
    key: SigningKey,
    url: str,
    subject: str,
    *,
    now: datetime,
    ids: Ids,
    claims: Mapping[str, JsonValue] | None = None,
    audience: str = AUDIENCE,
    lifetime: timedelta = LIFETIME,
) -> Secret:
    """A workload's token, signed by `key` in the name of the issuer at `url`. Source: RFC 7519 4.1.

    Raises: InvalidRequestError: `claims` would replace one that the issuer itself answers for.
    """
    if own := _OWN.intersection(claims or {}):
        raise InvalidRequestError(f"the issuer itself sets {', '.join(sorted(own))}")
    issued = int(now.timestamp())
    return key.sign(
        {
            **(claims or {}),
            "iss": url,
            "sub": subject,
            "aud": audience,
            "iat": issued,
            "exp": issued + int(lifetime.total_seconds()),
            "jti": ids.new("jti"),
        }
    )


def session_revoked(key: SigningKey, url: str, subject: str, *, now: datetime, ids: Ids) -> Secret:
    """A security event token of the issuer at `url`: the session of `subject` is over.

    Source: RFC 8417 2.2, OpenID CAEP 1.0 3.1.
    """
    claims: JsonObject = {
        "iss": url,
        "aud": SIGNALS,
        "iat": int(now.timestamp()),
        "jti": ids.new("jti"),
        "sub_id": {"format": "iss_sub", "iss": url, "sub": subject},
        "events": {SESSION_REVOKED: {"event_timestamp": int(now.timestamp())}},
    }
    return key.sign(claims, typ="secevent+jwt")


def push(api: str, token: Secret) -> None:
    """Send a security event token to the control plane at `api`. Source: RFC 8935 2.

    Raises: LocalServerError: it is not there, or does not take it.
    """
    send = Exchange(timeout=_READY)
    headers = {"Content-Type": "application/secevent+jwt", "Accept": "application/json"}
    where = f"{api}/v1/signals"
    try:
        body = token.reveal().encode()
        status = send("POST", place_of(where), lambda answer: answer.status, headers=headers, body=body)
    except (OSError, HTTPException) as error:
        raise LocalServerError(f"{where} did not answer ({type(error).__name__})") from None
    if status != HTTPStatus.ACCEPTED:
        raise LocalServerError(f"{where} answered {status}; `shorthold audit tail` may say why")


def nested(pairs: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Claims by path as an object: `kubernetes.io/namespace` descends at each `/`.

    Raises: InvalidRequestError: one path ends where another goes on.
    """
    claims: dict[str, JsonValue] = {}
    for path, value in pairs.items():
        *above, last = path.split("/")
        place = claims
        for step in above:
            deeper = place.setdefault(step, {})
            if not isinstance(deeper, dict):
                raise InvalidRequestError(f"claim {path}: {step} has a value already")
            place = deeper
        if last in place or not all((*above, last)):
            raise InvalidRequestError(f"claim {path}: written twice, or with an empty name")
        place[last] = value
    return claims


@dataclass(frozen=True, slots=True, kw_only=True)
class DevIssuer:
    """The issuer of one project."""

    home: Home

    @property
    def url(self) -> str:
        """Its `iss`. Raises: LocalServerError: it was never started."""
        return f"http://{loopback.HOST}:{self.home.known_port('issuer')}"

    @property
    def process(self) -> Process:
        """Its process."""
        return Process(name="issuer", directory=self.home.part("issuer"))

    @property
    def key(self) -> SigningKey:
        """Its signing key. Raises: LocalServerError: it was never started."""
        return load(self._key_file)

    def start(self) -> bool:
        """Start it and wait until it answers. Whether it had to be started; one that runs is left alone.

        Raises: LocalServerError: it does not come up; with the last lines of its log.
        """
        runs = self.process.runs(self.answers, _READY)
        if not runs:
            directory = self.home.part("issuer")
            documents = _documents(load_or_create(self._key_file), self.home.fresh_port("issuer"))
            write_private(directory / "documents.json", json.dumps(documents, indent=2))
            self.process.start(
                [sys.executable, "-m", __name__, "--port", str(self.home.known_port("issuer")), "documents.json"],
                cwd=directory,
                environment={},
            )
            self.process.wait(self.answers, _READY)
        return not runs

    def stop(self) -> bool:
        """Stop it. Whether it ran."""
        return self.process.stop()

    @property
    def _key_file(self) -> Path:
        return self.home.part("issuer") / "key.pem"

    def answers(self) -> bool:
        """Whether it answers."""
        status, document = loopback.ask(self.home.known_port("issuer"), "GET", "/.well-known/openid-configuration")
        return status == HTTPStatus.OK and document.get("issuer") == self.url


def _documents(key: SigningKey, port: int) -> dict[str, JsonObject]:
    url = f"http://{loopback.HOST}:{port}"
    return {
        "/.well-known/openid-configuration": {
            "issuer": url,
            "jwks_uri": f"{url}/jwks.json",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        },
        "/jwks.json": {"keys": [dict(key.jwk)]},
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, documents: Mapping[str, bytes]) -> None:
        self.documents = documents
        super().__init__((loopback.HOST, port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    timeout = 10

    def do_GET(self) -> None:  # http.server finds the method by this name
        body = cast("_Server", self.server).documents.get(self.path)
        self.send_response(HTTPStatus.NOT_FOUND if body is None else HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Cache-Control", "public, max-age=60")
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a path is whatever a stranger wrote."""


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("documents", type=Path)
    wanted = parser.parse_args()
    documents: dict[str, JsonObject] = json.loads(wanted.documents.read_text(encoding="utf-8"))
    try:
        server = _Server(wanted.port, {path: json.dumps(body).encode() for path, body in documents.items()})
    except OSError as error:
        raise SystemExit(f"cannot listen on port {wanted.port}: {error.strerror}") from None
    with server:
        server.serve_forever()


if __name__ == "__main__":
    main()
