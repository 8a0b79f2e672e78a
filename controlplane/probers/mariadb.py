"""Ask MariaDB whether an account is gone, through a login that may call two procedures and nothing else."""

import re
import ssl
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import pymysql
from pymysql.connections import Connection
from pymysql.cursors import Cursor

from controlplane.engines.dialects.mariadb import PLACE, MariadbOptions
from controlplane.model.errors import TargetUnavailableError
from controlplane.model.lease import Evidence, Target
from controlplane.model.orphan import Login
from controlplane.ports import Clock
from controlplane.probers.lines.line import TIMEOUT, Line, NewLogin, ProberLogin

_PRESENT: Final = f"CALL {PLACE}.present(%s)"
_ROSTER: Final = f"CALL {PLACE}.roster()"
_CLOCKS: Final = "SELECT @@global.event_scheduler"

Rows = Sequence[tuple[Any, ...]]
Answer = TypeVar("Answer")


class MariadbProber:
    """Fits `TargetProber`. One connection per target, opened when first asked and kept; safe for threads."""

    kind = "mariadb"

    def __init__(self, targets: Mapping[str, MariadbOptions], login: NewLogin, clock: Clock, *, prefix: str) -> None:
        self._lines = {
            name: Line(f"mariadb {name}", name, _Driver(target), login, clock) for name, target in targets.items()
        }
        self._groups = re.compile(rf"{prefix}-[a-z][a-z0-9-]*-[0-9a-f]{{8}}-[a-z][a-z0-9-]*", re.ASCII)

    def ask(self, target: Target, principal: str, *, issued_at: datetime) -> Evidence:
        """Whether no account of that name exists and no session of it is open, anywhere in the server.

        Raises: TargetUnavailableError: not configured, no login, or no answer in time; never counts as gone.
        """
        del issued_at  # a user name is never used twice
        accounts, sessions = self._ask(target.name, _PRESENT, principal, read=_counts)
        return Evidence(
            gone=not accounts and not sessions,
            detail=f"mariadb {target.name}: {accounts or 'no'} account {principal}, {sessions or 'no'} open session",
        )

    def logins(self, target: str) -> Sequence[Login]:
        """Every account with a clock of ours, in the whole server.

        Raises: TargetUnavailableError: not configured, no login, or no answer in time.
        """
        known = self._ask(target, _ROSTER, read=lambda rows: [_login(*row) for row in rows])
        return [login for login in known if self._groups.fullmatch(login.group)]

    def advice(self, target: str) -> Sequence[tuple[str, str]]:
        """Whether clocks run there. Raises: TargetUnavailableError: no answer."""
        if self._ask(target, _CLOCKS, read=lambda rows: [tuple(row) for row in rows] == [("ON",)]):
            return []
        return [("its event scheduler is off, so no login can be made", "Set event_scheduler = ON, for good.")]

    def close(self) -> None:
        """Close every connection."""
        for line in self._lines.values():
            line.close()

    def _ask(self, target: str, question: str, *values: str, read: Callable[[Rows], Answer]) -> Answer:
        line = self._lines.get(target)
        if line is None:
            raise TargetUnavailableError(f"no target called {target} is configured, so nobody can ask it")

        def asked(connection: "Connection[Cursor]") -> Answer:
            with connection.cursor() as cursor:
                cursor.execute(question, values)
                return read(cursor.fetchall())

        return line.ask(asked)


def prober(targets: Mapping[str, MariadbOptions], login: NewLogin, clock: Clock, prefix: str) -> MariadbProber:
    """One that can ask these targets."""
    return MariadbProber(targets, login, clock, prefix=prefix)


class _Driver:
    # What a server sends that speaks another protocol, or a damaged one, comes out as one of the latter.
    errors = (pymysql.MySQLError, OSError, ValueError, TypeError, LookupError, struct.error)

    def __init__(self, target: MariadbOptions) -> None:
        self._target = target

    def connect(self, login: ProberLogin) -> "Connection[Cursor]":
        verified = self._target.tls == "verify"
        return pymysql.connect(
            host=self._target.host,
            port=self._target.port,
            user=login.username,
            password=login.password.reveal(),
            connect_timeout=TIMEOUT,
            read_timeout=TIMEOUT,
            write_timeout=TIMEOUT,
            ssl=ssl.create_default_context(cafile=self._target.cacert) if verified else None,
            ssl_disabled=not verified,
            autocommit=True,
        )

    def close(self, connection: "Connection[Cursor]") -> None:
        with suppress(*self.errors):
            connection.close()


def _counts(rows: Rows) -> tuple[int, int]:
    ((accounts, sessions),) = rows
    return int(accounts), int(sessions)


def _login(name: str, group: str, ends: datetime, sessions: int) -> Login:
    return Login(name=name, group=group, valid_until=ends.replace(tzinfo=UTC), sessions=int(sessions))
