"""Every yes and every no as rows, and what still waits for them."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Connection,
    Integer,
    Row,
    Select,
    bindparam,
    func,
    insert,
    select,
    tuple_,
)

from controlplane.model.approval import Approver, Denial, GivenApproval, Narrowing
from controlplane.model.canonical import canonical
from controlplane.model.grant import GrantId
from controlplane.model.identity import IssuerName, WorkloadId
from controlplane.stores.schema import PENDING, approvals, denials, grants

OF_GRANT: Final = (
    select(approvals)
    .where(approvals.c.grant_id == bindparam("its_grant"))
    .order_by(approvals.c.at, approvals.c.issuer, approvals.c.subject)
)
NO_TO_GRANT: Final = select(denials).where(denials.c.grant_id == bindparam("its_grant"))

_WAITING = (
    select(grants.c.id)
    .where(PENDING, grants.c.workload == bindparam("its_workload"))
    .limit(bindparam("enough", type_=Integer))
    .subquery()
)
_COUNT: Final = select(func.count()).select_from(_WAITING)
_TURN: Final = select(func.pg_advisory_xact_lock(bindparam("key", type_=BigInteger)))  # as in stores/budgets.py


def page(entitlements: Iterable[str], *, before: GrantId | None, limit: int) -> Select[*tuple[Any, ...]]:
    """Fits `ports.Store.pending`."""
    named = grants.c.entitlement.in_(list(entitlements))
    found = select(grants).where(PENDING, named).order_by(grants.c.requested_at.desc(), grants.c.id.desc())
    if before is not None:
        last = select(grants.c.requested_at, grants.c.id).where(grants.c.id == before).scalar_subquery()
        found = found.where(tuple_(grants.c.requested_at, grants.c.id) < last)
    return found.limit(limit)


def waiting(connection: Connection, workload: WorkloadId, *, enough: int) -> int:
    """Fits `ports.Transaction.waiting`; `connection` is within the transaction. Raises: DBAPIError."""
    if connection.dialect.name == "postgresql":
        connection.execute(_TURN, {"key": _key(workload)})
    return connection.execute(_COUNT, {"its_workload": workload, "enough": enough}).scalar_one()


def approve(connection: Connection, grant: GrantId, given: GivenApproval) -> None:
    """Fits `ports.Transaction.approve`. Raises: IntegrityError, DBAPIError."""
    scopes = given.narrow.scopes
    connection.execute(
        insert(approvals),
        {
            "grant_id": grant,
            "issuer": given.by.issuer,
            "subject": given.by.subject,
            "person": given.by.person,
            "groups": json.dumps(given.by.groups),
            "claims": canonical(given.by.claims).decode(),
            "digest": given.digest,
            "reason": given.reason,
            "narrow_ttl": given.narrow.ttl,
            "narrow_scopes": None if scopes is None else json.dumps(scopes),
            "at": given.at,
        },
    )


def deny(connection: Connection, grant: GrantId, said: Denial) -> None:
    """Fits `ports.Transaction.deny`. Raises: IntegrityError, DBAPIError."""
    connection.execute(
        insert(denials),
        {
            "grant_id": grant,
            "issuer": said.by.issuer,
            "subject": said.by.subject,
            "person": said.by.person,
            "reason": said.reason,
            "at": said.at,
        },
    )


def approval(row: Row[*tuple[Any, ...]]) -> GivenApproval:
    """The yes of a row of `approvals`."""
    scopes = None if row.narrow_scopes is None else tuple(json.loads(row.narrow_scopes))
    return GivenApproval(
        by=Approver(
            issuer=IssuerName(row.issuer),
            subject=row.subject,
            person=row.person,
            groups=tuple(json.loads(row.groups)),
            claims=json.loads(row.claims),
        ),
        digest=row.digest,
        reason=row.reason,
        narrow=Narrowing(ttl=row.narrow_ttl, scopes=scopes),
        at=row.at,
    )


def denial(row: Row[*tuple[Any, ...]]) -> Denial:
    """The no of a row of `denials`."""
    by = Approver(issuer=IssuerName(row.issuer), subject=row.subject, person=row.person)
    return Denial(by=by, reason=row.reason, at=row.at)


def _key(workload: WorkloadId) -> int:
    return int.from_bytes(hashlib.sha256(f"waiting {workload}".encode()).digest()[:8], "big", signed=True)
