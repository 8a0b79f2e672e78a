"""What the reconciler asks of the store, and the rounds that one replica does at a time. Only open grants are read."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    Executable,
    Row,
    Select,
    and_,
    bindparam,
    case,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from controlplane.model.grant import Grant, GrantId, State
from controlplane.model.lease import Accessor, Lease, LeaseId
from controlplane.model.orphan import Orphan, Tally
from controlplane.stores import rows
from controlplane.stores.faults import told
from controlplane.stores.schema import OPEN, grants, leases, orphans, rounds

_MANY = 500
"""Values in one question: databases limit how many a statement may have."""
_OPEN_STATES = (State.PENDING, State.APPROVED, State.ISSUING, State.ACTIVE, State.REVOKING, State.IRREVOCABLE)
_ENDING = (State.REVOKING, State.IRREVOCABLE)

_LEASE = select(leases).where(leases.c.id == bindparam("its_id"))
_UNSETTLED = select(grants).where(text(OPEN), grants.c.settles_at.is_not(None))
_PRINCIPALS = select(leases.c.principal).join(grants, grants.c.id == leases.c.grant_id).where(text(OPEN))
_ORPHANS = select(orphans).order_by(orphans.c.found_at, orphans.c.kind, orphans.c.name)
_BEGIN = (
    update(rounds)
    .where(rounds.c.name == bindparam("its_name"), rounds.c.next_at <= bindparam("now"))
    .values(next_at=bindparam("until"))
)
_KNOWN = select(rounds.c.mark, rounds.c.next_at).where(rounds.c.name == bindparam("its_name"))
_REACHED = bindparam("reached", type_=BigInteger)
_END = (
    update(rounds)
    .where(rounds.c.name == bindparam("its_name"))
    .values(
        next_at=bindparam("until"),
        mark=case((rounds.c.mark < _REACHED, _REACHED), else_=rounds.c.mark),
    )
)
_BY_STATE = (
    select(grants.c.state, func.count(), func.min(grants.c.revoking_at))
    .where(grants.c.state.in_([state.value for state in _OPEN_STATES]))
    .group_by(grants.c.state)
)
_BY_ENGINE = (
    select(grants.c.state, leases.c.engine, func.count(func.distinct(grants.c.id)), func.min(grants.c.revoking_at))
    .select_from(grants.outerjoin(leases, leases.c.grant_id == grants.c.id))
    .where(grants.c.state.in_([state.value for state in _ENDING]))
    .group_by(grants.c.state, leases.c.engine)
)


class Writing(Protocol):
    """How one kind of database lets threads write."""

    place: str
    """Where it is, without a password."""

    def begin(self) -> AbstractContextManager[Connection]:
        """A transaction that is durable when the block has ended without an exception, and else never was."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


class OrphanBook:
    """Fits the ports Rounds and Orphans; a part of the store."""

    def __init__(self, reading: Engine, writer: Writing) -> None:
        self._reading, self.writer = reading, writer

    def held_tokens(self, accessors: Iterable[Accessor]) -> frozenset[Accessor]:
        """Those that are an open grant's task token."""
        found: set[Accessor] = set()
        for some in portions(accessors):
            question = select(grants.c.accessor).where(text(OPEN), grants.c.accessor.in_(some))
            found.update(Accessor(row.accessor) for row in self._read(question))
        return frozenset(found)

    def held_leases(self, ids: Iterable[LeaseId]) -> frozenset[LeaseId]:
        """Those that an open grant holds."""
        found: set[LeaseId] = set()
        for some in portions(ids):
            holder = and_(grants.c.id == leases.c.grant_id, text(OPEN))
            question = select(leases.c.id).join(grants, holder).where(leases.c.id.in_(some))
            found.update(LeaseId(row.id) for row in self._read(question))
        return frozenset(found)

    def held_principals(self) -> frozenset[str]:
        """The principals of all leases that open grants hold."""
        return frozenset(row.principal for row in self._read(_PRINCIPALS))

    def lease(self, id: LeaseId) -> tuple[GrantId, Lease] | None:
        """A lease that some grant holds, and which."""
        return next(((GrantId(row.grant_id), rows.lease(row)) for row in self._read(_LEASE, its_id=id)), None)

    def unsettled(self) -> Sequence[Grant]:
        """Open grants of which an unseen effect may still appear."""
        return [rows.grant(row) for row in self._read(_UNSETTLED)]

    def orphans(self) -> Sequence[Orphan]:
        """What was found and has not ended, oldest first."""
        return [rows.orphan(row) for row in self._read(_ORPHANS)]

    def tallies(self, *, engines: bool = False) -> Sequence[Tally]:
        """How many grants are in each open state; with `engines`, those that end, by engine."""
        if engines:
            return [
                Tally(state=State(state), engine=engine, count=count, oldest=oldest)
                for state, engine, count, oldest in self._read(_BY_ENGINE)
            ]
        return [
            Tally(state=State(state), engine=None, count=count, oldest=oldest)
            for state, count, oldest in self._read(_BY_STATE)
        ]

    def begin_round(self, name: str, now: datetime, *, hold: timedelta) -> bool:
        """Whether this caller is to do it now."""
        known = next(iter(self._read(_KNOWN, its_name=name)), None)
        if known is not None and known.next_at > now:
            return False  # most looks end here, and then nobody who writes has to wait for them
        with self.writer.begin() as connection, told(self.writer.place):
            if known is None:
                first = {"name": name, "next_at": now, "mark": 0}
                insert_ = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
                connection.execute(insert_(rounds).on_conflict_do_nothing(index_elements=["name"]), first)
            begun = connection.execute(_BEGIN, {"its_name": name, "now": now, "until": now + hold})
            return begun.rowcount == 1

    def end_round(self, name: str, again: datetime, *, mark: int = 0) -> None:
        """It is done until `again`."""
        with self.writer.begin() as connection, told(self.writer.place):
            connection.execute(_END, {"its_name": name, "until": again, "reached": mark})

    def mark(self, name: str) -> int:
        """The highest mark of a round that ended."""
        return next((row.mark for row in self._read(_KNOWN, its_name=name)), 0)

    def _read(self, question: Executable, **values: Any) -> Sequence[Row[*tuple[Any, ...]]]:
        with told(self.writer.place), self._reading.connect() as connection:
            return connection.execute(question, values).all()

    def _stream(self, question: Select[*tuple[Any, ...]]) -> Generator[Row[*tuple[Any, ...]]]:
        """Row by row: however many there are, few are held at a time."""
        with told(self.writer.place), self._reading.connect() as connection:
            if self._reading.dialect.name == "postgresql":
                connection.execution_options(isolation_level="READ COMMITTED")  # a cursor lives in a transaction
            yield from connection.execution_options(yield_per=_MANY).execute(question)


def portions(values: Iterable[Any]) -> Iterable[list[Any]]:
    """The same, so many at a time as one question may have."""
    every = list(values)
    return (every[start : start + _MANY] for start in range(0, len(every), _MANY))
