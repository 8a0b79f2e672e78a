"""The store in SQL: grants, leases and the audit chain, the same code on SQLite and on PostgreSQL."""

import secrets
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    Executable,
    and_,
    bindparam,
    delete,
    func,
    make_url,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import ArgumentError

from controlplane.audit.chain import Unreadable, is_sealed
from controlplane.model.approval import Denial, GivenApproval
from controlplane.model.errors import ConfigurationError, StoreUnavailableError
from controlplane.model.event import Head, Link
from controlplane.model.freeze import Freeze, FreezeId
from controlplane.model.grant import Grant, GrantId, State, TaskId
from controlplane.model.identity import SingleUse, WorkloadId
from controlplane.model.lease import Lease, LeaseId
from controlplane.model.review import Review
from controlplane.model.secret import Secret
from controlplane.stores import approvals, freezes, postgresql, reviews, rows, sqlite
from controlplane.stores.changes import Changes, Statements
from controlplane.stores.cursors import SqlCursors
from controlplane.stores.faults import told
from controlplane.stores.orphans import Writing
from controlplane.stores.schema import EVENTS, HEAD, SEQ, grants, leases, tokens
from controlplane.stores.traces import TraceBook
from controlplane.stores.upgrade import LATEST, upgrade, version

_MANY = 500
"""Ids in one question: databases limit how many values a statement may have."""

_GRANT = select(grants).where(grants.c.id == bindparam("its_id"))
_ASKED = select(grants).where(
    grants.c.workload == bindparam("its_workload"), grants.c.idempotency_key == bindparam("key")
)
_SPENT = select(tokens.c.id).where(tokens.c.issuer == bindparam("its_issuer"), tokens.c.id == bindparam("its_id"))
_LEASES = select(leases).where(leases.c.grant_id == bindparam("its_grant")).order_by(leases.c.number)
_DUE = and_(
    grants.c.due_at <= bindparam("now"), or_(grants.c.held_until.is_(None), grants.c.held_until <= bindparam("now"))
)
_LANES = {False: grants.c.attempts == 0, True: grants.c.attempts > 0}
"""What is tried for the first time, and what has resisted before."""


def _claim(lane: ColumnElement[bool]) -> Executable:
    # As a CTE it is looked up once: inside IN, PostgreSQL may run it again and lock more than `limit`.
    first = (
        select(grants.c.id)
        .where(_DUE, lane)
        .order_by(grants.c.due_at, grants.c.id)
        .limit(bindparam("limit"))
        .with_for_update(skip_locked=True)
        .cte("first_due")
    )
    return (
        update(grants)
        .where(grants.c.id.in_(select(first.c.id)))
        .values(held_by=bindparam("holder"), held_until=bindparam("until"))
        .returning(grants)
    )


_ANY_DUE = {again: select(grants.c.id).where(_DUE, lane).limit(1) for again, lane in _LANES.items()}
_CLAIM = {again: _claim(lane) for again, lane in _LANES.items()}
_HELD = and_(grants.c.id == bindparam("its_id"), grants.c.held_by == bindparam("holder"))
_IS_HELD = select(grants.c.id).where(_HELD)
_RELEASE = update(grants).where(_HELD).values(held_by=None, held_until=None)
_OVER = tokens.c.keep_until <= bindparam("now")
_ANY_OVER = select(tokens.c.id).where(_OVER).limit(1)
_FORGET = delete(tokens).where(
    tuple_(tokens.c.issuer, tokens.c.id).in_(select(tokens.c.issuer, tokens.c.id).where(_OVER).limit(_MANY))
)
_INSTANT = select(func.clock_timestamp().label("instant"))
_LINKS = EVENTS.where(bindparam("after") < SEQ).order_by(SEQ).limit(bindparam("limit"))


class SqlStore(TraceBook):
    """Fits the port Store. Threads and replicas may share the database; each process opens it once."""

    def __init__(self, reading: Engine, writer: Writing, key: Secret) -> None:
        super().__init__(reading, writer)
        self._key = key
        self._statements = Statements(reading.dialect)
        self._holder = secrets.token_hex(8)
        self.cursors = SqlCursors(self._read, self._begin, reading.dialect)

    @property
    def instant(self) -> Callable[[], datetime] | None:
        """Asks what time it is in the database; None where only this machine can use it, and its clock is the one."""
        if self._reading.dialect.name != "postgresql":
            return None
        return lambda: self._read(_INSTANT)[0].instant

    def close(self) -> None:
        """Close every connection. No transaction may be running."""
        self.writer.close()
        self._reading.dispose()

    @contextmanager
    def transaction(self) -> Generator[Changes]:
        """One atomic unit, with its events chained at its end."""
        with self.writer.begin() as connection:
            changes = Changes(connection, self._statements, self._key, self.writer.place)
            yield changes
            changes.seal()

    def grant(self, id: GrantId) -> Grant | None:
        """The grant of that id."""
        return next(map(rows.grant, self._read(_GRANT, its_id=id)), None)

    def asked_before(self, workload: WorkloadId, key: str) -> Grant | None:
        """The grant that this workload asked for with this idempotency key."""
        return next(map(rows.grant, self._read(_ASKED, its_workload=workload, key=key)), None)

    def grants(
        self,
        *,
        workload: WorkloadId | None = None,
        task: TaskId | None = None,
        entitlement: str | None = None,
        states: Iterable[State] = (),
        before: GrantId | None = None,
        limit: int = 100,
    ) -> Sequence[Grant]:
        """A page of grants, newest first. A `before` that is no grant is the end of the list."""
        page = select(grants).order_by(grants.c.requested_at.desc(), grants.c.id.desc()).limit(limit)
        if workload is not None:
            page = page.where(grants.c.workload == workload)
        if task is not None:
            page = page.where(grants.c.task == task)
        if entitlement is not None:
            page = page.where(grants.c.entitlement == entitlement)
        if wanted := [state.value for state in states]:
            page = page.where(grants.c.state.in_(wanted))
        if before is not None:
            last = select(grants.c.requested_at, grants.c.id).where(grants.c.id == before).scalar_subquery()
            page = page.where(tuple_(grants.c.requested_at, grants.c.id) < last)
        return [rows.grant(row) for row in self._read(page)]

    def pending(
        self, entitlements: Iterable[str], *, before: GrantId | None = None, limit: int = 100
    ) -> Sequence[Grant]:
        """A page of grants of these entitlements that wait for people, newest first."""
        return [rows.grant(row) for row in self._read(approvals.page(entitlements, before=before, limit=limit))]

    def approvals(self, grant: GrantId) -> Sequence[GivenApproval]:
        """Every yes to a grant, oldest first."""
        return [approvals.approval(row) for row in self._read(approvals.OF_GRANT, its_grant=grant)]

    def denial(self, grant: GrantId) -> Denial | None:
        """The no to a grant."""
        return next(map(approvals.denial, self._read(approvals.NO_TO_GRANT, its_grant=grant)), None)

    def leases(self, grant: GrantId) -> Sequence[Lease]:
        """The leases of a grant, in the order of their issue."""
        return [rows.lease(row) for row in self._read(_LEASES, its_grant=grant)]

    def known_leases(self, ids: Iterable[LeaseId]) -> frozenset[LeaseId]:
        """Those among `ids` that some grant holds."""
        asked = list(ids)
        known: set[LeaseId] = set()
        for start in range(0, len(asked), _MANY):
            some = select(leases.c.id).where(leases.c.id.in_(asked[start : start + _MANY]))
            known.update(LeaseId(row.id) for row in self._read(some))
        return frozenset(known)

    def review(self, grant: GrantId) -> Review | None:
        """The review of a break-glass grant."""
        return next(map(reviews.review, self._read(reviews.ONE, its_grant=grant)), None)

    def reviews(self, *, after: GrantId | None = None, limit: int = 100) -> Sequence[Review]:
        """A page of open reviews, oldest first. An `after` that has no review is the end of the list."""
        return [reviews.review(row) for row in self._read(reviews.page(after, limit))]

    def claim_due(self, now: datetime, *, limit: int, hold: timedelta, again: bool = False) -> Sequence[Grant]:
        """Grants whose `due_at` has come, oldest first, held for this caller until `now + hold`."""
        if not self._read(_ANY_DUE[again], now=now):
            return []  # most ticks find nothing, and then nobody who writes has to wait for them
        held = {"now": now, "limit": limit, "holder": self._holder, "until": now + hold}
        with self.writer.begin() as connection, told(self.writer.place):
            claimed = [rows.grant(row) for row in connection.execute(_CLAIM[again], held)]
        return sorted(claimed, key=lambda grant: (grant.due_at or now, grant.id))

    def release(self, grant: GrantId) -> None:
        """Give up a hold early; one that another process took over stays."""
        mine = {"its_id": grant, "holder": self._holder}
        if self._read(_IS_HELD, **mine):
            with self.writer.begin() as connection, told(self.writer.place):
                connection.execute(_RELEASE, mine)

    def spent(self, token: SingleUse) -> bool:
        """Whether the token asked for a grant before."""
        return bool(self._read(_SPENT, its_issuer=token.issuer, its_id=token.id))

    def forget_tokens(self, now: datetime) -> int:
        """Forget some spent tokens that are refused anyway since `now` or longer; how many."""
        if not self._read(_ANY_OVER, now=now):
            return 0
        with self.writer.begin() as connection, told(self.writer.place):
            return connection.execute(_FORGET, {"now": now}).rowcount

    def freeze(self, id: FreezeId) -> Freeze | None:
        """The freeze of that id."""
        return next(map(freezes.freeze, self._read(freezes.ITS, its_id=id)), None)

    def freezes(
        self, *, active_at: datetime | None = None, before: FreezeId | None = None, limit: int = 100
    ) -> Sequence[Freeze]:
        """A page of freezes, newest first. A `before` that is no freeze is the end of the list."""
        question, values = freezes.page(active_at=active_at, before=before, limit=limit)
        return [freezes.freeze(row) for row in self._read(question, **values)]

    def settle_freezes(self) -> None:
        """Return once every transaction has ended that asked for freezes before. Raises: StoreUnavailableError."""
        if self._reading.dialect.name == "postgresql":
            with self.writer.begin() as connection, told(self.writer.place):
                freezes.outlast(connection)

    def links(self, *, after: int = 0, limit: int = 1000) -> Sequence[Link]:
        """Links of the audit chain with `seq` greater than `after`, in order."""
        found: list[Link] = []
        for row in self._read(_LINKS, after=after, limit=limit):
            link = rows.link(row)
            if isinstance(link, Unreadable):
                raise StoreUnavailableError(f"audit record {link.seq}: {link.what}; run `shorthold audit verify`")
            found.append(link)
        return found

    def head(self) -> Head | None:
        """The sealed head of the chain; None where somebody removed it."""
        return next(map(rows.head, self._read(HEAD)), None)

    @contextmanager
    def _begin(self) -> Generator[Connection]:
        with self.writer.begin() as connection, told(self.writer.place):
            yield connection


def open_store(url: str, *, audit_key: Secret) -> SqlStore:
    """The store at `url`, made or brought to this release's schema first.

    Raises:
        ConfigurationError: no such kind of database; a newer release made it; the audit key is not its own.
        StoreUnavailableError: it cannot be reached, opened or written.
    """
    reading, writer = _connect(parse_url(url))
    store = SqlStore(reading, writer, audit_key)
    try:
        with told(writer.place), reading.connect() as connection:
            found = version(connection)
        if found != LATEST:
            with writer.begin() as connection, told(writer.place):
                upgrade(connection, audit_key)
        _check(store.head(), audit_key, writer.place)
    except BaseException:
        store.close()
        raise
    return store


def _check(head: Head | None, key: Secret, place: str) -> None:
    if head is None or not is_sealed(key, head):
        what = "its audit chain was not made with this audit key, or somebody was at it"
        raise ConfigurationError(f"the store at {place}: {what}; `shorthold audit verify` says more")


def parse_url(url: str) -> URL:
    """The URL of a database that we can use.

    Raises: ConfigurationError: it is none, without showing it: it may hold a password.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError("store.url is no database URL, such as sqlite:///shorthold.db") from None
    kind = parsed.get_backend_name()
    if kind not in {"sqlite", "postgresql"}:
        raise ConfigurationError(f"store.url names {kind}: only sqlite and postgresql are supported")
    if kind == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise ConfigurationError("store.url names no file: grants must outlive the process")
    return parsed


def _connect(url: URL) -> tuple[Engine, Writing]:
    if url.get_backend_name() == "postgresql":
        return postgresql.open_database(url)
    return sqlite.open_file(Path(url.database or ""))
