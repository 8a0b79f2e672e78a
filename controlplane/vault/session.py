"""How one of our identities stays logged in to Vault: with short JWTs of its own key, and no stored token."""

import threading
import time
from dataclasses import dataclass
from typing import Any, Final

from hvac.api.auth_methods import JWT

from controlplane.model.canonical import JsonValue
from controlplane.model.errors import ControlPlaneError, VaultRefusedError, VaultUnavailableError
from controlplane.model.secret import Secret
from controlplane.ports import Clock, Ids, Signer
from controlplane.vault.client import part
from controlplane.vault.transport import Answer, Server, Transport, VaultAdapter

ASSERTION_TTL: Final = 15
SKEW: Final = 5
"""Seconds: an assertion lives that long in all, and begins that much earlier, for our clock may be ahead of Vault's."""

YOUNG: Final = 10.0
"""Seconds; a token that young was not refused for its age but for want of a policy: another login would not help."""


class JwtSession:
    """A token source: logs in at `auth/<mount>/login` when asked first, and again at two thirds of the token's TTL.

    Thread-safe; many callers at once cause one login, and share its failure. The token lives in memory only.
    Calling it raises VaultRefusedError (the mount, role or key is not as `vault bootstrap` leaves them) or
    VaultUnavailableError.
    """

    def __init__(self, server: Server, mount: str, role: str, signer: Signer, *, clock: Clock, ids: Ids) -> None:
        self._transport = Transport(server)
        self._jwt: Any = JWT(adapter=VaultAdapter(self._transport, None))
        self._mount = mount
        self._role = role
        self._signer = signer
        self._clock = clock
        self._ids = ids
        self._lock = threading.Lock()
        self._current: _Current | None = None
        self._failure: tuple[float, ControlPlaneError] | None = None

    def __call__(self) -> Secret:
        """The token to use now."""
        token = self._fresh()
        if token is not None:
            return token
        asked = time.monotonic()
        with self._lock:
            token = self._fresh()
            if token is not None:
                return token
            if self._failure is not None and self._failure[0] > asked:
                raise _again(self._failure[1])  # it failed while we queued: no second try
            try:
                return self._login()
            except ControlPlaneError as error:
                self._failure = time.monotonic(), error
                raise

    def invalidate(self, stale: Secret) -> None:
        """Vault refused `stale`: never give it again, unless it is quite new. A newer token stays."""
        with self._lock:
            current = self._current
            if current is not None and current.token == stale and time.monotonic() - current.since >= YOUNG:
                self._current = None

    def close(self) -> None:
        """Close the idle connections. The token is left to run out: revoking it would need more power."""
        self._transport.close()

    def _fresh(self) -> Secret | None:
        current = self._current  # read once: another thread may replace it
        return current.token if current is not None and time.monotonic() < current.fresh_until else None

    def _login(self) -> Secret:
        now = int(self._clock.now().timestamp())
        begins, ends = now - SKEW, now + ASSERTION_TTL - SKEW
        assertion = self._signer.sign(
            {
                "aud": self._mount,
                "sub": self._role,
                "jti": self._ids.new("jt"),
                "iat": begins,
                "nbf": begins,
                "exp": ends,
            }
        )
        answer: Answer | None = self._jwt.jwt_login(self._role, assertion.reveal(), use_token=False, path=self._mount)
        token, ttl = _issued(part(answer, "auth"))
        since = time.monotonic()
        self._current = _Current(token=token, since=since, fresh_until=since + ttl * 2 / 3)
        return token


@dataclass(frozen=True, slots=True, kw_only=True)
class _Current:
    token: Secret
    since: float
    fresh_until: float


def _again(error: ControlPlaneError) -> ControlPlaneError:
    kind = VaultRefusedError if isinstance(error, VaultRefusedError) else VaultUnavailableError
    return kind(error.detail)


def _issued(auth: dict[str, JsonValue]) -> tuple[Secret, int]:
    match auth:
        case {"client_token": str(token), "lease_duration": int(ttl)} if token:
            return Secret(token), ttl
        case _:
            raise VaultUnavailableError("Vault's answer to a login holds no token")
