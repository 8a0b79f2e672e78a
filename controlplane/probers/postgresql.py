"""Ask PostgreSQL whether a database user is gone, through a login that sees user names and sessions only."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg

from controlplane.model.errors import TargetUnavailableError
from controlplane.model.lease import Evidence, Target
from controlplane.model.secret import Secret
from controlplane.ports import Clock

_TIMEOUT = 5  # seconds, for connecting and for the one statement
_CLOCK_SKEW = timedelta(seconds=5)

# A session whose role was dropped shows no name any more, only an oid: one that began after the credential was
# issued may be its session, so it counts. Source: PostgreSQL docs, "The Cumulative Statistics System".
_QUESTION = """
    SELECT (SELECT count(*) FROM pg_catalog.pg_roles WHERE rolname = %(principal)s),
           (SELECT count(*) FROM pg_catalog.pg_stat_activity
             WHERE usename = %(principal)s
                OR (usename IS NULL AND usesysid IS NOT NULL AND backend_start >= %(since)s))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProberLogin:
    """The prober's own credential, issued by Vault; to be renewed at `renew_at`."""

    username: str
    password: Secret
    renew_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a target listens."""

    host: str
    port: int
    database: str
    sslmode: str


class PostgresqlProber:
    """Fits `ports.Prober`. One connection per target, opened when first asked and kept; safe for threads."""

    def __init__(self, addresses: Mapping[str, Address], login: Callable[[str], ProberLogin], clock: Clock) -> None:
        self._lines = {name: _Line(name, address, login, clock) for name, address in addresses.items()}

    def ask(self, target: Target, principal: str, *, issued_at: datetime) -> Evidence:
        """Whether no role of that name exists and no session of it is open, anywhere in the server.

        Raises: TargetUnavailableError: not configured, no login, or no answer; never counts as gone.
        """
        line = self._lines.get(target.name)
        if line is None:
            raise TargetUnavailableError(f"no target called {target.name} is configured, so nobody can ask it")
        roles, sessions = line.ask(principal, issued_at - _CLOCK_SKEW)
        return Evidence(
            gone=not roles and not sessions,
            detail=f"postgresql {target.name}: {roles or 'no'} role {principal}, {sessions or 'no'} open session",
        )

    def close(self) -> None:
        """Close every connection."""
        for line in self._lines.values():
            line.close()


class _Line:
    def __init__(self, name: str, address: Address, login: Callable[[str], ProberLogin], clock: Clock) -> None:
        self._name, self._address, self._login, self._clock = name, address, login, clock
        self._lock = threading.Lock()
        self._connection: psycopg.Connection | None = None
        self._renew_at: datetime | None = None

    def ask(self, principal: str, since: datetime) -> tuple[int, int]:
        with self._lock:
            kept = self._connection is not None
            try:
                return self._ask(principal, since)
            except psycopg.Error as error:
                self._drop()
                if not kept:
                    raise self._unavailable(error) from None
            try:  # the kept connection had died: ask once more on a new one
                return self._ask(principal, since)
            except psycopg.Error as error:
                self._drop()
                raise self._unavailable(error) from None

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _ask(self, principal: str, since: datetime) -> tuple[int, int]:
        connection = self._connected()
        row = connection.execute(_QUESTION, {"principal": principal, "since": since}).fetchone()
        if row is None:
            raise psycopg.DataError("no row")
        return int(row[0]), int(row[1])

    def _connected(self) -> psycopg.Connection:
        if self._connection is not None and self._renew_at is not None and self._clock.now() < self._renew_at:
            return self._connection
        self._drop()
        login = self._login(self._name)
        self._connection = psycopg.connect(
            host=self._address.host,
            port=self._address.port,
            dbname=self._address.database,
            sslmode=self._address.sslmode,
            user=login.username,
            password=login.password.reveal(),
            connect_timeout=_TIMEOUT,
            options=f"-c statement_timeout={_TIMEOUT}s -c application_name=shorthold-prober",
            autocommit=True,
        )
        self._renew_at = login.renew_at
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _unavailable(self, error: psycopg.Error) -> TargetUnavailableError:
        # libpq's own words may quote the connection string; the class says enough.
        return TargetUnavailableError(f"postgresql {self._name} did not answer ({type(error).__name__})")
