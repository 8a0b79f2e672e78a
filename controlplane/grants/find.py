"""Find the least that a workload can ask for and have what it needs; only what it is eligible for is looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controlplane.grants.cover import Candidate, Need, candidate, narrowest, parse_needs
from controlplane.grants.who import own_prospect, told
from controlplane.model.canonical import JsonValue
from controlplane.model.identity import VerifiedClaims
from controlplane.ports import Clock, Engine, Entitlements


@dataclass(frozen=True, slots=True, kw_only=True)
class FindAccess:
    """The narrowest entitlements that cover what is needed, what each costs, and how to ask."""

    clock: Clock
    entitlements: Entitlements
    engines: Mapping[str, Engine]

    def __call__(self, who: VerifiedClaims, needs: Sequence[str], *, intent: str | None = None) -> dict[str, JsonValue]:
        """`found` covers all of the needs but those that are `missing`; with `intent`, only by what has that intent.

        A platform role widens nothing: the answer is what the caller itself may ask for (promise P12).
        Raises: InvalidRequestError: a need cannot be read, or there are too many.
        """
        wanted = parse_needs(needs)
        may_ask = [
            compiled.entitlement
            for compiled in self.entitlements.all()
            if compiled.entitlement.admits(who) and (intent is None or intent in compiled.entitlement.intents)
        ]
        found = narrowest(candidate(entitlement, wanted, self.engines) for entitlement in may_ask)
        covered = 0
        for one in found:
            covered |= one.covers
        return {
            "needs": [str(need) for need in wanted],
            "missing": [str(need) for place, need in enumerate(wanted) if not covered >> place & 1],
            "found": [self._told(who, one, wanted, intent) for one in found],
        }

    def _told(self, who: VerifiedClaims, one: Candidate, needs: Sequence[Need], intent: str | None) -> JsonValue:
        name = one.entitlement.name
        chosen = intent or one.entitlement.intents[0]
        return {
            "covers": [str(need) for place, need in enumerate(needs) if one.covers >> place & 1],
            "ask": {"entitlement": name, "intent": chosen},
            "access": told(own_prospect(who, one.entitlement, self.engines, at=self.clock.now())),
        }
