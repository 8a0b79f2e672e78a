"""Drain: cut every live grant of a revision that is retired, and watch until nothing of it is open any more.

It is a cut like any other, previewed and ordered on disk: whatever is killed, the workers of all replicas go on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from controlplane.incident.cut import OrderCut
from controlplane.incident.cuts import Seen, ShowCuts
from controlplane.incident.preview import PreviewSelection
from controlplane.model.access import Role, Standing
from controlplane.model.grant import State
from controlplane.model.identity import IssuerName, VerifiedClaims
from controlplane.ports import Clock

ISSUER: Final = IssuerName("shorthold-sync")
"""Vouches for whoever applies where the control plane's keys are: he has no token, and could do anything there."""

_PAUSE: Final = timedelta(milliseconds=200)
_STANDING: Final = Standing(roles=frozenset({Role.RESPONDER}))
_LIVE: Final = (State.ACTIVE, State.IRREVOCABLE, State.ISSUING, State.REVOKING)
"""What has a credential, or may have one. What only waits for people is decided anew once they agree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainRevision:
    """Order one cut, and wait for the workers. `within` is how long that may take before it counts as resisting."""

    clock: Clock
    preview: PreviewSelection
    order: OrderCut
    cuts: ShowCuts
    pause: Callable[[timedelta], None]
    within: timedelta

    def __call__(self, by: str, entitlement: str, revision: str, *, incident: str, reason: str) -> Seen | None:
        """What has become of its live grants; None where it had none. Unless the cut has ended, something resists.

        Raises: StoreUnavailableError: what was ordered goes on all the same.
        """
        now = self.clock.now()
        who = VerifiedClaims(issuer=ISSUER, subject=by, claims={}, issued_at=now, expires_at=now + self.within)
        live = ", ".join(_LIVE)
        text = f"entitlement={entitlement},revision={revision},state in ({live})"
        digest = self.preview(who, _STANDING, text).digest
        if digest is None:
            return None
        # Nobody logs in to it any more, so there is nothing to freeze; and what it takes was named to the digit.
        ordered = self.order(
            who, _STANDING, digest, incident=incident, reason=reason, freeze=False, everything=True
        ).cut
        while True:
            seen = self.cuts(_STANDING, ordered.id)
            if seen.cut.ended_at is not None or self.clock.now() >= now + self.within:
                return seen
            self.pause(_PAUSE)
