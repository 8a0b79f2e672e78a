"""May this workload, right now, have exactly that? Pure, total and ordered; every no is collected.

The decisions are always separate and always in this order: freeze (is it stopped for now?), eligibility (may it ever
ask?), context (is it right now?), scope (does it cover only what is needed?), policy (do the rules beside the
entitlements permit it?). Then comes approval. Default is deny.
"""

from collections.abc import Iterator
from datetime import timedelta

from controlplane.grants import glass, line, narrow
from controlplane.grants.context import Broken, Held, context
from controlplane.grants.frozen import frozen
from controlplane.grants.known import above
from controlplane.model.decision import Allow, Decides, Decision, Deny, NeedsApproval, Reason
from controlplane.model.duration import format_duration
from controlplane.model.entitlement import Entitlement
from controlplane.model.identity import VerifiedClaims
from controlplane.model.request import GrantRequest
from controlplane.model.situation import Situation
from controlplane.ports import Rule

MOST_WAITING = 20
"""How many grants of one workload may wait for people at once: whoever decides on them has other things to do, too."""

MIN_TTL = timedelta(seconds=5)
"""Below this a lease would end before its holder has opened it."""


def decide(
    entitlement: Entitlement | None, who: VerifiedClaims, asked: GrantRequest, situation: Situation, rule: Rule
) -> Decision:
    """The decision on one request. `rule` is asked whatever context and scope said, so that every no is told.

    A workload that is not eligible learns nothing else: an entitlement that does not exist, and one that
    is not for it, are refused with the same words (promise P12). A freeze beats everything (promise P8).
    """
    if entitlement is None or not entitlement.admits(who):
        stopped = frozen(situation.freezes, who, asked, None, address=situation.address)
        return Deny(reasons=(*stopped, _not_eligible(who, asked)))
    parents = above(situation.line, asked)
    stopped = frozen(situation.freezes, who, asked, entitlement, address=situation.address, above=parents)
    conditions = (*context(entitlement, situation), *line.conditions(situation.line, asked))
    broken = tuple(found for found in conditions if isinstance(found, Broken))
    more = line.beyond(situation.line, entitlement, asked, at=situation.at, least=MIN_TTL)
    values = narrow.outside(entitlement, asked)
    outside = (*_scope(entitlement, asked), *values, *glass.unreasoned(entitlement, asked), *more)
    ruling = rule(entitlement, who, asked, situation)
    unreviewed = tuple(glass.unreviewed(entitlement, situation))
    yes = (
        Reason(decision=Decides.ELIGIBILITY, code="eligible", detail=f"{who.issuer} {who.subject} may ask for this"),
        *(found.reason for found in conditions if isinstance(found, Held)),
        *(() if outside else (_in_scope(asked),)),
        *(ruling.reasons if ruling.permitted else ()),
    )
    if stopped or broken or outside or not ruling.permitted or unreviewed:
        forbidden = () if ruling.permitted else ruling.reasons
        return Deny(
            reasons=(*stopped, *(found.reason for found in broken), *outside, *forbidden, *unreviewed),
            passed=yes,
            over_budget=ruling.permitted
            and not (stopped or outside or unreviewed)
            and all(found.budget for found in broken),
            retry_after=next((found.retry_after for found in broken if found.retry_after is not None), None),
        )
    if entitlement.approval is not None and situation.waiting >= MOST_WAITING:
        return Deny(reasons=(_too_many_wait(situation.waiting),), passed=yes, over_budget=True)
    if entitlement.approval is not None:
        quorum = entitlement.approval.quorum
        waits = Reason(
            decision=Decides.APPROVAL,
            code="approval-needed",
            detail=f"{quorum} of {', '.join(entitlement.approval.from_)} must agree",
        )
        return NeedsApproval(reasons=(*yes, waits), quorum=quorum)
    if entitlement.break_glass:
        return Allow(reasons=(*yes, glass.broken()))
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


def _too_many_wait(waiting: int) -> Reason:
    return Reason(
        decision=Decides.APPROVAL,
        code="too-many-waiting",
        detail=f"{waiting} grants of this workload wait for approval already: withdraw some, or wait for their end",
    )


def _in_scope(asked: GrantRequest) -> Reason:
    return Reason(decision=Decides.SCOPE, code="in-scope", detail=f"{asked.intent} is one of the intents{_with(asked)}")


def _with(asked: GrantRequest) -> str:
    values = ", ".join(f"{name} is {value}" for name, value in sorted(asked.parameters.items()))
    return f", and {values} as its pattern says" if values else ""


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
