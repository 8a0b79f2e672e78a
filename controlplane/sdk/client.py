"""The agent's side of the HTTP API: ask, look, finish, and unwrap at Vault itself."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Self, cast

import urllib3

from controlplane.model.errors import ControlPlaneError
from controlplane.model.secret import Secret

_LARGEST_ANSWER = 4 * 1024 * 1024


class UnreachableError(ControlPlaneError):
    """Nobody answered. If a grant was being asked for, it may exist: ask again with the same idempotency key."""

    code, exit_status = "unreachable", 2
    hint = "Is the control plane running? `shorthold dev status` tells; SHORTHOLD_ADDR says where it is looked for."


class AnsweredError(ControlPlaneError):
    """The other side said no; `problem` is its RFC 9457 body."""

    code, exit_status = "answered", 2

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or f"HTTP status {status}"))
        self.http_status = status
        self.problem = problem

    @property
    def told_code(self) -> str:
        """The stable code the other side gave."""
        return str(self.problem.get("code") or "unknown")

    @property
    def told_exit_status(self) -> int:
        """3 where a decision or the token was refused, else 2."""
        return 3 if self.http_status in {401, 403, 423, 429} else 2


class Shorthold:
    """A client of one control plane; `token` is asked for anew at every call. Safe for threads."""

    def __init__(self, addr: str, token: Callable[[], Secret | None], *, timeout: float = 30.0) -> None:
        self._addr = addr.rstrip("/")
        self._token = token
        self._http = urllib3.PoolManager(maxsize=16, retries=False, timeout=urllib3.Timeout(connect=5, read=timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.clear()

    def request(self, asked: Mapping[str, str | None], *, key: str | None = None) -> dict[str, Any]:
        """`POST /v1/grants`: the answer of 201 or 202 as it came.

        Raises: AnsweredError: refused, with reasons; UnreachableError: unknown, ask again with the same `key`.
        """
        headers = {"Idempotency-Key": key} if key else {}
        body = {name: value for name, value in asked.items() if value is not None}
        return self._call("POST", "/v1/grants", body, headers)

    def explain(self, asked: Mapping[str, str | None]) -> dict[str, Any]:
        """`POST /v1/grants?dry_run=1`: what would be decided, with every reason; nothing is made."""
        body = {name: value for name, value in asked.items() if value is not None}
        return self._call("POST", "/v1/grants?dry_run=1", body)

    def show(self, id: str) -> dict[str, Any]:
        """`GET /v1/grants/{id}`."""
        return self._call("GET", f"/v1/grants/{id}")

    def list(self) -> dict[str, Any]:
        """`GET /v1/grants`: the newest hundred of the caller's own."""
        return self._call("GET", "/v1/grants")

    def finish(self, id: str, *, outcome: str = "completed", wait: str | None = None) -> dict[str, Any]:
        """`POST /v1/grants/{id}/finish`; with `wait` (`10s`) it waits for the receipt. Repeating it is fine."""
        query = f"?wait={wait}" if wait else ""
        return self._call("POST", f"/v1/grants/{id}/finish{query}", {"outcome": outcome})

    def entitlements(self) -> dict[str, Any]:
        """`GET /v1/entitlements`: those the caller is eligible for."""
        return self._call("GET", "/v1/entitlements")

    def unwrap(self, vault_addr: str, wrapping_token: Secret) -> dict[str, dict[str, Secret]]:
        """The credentials by scope, opened at Vault itself: `POST sys/wrapping/unwrap`.

        Works once. Raises: AnsweredError: already opened or run out: tell your incident responder.
        Source: OpenBao docs, api/system/wrapping-unwrap.
        """
        answer = self._send(
            "POST", f"{vault_addr.rstrip('/')}/v1/sys/wrapping/unwrap", {}, {"X-Vault-Token": wrapping_token.reveal()}
        )
        data = cast("dict[str, dict[str, str]]", answer.get("data") or {})
        return {scope: {name: Secret(value) for name, value in fields.items()} for scope, fields in data.items()}

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        token = self._token()
        bearer = {"Authorization": f"Bearer {token.reveal()}"} if token else {}
        return self._send(method, self._addr + path, body, {**bearer, **(headers or {})})

    def _send(
        self, method: str, url: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> dict[str, Any]:
        try:
            answer = self._http.request(
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
            raise UnreachableError(f"{url.split('?', maxsplit=1)[0]} did not answer ({type(error).__name__})") from None
        try:
            told: object = json.loads(raw) if raw else {}
        except ValueError:
            told = {}
        parsed = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
        if not 200 <= answer.status < 300:  # noqa: PLR2004 # the class of success, RFC 9110 15.3
            raise AnsweredError(answer.status, parsed)
        return parsed
