"""A client of the HTTP API: every call of it, over a pool of connections; and unwrapping at Vault itself."""

import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self
from urllib.parse import quote, urlencode

import urllib3

from controlplane.model.errors import ConfigurationError
from controlplane.model.secret import Secret
from controlplane.sdk import calls
from controlplane.sdk.calls import Call
from controlplane.sdk.refusals import AnsweredError, ForeignAnswerError, UnreachableError

__all__ = ["AnsweredError", "ForeignAnswerError", "Shorthold", "UnreachableError", "send"]


class Shorthold:
    """A client of one control plane; `token` is asked for anew at every call. Safe for threads.

    Raises: ConfigurationError: `addr` is no http or https address.
    Every call raises UnreachableError: nobody answered; ForeignAnswerError: somebody else did; ConfigurationError:
    the token cannot be sent.
    """

    def __init__(self, addr: str, token: Callable[[], Secret | None], *, timeout: float = 30.0) -> None:
        self._addr = calls.address("the control plane's", addr)
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
        return self._hear(calls.request(asked, key=key))

    def explain(self, asked: Mapping[str, object]) -> dict[str, Any]:
        """`POST /v1/grants?dry_run=1`: what would be decided, with every reason; nothing is made."""
        return self._hear(calls.explain(asked))

    def show(self, id: str, *, wait: str | None = None) -> dict[str, Any]:
        """`GET /v1/grants/{id}`; with `wait` (`30s`) the answer comes once nobody else has to do anything first."""
        return self._hear(calls.show(id, wait=wait))

    def collect(self, id: str) -> dict[str, Any]:
        """`POST /v1/grants/{id}/collect`: what an approved grant gives, once.

        Raises: AnsweredError: 409 not-approved-yet or lapsed, 403 denied; UnreachableError: it may have been made.
        """
        return self._hear(calls.collect(id))

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
        return self._hear(calls.grants())

    def finish(self, id: str, *, outcome: str = "completed", wait: str | None = None) -> dict[str, Any]:
        """`POST /v1/grants/{id}/finish`; with `wait` (`10s`) it waits for the receipt. Repeating it is fine."""
        return self._hear(calls.finish(id, outcome=outcome, wait=wait))

    def renew(self, id: str, *, ttl: str | None = None) -> dict[str, Any]:
        """`POST /v1/grants/{id}/renew`: a later end, `ttl` (`5m`) from now. Repeating it is fine.

        Raises: AnsweredError: 403 context-changed: it has ended; 409 ended: it had before; else its end is as it was.
        """
        return self._hear(calls.renew(id, ttl=ttl))

    def heartbeat(self, id: str) -> dict[str, Any]:
        """`POST /v1/grants/{id}/heartbeat`: the task goes on; the answer has `expires_at` and `heartbeat_due_at`.

        Raises: AnsweredError: 403 context-changed: it has ended; 409 ended: it had before, or this beat is too late.
        """
        return self._hear(calls.heartbeat(id))

    def task(self, task: str) -> dict[str, Any]:
        """`GET /v1/tasks/{task}`: the task, its parts and its newest hundred grants."""
        return self._call("task", "GET", f"/v1/tasks/{quote(task, safe='')}")

    def finish_task(self, task: str, *, outcome: str = "completed", wait: str | None = None) -> dict[str, Any]:
        """`POST /v1/tasks/{task}/finish`: ends every grant of the task and of its parts. Repeating it is fine.

        With `wait` (`10s`) it waits for their receipts. Raises: AnsweredError: 404, this workload has no such task.
        """
        return self._hear(calls.finish_task(task, outcome=outcome, wait=wait))

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

    def find(self, needs: Sequence[str], *, intent: str | None = None) -> dict[str, Any]:
        """`POST /v1/needs`: the least that the caller can ask for and have what it needs."""
        return self._hear(calls.find(needs, intent=intent))

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

    def preview_cut(self, selection: str, *, harden: bool = False) -> dict[str, Any]:
        """`POST /v1/incidents/preview`: what a cut of it would end; nothing is changed.

        With `harden` also whose open sessions may outlive it, as `soft`.
        """
        body = {"selection": selection} | ({"harden": True} if harden else {})
        return self._call("digest", "POST", "/v1/incidents/preview", body)

    def cut(self, asked: Mapping[str, str | None], *, freeze: bool = True, everything: bool = False) -> dict[str, Any]:
        """`POST /v1/incidents/cut`: `digest`, `incident`, `reason` and `message`. Repeating it is fine."""
        body = {name: value for name, value in asked.items() if value is not None}
        return self._call("cut", "POST", "/v1/incidents/cut", {**body, "freeze": freeze, "all": everything})

    def show_cut(self, id: str) -> dict[str, Any]:
        """`GET /v1/incidents/{id}`: how far a cut has come, and what is left of it."""
        return self._call("cut", "GET", f"/v1/incidents/{quote(id, safe='')}")

    def cuts(self, *, running: bool = False) -> dict[str, Any]:
        """`GET /v1/incidents`: the newest hundred cuts, or those that run."""
        return self._call("cuts", "GET", f"/v1/incidents{'?running=1' if running else ''}")

    def report(self, incident: str) -> dict[str, Any]:
        """`POST /v1/incidents/report`: the signed report of an incident; `bundle` is the file."""
        body = {"incident": incident}
        path = "/v1/incidents/report"
        call = Call(method="POST", path=path, holds="bundle", body=body, largest=calls.LARGEST_REPORT)
        return self._hear(call)

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
        place = calls.address("Vault's", vault_addr)
        call = calls.unwrap(wrapping_token)
        with urllib3.PoolManager(retries=False, timeout=self._timeout, ssl_context=tls) as http:
            return calls.fields_of(send(http, place, call, calls.headers_of(call, None, namespace)))

    def _call(self, holds: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._hear(Call(method=method, path=path, holds=holds, body=body))

    def _hear(self, call: Call) -> dict[str, Any]:
        return send(self._http, self._addr, call, calls.headers_of(call, self._token(), None))


def send(http: urllib3.PoolManager, place: str, call: Call, headers: Mapping[str, str]) -> dict[str, Any]:
    """Make one call at `place`. Raises: UnreachableError, and what `calls.heard` raises."""
    try:
        answer = http.request(
            call.method,
            place + call.path,
            body=calls.content(call) or None,
            headers=headers,
            redirect=False,  # a redirect would carry the token elsewhere
            preload_content=False,
        )
        raw = answer.read(call.largest)
        answer.release_conn()
    except urllib3.exceptions.HTTPError as error:
        raise UnreachableError(f"{place}{call.path.partition('?')[0]} {_why(error)}") from None
    except ValueError:  # it quotes the header, and that may be the token
        raise ConfigurationError("what is to be sent has characters that no HTTP header may have") from None
    return calls.heard(call, place, answer.status, raw)


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
