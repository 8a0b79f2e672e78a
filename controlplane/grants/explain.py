"""Explain what would be decided on a request, without making anything."""

from dataclasses import dataclass

from controlplane.grants.decide import decide
from controlplane.grants.request import told
from controlplane.grants.situate import Situate
from controlplane.model.decision import Decision
from controlplane.model.event import Kind
from controlplane.model.identity import VerifiedClaims
from controlplane.model.network import Address
from controlplane.model.request import GrantRequest
from controlplane.ports import Entitlements, Policy, Recorder, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What would be decided. `spent`: the token asked for a grant before, so that a request would be refused anyway."""

    decision: Decision
    spent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainGrant:
    """The same decision as a request gets, in the same order, from the same facts."""

    record: Recorder
    entitlements: Entitlements
    store: Store
    situate: Situate
    policy: Policy

    def __call__(self, who: VerifiedClaims, asked: GrantRequest, *, address: Address | None = None) -> Explanation:
        """The decision with every yes and every no; no budget is spent by asking.

        Only the audit log keeps that it was asked for: whoever tries out what he may do is seen doing it. A
        workload that is not eligible learns what a request would tell it, and nothing else (promise P12).
        """
        compiled = self.entitlements.get(asked.entitlement)
        entitlement = None if compiled is None else compiled.entitlement
        revision = None if compiled is None else compiled.revision
        rule = self.policy.now()  # before the transaction: it may read files, and every writer would wait
        with self.store.transaction() as tx:
            situation = self.situate(tx, entitlement, who, asked=asked, revision=revision, address=address)
            decision = decide(entitlement, who, asked, situation, rule)
            facts = told(asked, who, decision.reasons)
            tx.append(self.record(Kind.GRANT_EXPLAINED, **facts, outcome=decision.outcome))
        return Explanation(decision=decision, spent=who.single_use is not None and self.store.spent(who.single_use))
