"""The agent's side of the HTTP API: ask, look, finish, and unwrap at Vault itself."""

import json
import re
import secrets
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self, cast
from urllib.parse import quote, urlencode, urlsplit

import urllib3

from controlplane.model.errors import ConfigurationError, ControlPlaneError
from controlplane.model.secret import Secret

_LARGEST_ANSWER: Final = 4 * 1024 * 1024
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)


class UnreachableError(ControlPlaneError):
    """Nobody answered. If a grant was being asked for, it may exist: ask again with the same idempotency key."""

    code, exit_status = "unreachable", 2
    hint = "Is the control plane running? `shorthold dev status` tells; SHORTHOLD_ADDR says where it is looked for."


class ForeignAnswerError(ControlPlaneError):
    """Somebody answered, but not as a control plane does: nothing is known of what became of the call."""

    code, exit_status = "no-shorthold", 2
    hint = "Is SHORTHOLD_ADDR the address of the control plane, and not that of Vault or of a proxy?"


class AnsweredError(ControlPlaneError):
    """The other side said no; `problem` is its RFC 9457 body."""

    code, exit_status = "answered", 2

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        told: list[str] = [problem["detail"]] if problem.get("detail") else problem.get("errors") or []  # Vault's
        super().__init__("; ".join(str(text) for text in told) or f"HTTP status {status}")
        self.http_status = status
        self.problem = problem

    @property
    def told_code(self) -> str:
        """The stable code the other side gave."""
        return str(self.problem.get("code") or "unknown")

    @property
    def told_exit_status(self) -> int:
        """4: people have to agree; 3: a decision or the token was refused; 1: what was asked makes no sense; else 2."""
        if self.told_code == "not-approved-yet":
            return 4
        if self.http_status in {401, 403, 423, 429}:
            return 3
        return 1 if self.http_status in {400, 422} else 2


class Shorthold:
    """A client of one control plane; `token` is asked for anew at every call. Safe for threads.

    Raises: ConfigurationError: `addr` is no http or https address.
    Every call raises UnreachableError: nobody answered; ForeignAnswerError: somebody else did; ConfigurationError:
    the token cannot be sent.
    """

    def __init__(self, addr: str, token: Callable[[], Secret | None], *, timeout: float = 30.0) -> None:
        self._addr = _address("the control plane's", addr)
        self._token = token
        self._timeout = urllib3.Timeout(connect=5, read=timeout)
        self._http = urllib3.PoolManager(maxsize=16, retries=False, timeout=self._timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.clear()

    def request(self, asked: Mapping[str, object], *, key: str | None = None) -> dict[str, Any]:
        """`POST /v1/grants`: the answer of 201 or 202 as it came. Without a `key` the call makes one of its own.

        Raises: AnsweredError: refused, with reasons; UnreachableError: unknown, ask again with the same `key`.
        """
        headers = {"Idempotency-Key": key or f"auto-{secrets.token_hex(16)}"}
        body = {name: value for name, value in asked.items() if value is not None}
        return self._call("grant", "POST", "/v1/grants", body, headers)

    def explain(self, asked: Mapping[str, object]) -> dict[str, Any]:
        """`POST /v1/grants?dry_run=1`: what would be decided, with every reason; nothing is made."""
        body = {name: value for name, value in asked.items() if value is not None}
        return self._call("decision", "POST", "/v1/grants?dry_run=1", body)

    def show(self, id: str, *, wait: str | None = None) -> dict[str, Any]:
        """`GET /v1/grants/{id}`; with `wait` (`30s`) the answer comes once nobody else has to do anything first."""
        return self._call("grant", "GET", f"/v1/grants/{id}{_waiting(wait)}")

    def collect(self, id: str) -> dict[str, Any]:
        """`POST /v1/grants/{id}/collect`: what an approved grant gives, once.

        Raises: AnsweredError: 409 not-approved-yet or lapsed, 403 denied; UnreachableError: it may have been made.
        """
        return self._call("grant", "POST", f"/v1/grants/{id}/collect")

    def approvals(self, *, before: str | None = None) -> dict[str, Any]:
        """`GET /v1/approvals`: what the caller may decide on now, in groups; `next` is the next page's `before`."""
        query = f"?{urlencode({'before': before})}" if before else ""
        return self._call("groups", "GET", f"/v1/approvals{query}")

    def approve(
        self,
        id: str,
        digest: str,
        *,
        reason: str | None = None,
        ttl: str | None = None,
        scopes: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """`POST /v1/grants/{id}/approve`: a yes to what has this digest, or with `ttl` or `scopes` to less of it."""
        narrow: dict[str, Any] = {} if ttl is None else {"ttl": ttl}
        narrow |= {} if scopes is None else {"scopes": [*scopes]}
        body: dict[str, Any] = {"digest": digest, "narrow": narrow} | ({} if reason is None else {"reason": reason})
        return self._call("grant", "POST", f"/v1/grants/{id}/approve", body)

    def deny(self, id: str, reason: str) -> dict[str, Any]:
        """`POST /v1/grants/{id}/deny`."""
        return self._call("grant", "POST", f"/v1/grants/{id}/deny", {"reason": reason})

    def list(self) -> dict[str, Any]:
        """`GET /v1/grants`: the newest hundred of the caller's own."""
        return self._call("grants", "GET", "/v1/grants")

    def finish(self, id: str, *, outcome: str = "completed", wait: str | None = None) -> dict[str, Any]:
        """`POST /v1/grants/{id}/finish`; with `wait` (`10s`) it waits for the receipt. Repeating it is fine."""
        return self._call("grant", "POST", f"/v1/grants/{id}/finish{_waiting(wait)}", {"outcome": outcome})

    def renew(self, id: str, *, ttl: str | None = None) -> dict[str, Any]:
        """`POST /v1/grants/{id}/renew`: a later end, `ttl` (`5m`) from now. Repeating it is fine.

        Raises: AnsweredError: 403 context-changed: it has ended; 409 ended: it had before; else its end is as it was.
        """
        return self._call("grant", "POST", f"/v1/grants/{id}/renew", {} if ttl is None else {"ttl": ttl})

    def heartbeat(self, id: str) -> dict[str, Any]:
        """`POST /v1/grants/{id}/heartbeat`: the task goes on; the answer has `expires_at` and `heartbeat_due_at`.

        Raises: AnsweredError: 403 context-changed: it has ended; 409 ended: it had before, or this beat is too late.
        """
        return self._call("grant", "POST", f"/v1/grants/{id}/heartbeat")

    def task(self, task: str) -> dict[str, Any]:
        """`GET /v1/tasks/{task}`: the task, its parts and its newest hundred grants."""
        return self._call("task", "GET", f"/v1/tasks/{quote(task, safe='')}")

    def finish_task(self, task: str, *, outcome: str = "completed", wait: str | None = None) -> dict[str, Any]:
        """`POST /v1/tasks/{task}/finish`: ends every grant of the task and of its parts. Repeating it is fine.

        With `wait` (`10s`) it waits for their receipts. Raises: AnsweredError: 404, this workload has no such task.
        """
        path = f"/v1/tasks/{quote(task, safe='')}/finish{_waiting(wait)}"
        return self._call("task", "POST", path, {"outcome": outcome})

    def reviews(self, *, after: str | None = None) -> dict[str, Any]:
        """`GET /v1/reviews`: a hundred open ones, oldest first, those after that of the grant `after`."""
        query = f"?{urlencode({'after': after})}" if after else ""
        return self._call("reviews", "GET", f"/v1/reviews{query}")

    def review(self, id: str, note: str) -> dict[str, Any]:
        """`POST /v1/grants/{id}/review`: close the review of somebody else's break-glass grant."""
        return self._call("review", "POST", f"/v1/grants/{id}/review", {"note": note})

    def keys(self) -> dict[str, Any]:
        """`GET /.well-known/jwks.json`: the public keys that sign receipts, among others."""
        return self._call("keys", "GET", "/.well-known/jwks.json")

    def entitlements(self) -> dict[str, Any]:
        """`GET /v1/entitlements`: those the caller is eligible for."""
        return self._call("entitlements", "GET", "/v1/entitlements")

    def freeze(self, asked: Mapping[str, str | None]) -> dict[str, Any]:
        """`POST /v1/freezes`: `selection`, `message`, `reason` and `expires_in`; as a responder."""
        body = {name: value for name, value in asked.items() if value is not None}
        return self._call("freeze", "POST", "/v1/freezes", body)

    def freezes(self, *, ended: bool = False) -> dict[str, Any]:
        """`GET /v1/freezes`: the newest thousand that refuse now, or with `ended` of all."""
        return self._call("freezes", "GET", f"/v1/freezes?limit=1000{'&ended=1' if ended else ''}")

    def thaw(self, id: str, *, reason: str) -> dict[str, Any]:
        """`POST /v1/freezes/{id}/thaw`. Where it freezes everything, it ends when another responder does the same."""
        return self._call("freeze", "POST", f"/v1/freezes/{id}/thaw", {"reason": reason})

    def unwrap(
        self,
        vault_addr: str,
        wrapping_token: Secret,
        *,
        namespace: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> dict[str, dict[str, Secret]]:
        """The credentials by scope, opened at Vault itself: `POST sys/wrapping/unwrap`.

        `tls` says whom to trust there and with which certificate to come; the system's trust without it.
        Works once. Raises: AnsweredError: already opened or run out: tell your incident responder.
        Source: OpenBao docs, api/system/wrapping-unwrap.
        """
        url = _address("Vault's", vault_addr) + "/v1/sys/wrapping/unwrap"
        headers = {"X-Vault-Token": wrapping_token.reveal()} | ({"X-Vault-Namespace": namespace} if namespace else {})
        with urllib3.PoolManager(retries=False, timeout=self._timeout, ssl_context=tls) as http:
            _, answer = _send(http, "POST", url, {}, headers)
        data = cast("dict[str, dict[str, str]]", answer.get("data") or {})
        return {scope: {name: Secret(value) for name, value in fields.items()} for scope, fields in data.items()}

    def _call(
        self,
        holds: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The answer, which has the key `holds`, or a problem of ours with its code."""
        token = self._token()
        bearer = {"Authorization": f"Bearer {_sendable(token)}"} if token else {}
        try:
            status, answer = _send(self._http, method, self._addr + path, body, {**bearer, **(headers or {})})
        except AnsweredError as error:
            if "code" in error.problem:
                raise
            status, answer = error.http_status, {}
        if holds not in answer:
            raise ForeignAnswerError(f"{self._addr} answered with HTTP status {status} and is no Shorthold")
        return answer


def _send(
    http: urllib3.PoolManager, method: str, url: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
) -> tuple[int, dict[str, Any]]:
    place = url.split("?", maxsplit=1)[0]
    try:
        answer = http.request(
            method,
            url,
            body=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **headers},
            redirect=False,  # a redirect would carry the token elsewhere
            preload_content=False,
        )
        raw = answer.read(_LARGEST_ANSWER)
        answer.release_conn()
    except urllib3.exceptions.HTTPError as error:
        raise UnreachableError(f"{place} {_why(error)}") from None
    except ValueError:  # it quotes the header, and that may be the token
        raise ConfigurationError("what is to be sent has characters that no HTTP header may have") from None
    try:
        told: object = json.loads(raw) if raw else {}
    except ValueError:
        told = {}
    parsed = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
    if not 200 <= answer.status < 300:  # noqa: PLR2004 # the class of success, RFC 9110 15.3
        raise AnsweredError(answer.status, parsed)
    return answer.status, parsed


def _waiting(wait: str | None) -> str:
    return f"?{urlencode({'wait': wait})}" if wait else ""


def _address(whose: str, addr: str) -> str:
    try:
        parts = urlsplit(addr)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound:
        raise ConfigurationError(f"{whose} address is written http://host:port or https://host")
    return addr.rstrip("/")


def _sendable(token: Secret) -> str:
    text = token.reveal().strip()
    if not _VISIBLE.fullmatch(text):
        raise ConfigurationError("the bearer token is empty, or has blanks or characters in it that no token has")
    return text


def _why(error: urllib3.exceptions.HTTPError) -> str:
    """What happened, in words; what the exception says itself may quote what was sent."""
    match error:
        case urllib3.exceptions.NameResolutionError():
            return "was not reached: there is no such host"
        case urllib3.exceptions.NewConnectionError():
            return "was not reached: nobody listens there"
        case urllib3.exceptions.TimeoutError():
            return "did not answer in time"
        case urllib3.exceptions.SSLError():
            return "was not reached: its certificate is not trusted, or it speaks no TLS"
        case _:
            return "broke the connection off"
