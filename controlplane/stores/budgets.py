"""What of an entitlement's budgets is used up, counted so that those who count at the same time take turns."""

import hashlib
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    ScalarSelect,
    Select,
    TextClause,
    bindparam,
    func,
    select,
    text,
)

from controlplane.model.identity import WorkloadId
from controlplane.model.situation import Usage
from controlplane.stores.schema import OPEN, grants

_ITS = grants.c.entitlement == bindparam("its_entitlement")
_SUBJECT = grants.c.workload == bindparam("its_workload")
_OPEN = text(OPEN)
_ENOUGH = bindparam("enough", type_=Integer)

# On PostgreSQL two transactions that count see neither's grant: the lock, held to the end, makes them follow each
# other, and at READ COMMITTED the count that follows sees all that was committed. SQLite has one writer anyway.
_TURN = select(func.pg_advisory_xact_lock(bindparam("key", type_=BigInteger)))


def usage(connection: Connection, entitlement: str, workload: WorkloadId, *, since: datetime, enough: int) -> Usage:
    """Fits `ports.Transaction.usage`; `connection` is within the transaction. Raises: DBAPIError."""
    if connection.dialect.name == "postgresql":
        connection.execute(_TURN, {"key": _key(entitlement)})
    values = {"its_entitlement": entitlement, "its_workload": workload, "since": since, "enough": enough}
    row = connection.execute(_USAGE, values).one()
    return Usage(active_of_subject=row.active_of_subject, active=row.active, requested=row.requested, oldest=row.oldest)


def _key(entitlement: str) -> int:
    return int.from_bytes(hashlib.sha256(f"budget {entitlement}".encode()).digest()[:8], "big", signed=True)


def _count(*conditions: ColumnElement[bool] | TextClause) -> ScalarSelect[int]:
    few = select(grants.c.id).where(*conditions).limit(_ENOUGH).subquery()
    return select(func.count()).select_from(few).scalar_subquery()


_NEWEST = (
    select(grants.c.requested_at)
    .where(_SUBJECT, _ITS, grants.c.requested_at > bindparam("since"))
    .order_by(grants.c.requested_at.desc())
    .limit(_ENOUGH)
    .subquery()
)
_USAGE: Select[*tuple[Any, ...]] = select(
    _count(_ITS, _SUBJECT, _OPEN).label("active_of_subject"),
    _count(_ITS, _OPEN).label("active"),
    select(func.count()).select_from(_NEWEST).scalar_subquery().label("requested"),
    select(func.min(_NEWEST.c.requested_at)).scalar_subquery().label("oldest"),
)
