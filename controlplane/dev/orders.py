"""The demo's target database and the user by which Vault works there, made once on any PostgreSQL server."""

from importlib.resources import files
from typing import LiteralString, cast

import psycopg
from psycopg import sql

from controlplane import dev
from controlplane.model.errors import LocalServerError
from controlplane.model.secret import Secret

DATABASE = "orders"
MANAGER = "shorthold_manager"

_ROLE = sql.SQL("CREATE ROLE {} LOGIN CREATEROLE NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS INHERIT")
_SETTINGS = (
    # Stretching is for passwords that people choose; a random one of 20 characters needs none, and logs in faster.
    "ALTER ROLE shorthold_manager SET scram_iterations = 1",
    # Its statements carry the passwords that it gives: they are seen in no log and in nobody's pg_stat_activity.
    "ALTER ROLE shorthold_manager SET track_activities = off",
    "ALTER ROLE shorthold_manager SET log_statement = none",
    "ALTER ROLE shorthold_manager SET log_min_duration_statement = -1",
    "ALTER ROLE shorthold_manager SET log_min_error_statement = panic",
    "GRANT pg_signal_backend TO shorthold_manager",
    "GRANT pg_read_all_stats TO shorthold_manager WITH ADMIN OPTION",
)
_NOBODY_ELSEWHERE = (
    "REVOKE ALL ON DATABASE postgres FROM PUBLIC",
    "REVOKE ALL ON DATABASE template1 FROM PUBLIC",
)


def prepare(owner: Secret, manager_password: Secret, *, ours: bool) -> bool:
    """Make the manager and the database `orders` with its rows, where they are not there yet.

    Whether the manager's password had to be set: whoever logs in as it must be told.
    `owner` is the connection string of a superuser; on a server that is `ours` PUBLIC also loses the other databases.
    Raises: LocalServerError: the server refuses, or has another database `orders`; or it is not `ours` and has a
        manager with another password, who may be at work for another project: nothing was changed.
    """
    try:
        with psycopg.connect(owner.reveal(), autocommit=True) as connection:
            changed = _manager(connection, manager_password, ours=ours)
            if ours:
                for statement in _NOBODY_ELSEWHERE:
                    connection.execute(statement)
            if not _exists(connection, "SELECT 1 FROM pg_database WHERE datname = %s", DATABASE):
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        with psycopg.connect(owner.reveal(), dbname=DATABASE) as connection:  # one transaction: all rows or none
            if not _exists(connection, "SELECT to_regclass(%s)", "billing.refunds"):
                if _exists(connection, "SELECT 1 FROM pg_namespace WHERE nspname = %s", "sales"):
                    raise LocalServerError(f"the server has a database `{DATABASE}` that is not the demo's")
                connection.execute(cast("LiteralString", files(dev).joinpath("orders.sql").read_text("utf-8")))
    except psycopg.Error as error:
        raise LocalServerError(f"PostgreSQL refuses to set up `{DATABASE}`: {str(error).strip()}") from None
    return changed


def _manager(connection: psycopg.Connection, password: Secret, *, ours: bool) -> bool:
    known = _exists(connection, "SELECT 1 FROM pg_roles WHERE rolname = %s", MANAGER)
    # Without the database `orders` it logs in to the owner's: the last `dev up` was cut off in between.
    fits = known and any(_logs_in(connection, password, name) for name in (DATABASE, connection.info.dbname))
    if known and not fits and not ours:
        raise LocalServerError(
            f"the server has a user `{MANAGER}` already, and its password is not the one kept here: another project "
            "may work with it. If none does, give it the password in .shorthold/postgres/manager.password"
        )
    with connection.transaction():  # a manager without a password would be taken for another project's
        if not known:
            connection.execute(_ROLE.format(sql.Identifier(MANAGER)))
        for statement in _SETTINGS:
            connection.execute(statement)
        if not fits:
            # Hashed here: the owner's statements may well be logged.
            hashed = connection.pgconn.encrypt_password(password.reveal().encode(), MANAGER.encode(), b"scram-sha-256")
            connection.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(MANAGER), sql.Literal(hashed.decode()))
            )
    return not fits


def _logs_in(connection: psycopg.Connection, password: Secret, database: str) -> bool:
    try:
        info = connection.info
        psycopg.connect(info.dsn, user=MANAGER, password=password.reveal(), dbname=database, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def _exists(connection: psycopg.Connection, question: LiteralString, name: str) -> bool:
    row = connection.execute(question, (name,)).fetchone()
    return row is not None and row[0] is not None
