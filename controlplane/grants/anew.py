"""Decide anew on a grant that is in use: would it be granted now? What would not be any more ends."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controlplane.grants.approvers import still_good
from controlplane.grants.asked import wish
from controlplane.grants.context import BUDGETS
from controlplane.grants.decide import decide
from controlplane.grants.request import refusal, told
from controlplane.grants.situate import Situate
from controlplane.grants.unsaved import ending_all_the_same
from controlplane.grants.waiting import Access
from controlplane.model.approval import GivenApproval
from controlplane.model.decision import Decides, Decision, Deny, Reason
from controlplane.model.entitlement import Entitlement
from controlplane.model.errors import (
    ContextChangedError,
    DeniedError,
    EndedError,
    IllegalTransitionError,
    NotFoundError,
)
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State, Step, Why
from controlplane.model.identity import VerifiedClaims
from controlplane.model.network import Address
from controlplane.model.plan import Compiled
from controlplane.model.request import GrantRequest
from controlplane.model.situation import Situation
from controlplane.ports import Clock, Entitlements, Leases, Policy, Recorder, Rule, Spool, Store, Transaction, Wake


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is read before the transaction begins: every writer would wait for it."""

    grant: Grant
    compiled: Compiled | None
    rule: Rule
    approvals: Sequence[GivenApproval]


@dataclass(frozen=True, slots=True, kw_only=True)
class Anew:
    """What was decided. `changed` are the reasons for which the grant must end, none where it may go on.

    `refused` is why it may go on and get no more: a freeze, or a budget.
    """

    asked: GrantRequest
    entitlement: Entitlement | None
    situation: Situation
    decision: Decision
    changed: tuple[Reason, ...]
    refused: DeniedError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecideAnew:
    """The decisions of a request, in their order, on what was granted before."""

    clock: Clock
    record: Recorder
    store: Store
    entitlements: Entitlements
    situate: Situate
    policy: Policy
    access: Access
    leases: Leases
    spool: Spool
    wake: Wake

    def own(self, who: VerifiedClaims, id: GrantId) -> Grant:
        """The workload's own grant, if it is in use.

        Raises:
            NotFoundError: no such grant of this workload.
            IllegalTransitionError: it is not in use yet.
            EndedError: it has ended, or must: its time is over, or a beat did not come.
        """
        grant = self.store.grant(id)
        if grant is None or grant.workload != who.workload:
            raise NotFoundError(f"there is no grant {id} of this workload")
        match grant.state:
            case State.PENDING | State.APPROVED | State.ISSUING:
                raise IllegalTransitionError(f"grant {id} is {grant.state}: it is not in use yet")
            case State.ACTIVE:
                if (why := grant.over(self.clock.now())) is not None:
                    self.wake()
                    raise EndedError(f"grant {id} ends: {why}")
                return grant
            case State.REVOKING | State.IRREVOCABLE | State.REVOKED | State.DENIED | State.LAPSED:
                raise EndedError(f"grant {id} is {grant.state}: {grant.why or 'somebody said no'}")

    def known(self, grant: Grant) -> Known:
        """All that has to be read before the transaction."""
        return Known(
            grant=grant,
            compiled=self.entitlements.get(grant.entitlement),
            rule=self.policy.now(),
            approvals=self.store.approvals(grant.id),
        )

    def __call__(self, tx: Transaction, known: Known, who: VerifiedClaims, *, address: Address | None) -> Anew:
        """What a request for just this grant would be told now; it is not counted against itself."""
        grant = known.grant
        entitlement = None if known.compiled is None else known.compiled.entitlement
        asked = wish(grant, ttl=grant.ttl)
        situation = self.situate(
            tx, entitlement, who, asked=asked, revision=grant.revision, address=address, collecting=grant
        )
        decision = decide(entitlement, who, asked, situation, known.rule)
        noes = decision.reasons if isinstance(decision, Deny) else ()
        changed = [why for why in noes if why.decision is not Decides.FREEZE and why.code not in BUDGETS]
        if known.compiled is not None and known.compiled.entitlement.admits(who):  # nobody else learns of a change
            changed += self._otherwise(known, known.compiled)
        refused = refusal(f"a later end of {grant.id}", decision) if noes and not changed else None
        return Anew(
            asked=asked,
            entitlement=entitlement,
            situation=situation,
            decision=decision,
            changed=tuple(changed),
            refused=refused,
        )

    def end(self, found: Anew, grant: Grant, who: VerifiedClaims) -> ContextChangedError:
        """Save that the grant ends, and let the worker make it so. What its workload is to be told.

        Raises: LostRaceError: somebody else moved it. StoreUnavailableError: Vault was asked to revoke all the same.
        """
        now = self.clock.now()
        ended = grant.after(Step.END, why=Why.CONTEXT_CHANGED, revoking_at=now, due_at=now)
        detail = ", ".join(why.code for why in found.changed)
        facts = {**told(found.asked, who, found.changed), "why": Why.CONTEXT_CHANGED, "detail": detail}
        event = self.record(Kind.GRANT_ENDED, grant.id, **facts)
        with ending_all_the_same(self.leases, self.spool, grant, event), self.store.transaction() as tx:
            tx.save(ended, event)
        self.wake()
        return ContextChangedError(f"grant {grant.id} has ended: it would not be granted now", reasons=found.changed)

    def _otherwise(self, known: Known, compiled: Compiled) -> Iterator[Reason]:
        """What a request would not notice, because it would get the entitlement as it reads now."""
        grant, approval = known.grant, compiled.entitlement.approval
        if compiled.revision != grant.revision:
            detail = f"its entitlement reads otherwise since: revision {compiled.revision} instead of {grant.revision}"
            yield Reason(decision=Decides.SCOPE, code="entitlement-changed", detail=detail)
        if approval is None:
            return
        rules = self.access()
        good = sum(
            still_good(given, digest=given.digest, approval=approval, grant=grant, rules=rules)
            for given in known.approvals
        )
        if good < approval.quorum:
            detail = f"{good} of {approval.quorum} approvals still count"
            yield Reason(decision=Decides.APPROVAL, code="approval-void", detail=detail)
