"""Find out in which situation a request is: what the clock, the settings and the store say of it."""

from dataclasses import dataclass

from controlplane.grants.context import counted
from controlplane.model.entitlement import Entitlement
from controlplane.model.identity import VerifiedClaims
from controlplane.model.network import Address
from controlplane.model.situation import Situation
from controlplane.ports import Clock, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Situate:
    """The situation of now; `environment` is that of this control plane, None where the settings name none."""

    clock: Clock
    environment: str | None

    def __call__(
        self, tx: Transaction, entitlement: Entitlement | None, who: VerifiedClaims, *, address: Address | None
    ) -> Situation:
        """All that a decision on `entitlement` needs; what it counts stays true until `tx` ends.

        For a stranger nothing is counted: he could tell from the time it takes that there is something to count.
        """
        at, usage, reviews = self.clock.now(), None, None
        freezes = tuple(tx.freezes(at))  # first: what asks for them holds up a freeze that is being made
        if entitlement is not None and entitlement.context.budgeted and entitlement.admits(who):
            back, enough = counted(entitlement.context)
            usage = tx.usage(entitlement.name, who.workload, since=at - back, enough=enough)
        if entitlement is not None and entitlement.break_glass and entitlement.admits(who):
            reviews = tuple(tx.open_reviews(who.names))
        return Situation(
            at=at,
            address=address,
            environment=self.environment,
            usage=usage,
            freezes=freezes,
            open_reviews=reviews,
        )
