"""Ask PostgreSQL whether a database user is gone, through a login that sees user names and sessions only."""

import os
import socket
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg

from controlplane.model.errors import TargetUnavailableError
from controlplane.model.lease import Evidence, Target
from controlplane.model.orphan import Login
from controlplane.model.secret import Secret
from controlplane.ports import Clock

_TIMEOUT = 5
"""Seconds for connecting, for the one statement, and for waiting until somebody else's question is answered."""

_NEW_LOGIN = timedelta(minutes=1)
"""A login with which nobody gets in is replaced no sooner: each one is a user in the target for an hour."""

# A session whose role was dropped shows no name any more, only an oid. Nobody can say whose it was, so any such
# session counts; every revocation ends those it finds. Names and oids are shown to every login.
# Source: PostgreSQL docs, "The Cumulative Statistics System", pg_stat_activity.
_QUESTION = """
    SELECT (SELECT count(*) FROM pg_catalog.pg_roles WHERE rolname = %(principal)s),
           (SELECT count(*) FROM pg_catalog.pg_stat_activity
             WHERE usename = %(principal)s OR (usename IS NULL AND usesysid IS NOT NULL AND usesysid <> 0))
"""


# Members of group roles of ours, but for the management user, who may grant them on.
# Source: PostgreSQL docs, pg_auth_members; every login may read it.
_ROSTER = """
    SELECT member.rolname, grouped.rolname, nullif(member.rolvaliduntil, 'infinity'),
           (SELECT count(*) FROM pg_catalog.pg_stat_activity AS activity WHERE activity.usesysid = member.oid)
      FROM pg_catalog.pg_auth_members AS held
      JOIN pg_catalog.pg_roles AS grouped ON grouped.oid = held.roleid
      JOIN pg_catalog.pg_roles AS member ON member.oid = held.member
     WHERE grouped.rolname ~ %(groups)s AND NOT grouped.rolcanlogin AND NOT held.admin_option
       AND NOT member.rolcreaterole
     ORDER BY 1, 2
"""


_CHEAP = """
    SELECT rolname FROM pg_catalog.pg_roles
     WHERE rolcreaterole AND NOT rolsuper AND 'scram_iterations=1' = ANY (rolconfig)
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

    def __init__(
        self,
        addresses: Mapping[str, Address],
        login: Callable[[str], ProberLogin],
        clock: Clock,
        *,
        prefix: str = "sh",
    ) -> None:
        self._lines = {name: _Line(name, address, login, clock) for name, address in addresses.items()}
        self._groups = f"^{prefix}-[a-z][a-z0-9-]*-[0-9a-f]{{8}}-[a-z][a-z0-9-]*$"

    def ask(self, target: Target, principal: str, *, issued_at: datetime) -> Evidence:
        """Whether no role of that name exists and no session of it is open, anywhere in the server.

        Raises: TargetUnavailableError: not configured, no login, or no answer in time; never counts as gone.
        """
        del issued_at  # a user name is never used twice
        ((roles, sessions),) = self._line(target.name).ask(_QUESTION, {"principal": principal})
        return Evidence(
            gone=not roles and not sessions,
            detail=f"postgresql {target.name}: {roles or 'no'} role {principal}, {sessions or 'no'} open session",
        )

    def logins(self, target: str) -> Sequence[Login]:
        """Every member of a group role of ours, in the whole server that `target` is a database of.

        Raises: TargetUnavailableError: not configured, no login, or no answer in time.
        """
        return [
            Login(name=name, group=group, valid_until=_instant(until), sessions=sessions)
            for name, group, until, sessions in self._line(target).ask(_ROSTER, {"groups": self._groups})
        ]

    def hashes_cheaply(self, target: str) -> bool:
        """Whether somebody who may create logins there has `scram_iterations = 1` (docs/adr/0008)."""
        return bool(self._line(target).ask(_CHEAP, {}))

    def _line(self, target: str) -> "_Line":
        line = self._lines.get(target)
        if line is None:
            raise TargetUnavailableError(f"no target called {target} is configured, so nobody can ask it")
        return line

    def close(self) -> None:
        """Close every connection."""
        for line in self._lines.values():
            line.close()


class _Line:
    """The way to one target: its login as long as it is good, its connection as long as it holds."""

    def __init__(self, name: str, address: Address, login: Callable[[str], ProberLogin], clock: Clock) -> None:
        self._name, self._address, self._new_login, self._clock = name, address, login, clock
        self._lock = threading.Lock()
        self._connection: psycopg.Connection | None = None
        self._login: ProberLogin | None = None
        self._login_at: datetime | None = None
        self._worked = False

    def ask(self, question: LiteralString, values: Mapping[str, str]) -> Sequence[tuple[Any, ...]]:
        with self._alone():
            kept = self._connection is not None
            try:
                return self._ask(question, values)
            except psycopg.Error as error:
                self._drop()
                if not kept:
                    raise self._unavailable(error) from None
            try:  # the kept connection had died: ask once more on a new one
                return self._ask(question, values)
            except psycopg.Error as error:
                self._drop()
                raise self._unavailable(error) from None

    def close(self) -> None:
        with self._alone():
            self._drop()

    @contextmanager
    def _alone(self) -> Generator[None]:
        # Whoever holds the line is done within two connects and two statements; waiting longer would only add
        # threads to a target that does not answer.
        if not self._lock.acquire(timeout=_TIMEOUT):
            raise TargetUnavailableError(f"postgresql {self._name} is slow: others are still asking it")
        try:
            yield
        finally:
            self._lock.release()

    def _ask(self, question: LiteralString, values: Mapping[str, str]) -> Sequence[tuple[Any, ...]]:
        connection = self._connected()
        with _cut_after(connection, _TIMEOUT):
            return connection.execute(question, values).fetchall()

    def _connected(self) -> psycopg.Connection:
        now = self._clock.now()
        if self._login is None or now >= self._login.renew_at:
            self._drop()
            self._login, self._login_at, self._worked = self._new_login(self._name), now, False
        if self._connection is None:
            try:
                self._connection = self._connect(self._login)
            except psycopg.Error:
                # It may be that this user is gone: next time with a new one. One that worked is replaced at once: it
                # went with the broker's token, or somebody removed it, and what it was to prove waits for it.
                if self._worked or (self._login_at is not None and now >= self._login_at + _NEW_LOGIN):
                    self._login = None
                raise
            self._worked = True
        return self._connection

    def _connect(self, login: ProberLogin) -> psycopg.Connection:
        return psycopg.connect(
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

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _unavailable(self, error: psycopg.Error) -> TargetUnavailableError:
        # libpq's own words may quote the connection string; the class says enough.
        return TargetUnavailableError(f"postgresql {self._name} did not answer ({type(error).__name__})")


def _instant(until: datetime | None) -> datetime | None:
    return None if until is None else until.astimezone(UTC)


@contextmanager
def _cut_after(connection: psycopg.Connection, seconds: float) -> Generator[None]:
    """Cut the line when the answer takes too long: a server that hangs keeps no statement_timeout of its own."""
    line = socket.socket(fileno=os.dup(connection.fileno()))
    timer = threading.Timer(seconds, line.shutdown, (socket.SHUT_RDWR,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        line.close()
