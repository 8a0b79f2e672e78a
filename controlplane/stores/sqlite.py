"""SQLite: writers take turns on one connection and share its fsync; readers have their own and never wait."""

import contextlib
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from controlplane.model.errors import StoreUnavailableError
from controlplane.stores.faults import told

_PATIENCE = 5.0
"""Seconds that another process may keep the file locked."""
_READERS = 48
"""As many as the HTTP door has threads, those kept for ending access included: no reader waits for another."""
_PAGES = 500
"""KiB that each reader keeps in memory. Pages of a file that is read a lot are in the system's cache anyway, once."""


def open_file(path: Path) -> tuple[Engine, "Writer"]:
    """A pool of readers and the writer of the database at `path`, which is made (0600) if it is not there.

    Raises: StoreUnavailableError: it cannot be made, opened or written.
    """
    place = str(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made here and not by SQLite, which would ask the umask; -wal and -shm get the mode of their file.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreUnavailableError(f"the store at {place} cannot be opened: {error.strerror}") from None
    writing = _engine(path, pool_size=1)
    event.listen(writing, "connect", _for_writing)
    event.listen(writing, "begin", _begin)
    reading = _engine(path, pool_size=_READERS)
    event.listen(reading, "connect", _for_reading)
    return reading, Writer(writing, place)


def open_copy(path: Path) -> Engine:
    """One reader that leaves no trace at `path`: no table, no byte, no file beside it.

    Raises: StoreUnavailableError: there is no such file.
    """
    if not path.is_file():
        raise StoreUnavailableError(f"there is no database at {path}")
    # Without a -wal nobody has it open and all of it is in the file; SQLite would make one just to read.
    alone = not path.with_name(f"{path.name}-wal").exists()
    name = f"file:{quote(str(path.absolute()))}?mode=ro{'&immutable=1' if alone else ''}"
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=name, query={"uri": "true"}),
        connect_args={"isolation_level": None, "timeout": _PATIENCE, "check_same_thread": False},
        pool_size=1,
        max_overflow=0,
    )
    event.listen(engine, "connect", _for_evidence)
    event.listen(engine, "begin", _look)
    return engine


def _engine(path: Path, *, pool_size: int) -> Engine:
    return create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        # No isolation level: the driver begins nothing by itself; what a transaction is, we say.
        connect_args={"isolation_level": None, "timeout": _PATIENCE, "check_same_thread": False},
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_PATIENCE,
        pool_use_lifo=True,  # few are ever used where few are enough
        paramstyle="named",
    )


def _for_writing(connection: sqlite3.Connection, _: object) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "journal_size_limit = 67108864"):
        connection.execute(f"PRAGMA {pragma}")


def _for_reading(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA query_only = ON")
    connection.execute(f"PRAGMA cache_size = -{_PAGES}")


def _for_evidence(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA query_only = ON")
    # A byte that somebody changed may leave text that is no UTF-8: it must come out, not end the reading.
    connection.text_factory = _any_text


def _any_text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


def _begin(connection: Connection) -> None:
    # A deferred transaction that reads first and writes later fails as soon as somebody else wrote in between.
    _say(connection, "BEGIN IMMEDIATE")


def _say(connection: Connection, statement: str) -> None:
    """Run a statement without values on the driver's own cursor: SQLAlchemy's work would outweigh SQLite's."""
    try:
        connection.connection.cursor().execute(statement)
    except sqlite3.Error as error:
        raise DBAPIError(None, None, error) from None


def _look(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")  # everything read in it is of one instant


class Turns:
    """A lock that is handed on in the order of asking: with a plain one, whoever is awake overtakes all who sleep."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._owner: int | None = None
        self._queue: deque[tuple[int, threading.Lock]] = deque()

    @property
    def waiting(self) -> int:
        """How many threads wait."""
        return len(self._queue)

    @property
    def taken(self) -> bool:
        """Whether a thread has its turn."""
        return self._owner is not None

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._guard:
            if self._owner is None:
                self._owner = me
                return
            if self._owner == me:
                raise RuntimeError("a thread cannot wait for itself: transactions do not nest")
            place = (me, threading.Lock())
            place[1].acquire()
            self._queue.append(place)
        try:
            place[1].acquire()
        except BaseException:  # Ctrl-C while waiting: leave the queue, or pass on the turn that just came
            with self._guard:
                if place in self._queue:
                    self._queue.remove(place)
                    raise
            self._pass_on()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        with self._guard:
            if self._queue:
                self._owner, woken = self._queue.popleft()
                woken.release()
            else:
                self._owner = None


class _Batch:
    """The transactions of several threads that one commit makes durable."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.failure: StoreUnavailableError | None = None


class Writer:
    """The one writing connection of this process.

    In its turn a thread runs its block, as a savepoint if others ran since the last commit. Then it queues for a
    second turn, and whoever gets that first commits for everybody who ran: N threads that wait cost one fsync.
    Nobody returns, well or with an error, before the commit of what it wrote or saw: so nobody is told of a
    change that a crash takes back. A commit that fails, fails for all of its batch.
    """

    def __init__(self, engine: Engine, place: str) -> None:
        self.place = place
        self.engine = engine
        self.turns = Turns()
        self._connection: Connection | None = None
        self._batch: _Batch | None = None

    @contextmanager
    def begin(self) -> Generator[Connection]:
        """A transaction that is durable when the block has ended without an exception, and else never was."""
        failure: BaseException | None = None
        with self.turns:
            batch, first = self._join()
            try:
                yield batch.connection
                if not first:
                    with told(self.place):
                        _say(batch.connection, "RELEASE part")
            except BaseException as error:  # noqa: BLE001 # it is raised below, when what it saw is durable
                self._undo(batch, first=first)
                failure = error
        with self.turns:
            self._settle(batch)
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Close the connection; no block may be running."""
        with self.turns:
            self._drop()
        self.engine.dispose()

    def _join(self) -> tuple[_Batch, bool]:
        if self._batch is not None:
            with told(self.place):
                _say(self._batch.connection, "SAVEPOINT part")
            return self._batch, False
        with told(self.place):
            try:
                if self._connection is None:
                    self._connection = self.engine.connect()
                self._connection.begin()
            except BaseException:
                self._drop()
                raise
        self._batch = _Batch(self._connection)
        return self._batch, True

    def _undo(self, batch: _Batch, *, first: bool) -> None:
        """Take back one part. Where that cannot be done alone, nothing of the batch may be kept."""
        try:
            if first:
                self._batch = None
                batch.connection.rollback()
            else:
                _say(batch.connection, "ROLLBACK TO part")
                _say(batch.connection, "RELEASE part")
        except Exception:  # noqa: BLE001 # SQLite has rolled back everything by itself: a full disk, a read error
            batch.failure = StoreUnavailableError(f"the store at {self.place} does not work: it gave up a transaction")
            self._batch = None
            self._drop()

    def _settle(self, batch: _Batch) -> None:
        if batch is self._batch:
            self._batch = None
            try:
                with told(self.place):
                    batch.connection.commit()
            except BaseException as error:
                batch.failure = StoreUnavailableError(getattr(error, "detail", "the commit was interrupted"))
                self._drop()
                raise
        elif batch.failure is not None:
            raise StoreUnavailableError(batch.failure.detail)

    def _drop(self) -> None:
        connection, self._connection, self._batch = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                connection.invalidate()
            connection.close()
