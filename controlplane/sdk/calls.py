"""What is asked of a control plane and of Vault, as values: no socket and no clock. Whoever drives them has those."""

import json
import re
import secrets
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote, urlencode, urlsplit

from controlplane.model.errors import ConfigurationError
from controlplane.model.secret import Secret
from controlplane.sdk.refusals import AnsweredError, ForeignAnswerError, UnreachableError, refusal

LARGEST_ANSWER: Final = 4 * 1024 * 1024
LARGEST_REPORT: Final = 256 * 1024 * 1024
_OF_A_PROXY: Final = frozenset({502, 503, 504})
"""What is said, without a word of ours, while every control plane behind a proxy starts again."""
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. `holds` is a key that every answer to it has; with a `wrapping` token it goes to Vault instead.

    An answer is read up to `largest` bytes, and no further.
    """

    method: str
    path: str
    holds: str
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    wrapping: Secret | None = None
    largest: int = LARGEST_ANSWER


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is to be done for so long."""

    seconds: float


Exchange = Generator[Call | Pause, Json, T]
"""A conversation: it yields what to do next, is sent the answer or thrown the error, and returns what came of it."""


def request(asked: Mapping[str, object], *, key: str | None = None) -> Call:
    """`POST /v1/grants`. Without a `key` it has one of its own, for issuers that hand their tokens out again."""
    headers = {"Idempotency-Key": key or f"auto-{secrets.token_hex(16)}"}
    body = {name: value for name, value in asked.items() if value is not None}
    return Call(method="POST", path="/v1/grants", holds="grant", body=body, headers=headers)


def explain(asked: Mapping[str, object]) -> Call:
    """`POST /v1/grants?dry_run=1`."""
    body = {name: value for name, value in asked.items() if value is not None}
    return Call(method="POST", path="/v1/grants?dry_run=1", holds="decision", body=body)


def find(needs: Sequence[str], *, intent: str | None = None) -> Call:
    """`POST /v1/needs`."""
    body = {"needs": [*needs]} | ({} if intent is None else {"intent": intent})
    return Call(method="POST", path="/v1/needs", holds="found", body=body)


def grants(**only: str | None) -> Call:
    """`GET /v1/grants`: the newest hundred of the caller's own, or of these those with this `task` or `state`."""
    query = urlencode({name: value for name, value in only.items() if value is not None})
    return Call(method="GET", path=f"/v1/grants{query and f'?{query}'}", holds="grants")


def show(id: str, *, wait: str | None = None) -> Call:
    """`GET /v1/grants/{id}`."""
    return Call(method="GET", path=f"/v1/grants/{id}{waiting(wait)}", holds="grant")


def collect(id: str) -> Call:
    """`POST /v1/grants/{id}/collect`."""
    return Call(method="POST", path=f"/v1/grants/{id}/collect", holds="grant")


def finish(id: str, *, outcome: str, wait: str | None = None) -> Call:
    """`POST /v1/grants/{id}/finish`."""
    body = {"outcome": outcome}
    return Call(method="POST", path=f"/v1/grants/{id}/finish{waiting(wait)}", holds="grant", body=body)


def renew(id: str, *, ttl: str | None = None) -> Call:
    """`POST /v1/grants/{id}/renew`."""
    return Call(method="POST", path=f"/v1/grants/{id}/renew", holds="grant", body={} if ttl is None else {"ttl": ttl})


def heartbeat(id: str) -> Call:
    """`POST /v1/grants/{id}/heartbeat`."""
    return Call(method="POST", path=f"/v1/grants/{id}/heartbeat", holds="grant")


def finish_task(task: str, *, outcome: str, wait: str | None = None) -> Call:
    """`POST /v1/tasks/{task}/finish`."""
    path = f"/v1/tasks/{quote(task, safe='')}/finish{waiting(wait)}"
    return Call(method="POST", path=path, holds="task", body={"outcome": outcome})


def unwrap(token: Secret) -> Call:
    """`POST sys/wrapping/unwrap` at Vault itself. Source: OpenBao docs, api/system/wrapping-unwrap."""
    return Call(method="POST", path="/v1/sys/wrapping/unwrap", holds="data", body={}, wrapping=token)


def content(call: Call) -> bytes:
    """The body with which `call` is sent."""
    return b"" if call.body is None else json.dumps(call.body).encode()


def headers_of(call: Call, token: Secret | None, namespace: str | None) -> dict[str, str]:
    """The headers with which `call` is sent. Raises: ConfigurationError: the token cannot be; without showing it."""
    sent = {"Content-Type": "application/json", **call.headers}
    if call.wrapping is not None:
        space = {"X-Vault-Namespace": namespace} if namespace else {}
        return {**sent, "X-Vault-Token": sendable(call.wrapping), **space}
    return sent if token is None else {**sent, "Authorization": f"Bearer {sendable(token)}"}


def heard(call: Call, place: str, status: int, raw: bytes) -> Json:
    """The answer to `call`, which holds what it should.

    Raises: AnsweredError: it is a no; UnreachableError: a proxy reaches no control plane; ForeignAnswerError: whoever
    is at `place` is none.
    """
    try:
        told: object = json.loads(raw) if raw else {}
    except ValueError:
        told = {}
    answer = cast("Json", told) if isinstance(told, dict) else {}
    if not 200 <= status < 300:  # noqa: PLR2004 # the class of success, RFC 9110 15.3
        if call.wrapping is not None:
            raise AnsweredError(status, answer)
        if "code" in answer:
            raise refusal(status, answer)
        if status in _OF_A_PROXY:
            raise UnreachableError(f"{place} answered with HTTP status {status}, as a proxy does that reaches nobody")
        answer = {}
    if call.holds not in answer:
        raise ForeignAnswerError(
            f"{place} answered with HTTP status {status} and is no {'Vault' if call.wrapping else 'Shorthold'}"
        )
    return answer


def fields_of(answer: Json) -> dict[str, dict[str, Secret]]:
    """The credentials by scope, out of what was unwrapped."""
    data = cast("dict[str, dict[str, str]]", answer.get("data") or {})
    return {scope: {name: Secret(value) for name, value in fields.items()} for scope, fields in data.items()}


def waiting(wait: str | None) -> str:
    """The query that lets the other side wait."""
    return f"?{urlencode({'wait': wait})}" if wait else ""


def address(whose: str, addr: str) -> str:
    """`addr` without a slash at its end. Raises: ConfigurationError: it is no http or https address."""
    try:
        parts = urlsplit(addr)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound:
        raise ConfigurationError(f"{whose} address is written http://host:port or https://host")
    return addr.rstrip("/")


def sendable(token: Secret) -> str:
    """The token's text. Raises: ConfigurationError: no header can carry it; without showing it."""
    text = token.reveal().strip()
    if not _VISIBLE.fullmatch(text):
        raise ConfigurationError("the token is empty, or has blanks or characters in it that no token has")
    return text
