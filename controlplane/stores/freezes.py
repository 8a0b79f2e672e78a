"""Freezes in SQL: asked for by every request, so that one which is being made waits for those that asked before it."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Dialect,
    Executable,
    Row,
    and_,
    bindparam,
    func,
    insert,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from controlplane.model.canonical import JsonValue, canonical, instant
from controlplane.model.freeze import Freeze, FreezeId, Thaw
from controlplane.model.identity import IssuerName
from controlplane.stores.prepared import Prepared
from controlplane.stores.schema import freezes

# On PostgreSQL a transaction that asked for freezes holds the lock with others like it, to its end; whoever takes it
# alone has outlasted them all. It is a statement of its own: one that waits and then reads sees what was there before
# it waited. SQLite has one writer anyway.
_LOCK: Final = 0x667265657A65
_WITH_OTHERS: Final = select(func.pg_advisory_xact_lock_shared(literal_column(str(_LOCK))))
_ALONE: Final = select(func.pg_advisory_xact_lock(literal_column(str(_LOCK))))

_ACTIVE: Final = and_(
    freezes.c.thawed_at.is_(None), or_(freezes.c.expires_at.is_(None), freezes.c.expires_at > bindparam("at"))
)
_ANY_ACTIVE: Final = select(freezes.c.id).where(_ACTIVE)
_ALL_ACTIVE: Final = select(freezes).where(_ACTIVE).order_by(freezes.c.created_at, freezes.c.id)
_THAW: Final = update(freezes).where(
    freezes.c.id == bindparam("its_id"), freezes.c.thaws == bindparam("its_thaws"), freezes.c.thawed_at.is_(None)
)
ITS: Final = select(freezes).where(freezes.c.id == bindparam("its_id"))


class FreezeStatements:
    """What a transaction can say of freezes, in one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._shared = Prepared(_WITH_OTHERS, dialect) if dialect.name == "postgresql" else None
        self._any = Prepared(_ANY_ACTIVE, dialect)
        self._add = Prepared(insert(freezes), dialect)
        self._thaw = Prepared(_THAW, dialect)

    def active(self, connection: Connection, at: datetime) -> Sequence[Freeze]:
        """Fits `ports.Transaction.freezes`. While nothing is frozen it costs a look into an empty index."""
        if self._shared is not None:
            self._shared.first(connection, {})
        if self._any.first(connection, {"at": at}) is None:
            return []
        return [freeze(row) for row in connection.execute(_ALL_ACTIVE, {"at": at})]

    def add(self, connection: Connection, made: Freeze) -> None:
        """Insert it. Raises: DBAPIError."""
        self._add.run(connection, freeze_row(made))

    def thaw(self, connection: Connection, before: Freeze, after: Freeze) -> bool:
        """Whether it was as `before` and is now as `after`."""
        values = {"thaws": _thaws_text(after.thaws), "thawed_at": after.thawed_at}
        its = {"its_id": before.id, "its_thaws": _thaws_text(before.thaws)}
        return self._thaw.run(connection, {**values, **its}) == 1


def outlast(connection: Connection) -> None:
    """On PostgreSQL, wait until every transaction that asked for freezes has ended. Raises: DBAPIError: one hangs."""
    connection.execute(_ALONE)


def page(*, active_at: datetime | None, before: FreezeId | None, limit: int) -> tuple[Executable, Mapping[str, Any]]:
    """The question for a page, newest first, and its values."""
    question = select(freezes).order_by(freezes.c.created_at.desc(), freezes.c.id.desc()).limit(limit)
    values: dict[str, Any] = {}
    if active_at is not None:
        question, values = question.where(_ACTIVE), {"at": active_at}
    if before is not None:
        last = select(freezes.c.created_at, freezes.c.id).where(freezes.c.id == before).scalar_subquery()
        question = question.where(tuple_(freezes.c.created_at, freezes.c.id) < last)
    return question, values


def freeze_row(made: Freeze) -> dict[str, Any]:
    """Every column of a freeze."""
    return {
        "id": made.id,
        "selection": made.selection,
        "message": made.message,
        "reason": made.reason,
        "issuer": made.issuer,
        "subject": made.subject,
        "created_at": made.created_at,
        "expires_at": made.expires_at,
        "thaws": _thaws_text(made.thaws),
        "thawed_at": made.thawed_at,
    }


def freeze(row: Row[*tuple[Any, ...]]) -> Freeze:
    """The freeze of a row of `freezes`."""
    return Freeze(
        id=FreezeId(row.id),
        selection=row.selection,
        message=row.message,
        reason=row.reason,
        issuer=IssuerName(row.issuer),
        subject=row.subject,
        created_at=row.created_at,
        expires_at=row.expires_at,
        thaws=_thaws(row.thaws),
        thawed_at=row.thawed_at,
    )


def _thaws_text(thaws: Sequence[Thaw]) -> str:
    told: list[JsonValue] = [
        {
            "issuer": thaw.issuer,
            "subject": thaw.subject,
            "person": thaw.person,
            "at": instant(thaw.at),
            "reason": thaw.reason,
        }
        for thaw in thaws
    ]
    return canonical(told).decode()


def _thaws(text: str) -> tuple[Thaw, ...]:
    return tuple(
        Thaw(
            issuer=IssuerName(thaw["issuer"]),
            subject=thaw["subject"],
            person=thaw["person"],
            at=datetime.fromisoformat(thaw["at"]),
            reason=thaw["reason"],
        )
        for thaw in json.loads(text)
    )
