"""A webhook: each event is one POST, signed so that its receiver knows that it comes from us, and when.

Source: Standard Webhooks 1.0.0 (headers, signature scheme `v1`, secrets `whsec_…`).
"""

import base64
import binascii
import hmac
import ssl
from collections.abc import Sequence
from datetime import timedelta
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Final

from pydantic import Field, field_validator

from controlplane import __version__
from controlplane.audit.outbox import LONGEST
from controlplane.model.canonical import JsonValue, canonical, instant
from controlplane.model.duration import Duration
from controlplane.model.errors import ConfigurationError, SinkUnavailableError
from controlplane.model.event import Link
from controlplane.model.secret import Secret
from controlplane.outgoing import Exchange, Place, place_of
from controlplane.ports import Clock
from controlplane.sinks import PrivateFile, SinkKind, SinkOptions

_PREFIX: Final = "whsec_"
_SHORTEST, _LONGEST = 24, 64
"""Bytes of a secret. Source: Standard Webhooks, "Signature scheme"."""


class WebhookOptions(SinkOptions):
    """Where to, and the file (0600) with the secret to sign with: one a line, for as long as one is being replaced."""

    kind: str = "webhook"
    url: str
    secret_file: Path
    timeout: Duration = Field(default=timedelta(seconds=5), le=LONGEST)
    cacert: Path | None = None

    @field_validator("url")
    @classmethod
    def _reachable(cls, url: str) -> str:
        place_of(url)
        return url


class WebhookSink:
    """Fits the port Sink. The body of an answer is hostile input that nobody needs: it is not read."""

    def __init__(self, place: Place, exchange: Exchange, secrets: Sequence[Secret], clock: Clock) -> None:
        self._place, self._exchange, self._secrets, self._clock = place, exchange, tuple(secrets), clock

    def tell(self, link: Link) -> None:
        """Post one event; whatever is no 2xx was not taken. Raises: SinkUnavailableError."""
        body, at = payload(link), int(self._clock.now().timestamp())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"shorthold/{__version__}",
            "webhook-id": link.event.id,
            "webhook-timestamp": str(at),
            "webhook-signature": " ".join(signature(secret, link.event.id, at, body) for secret in self._secrets),
        }
        try:
            status = self._exchange("POST", self._place, lambda answer: answer.status, headers=headers, body=body)
        except ssl.SSLCertVerificationError as error:
            raise SinkUnavailableError(f"it did not prove who it is (TLS): {error.verify_message}") from None
        except TimeoutError:
            raise SinkUnavailableError(f"no answer within {self._exchange.timeout.total_seconds():g} s") from None
        except (OSError, HTTPException) as error:
            raise SinkUnavailableError(f"no answer ({type(error).__name__})") from None
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise SinkUnavailableError(f"it answered {status}; redirects are not followed")


def payload(link: Link) -> bytes:
    """What is sent of an event: the same bytes every time."""
    event = link.event
    data: dict[str, JsonValue] = {
        "id": event.id,
        "seq": link.seq,
        "grant": event.grant,
        "body": dict(event.body),
        "mac": link.mac,
    }
    return canonical({"type": event.kind.value, "timestamp": instant(event.at), "data": data})


def signature(secret: Secret, id: str, at: int, body: bytes) -> str:
    """`v1,` and the HMAC-SHA256 of id, attempt's time (seconds since 1970) and body, in base64."""
    key = base64.b64decode(secret.reveal().removeprefix(_PREFIX))
    mac = hmac.digest(key, f"{id}.{at}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(mac).decode()}"


def _make(options: WebhookOptions, clock: Clock, private_file: PrivateFile) -> WebhookSink:
    try:
        exchange = Exchange(timeout=options.timeout, cacert=options.cacert)
    except OSError as error:
        raise ConfigurationError(f"the CA file {options.cacert} of a sink cannot be used: {error.strerror}") from None
    return WebhookSink(place_of(options.url), exchange, _secrets(options, private_file), clock)


def _secrets(options: WebhookOptions, private_file: PrivateFile) -> Sequence[Secret]:
    what = f"secret of the sink {options.name}"
    content = private_file(options.secret_file, what)
    if content is None:
        raise ConfigurationError(f"the {what}, {options.secret_file}, is not there")
    found = [Secret(line) for line in content.decode("ascii", errors="replace").split()]
    if not found or not all(map(_is_secret, found)):
        raise ConfigurationError(
            f"the {what}, {options.secret_file}, must hold whsec_ and {_SHORTEST} to {_LONGEST} bytes in base64 a line"
        )
    return found


def _is_secret(secret: Secret) -> bool:
    text = secret.reveal()
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.startswith(_PREFIX) and _SHORTEST <= len(key) <= _LONGEST


KIND = SinkKind(word="webhook", options=WebhookOptions, make=_make)
