"""How far each sink was told, in SQL: a row for each sink, held by one teller at a time."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Dialect, Executable, Row, bindparam, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from controlplane.model.cursor import SinkCursor
from controlplane.model.errors import LostRaceError
from controlplane.stores.schema import Instant, sink_cursors

_C: Final = sink_cursors.c
_ITS = _C.sink == bindparam("its_sink")
_AT = select(sink_cursors).where(_ITS)
_CLAIM = (
    update(sink_cursors)
    .where(_ITS, _C.due_at <= bindparam("now"), or_(_C.held_until.is_(None), _C.held_until <= bindparam("now")))
    .values(held_until=bindparam("until"))
    .returning(sink_cursors)
)
# Two claims never hold until the same instant, so that instant tells whose hold it is.
_SAVE = update(sink_cursors).where(
    _ITS, _C.held_until == bindparam("its_until", type_=Instant), _C.seq <= bindparam("its_seq")
)

Read = Callable[..., Sequence[Row[*tuple[Any, ...]]]]


class SqlCursors:
    """Fits the port Cursors; `read` asks one question, `begin` is a durable transaction."""

    def __init__(self, read: Read, begin: Callable[[], AbstractContextManager[Connection]], dialect: Dialect) -> None:
        self._read, self._begin = read, begin
        insert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
        self._make: Executable = insert(sink_cursors).on_conflict_do_nothing(index_elements=["sink"])

    def at(self, sink: str) -> SinkCursor | None:
        """The cursor as it stands."""
        return next(map(_cursor, self._read(_AT, its_sink=sink)), None)

    def claim(self, sink: str, now: datetime, *, hold: timedelta, start: int) -> SinkCursor | None:
        """The cursor, held until `now + hold`; one that is not there yet is made at `start`."""
        seen = self.at(sink)
        if seen is not None and (seen.due_at > now or (seen.held_until is not None and seen.held_until > now)):
            return None  # most replicas find it held, and then nobody who writes has to wait for them
        with self._begin() as connection:
            if seen is None:
                new = {"sink": sink, "seq": start, "attempts": 0, "due_at": now, "held_until": None}
                connection.execute(self._make, new)
            values = {"its_sink": sink, "now": now, "until": now + hold}
            return next(map(_cursor, connection.execute(_CLAIM, values)), None)

    def save(self, claimed: SinkCursor, now: SinkCursor) -> None:
        """Save how far it has come. Raises: LostRaceError: it was taken over."""
        fence = {"its_sink": claimed.sink, "its_until": claimed.held_until, "its_seq": now.seq}
        changed = _SAVE.values(seq=now.seq, attempts=now.attempts, due_at=now.due_at, held_until=now.held_until)
        with self._begin() as connection:
            if connection.execute(changed, fence).rowcount != 1:
                raise LostRaceError(f"another replica tells the sink {claimed.sink} now")


def _cursor(row: Row[*tuple[Any, ...]]) -> SinkCursor:
    return SinkCursor(sink=row.sink, seq=row.seq, attempts=row.attempts, due_at=row.due_at, held_until=row.held_until)
