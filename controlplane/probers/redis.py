"""Ask Redis or Valkey whether a user is gone, through a login that names users and lists connections."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, TypeVar, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from controlplane.engines.dialects.redis import RedisOptions
from controlplane.model.errors import TargetUnavailableError
from controlplane.model.lease import Evidence, Target
from controlplane.model.orphan import Login
from controlplane.ports import Clock
from controlplane.probers.lines.line import TIMEOUT, Line, NewLogin, ProberLogin

Answer = TypeVar("Answer")

# The plugin calls a user by its role in capitals, cut at 64 characters: V_<token>_<role>_<random>_<time>.
_ROLE: Final = r"_(?P<role>{prefix}-[A-Z][A-Z0-9-]*)_[A-Z0-9]{{20}}_[0-9]+"


class RedisProber:
    """Fits `TargetProber`. One connection per target, opened when first asked and kept; safe for threads."""

    kind = "redis"

    def __init__(self, targets: Mapping[str, RedisOptions], login: NewLogin, clock: Clock, *, prefix: str) -> None:
        self._lines = {
            name: Line(f"redis {name}", name, _Driver(target), login, clock) for name, target in targets.items()
        }
        self._role = re.compile(".*" + _ROLE.format(prefix=prefix.upper()), re.ASCII)
        self._prober = f"{prefix}-prober-"

    def ask(self, target: Target, principal: str, *, issued_at: datetime) -> Evidence:
        """Whether no user of that name exists and no connection is authenticated as it.

        Raises: TargetUnavailableError: not configured, no login, or no answer in time; never counts as gone.
        """
        del issued_at  # a user name is never used twice
        users, open_by = self._ask(target.name, lambda client: (_users(client), _open_by(client)))
        there, sessions = users.count(principal), open_by.count(principal)
        return Evidence(
            gone=not there and not sessions,
            detail=f"redis {target.name}: {there or 'no'} user {principal}, {sessions or 'no'} open connection",
        )

    def logins(self, target: str) -> Sequence[Login]:
        """Every user that Vault made from a role of ours. None has an end of its own: Redis keeps no clock.

        Raises: TargetUnavailableError: not configured, no login, or no answer in time.
        """
        users, open_by = self._ask(target, lambda client: (_users(client), _open_by(client)))
        return [
            Login(name=name, group=group, valid_until=None, sessions=open_by.count(name))
            for name in users
            if (found := self._role.fullmatch(name)) is not None
            and not (group := found["role"].lower()).startswith(self._prober)
        ]

    def advice(self, target: str) -> Sequence[tuple[str, str]]:
        """None: what could be better there, a prober may not see."""
        del target
        return []

    def close(self) -> None:
        """Close every connection."""
        for line in self._lines.values():
            line.close()

    def _ask(self, target: str, question: Callable[["redis.Redis"], Answer]) -> Answer:
        line = self._lines.get(target)
        if line is None:
            raise TargetUnavailableError(f"no target called {target} is configured, so nobody can ask it")
        return line.ask(question)


def prober(targets: Mapping[str, RedisOptions], login: NewLogin, clock: Clock, prefix: str) -> RedisProber:
    """One that can ask these targets."""
    return RedisProber(targets, login, clock, prefix=prefix)


class _Driver:
    # What a server sends that speaks another protocol comes out as one of the latter.
    errors = (redis.RedisError, OSError, ValueError, TypeError, LookupError)

    def __init__(self, target: RedisOptions) -> None:
        self._target = target

    def connect(self, login: ProberLogin) -> "redis.Redis":
        verified = self._target.tls == "verify"
        client = redis.Redis(
            host=self._target.host,
            port=self._target.port,
            username=login.username,
            password=login.password.reveal(),
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            ssl=verified,
            ssl_ca_certs=str(self._target.cacert) if verified and self._target.cacert is not None else None,
            ssl_check_hostname=verified,
            single_connection_client=True,
            decode_responses=True,
            # One question is tried once here, and nothing is said that the login may not say.
            retry=Retry(NoBackoff(), retries=0),
            protocol=2,
            driver_info=None,
        )
        try:
            cast("Any", client).ping()
        except self.errors:
            self.close(client)
            raise
        return client

    def close(self, connection: "redis.Redis") -> None:
        with suppress(*self.errors):
            connection.close()


def _users(client: "redis.Redis") -> list[str]:
    return [str(name) for name in cast("Iterable[Any]", cast("Any", client).acl_users())]


def _open_by(client: "redis.Redis") -> list[str]:
    """Of each open connection, who it is authenticated as."""
    return [str(each["user"]) for each in cast("Iterable[dict[str, Any]]", cast("Any", client).client_list())]
