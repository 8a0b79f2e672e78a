"""Reviews of broken glass in SQL: one person has one open at a time, whoever asks at the same moment."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Row,
    Select,
    Text,
    bindparam,
    delete,
    func,
    insert,
    null,
    select,
    tuple_,
    update,
)

from controlplane.model.errors import LostRaceError
from controlplane.model.grant import GrantId
from controlplane.model.identity import IssuerName, WorkloadId
from controlplane.model.review import Closing, Review
from controlplane.stores.schema import review_names, reviews

# On PostgreSQL two transactions that look see neither's review: the locks, held to the end, make them follow each
# other. The primary key of the names would refuse the second one too, but with words that help nobody.
_TURN = select(func.pg_advisory_xact_lock(bindparam("key", type_=BigInteger)))
_ITS = bindparam("its_grant", type_=Text)
_CLOSE = update(reviews).where(reviews.c.grant_id == _ITS, reviews.c.closed_at.is_(None))
_FORGET = delete(review_names).where(review_names.c.grant_id == _ITS)
ONE = select(reviews).where(reviews.c.grant_id == _ITS)
"""The review of `its_grant`."""


def open_reviews(connection: Connection, names: frozenset[str]) -> Sequence[GrantId]:
    """Fits `ports.Transaction.open_reviews`; `connection` is within the transaction. Raises: DBAPIError."""
    if connection.dialect.name == "postgresql":
        for key in sorted(map(_key, names)):  # in one order, so that no two wait for each other
            connection.execute(_TURN, {"key": key})
    found = (
        select(reviews.c.grant_id)
        .join(review_names, review_names.c.grant_id == reviews.c.grant_id)
        .where(review_names.c.name.in_(sorted(names)))
        .order_by(reviews.c.opened_at, reviews.c.grant_id)
        .distinct()
        .add_columns(reviews.c.opened_at)  # PostgreSQL orders distinct rows by what it selects only
    )
    return [GrantId(row.grant_id) for row in connection.execute(found)]


def open_review(connection: Connection, review: Review) -> None:
    """Fits `ports.Transaction.open_review`. Raises: DBAPIError."""
    connection.execute(insert(reviews), _row(review))
    connection.execute(insert(review_names), [{"name": name, "grant_id": review.grant} for name in review.names])


def close_review(connection: Connection, review: Review) -> None:
    """Fits `ports.Transaction.close_review`. Raises: LostRaceError; DBAPIError."""
    closed = connection.execute(_CLOSE.values(_closing_row(review.closing)), {"its_grant": review.grant})
    if closed.rowcount != 1:
        raise LostRaceError(f"the review of {review.grant} is not open any more")
    connection.execute(_FORGET, {"its_grant": review.grant})


def page(after: GrantId | None, limit: int) -> Select[*tuple[Any, ...]]:
    """A page of open reviews, oldest first; after a grant that has none it is empty."""
    found = (
        select(reviews)
        .where(reviews.c.closed_at.is_(null()))
        .order_by(reviews.c.opened_at, reviews.c.grant_id)
        .limit(limit)
    )
    if after is None:
        return found
    last = select(reviews.c.opened_at, reviews.c.grant_id).where(reviews.c.grant_id == after).scalar_subquery()
    return found.where(tuple_(reviews.c.opened_at, reviews.c.grant_id) > last)


def review(row: Row[*tuple[Any, ...]]) -> Review:
    """The review of a row of `reviews`."""
    closing = None
    if row.closed_at is not None:
        closing = Closing(
            at=row.closed_at,
            issuer=IssuerName(row.closed_by_issuer),
            subject=row.closed_by_subject,
            person=row.closed_by_person,
            note=row.note,
        )
    return Review(
        grant=GrantId(row.grant_id),
        issuer=IssuerName(row.issuer),
        subject=row.subject,
        person=row.person,
        workload=WorkloadId(row.workload),
        opened_at=row.opened_at,
        closing=closing,
    )


def _row(review: Review) -> Mapping[str, Any]:
    return {
        "grant_id": review.grant,
        "issuer": review.issuer,
        "subject": review.subject,
        "person": review.person,
        "workload": review.workload,
        "opened_at": review.opened_at,
        **_closing_row(review.closing),
    }


def _closing_row(closing: Closing | None) -> dict[str, Any]:
    return {
        "closed_at": None if closing is None else closing.at,
        "closed_by_issuer": None if closing is None else closing.issuer,
        "closed_by_subject": None if closing is None else closing.subject,
        "closed_by_person": None if closing is None else closing.person,
        "note": None if closing is None else closing.note,
    }


def _key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"review {name}".encode()).digest()[:8], "big", signed=True)
