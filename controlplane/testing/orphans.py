"""What a store in memory answers the reconciler, and its rounds."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from controlplane.model.grant import TERMINAL, Grant, GrantId, State
from controlplane.model.lease import Accessor, Lease, LeaseId
from controlplane.model.orphan import Orphan, OrphanKind, Tally

OrphanKey = tuple[OrphanKind, str]


class Seen(Protocol):
    """What such a store holds at one instant."""

    @property
    def grants(self) -> Mapping[GrantId, Grant]:
        """Every grant."""
        ...

    @property
    def leases(self) -> Mapping[LeaseId, tuple[GrantId, Lease]]:
        """Every lease with its grant."""
        ...

    @property
    def orphans(self) -> Mapping[OrphanKey, Orphan]:
        """What was found and has not ended."""
        ...


class FakeOrphanBook:
    """Fits the ports Rounds and Orphans."""

    def __init__(self) -> None:
        self._rounds: dict[str, tuple[datetime, int]] = {}

    def held_tokens(self, accessors: Iterable[Accessor]) -> frozenset[Accessor]:
        """Those that are an open grant's task token."""
        held = {grant.accessor for grant in self._open()}
        return frozenset(accessor for accessor in accessors if accessor in held)

    def held_leases(self, ids: Iterable[LeaseId]) -> frozenset[LeaseId]:
        """Those that an open grant holds."""
        return frozenset(ids) & {lease.id for lease in self._held()}

    def held_principals(self) -> frozenset[str]:
        """The principals of all leases that open grants hold."""
        return frozenset(lease.principal for lease in self._held())

    def lease(self, id: LeaseId) -> tuple[GrantId, Lease] | None:
        """A lease that some grant holds, and which."""
        return self._seen().leases.get(id)

    def unsettled(self) -> Sequence[Grant]:
        """Open grants of which an unseen effect may still appear."""
        return [grant for grant in self._open() if grant.settles_at is not None]

    def orphans(self) -> Sequence[Orphan]:
        """What was found and has not ended, oldest first."""
        return sorted(self._seen().orphans.values(), key=lambda orphan: (orphan.found_at, orphan.kind, orphan.name))

    def tallies(self, *, engines: bool = False) -> Sequence[Tally]:
        """How many grants are in each open state; with `engines`, those that end, by engine."""
        groups: dict[tuple[State, str | None], list[Grant]] = {}
        for grant in self._open():
            if not engines:
                groups.setdefault((grant.state, None), []).append(grant)
            elif grant.state in {State.REVOKING, State.IRREVOCABLE}:
                held = {lease.engine for holder, lease in self._seen().leases.values() if holder == grant.id}
                for engine in held or {None}:
                    groups.setdefault((grant.state, engine), []).append(grant)
        return [
            Tally(
                state=state,
                engine=engine,
                count=len(found),
                oldest=min((grant.revoking_at for grant in found if grant.revoking_at is not None), default=None),
            )
            for (state, engine), found in groups.items()
        ]

    def begin_round(self, name: str, now: datetime, *, hold: timedelta) -> bool:
        """Whether this caller is to do it now."""
        self._seen()
        next_at, mark = self._rounds.get(name, (now, 0))
        if next_at > now:
            return False
        self._rounds[name] = now + hold, mark
        return True

    def end_round(self, name: str, again: datetime, *, mark: int = 0) -> None:
        """It is done until `again`."""
        self._seen()
        self._rounds[name] = again, max(mark, self.mark(name))

    def mark(self, name: str) -> int:
        """The highest mark of a round that ended."""
        self._seen()
        return self._rounds[name][1] if name in self._rounds else 0

    def _open(self) -> Sequence[Grant]:
        return [grant for grant in self._seen().grants.values() if grant.state not in TERMINAL]

    def _held(self) -> Sequence[Lease]:
        seen = self._seen()
        return [lease for holder, lease in seen.leases.values() if seen.grants[holder].state not in TERMINAL]

    def _seen(self) -> Seen:
        raise NotImplementedError
