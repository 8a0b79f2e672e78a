"""Collect an approved grant: decide everything anew, and only then issue it, once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from controlplane.grants.approve import said, terms
from controlplane.grants.asked import asked as described
from controlplane.grants.asked import granted_scopes, narrowed, wish
from controlplane.grants.decide import decide
from controlplane.grants.issue import Delivered, IssueGrant
from controlplane.grants.line import within
from controlplane.grants.narrow import with_values
from controlplane.grants.request import in_step, refusal, told
from controlplane.grants.situate import Situate
from controlplane.grants.waiting import Watch
from controlplane.model.approval import GivenApproval
from controlplane.model.canonical import JsonValue
from controlplane.model.decision import Decides, Decision, Deny, Reason
from controlplane.model.errors import LostRaceError, NotApprovedYetError, NotFoundError
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State, Step, Why
from controlplane.model.identity import VerifiedClaims
from controlplane.model.network import Address
from controlplane.model.plan import Compiled
from controlplane.ports import Clock, Engine, Policy, Recorder, Skew, Store

_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectGrant:
    """From `APPROVED` to a credential. `issuing_within` and `settling` are those of a request."""

    clock: Clock
    record: Recorder
    engines: Mapping[str, Engine]
    store: Store
    watch: Watch
    situate: Situate
    policy: Policy
    issue: IssueGrant
    issuing_within: timedelta
    settling: timedelta
    skew: Skew
    gate: Callable[[], None]

    def __call__(self, who: VerifiedClaims, id: GrantId, *, address: Address | None = None) -> Delivered:
        """Issue what was approved, as it was approved, to any token of the workload with no approver behind it.

        Raises:
            NotFoundError: no such grant of this workload.
            NotApprovedYetError: people still have to agree.
            LapsedError: too late, or what was approved is not so any more; DeniedError: somebody said no.
            IllegalTransitionError: it was collected before.
            StoreBehindError: the store was restored from a backup; nothing was decided.
            DeniedError, OverBudgetError, FrozenError: a decision says no now, or who collects is one of those who
                agreed; the grant stays approved.
            ClockOffError: no deadline that this machine reckons could be relied on; the grant stays approved.
            VaultUnavailableError, VaultRefusedError, NotSyncedError: see `IssueGrant`.
        """
        self.gate()
        for left in reversed(range(_TRIES)):
            try:
                issuing, compiled, reasons = self._collect(who, id, address)
                break
            except LostRaceError:
                # Somebody denied, collected or withdrew it meanwhile: what became of it is what is told.
                if not left:
                    raise
        else:
            raise AssertionError("unreachable: the last try breaks or raises")
        return self.issue(issuing, with_values(compiled, issuing, self.engines), reasons, who)

    def _collect(
        self, who: VerifiedClaims, id: GrantId, address: Address | None
    ) -> tuple[Grant, Compiled, tuple[Reason, ...]]:
        grant = self.store.grant(id)
        if grant is None or grant.workload != who.workload:
            raise NotFoundError(f"there is no grant {id} of this workload")
        self.watch.see_waiting(grant)
        if grant.state is State.PENDING:
            raise NotApprovedYetError(f"grant {id} waits for approval until {grant.expires_at.isoformat()}")
        compiled, approvals = self._approved(grant)
        in_step(self.skew)
        decision, issuing = self._decide(who, grant, compiled, approvals, address)
        if issuing is None:
            raise refusal(grant.entitlement, decision)
        return issuing, compiled, (*_passed(decision), _agreed(approvals))

    def _approved(self, grant: Grant) -> tuple[Compiled, tuple[GivenApproval, ...]]:
        """What was approved, by those whose yes still counts. Raises: LapsedError: it is not so any more."""
        # Looked up once: what the approvals are held against is the very thing that is issued.
        found = self.watch.entitled(grant)
        if found is None:
            self.watch.lapse(grant, Why.CHANGED, "its entitlement was changed after it was asked for")
        compiled, approval = found
        wanted = described(grant, compiled, approval, self.engines)
        good = self.watch.good(self.store.approvals(grant.id), wanted, approval, grant)
        if len(good) < approval.quorum:
            what = f"{len(good)} of {approval.quorum} approvals still count"
            self.watch.lapse(grant, Why.CHANGED, f"{what}: what was approved, or who may approve it, has changed")
        return compiled, good

    def _decide(
        self,
        who: VerifiedClaims,
        grant: Grant,
        compiled: Compiled,
        approvals: tuple[GivenApproval, ...],
        address: Address | None,
    ) -> tuple[Decision, Grant | None]:
        entitlement = compiled.entitlement
        left = narrowed(grant, entitlement, approvals)
        ttl = left.ttl or grant.ttl
        asked = wish(grant, ttl=ttl)
        rule = self.policy.now()  # before the transaction: it may read files, and every writer would wait
        with self.store.transaction() as tx:
            situation = self.situate(
                tx, entitlement, who, asked=asked, revision=compiled.revision, address=address, collecting=grant
            )
            decision = decide(entitlement, who, asked, situation, rule)
            if not isinstance(decision, Deny) and (why := _agreed_himself(who, approvals)):
                decision = Deny(reasons=(why,), passed=decision.reasons)
            facts = {**told(asked, who, decision.reasons), "person": who.person}
            if isinstance(decision, Deny):
                tx.append(self.record(Kind.GRANT_REFUSED, grant.id, **facts))
                return decision, None
            now = self.clock.now()
            ttl = within(ttl, situation.line, at=now)
            own = with_values(compiled, grant, self.engines)
            issuing = grant.after(
                Step.ISSUE,
                ttl=ttl,
                scopes=left.scopes,
                paths=tuple(
                    self.engines[scope.engine].ask(scope, own.naming, ttl=ttl).path
                    for scope in granted_scopes(own.entitlement, left.scopes)
                ),
                expires_at=now + ttl,
                due_at=now + self.issuing_within,
                settles_at=now + self.settling,
            )
            everybody: list[JsonValue] = [said(given) for given in approvals]
            bound = {"revision": grant.revision, "digest": approvals[0].digest, "approvals": everybody}
            tx.save(issuing, self.record(Kind.GRANT_ALLOWED, grant.id, **facts, **bound, **terms(left)))
            return decision, issuing


def _passed(decision: Decision) -> tuple[Reason, ...]:
    return tuple(why for why in decision.reasons if why.decision is not Decides.APPROVAL)


def _agreed_himself(who: VerifiedClaims, approvals: tuple[GivenApproval, ...]) -> Reason | None:
    """Why `who` may not collect: several people can be behind one subject, and one of them has agreed."""
    if not any(who.names & given.by.names for given in approvals):
        return None
    detail = "you, or somebody who is called like you, agreed to it: another person has to collect it"
    return Reason(decision=Decides.APPROVAL, code="approver-collects", detail=detail)


def _agreed(approvals: tuple[GivenApproval, ...]) -> Reason:
    who = ", ".join(f"{given.by.issuer} {given.by.subject}" for given in approvals)
    return Reason(decision=Decides.APPROVAL, code="approved", detail=f"{who} agreed to exactly this")
