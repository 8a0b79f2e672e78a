"""The audit trail of a store, for reading only: nothing is migrated, nothing is written, no writer waits."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, column
from sqlalchemy.exc import DBAPIError

from controlplane.audit.chain import Unreadable
from controlplane.audit.verify import Snapshot
from controlplane.model.event import Link
from controlplane.model.grant import GrantId
from controlplane.stores import postgresql, rows, sqlite
from controlplane.stores.faults import damaged, told
from controlplane.stores.schema import EVENTS, HEAD, SEQ
from controlplane.stores.sql import parse_url

_PAGE = 1_000


class SqlTrail:
    """Fits the protocol Trail: one store's audit chain, whole or damaged, being written or a copy."""

    def __init__(self, engine: Engine, place: str) -> None:
        self._engine, self._place = engine, place

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def snapshot(self, *, after: int | None = None) -> Generator[Snapshot]:
        """The chain as it is now, read page by page; what is written meanwhile does not show.

        `after` None reads every row, also those that somebody numbered below 1. A file that is broken in the
        middle ends in an Unreadable. Raises: StoreUnavailableError: it cannot be opened or read at all.
        """
        with told(self._place), self._engine.connect() as connection, connection.begin():
            found = next(map(rows.head, connection.execute(HEAD)), None)
            yield Snapshot(head=found, links=_all(connection, after))

    def newest(self, count: int, *, grant: GrantId | None = None) -> Sequence[Link | Unreadable]:
        """The last `count` links, of one grant or of all, oldest of them first."""
        last = _of(grant).order_by(SEQ.desc()).limit(count)
        return [rows.link(row) for row in reversed(self._read(last))]

    def following(self, after: int, *, grant: GrantId | None = None) -> Sequence[Link | Unreadable]:
        """A page of links after `after`, of one grant or of all."""
        return [rows.link(row) for row in self._read(_of(grant).where(after < SEQ).order_by(SEQ).limit(_PAGE))]

    def _read(self, question: Select[*tuple[Any, ...]]) -> Sequence[Row[*tuple[Any, ...]]]:
        with told(self._place), self._engine.connect() as connection:
            return connection.execute(question).all()


def open_trail(url: str) -> SqlTrail:
    """The audit trail of the store at `url`.

    Raises: ConfigurationError: no such kind of database. StoreUnavailableError: no such file.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "postgresql":
        return SqlTrail(postgresql.open_evidence(parsed), parsed.render_as_string(hide_password=True))
    path = Path(parsed.database or "")
    return SqlTrail(sqlite.open_copy(path), str(path))


def _of(grant: GrantId | None) -> Select[*tuple[Any, ...]]:
    return EVENTS if grant is None else EVENTS.where(column("grant_id") == grant)


def _all(connection: Connection, after: int | None) -> Iterator[Link | Unreadable]:
    last = after
    while True:
        page = EVENTS.order_by(SEQ).limit(_PAGE)
        try:
            found = connection.execute(page if last is None else page.where(last < SEQ)).all()
        except DBAPIError as error:
            if not damaged(error):
                raise
            yield Unreadable(seq=(last or 0) + 1, what="the database file is damaged here or soon after")
            return
        for row in found:
            yield rows.link(row)
        if len(found) < _PAGE:
            return
        last = found[-1].seq
