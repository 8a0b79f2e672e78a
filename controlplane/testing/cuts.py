"""Cuts in a store in memory."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from controlplane.model.cut import (
    Changed,
    Cut,
    CutId,
    Doing,
    Group,
    Outcome,
    Preview,
    Surveyed,
    lease_group,
    outcome,
)
from controlplane.model.entitlement import Risk
from controlplane.model.errors import IllegalTransitionError, LostRaceError
from controlplane.model.grant import TERMINAL, Grant, GrantId, State
from controlplane.model.lease import Lease
from controlplane.model.selection import Note

_ORDER = [Risk.HIGH, Risk.MEDIUM, Risk.LOW]


@dataclass(slots=True)
class Cuts:
    """What such a store holds of cuts."""

    previews: dict[str, Preview] = field(default_factory=dict[str, Preview])
    cuts: dict[CutId, Cut] = field(default_factory=dict[CutId, Cut])
    items: dict[CutId, frozenset[GrantId]] = field(default_factory=dict[CutId, frozenset[GrantId]])

    def copy(self) -> "Cuts":
        """The same, to be changed."""
        return Cuts(dict(self.previews), dict(self.cuts), dict(self.items))

    def show(self, preview: Preview) -> None:
        """Save what somebody was shown."""
        if preview.digest in self.previews:
            raise LostRaceError("there is a preview of that digest")
        self.previews[preview.digest] = preview

    def order(self, cut: Cut) -> None:
        """Save a new cut."""
        known = {made.digest for made in self.cuts.values()}
        if cut.id in self.cuts or cut.digest in known or cut.digest not in self.previews:
            raise LostRaceError("another cut was ordered by that preview, or there is no such one")
        if cut.ended_at is not None and cut.ended_at < cut.ordered_at:
            raise IllegalTransitionError("the store refuses: a cut ends after it was ordered")
        self.cuts[cut.id], self.items[cut.id] = cut, frozenset()

    def end(self, cut: Cut) -> bool:
        """Save that a cut has ended; False where it had before."""
        if self.cuts[cut.id].ended_at is not None:
            return False
        self.cuts[cut.id] = replace(self.cuts[cut.id], ended_at=cut.ended_at)
        return True

    def unbegun(
        self, cut: CutId, grants: Mapping[GrantId, Grant], notes: Mapping[GrantId, Note]
    ) -> list[tuple[Grant, Risk]]:
        """Grants of the cut that have not begun to end, riskiest first."""
        mine = [grants[id] for id in self.items[cut] if outcome(grants[id]) is Outcome.WAITING]
        risky = [(grant, Risk(notes.get(grant.id, {}).get("risk", ("high",))[0])) for grant in mine]
        return sorted(risky, key=lambda one: (_ORDER.index(one[1]), one[0].requested_at, one[0].id))


def survey(selected: Iterable[Grant], every: Iterable[Grant], leases: Iterable[tuple[GrantId, Lease]]) -> Surveyed:
    """What is selected, counted."""
    mine = {grant.id: grant for grant in selected if grant.state not in TERMINAL}
    groups = Counter((grant.issuer, grant.subject, grant.entitlement, grant.state) for grant in mine.values())
    working = {State.ISSUING, State.ACTIVE}
    doing = Counter((grant.subject, grant.task) for grant in mine.values() if grant.state in working)
    names: dict[tuple[str, str], set[str]] = {}
    for holder, lease in leases:
        if holder in mine:
            names.setdefault((lease.engine, lease.target.name), set()).add(lease.principal)
    return Surveyed(
        groups=[
            Group(issuer=issuer, subject=subject, entitlement=entitlement, state=state, count=count)
            for (issuer, subject, entitlement, state), count in sorted(groups.items())
        ],
        leases=[lease_group(engine, target, sorted(some)) for (engine, target), some in sorted(names.items())],
        doing=[
            Doing(subject=subject, task=task, grants=count)
            for (subject, task), count in sorted(doing.items(), key=lambda one: (-one[1], one[0]))
        ],
        of=sum(grant.state not in TERMINAL for grant in every),
    )


def changed(selected: Iterable[Grant], preview: Preview) -> Changed:
    """What differs since a preview."""
    mine = [grant for grant in selected if grant.state not in TERMINAL]
    new = sum(grant.requested_at > preview.at for grant in mine)
    return Changed(new=new, ended=max(preview.count - (len(mine) - new), 0))


def made(cut: Cut) -> tuple[datetime, CutId]:
    """In which order cuts are listed."""
    return cut.ordered_at, cut.id
