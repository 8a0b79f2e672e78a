"""What a database's refusal means to us: lost race, illegal move, or no store; never SQL, never values."""

import re
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from controlplane.model.errors import (
    ControlPlaneError,
    IllegalTransitionError,
    InvalidRequestError,
    LostRaceError,
    StoreUnavailableError,
)

_SQLITE = {
    "SQLITE_FULL": "the disk is full",
    "SQLITE_READONLY": "it cannot be written: the file, its directory or its disk is read-only",
    "SQLITE_CANTOPEN": "its file cannot be opened; does its directory exist and may we write there?",
    "SQLITE_CORRUPT": "its file is damaged; restore it from a backup",
    "SQLITE_NOTADB": "its file is no SQLite database, or it is damaged",
    "SQLITE_BUSY": "another process keeps it locked",
    "SQLITE_LOCKED": "another connection keeps it locked",
    "SQLITE_IOERR": "the disk failed to read or write",
    "SQLITE_PERM": "its file may not be used by this user",
    "SQLITE_AUTH": "its file may not be used by this user",
    "SQLITE_ERROR": "its tables are not as this release made them",
}
_POSTGRESQL = {
    "08": "the connection broke",
    "28": "the login was refused",
    "3D": "there is no such database",
    "42": "its tables are not as this release made them",
    "53": "it has run out of disk, memory or connections",
    "57": "it is shutting down or starting",
    "58": "its disk failed",
    "25": "it accepts no writes: a standby, or read-only",
    "40": "it broke a deadlock; the same again may succeed",
    "55": "something keeps it locked",
}
_CONSTRAINT = re.compile(r"(?:CHECK constraint failed: )?([a-z_]+)", re.ASCII)


@contextmanager
def told(place: str) -> Generator[None]:
    """Let what goes wrong with the database at `place` come out as one of our errors.

    Raises:
        LostRaceError: an id or a key was used before, or the grant of a lease or token is not there.
        IllegalTransitionError: a constraint or a trigger refused.
        InvalidRequestError: a text that the database cannot hold.
        StoreUnavailableError: everything else.
    """
    try:
        yield
    except IntegrityError as error:
        raise _refusal(error) from None
    except UnicodeDecodeError:  # SQLite quotes the name of a table in its error, and a damaged file has any bytes there
        raise StoreUnavailableError(f"the store at {place} does not work: what it holds cannot be read") from None
    except (DataError, UnicodeEncodeError):  # NUL on PostgreSQL, half a surrogate pair on both
        raise InvalidRequestError("a text holds characters that the store cannot keep") from None
    except (DBAPIError, PoolTimeoutError) as error:
        raise StoreUnavailableError(f"the store at {place} does not work: {_why(error)}") from None


def damaged(error: DBAPIError) -> bool:
    """Whether the file itself is broken, so that reading it again gives the same."""
    return _sqlite_name(error).startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def _refusal(error: IntegrityError) -> ControlPlaneError:
    name = _sqlite_name(error)
    state: str = getattr(error.orig, "sqlstate", None) or ""
    if name in {"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"} or state == "23505":
        return LostRaceError("an id or an idempotency key was used before")
    if name == "SQLITE_CONSTRAINT_FOREIGNKEY" or state == "23503":
        return LostRaceError("the grant of a lease or token is not in the store")
    diagnosis = getattr(error.orig, "diag", None)
    said: str = getattr(diagnosis, "constraint_name", None) or str(error.orig)
    sentence = _CONSTRAINT.fullmatch(said)
    what = sentence[1].replace("_", " ") if sentence else "a rule of the schema"
    return IllegalTransitionError(f"the store refuses: {what}")


def _why(error: SQLAlchemyError) -> str:
    if isinstance(error, PoolTimeoutError):
        return "all its connections are in use"
    name = _sqlite_name(error)
    if name:
        return next((words for start, words in _SQLITE.items() if name.startswith(start)), name)
    state: str | None = getattr(getattr(error, "orig", None), "sqlstate", None)
    if state:
        return _POSTGRESQL.get(state[:2], f"it refused with SQLSTATE {state}")
    if isinstance(getattr(error, "orig", None), sqlite3.Error):
        return "what it holds cannot be read"
    return "it cannot be reached"


def _sqlite_name(error: SQLAlchemyError) -> str:
    return getattr(getattr(error, "orig", None), "sqlite_errorname", None) or ""
