"""May this workload, right now, have exactly that? Pure, total and ordered; every no is collected.

Three decisions are always separate: eligibility (may it ever ask?), context (is it right now?), scope (does
it cover only what is needed?). Then comes approval. Default is deny.
"""

from collections.abc import Iterator
from datetime import timedelta

from controlplane.model.decision import Allow, Decides, Decision, Deny, NeedsApproval, Reason
from controlplane.model.duration import format_duration
from controlplane.model.entitlement import Entitlement
from controlplane.model.identity import VerifiedClaims
from controlplane.model.request import GrantRequest

MIN_TTL = timedelta(seconds=5)
"""Below this a lease would end before its holder has opened it."""


def decide(entitlement: Entitlement | None, who: VerifiedClaims, asked: GrantRequest) -> Decision:
    """The decision on one request.

    A workload that is not eligible learns nothing else: an entitlement that does not exist, and one that
    is not for it, are refused with the same words (promise P12).
    """
    if entitlement is None or not any(entry.admits(who) for entry in entitlement.eligibility):
        return Deny(reasons=(_not_eligible(who, asked),))
    noes = (*_context(entitlement), *_scope(entitlement, asked))
    if noes:
        return Deny(reasons=noes)
    yes = (
        Reason(decision=Decides.ELIGIBILITY, code="eligible", detail=f"{who.issuer} {who.subject} may ask for this"),
        Reason(decision=Decides.CONTEXT, code="in-context", detail="no condition of the context is broken"),
        Reason(decision=Decides.SCOPE, code="in-scope", detail=f"{asked.intent} is one of the intents"),
    )
    if entitlement.approval is not None:
        quorum = entitlement.approval.quorum
        waits = Reason(
            decision=Decides.APPROVAL,
            code="approval-needed",
            detail=f"{quorum} of {', '.join(entitlement.approval.from_)} must agree",
        )
        return NeedsApproval(reasons=(*yes, waits), quorum=quorum)
    free = Reason(decision=Decides.APPROVAL, code="no-approval-needed", detail="nobody has to agree")
    return Allow(reasons=(*yes, free))


def granted_ttl(entitlement: Entitlement, asked: GrantRequest) -> timedelta:
    """How long the grant lives: what was asked, or the entitlement's default."""
    return entitlement.ttl.default if asked.ttl is None else asked.ttl


def _not_eligible(who: VerifiedClaims, asked: GrantRequest) -> Reason:
    return Reason(
        decision=Decides.ELIGIBILITY,
        code="not-eligible",
        detail=f"{who.issuer} {who.subject} is not eligible for an entitlement called {asked.entitlement}",
    )


def _context(entitlement: Entitlement) -> Iterator[Reason]:
    # Fail closed: a condition that this release cannot check yet is a condition that does not hold.
    conditions = [f"context.{name}" for name in sorted(entitlement.context.model_fields_set)]
    for condition in [*conditions, *(["heartbeat"] if entitlement.heartbeat else [])]:
        yield Reason(
            decision=Decides.CONTEXT,
            code="context-unchecked",
            detail=f"{condition} cannot be checked by this release, so it counts as broken",
        )


def _scope(entitlement: Entitlement, asked: GrantRequest) -> Iterator[Reason]:
    if asked.intent not in entitlement.intents:
        yield Reason(
            decision=Decides.SCOPE,
            code="unknown-intent",
            detail=f"{asked.intent} is none of its intents: {', '.join(entitlement.intents)}",
        )
    ttl = granted_ttl(entitlement, asked)
    if ttl > entitlement.ttl.max:
        yield Reason(
            decision=Decides.SCOPE,
            code="ttl-above-maximum",
            detail=f"{format_duration(ttl)} is longer than the maximum of {format_duration(entitlement.ttl.max)}",
        )
    if ttl < MIN_TTL:
        yield Reason(
            decision=Decides.SCOPE,
            code="ttl-below-minimum",
            detail=f"{format_duration(ttl)} is shorter than the minimum of {format_duration(MIN_TTL)}",
        )
