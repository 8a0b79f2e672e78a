"""What is asked of approvers, in plain words: one grant, its entitlement as it stands, and what is unusual about it."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from controlplane.grants.narrow import with_values
from controlplane.model.approval import Asked, AskedScope, GivenApproval, Narrowing
from controlplane.model.duration import format_duration
from controlplane.model.entitlement import Approval, Entitlement, Scope
from controlplane.model.grant import Grant, Revision
from controlplane.model.plan import Compiled
from controlplane.model.request import GrantRequest
from controlplane.ports import Engine

REMEMBERED = 100
"""How many of a workload's newest grants of an entitlement are its usual."""


def asked(grant: Grant, compiled: Compiled, approval: Approval, engines: Mapping[str, Engine]) -> Asked:
    """What `grant` asks for, by its entitlement as it stands now; as long as it waits, equal grants give equal."""
    compiled = with_values(compiled, grant, engines)
    entitlement = compiled.entitlement
    return Asked(
        grant=grant.id,
        issuer=grant.issuer,
        subject=grant.subject,
        person=grant.person,
        entitlement=grant.entitlement,
        revision=compiled.revision,
        owner=entitlement.owner,
        purpose=entitlement.purpose,
        risk=entitlement.risk.value,
        sensitivity=entitlement.sensitivity,
        delivery=entitlement.delivery.value,
        task=grant.task,
        intent=grant.intent,
        reason=grant.reason,
        ttl=grant.ttl,
        scopes=tuple(_scope(scope, engines[scope.engine]) for scope in granted_scopes(entitlement, grant.scopes)),
        unusual=grant.unusual,
        parameters=grant.parameters,
        quorum=approval.quorum,
        from_=approval.from_,
        not_from=approval.not_from,
        requested_at=grant.requested_at,
        until=grant.expires_at,
    )


def wish(grant: Grant, *, ttl: timedelta) -> GrantRequest:
    """The request that asks for just this grant, for `ttl`: what is decided when it is decided anew."""
    return GrantRequest(
        entitlement=grant.entitlement,
        task=grant.task,
        intent=grant.intent,
        reason=grant.reason,
        ttl=ttl,
        parameters=grant.parameters,
    )


def unusual(
    entitlement: Entitlement, revision: Revision, intent: str, ttl: timedelta, *, before: Sequence[Grant]
) -> tuple[str, ...]:
    """In what a wish differs from what its workload was granted of the entitlement: `before`, newest first."""
    issued = [grant for grant in before if grant.issued_at is not None]
    if not issued:
        found = ["this workload was never granted it before"]
    else:
        found: list[str] = []
        if all(grant.intent != intent for grant in issued):
            found.append(f"this workload was never granted it for {intent} before")
        if issued[0].revision != revision:
            found.append("the entitlement has changed since this workload was last granted it")
        longest = max(grant.ttl for grant in issued)
        if ttl > longest:
            found.append(f"{format_duration(ttl)} is longer than this workload ever had it: {format_duration(longest)}")
    if ttl > entitlement.ttl.default:
        default = format_duration(entitlement.ttl.default)
        found.append(f"{format_duration(ttl)} is longer than the default of {default}")
    return tuple(found)


def narrowed(grant: Grant, entitlement: Entitlement, approvals: Sequence[GivenApproval]) -> Narrowing:
    """What is left when every approver's narrowing holds: the shortest TTL, and the scopes that all of them left.

    `scopes` are None where all are left; else in the entitlement's order, and empty when nothing is left.
    """
    ttl = min((given.narrow.ttl for given in approvals if given.narrow.ttl is not None), default=grant.ttl)
    kept = [frozenset(given.narrow.scopes) for given in approvals if given.narrow.scopes is not None]
    names = tuple(
        scope.name for scope in granted_scopes(entitlement, grant.scopes) if all(scope.name in some for some in kept)
    )
    return Narrowing(ttl=min(ttl, grant.ttl), scopes=None if len(names) == len(entitlement.scopes) else names)


def granted_scopes(entitlement: Entitlement, names: Sequence[str] | None) -> tuple[Scope, ...]:
    """The scopes of those names, None for all."""
    return tuple(scope for scope in entitlement.scopes if names is None or scope.name in names)


def _scope(scope: Scope, engine: Engine) -> AskedScope:
    return AskedScope(
        name=scope.name,
        engine=scope.engine,
        reach=tuple(engine.reach(scope)),
        revocability=(scope.revocability or engine.revocability).value,
    )
