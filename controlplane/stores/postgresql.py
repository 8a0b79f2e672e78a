"""PostgreSQL: a pool of connections; replicas share the database and follow each other only at the chain's head."""

import threading
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import URL, Connection, Engine, create_engine

from controlplane.stores.faults import told

_READING, _WRITING = 6, 14
"""Connections of a process, opened as they are needed."""
_PATIENCE = 5
"""Seconds to wait for a connection or a lock."""
_FEW_OF_MANY = "-c random_page_cost=1.1"
"""What is open is little of what is kept, and in memory: to fetch its rows one by one beats reading a table whole."""


def open_database(url: URL) -> tuple[Engine, "Writer"]:
    """A pool for reading, each statement by itself, and a writer over a pool of its own.

    Writers wait for each other, and sometimes for somebody else's lock: whoever only reads never waits with them. So
    what has to end is found, and Vault asked to end it, while nothing can be saved.
    """
    reading = _pool(url, _READING).execution_options(isolation_level="AUTOCOMMIT")
    return reading, Writer(_pool(url, _WRITING))


def _pool(url: URL, connections: int) -> Engine:
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=_PATIENCE,
        pool_pre_ping=True,
        # Whatever the server's default is: a statement after a lock must see what the lock's last holder committed.
        isolation_level="READ COMMITTED",
        connect_args={
            "connect_timeout": _PATIENCE,
            "application_name": "shorthold",
            "options": f"-c timezone=UTC -c lock_timeout={_PATIENCE}s -c synchronous_commit=on {_FEW_OF_MANY}",
        },
    )


def open_evidence(url: URL) -> Engine:
    """One connection that cannot write, and whose transactions see one instant."""
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=1,
        max_overflow=0,
        isolation_level="REPEATABLE READ",
        connect_args={
            "connect_timeout": _PATIENCE,
            "application_name": "shorthold audit",
            "options": "-c timezone=UTC -c default_transaction_read_only=on",
        },
    )


class Writer:
    """Transactions over the pool; PostgreSQL itself commits those of several threads together."""

    def __init__(self, engine: Engine) -> None:
        self.place = engine.url.render_as_string(hide_password=True)
        self._engine = engine
        self._mine = threading.local()

    @contextmanager
    def begin(self) -> Generator[Connection]:
        """A transaction that is durable when the block has ended without an exception, and else never was."""
        if getattr(self._mine, "writing", False):
            raise RuntimeError("a thread cannot wait for itself: transactions do not nest")
        self._mine.writing = True
        try:
            with told(self.place), self._engine.begin() as connection:
                yield connection
        finally:
            self._mine.writing = False

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()
