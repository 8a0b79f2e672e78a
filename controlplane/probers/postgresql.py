"""Ask PostgreSQL whether a database user is gone, through a login that sees user names and sessions only."""

import os
import socket
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, LiteralString

import psycopg

from controlplane.engines.dialects.postgresql import PostgresqlOptions
from controlplane.model.errors import TargetUnavailableError
from controlplane.model.lease import Evidence, Target
from controlplane.model.orphan import Login
from controlplane.ports import Clock
from controlplane.probers.lines.line import TIMEOUT, Line, NewLogin, ProberLogin

# A session whose role was dropped shows no name any more, only an oid. Nobody can say whose it was, so any such
# session counts; every revocation ends those it finds. Names and oids are shown to every login.
# Source: PostgreSQL docs, "The Cumulative Statistics System", pg_stat_activity.
_QUESTION = """
    SELECT (SELECT count(*) FROM pg_catalog.pg_roles WHERE rolname = %(principal)s),
           (SELECT count(*) FROM pg_catalog.pg_stat_activity
             WHERE usename = %(principal)s OR (usename IS NULL AND usesysid IS NOT NULL AND usesysid <> 0))
"""


# Members of group roles of ours, but for the management user, who may grant them on. Sessions are
# counted once for all logins, and not anew for each of thousands.
# Source: PostgreSQL docs, pg_auth_members; every login may read it.
_ROSTER = """
    SELECT member.rolname, grouped.rolname, nullif(member.rolvaliduntil, 'infinity'),
           coalesce(open.sessions, 0)
      FROM pg_catalog.pg_auth_members AS held
      JOIN pg_catalog.pg_roles AS grouped ON grouped.oid = held.roleid
      JOIN pg_catalog.pg_roles AS member ON member.oid = held.member
      LEFT JOIN (SELECT usesysid, count(*) AS sessions FROM pg_catalog.pg_stat_activity GROUP BY usesysid) AS open
             ON open.usesysid = member.oid
     WHERE grouped.rolname ~ %(groups)s AND NOT grouped.rolcanlogin AND NOT held.admin_option
       AND NOT member.rolcreaterole
     ORDER BY 1, 2
"""


# Whoever is named as Vault names what it makes for roles of ours, in a group or not; but for our own probers.
_NAMED = """
    SELECT member.rolname, nullif(member.rolvaliduntil, 'infinity'),
           coalesce(open.sessions, 0)
      FROM pg_catalog.pg_roles AS member
      LEFT JOIN (SELECT usesysid, count(*) AS sessions FROM pg_catalog.pg_stat_activity GROUP BY usesysid) AS open
             ON open.usesysid = member.oid
     WHERE member.rolcanlogin AND member.rolname ~ %(named)s AND member.rolname !~ %(probers)s
     ORDER BY 1
"""


_CHEAP = """
    SELECT rolname FROM pg_catalog.pg_roles
     WHERE rolcreaterole AND NOT rolsuper AND 'scram_iterations=1' = ANY (rolconfig)
"""


# Issuing needs CREATEROLE and pg_signal_backend, and what it grants on. A superuser is a member of everything.
# Source: PostgreSQL docs, "Predefined Roles", pg_has_role; every login may ask it.
_POWER = """
    SELECT mine.rolsuper, mine.rolcreatedb, mine.rolreplication, mine.rolbypassrls,
           ARRAY(SELECT other.rolname::text FROM pg_catalog.pg_roles AS other
                  WHERE NOT mine.rolsuper AND other.oid <> mine.oid
                    AND pg_catalog.pg_has_role(mine.oid, other.oid, 'MEMBER')
                    AND (other.rolsuper OR other.rolreplication OR other.rolbypassrls OR other.rolname IN
                         ('pg_read_all_data', 'pg_write_all_data', 'pg_read_server_files', 'pg_write_server_files',
                          'pg_execute_server_program', 'pg_create_subscription'))
                  ORDER BY 1)
      FROM pg_catalog.pg_roles AS mine WHERE mine.rolname = %(user)s
"""


# All that our group roles have been given in this database, each in one spelling; what is no table, sequence or schema
# only by its description. Source: PostgreSQL docs, aclexplode, pg_shdepend ("a": somebody has a right on it).
_GIVEN = """
    WITH ours AS (SELECT oid, rolname FROM pg_catalog.pg_roles WHERE rolname ~ %(groups)s AND NOT rolcanlogin),
    given AS (
      SELECT acl.grantee, acl.is_grantable, lower(acl.privilege_type) || ' on '
             || CASE thing.relkind WHEN 'S' THEN 'sequence ' ELSE 'table ' END
             || space.nspname || '.' || thing.relname AS told
        FROM pg_catalog.pg_class AS thing
        JOIN pg_catalog.pg_namespace AS space ON space.oid = thing.relnamespace,
             pg_catalog.aclexplode(thing.relacl) AS acl
      UNION ALL
      SELECT acl.grantee, acl.is_grantable, lower(acl.privilege_type) || ' (' || part.attname || ') on table '
             || space.nspname || '.' || thing.relname
        FROM pg_catalog.pg_attribute AS part
        JOIN pg_catalog.pg_class AS thing ON thing.oid = part.attrelid
        JOIN pg_catalog.pg_namespace AS space ON space.oid = thing.relnamespace,
             pg_catalog.aclexplode(part.attacl) AS acl
      UNION ALL
      SELECT acl.grantee, acl.is_grantable, lower(acl.privilege_type) || ' on schema ' || space.nspname
        FROM pg_catalog.pg_namespace AS space, pg_catalog.aclexplode(space.nspacl) AS acl
      UNION ALL
      SELECT acl.grantee, acl.is_grantable, lower(acl.privilege_type) || ' on database ' || base.datname
        FROM pg_catalog.pg_database AS base, pg_catalog.aclexplode(base.datacl) AS acl
       WHERE acl.privilege_type <> 'CONNECT' OR base.datname <> current_database()
      UNION ALL
      SELECT held.member, false, 'membership in ' || other.rolname
        FROM pg_catalog.pg_auth_members AS held JOIN pg_catalog.pg_roles AS other ON other.oid = held.roleid
      UNION ALL
      SELECT depends.refobjid, false,
             'a right on ' || pg_catalog.pg_describe_object(depends.classid, depends.objid, depends.objsubid)
        FROM pg_catalog.pg_shdepend AS depends
       WHERE depends.deptype = 'a' AND depends.classid NOT IN
             ('pg_class'::regclass, 'pg_namespace'::regclass, 'pg_database'::regclass)
         AND depends.dbid IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
    )
    SELECT ours.rolname::text, given.told || CASE WHEN given.is_grantable THEN ' with grant option' ELSE '' END
      FROM ours JOIN given ON given.grantee = ours.oid
     ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a target listens."""

    host: str
    port: int
    database: str
    sslmode: str


class PostgresqlProber:
    """Fits `TargetProber`. One connection per target, opened when first asked and kept; safe for threads."""

    kind = "postgresql"

    def __init__(
        self,
        addresses: Mapping[str, Address],
        login: NewLogin,
        clock: Clock,
        *,
        prefix: str = "sh",
    ) -> None:
        self._lines = {
            name: Line(f"postgresql {name}", name, _Driver(address), login, clock)
            for name, address in addresses.items()
        }
        # Vault's own template has eight characters of the token's name before those of the role's.
        vault_s = f"^v-([^-]{{1,8}}-)?{prefix}-"
        cut = f"{prefix}-prober"[:8]
        probers = f"^v-([^-]{{1,8}}-)?({prefix}-prober-|{cut}-[A-Za-z0-9]{{20}}-[0-9]{{10}}$)"
        self._names = {"named": f"{vault_s}.*[0-9]{{10}}$", "probers": probers}
        self._groups = f"^{prefix}-[a-z][a-z0-9-]*-[0-9a-f]{{8}}-[a-z][a-z0-9-]*$"

    def ask(self, target: Target, principal: str, *, issued_at: datetime) -> Evidence:
        """Whether no role of that name exists and no session of it is open, anywhere in the server.

        Raises: TargetUnavailableError: not configured, no login, or no answer in time; never counts as gone.
        """
        del issued_at  # a user name is never used twice
        ((roles, sessions),) = self._ask(target.name, _QUESTION, {"principal": principal})
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
            for name, group, until, sessions in self._ask(target, _ROSTER, {"groups": self._groups})
        ]

    def named(self, target: str) -> Sequence[Login]:
        """Every login in the whole server that is named as if it were made from a role of ours, in a group or not.

        Raises: TargetUnavailableError: not configured, no login, or no answer in time.
        """
        return [
            Login(name=name, group="", valid_until=_instant(until), sessions=sessions)
            for name, until, sessions in self._ask(target, _NAMED, self._names)
        ]

    def excess(self, target: str, user: str) -> Sequence[str]:
        """What the management user of a connection may do that issuing does not need, each as `is a superuser`.

        Raises: TargetUnavailableError: not configured, no login, or no answer in time.
        """
        for superuser, creates, replicates, bypasses, member_of in self._ask(target, _POWER, {"user": user}):
            told = (
                ("is a superuser", superuser),
                ("may create databases", creates),
                ("may replicate", replicates),
                ("passes row security by", bypasses),
            )
            return [*(what for what, so in told if so), *(f"is a member of {role}" for role in member_of)]
        return ["does not exist"]

    def given(self, target: str) -> Mapping[str, frozenset[str]]:
        """What each group role of ours may do in this database.

        Raises: TargetUnavailableError: not configured, no login, or no answer in time.
        """
        found: dict[str, set[str]] = {}
        for group, told in self._ask(target, _GIVEN, {"groups": self._groups}):
            found.setdefault(group, set()).add(told)
        return {group: frozenset(told) for group, told in found.items()}

    def advice(self, target: str) -> Sequence[tuple[str, str]]:
        """Whether somebody who may create logins there has `scram_iterations = 1` (docs/adr/0008)."""
        if self._ask(target, _CHEAP, {}):
            return []
        return [
            (
                "its management user has not scram_iterations = 1, so logins cost double",
                "ALTER ROLE <management user> SET scram_iterations = 1.",
            )
        ]

    def close(self) -> None:
        """Close every connection."""
        for line in self._lines.values():
            line.close()

    def _ask(self, target: str, question: LiteralString, values: Mapping[str, str]) -> Sequence[tuple[Any, ...]]:
        line = self._lines.get(target)
        if line is None:
            raise TargetUnavailableError(f"no target called {target} is configured, so nobody can ask it")

        def rows(connection: psycopg.Connection) -> Sequence[tuple[Any, ...]]:
            with _cut_after(connection, TIMEOUT):
                return connection.execute(question, values).fetchall()

        return line.ask(rows)


def prober(targets: Mapping[str, PostgresqlOptions], login: NewLogin, clock: Clock, prefix: str) -> PostgresqlProber:
    """One that can ask these targets."""
    addresses = {
        name: Address(host=target.host, port=target.port, database=target.database, sslmode=target.sslmode)
        for name, target in targets.items()
    }
    return PostgresqlProber(addresses, login, clock, prefix=prefix)


class _Driver:
    errors = (psycopg.Error,)

    def __init__(self, address: Address) -> None:
        self._address = address

    def connect(self, login: ProberLogin) -> psycopg.Connection:
        return psycopg.connect(
            host=self._address.host,
            port=self._address.port,
            dbname=self._address.database,
            sslmode=self._address.sslmode,
            user=login.username,
            password=login.password.reveal(),
            connect_timeout=TIMEOUT,
            options=f"-c statement_timeout={TIMEOUT}s -c application_name=shorthold-prober",
            autocommit=True,
        )

    def close(self, connection: psycopg.Connection) -> None:
        connection.close()


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
