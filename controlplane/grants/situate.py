"""Find out in which situation a request is: what the clock, the settings and the store say of it."""

from dataclasses import dataclass, replace

from controlplane.grants.context import counted
from controlplane.grants.decide import MOST_WAITING
from controlplane.grants.line import look
from controlplane.model.entitlement import Entitlement
from controlplane.model.grant import Grant, Revision
from controlplane.model.identity import VerifiedClaims
from controlplane.model.network import Address
from controlplane.model.request import GrantRequest
from controlplane.model.situation import Situation, Usage
from controlplane.ports import Clock, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Situate:
    """The situation of now; `environment` is that of this control plane, None where the settings name none."""

    clock: Clock
    environment: str | None

    def __call__(
        self,
        tx: Transaction,
        entitlement: Entitlement | None,
        who: VerifiedClaims,
        *,
        asked: GrantRequest,
        revision: Revision | None,
        address: Address | None,
        collecting: Grant | None = None,
    ) -> Situation:
        """All that a decision on `entitlement`, which reads like `revision`, needs; it stays true until `tx` ends.

        For a stranger nothing is counted: he could tell from the time it takes that there is something to count.
        The grant that `collecting` names has kept its place since it was asked for: it is not counted against itself.
        """
        at, usage, waiting, reviews, line = self.clock.now(), None, 0, None, None
        freezes = tuple(tx.freezes(at))  # first: what asks for them holds up a freeze that is being made
        known = entitlement if entitlement is not None and entitlement.admits(who) else None
        if known is not None:
            line = look(tx, who, asked, revision, collecting)
        if known is not None and known.context.budgeted:
            back, enough = counted(known.context)
            since = at - back
            usage = tx.usage(known.name, who.workload, since=since, enough=enough + (collecting is not None))
            usage = usage if collecting is None else _without(usage, requested=collecting.requested_at > since)
        if known is not None and known.approval is not None and collecting is None:
            waiting = tx.waiting(who.workload, enough=MOST_WAITING)
        if known is not None and known.break_glass:
            reviews = tuple(tx.open_reviews(who.names))
        return Situation(
            at=at,
            address=address,
            environment=self.environment,
            usage=usage,
            freezes=freezes,
            waiting=waiting,
            open_reviews=reviews,
            line=line,
        )


def _without(usage: Usage, *, requested: bool) -> Usage:
    return replace(
        usage,
        active_of_subject=usage.active_of_subject - 1,
        active=usage.active - 1,
        requested=usage.requested - requested,
    )
