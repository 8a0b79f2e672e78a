"""Find what something that was seen elsewhere belongs to: in SQL."""

from collections.abc import Iterable

from sqlalchemy import func, select

from controlplane.model.grant import Grant, GrantId
from controlplane.model.lease import Accessor
from controlplane.stores import rows
from controlplane.stores.cuts import CutBook
from controlplane.stores.schema import events, grants

_MANY = 500


class TraceBook(CutBook):
    """Fits the port Traces; a part of the store."""

    def first_link(self, of: Iterable[GrantId]) -> int | None:
        """The number of the first link of the chain that is about one of these grants."""
        ids = sorted(of)
        found: list[int] = []
        for start in range(0, len(ids), _MANY):
            its = events.c.grant_id.in_(ids[start : start + _MANY])
            (row,) = self._read(select(func.min(events.c.seq)).where(events.c.grant_id.is_not(None), its))
            found += [] if row[0] is None else [int(row[0])]
        return min(found, default=None)

    def grant_of(self, accessor: Accessor) -> Grant | None:
        """The grant that had this task token."""
        return next(map(rows.grant, self._read(select(grants).where(grants.c.accessor == accessor).limit(1))), None)
