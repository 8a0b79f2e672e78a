"""Selections in SQL: the same meaning as `Selection.selects`, over everything that the store has of a grant.

A selection becomes a condition of SQLAlchemy's own, with every value bound; no text of it is ever pasted.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, Select, and_, exists, func, not_, or_, select, text, true, tuple_, type_coerce
from sqlalchemy.dialects.postgresql import JSONB

from controlplane.model.grant import Grant, GrantId
from controlplane.model.selection import NOTHING, RANGES, Kept, Note, Operator, Selection, Term
from controlplane.stores import rows
from controlplane.stores.schema import OPEN, approvals, grants, leases, notes, tasks
from controlplane.stores.tasks import TaskBook

_SINCE: Final = func.coalesce(grants.c.issued_at, grants.c.requested_at)


class SelectionBook(TaskBook):
    """Fits the port Selected; a part of the store."""

    def selected(
        self, selection: Selection, at: datetime, *, before: GrantId | None = None, limit: int = 100
    ) -> Sequence[Grant]:
        """A page of the grants that are selected at `at`, newest first. A `before` that is no grant ends the list."""
        page = (
            select(grants)
            .where(condition(selection, at, self._reading.dialect.name))
            .order_by(grants.c.requested_at.desc(), grants.c.id.desc())
            .limit(limit)
        )
        if before is not None:
            last = select(grants.c.requested_at, grants.c.id).where(grants.c.id == before).scalar_subquery()
            page = page.where(tuple_(grants.c.requested_at, grants.c.id) < last)
        return [rows.grant(row) for row in self._read(page)]

    def note(self, grant: GrantId) -> Note:
        """What was known when a grant was asked for."""
        found = self._read(select(notes.c.note).where(notes.c.grant_id == grant))
        return {key: tuple(values) for key, values in found[0].note.items()} if found else NOTHING


def condition(selection: Selection, at: datetime, dialect: str, *, fenced: bool = False) -> ColumnElement[bool]:
    """What holds of a row of `grants` that is selected at `at`. `fenced`: the row is found before its note is read."""
    return and_(true(), *(_term(term, at, dialect, fenced=fenced) for term in selection.terms))


def open_condition(selection: Selection, at: datetime, dialect: str) -> ColumnElement[bool]:
    """The same of a row that has not ended.

    Fenced, because PostgreSQL may else begin with the notes of all years: the price is that of what is open.
    """
    return and_(text(OPEN), condition(selection, at, dialect, fenced=True))


def _term(term: Term, at: datetime, dialect: str, *, fenced: bool) -> ColumnElement[bool]:
    match term.operator:
        case Operator.IN:
            return _has(term, dialect, fenced=fenced)
        case Operator.NOT_IN:
            return not_(_has(term, dialect, fenced=fenced))
        case Operator.EXISTS:
            return _any(term, dialect)
        case Operator.MISSING:
            return not_(_any(term, dialect))
        case _:
            return _range(term, at)


def _range(term: Term, at: datetime) -> ColumnElement[bool]:
    compare = cast("Any", RANGES[term.operator])
    if isinstance(term.bound, timedelta):
        return compare(at - term.bound, grants.c.requested_at)  # the older, the earlier: the sides change places
    return compare(_SINCE, term.bound)


def _has(term: Term, dialect: str, *, fenced: bool) -> ColumnElement[bool]:
    """Whether one of the values is there."""
    values = sorted(term.values)
    match term.selector.kept:
        case Kept.GRANT:
            return grants.c[term.selector.word].in_(values)
        case Kept.TASK:
            parts = tuple_(grants.c.workload, grants.c.task).in_(_trees(values))
            return or_(grants.c.task.in_(values), parts)
        case Kept.LEASE:
            return _of_grant(leases.c.grant_id).where(leases.c[term.selector.word].in_(values)).exists()
        case Kept.APPROVAL:
            return _of_grant(approvals.c.grant_id).where(approvals.c.subject.in_(values)).exists()
        case Kept.NOTE if dialect == "postgresql":
            noted = type_coerce(notes.c.note, JSONB)
            its = _of_grant(notes.c.grant_id).where(or_(*(noted.contains({term.key: [one]}) for one in values)))
            # An EXISTS with an OFFSET is never made a join. Source: PostgreSQL, simplify_EXISTS_query.
            return its.offset(0).exists() if fenced else its.exists()
        case _:
            unfolded, keys, told = _unfolded()
            its = and_(notes.c.grant_id == grants.c.id, keys.c.key == term.key, told.c.value.in_(values))
            return exists().select_from(unfolded).where(its)


def _any(term: Term, dialect: str) -> ColumnElement[bool]:
    """Whether any value is there."""
    match term.selector.kept:
        case Kept.GRANT | Kept.TASK | Kept.ISSUED | Kept.AGE:
            return true()
        case Kept.LEASE:
            return _of_grant(leases.c.grant_id).exists()
        case Kept.APPROVAL:
            return _of_grant(approvals.c.grant_id).exists()
        case Kept.NOTE if dialect == "postgresql":
            return _of_grant(notes.c.grant_id).where(type_coerce(notes.c.note, JSONB).has_key(term.key)).exists()
        case Kept.NOTE:
            unfolded, keys, _ = _unfolded()
            return exists().select_from(unfolded).where(notes.c.grant_id == grants.c.id, keys.c.key == term.key)


def _of_grant(column: ColumnElement[Any]) -> Select[Any]:
    return select(1).where(column == grants.c.id).correlate(grants)


def _unfolded() -> tuple[Any, Any, Any]:
    """SQLite's view of notes: all joined, the row of each key, and that of each of its values."""
    keys = func.json_each(notes.c.note).table_valued("key", "value", name="keys")
    values = func.json_each(keys.c.value).table_valued("value", name="told")
    return notes.join(keys, true()).join(values, true()), keys, values


def _trees(ids: Sequence[str]) -> Select[*tuple[Any, ...]]:
    """Tasks of these names, of any workload, and all below them."""
    tree = select(tasks.c.workload, tasks.c.id).where(tasks.c.id.in_(ids)).cte("tree", recursive=True)
    below = select(tasks.c.workload, tasks.c.id).join(
        tree, and_(tasks.c.workload == tree.c.workload, tasks.c.parent == tree.c.id)
    )
    tree = tree.union(below)
    return select(tree.c.workload, tree.c.id)
