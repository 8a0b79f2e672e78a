"""Cuts in SQL: what is selected becomes an item in one statement, and what became of it stands in its grant alone."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from controlplane.model.cut import (
    RESISTS,
    Changed,
    Cut,
    CutId,
    Doing,
    Group,
    LeaseGroup,
    Outcome,
    Preview,
    Progress,
    Surveyed,
    lease_group,
)
from controlplane.model.entitlement import Risk
from controlplane.model.freeze import FreezeId
from controlplane.model.grant import Grant, State
from controlplane.model.identity import IssuerName
from controlplane.model.selection import Selection
from controlplane.stores import rows
from controlplane.stores.orphans import portions
from controlplane.stores.schema import OPEN, cut_items, cuts, grants, leases, notes, previews
from controlplane.stores.selecting import SelectionBook, open_condition

MOST_TASKS: Final = 1_000
"""Tasks that a survey names."""

_UNBEGUN: Final = grants.c.state.in_([State.PENDING, State.APPROVED, State.ISSUING, State.ACTIVE])
# Canonical JSON: within a text the quotation marks would be escaped, so this is the field and nothing else.
_UNPROVED: Final = grants.c.receipt.like('%"verified":false%')
_OUTCOME: Final = case(
    (_UNBEGUN, Outcome.WAITING.value),
    (and_(grants.c.state == State.REVOKING.value, grants.c.attempts < RESISTS), Outcome.ENDING.value),
    (grants.c.state.in_([State.REVOKING, State.IRREVOCABLE]), Outcome.RESIDUAL.value),
    (and_(grants.c.state == State.REVOKED.value, _UNPROVED), Outcome.UNVERIFIABLE.value),
    (grants.c.state == State.REVOKED.value, Outcome.VERIFIED.value),
    else_=Outcome.WITHDRAWN.value,
).label("outcome")
_RISK: Final = notes.c.note["risk", 0].as_string()
_RANK: Final = case({Risk.MEDIUM.value: 1, Risk.LOW.value: 2}, value=_RISK, else_=0)
"""What nobody knows the risk of comes first, with what is high."""
_ITEMS: Final = grants.join(cut_items, cut_items.c.grant_id == grants.c.id)
_NEXT: Final = (
    select(grants, _RANK.label("rank"))
    .select_from(_ITEMS.outerjoin(notes, notes.c.grant_id == grants.c.id))
    .where(cut_items.c.cut_id == bindparam("its_id"), _UNBEGUN)
    .order_by("rank", grants.c.requested_at, grants.c.id)
    .limit(bindparam("limit"))
    .with_for_update(of=grants, skip_locked=True)
)
_END: Final = update(cuts).where(cuts.c.id == bindparam("its_id"), cuts.c.ended_at.is_(None))
_RISKS: Final = (Risk.HIGH, Risk.MEDIUM, Risk.LOW)


def preview(connection: Connection, shown: Preview) -> None:
    """Fits `ports.CutChanges.preview`. Raises: DBAPIError."""
    values = {name: getattr(shown, name) for name in ("digest", "selection", "at", "issuer", "subject")}
    connection.execute(insert(previews), {**values, "selected": shown.count})


def order(connection: Connection, made: Cut) -> None:
    """Fits `ports.CutChanges.cut`. Raises: DBAPIError."""
    connection.execute(insert(cuts), {column.name: getattr(made, column.name) for column in cuts.columns})


def take(connection: Connection, made: Cut, selection: Selection) -> None:
    """Fits `ports.CutChanges.take`. Raises: DBAPIError."""
    found = select(literal(made.id), grants.c.id).where(_untaken(made, selection, connection.dialect.name))
    insert_ = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    # Two replicas may take the same at once: one of them finds it there.
    connection.execute(insert_(cut_items).from_select(["cut_id", "grant_id"], found).on_conflict_do_nothing())


def following(connection: Connection, id: CutId, limit: int) -> Sequence[tuple[Grant, Risk]]:
    """Fits `ports.CutChanges.next_of_cut`. Raises: DBAPIError."""
    found = connection.execute(_NEXT, {"its_id": id, "limit": limit})
    return [(rows.grant(row), _RISKS[int(row.rank)]) for row in found]


def end(connection: Connection, ended: Cut) -> bool:
    """Fits `ports.CutChanges.end_cut`. Raises: DBAPIError."""
    return connection.execute(_END.values(ended_at=ended.ended_at), {"its_id": ended.id}).rowcount == 1


class CutBook(SelectionBook):
    """Fits the port Cuts; a part of the store."""

    def survey(self, selection: Selection, at: datetime) -> Surveyed:
        """What is selected at `at` of all that has not ended, counted."""
        its = open_condition(selection, at, self._reading.dialect.name)
        columns = (grants.c.issuer, grants.c.subject, grants.c.entitlement, grants.c.state)
        groups = select(*columns, func.count().label("count")).where(its).group_by(*columns).order_by(*columns)
        held = leases.join(grants, grants.c.id == leases.c.grant_id)
        held_as = (leases.c.engine, leases.c.target_name, leases.c.principal)
        names = select(*held_as).select_from(held).where(its).distinct().order_by(*held_as)
        what = (grants.c.subject, grants.c.task)
        doing = (
            select(*what, func.count().label("count"))
            .where(its, grants.c.state.in_([State.ISSUING, State.ACTIVE]))
            .group_by(*what)
            .order_by(func.count().desc(), *what)
            .limit(MOST_TASKS)
        )
        (every,) = self._read(select(func.count().label("count")).select_from(grants).where(text(OPEN)))
        return Surveyed(
            groups=[
                Group(
                    issuer=IssuerName(row.issuer),
                    subject=row.subject,
                    entitlement=row.entitlement,
                    state=State(row.state),
                    count=row[-1],
                )
                for row in self._read(groups)
            ],
            leases=_lease_groups(self._stream(names)),
            doing=[Doing(subject=row.subject, task=row.task, grants=row[-1]) for row in self._read(doing)],
            of=every[0],
        )

    def selected_principals(
        self, selection: Selection, at: datetime, engine: str, target: str, names: Iterable[str]
    ) -> frozenset[str]:
        """Those among `names` that such leases have and are selected."""
        its = open_condition(selection, at, self._reading.dialect.name)
        there = and_(leases.c.engine == engine, leases.c.target_name == target)
        held = select(leases.c.principal).join(grants, grants.c.id == leases.c.grant_id).where(its, there)
        found: set[str] = set()
        for some in portions(names):
            found.update(row.principal for row in self._read(held.where(leases.c.principal.in_(some))))
        return frozenset(found)

    def open_selected(self, selection: Selection, at: datetime, *, limit: int) -> Sequence[Grant]:
        """Grants that are selected at `at` and have not ended, newest first."""
        its = open_condition(selection, at, self._reading.dialect.name)
        page = select(grants).where(its).order_by(grants.c.requested_at.desc(), grants.c.id.desc()).limit(limit)
        return [rows.grant(row) for row in self._read(page)]

    def changed(self, selection: Selection, preview: Preview) -> Changed:
        """What differs since a preview."""
        its = open_condition(selection, preview.at, self._reading.dialect.name)
        new = func.coalesce(func.sum(case((grants.c.requested_at > preview.at, 1), else_=0)), 0)
        (row,) = self._read(select(func.count(), new).select_from(grants).where(its))
        return Changed(new=int(row[1]), ended=max(preview.count - (row[0] - int(row[1])), 0))

    def previewed(self, digest: str) -> Preview | None:
        """What was shown under that digest."""
        found = self._read(select(previews).where(previews.c.digest == digest))
        return next((_preview(row) for row in found), None)

    def cut(self, id: CutId) -> Cut | None:
        """The cut of that id."""
        return next(map(_cut, self._read(select(cuts).where(cuts.c.id == id))), None)

    def cut_by(self, digest: str) -> Cut | None:
        """The cut that was ordered by that preview."""
        return next(map(_cut, self._read(select(cuts).where(cuts.c.digest == digest))), None)

    def cuts(self, *, running: bool = False, before: CutId | None = None, limit: int = 100) -> Sequence[Cut]:
        """A page of cuts, newest first. A `before` that is no cut is the end of the list."""
        page = select(cuts).order_by(cuts.c.ordered_at.desc(), cuts.c.id.desc()).limit(limit)
        if running:
            page = page.where(cuts.c.ended_at.is_(None))
        if before is not None:
            last = select(cuts.c.ordered_at, cuts.c.id).where(cuts.c.id == before).scalar_subquery()
            page = page.where(tuple_(cuts.c.ordered_at, cuts.c.id) < last)
        return [_cut(row) for row in self._read(page)]

    def untaken(self, cut: Cut, selection: Selection) -> bool:
        """Whether something is selected that has not ended and is not a part of the cut yet."""
        its = _untaken(cut, selection, self._reading.dialect.name)
        return bool(self._read(select(grants.c.id).where(its).limit(1)))

    def progress(self, cut: CutId) -> Progress:
        """How many of its grants have come how far."""
        counted = (
            select(_OUTCOME, func.count()).select_from(_ITEMS).where(cut_items.c.cut_id == cut).group_by("outcome")
        )
        return Progress(counts={Outcome(row.outcome): row[1] for row in self._read(counted)})

    def of_cut(self, cut: CutId, outcomes: Iterable[Outcome], *, limit: int = 100) -> Sequence[Grant]:
        """Its grants of these outcomes, oldest first."""
        return [rows.grant(row) for row in self._read(_of_cut(cut, outcomes).limit(limit))]


def _of_cut(cut: CutId, outcomes: Iterable[Outcome]) -> Select[*tuple[Any, ...]]:
    wanted = or_(*(_OUTCOME.element == one.value for one in sorted(outcomes)))
    its = select(grants).select_from(_ITEMS).where(cut_items.c.cut_id == cut, wanted)
    return its.order_by(grants.c.requested_at, grants.c.id)


def _untaken(made: Cut, selection: Selection, dialect: str) -> ColumnElement[bool]:
    taken = exists().where(cut_items.c.cut_id == made.id, cut_items.c.grant_id == grants.c.id)
    return and_(open_condition(selection, made.previewed_at, dialect), ~taken)


def _lease_groups(found: Iterable[Row[*tuple[Any, ...]]]) -> Sequence[LeaseGroup]:
    """Of rows in the order of engine, target and name, which may be more than anybody wants to hold."""
    groups = groupby(found, key=itemgetter(0, 1))
    return [lease_group(engine, target, (row[2] for row in some)) for (engine, target), some in groups]


def _preview(row: Row[*tuple[Any, ...]]) -> Preview:
    return Preview(
        digest=row.digest,
        selection=row.selection,
        at=row.at,
        count=row.selected,
        issuer=IssuerName(row.issuer),
        subject=row.subject,
    )


def _cut(row: Row[*tuple[Any, ...]]) -> Cut:
    return Cut(
        id=CutId(row.id),
        incident=row.incident,
        selection=row.selection,
        digest=row.digest,
        previewed_at=row.previewed_at,
        reason=row.reason,
        issuer=IssuerName(row.issuer),
        subject=row.subject,
        freeze=None if row.freeze is None else FreezeId(row.freeze),
        ordered_at=row.ordered_at,
        ended_at=row.ended_at,
    )
