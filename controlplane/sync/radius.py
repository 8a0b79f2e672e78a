"""The blast radius of an entitlement: what it lets whom touch, for how long, and whether that can be taken back."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from controlplane.model.entitlement import Eligibility, Entitlement, Glob, Revocability, Risk
from controlplane.ports import Engine


class Point(StrEnum):
    """Where a control is enforced."""

    ENGINE = "engine"  # Vault or the target holds it, whatever becomes of us
    BROKER = "broker"  # the running control plane holds it
    NONE = "none"  # nobody does


@dataclass(frozen=True, slots=True, kw_only=True)
class Radius:
    """One entitlement for a reviewer, in sentences; `revocability` is that of its worst scope.

    `controls` says of each control where it is enforced.
    """

    entitlement: str
    risk: Risk
    reach: tuple[str, ...]
    workloads: tuple[str, ...]
    longest: timedelta
    approval: str
    revocability: Revocability
    controls: Mapping[str, Point]


def radius(entitlement: Entitlement, engines: Mapping[str, Engine]) -> Radius:
    """What `entitlement` opens."""
    weakest = list(Revocability)
    worst = max(
        (scope.revocability or engines[scope.engine].revocability for scope in entitlement.scopes), key=weakest.index
    )
    used = [engines[scope.engine] for scope in entitlement.scopes]
    return Radius(
        entitlement=entitlement.name,
        risk=entitlement.risk,
        reach=tuple(
            line for scope, engine in zip(entitlement.scopes, used, strict=True) for line in engine.reach(scope)
        ),
        workloads=tuple(_workload(entry) for entry in entitlement.eligibility),
        longest=entitlement.ttl.max,
        approval=_approval(entitlement),
        revocability=worst,
        controls=_controls(entitlement, worst),
    )


def _controls(entitlement: Entitlement, worst: Revocability) -> Mapping[str, Point]:
    """Vault holds exact subjects; what else is told of eligibility it knows too coarsely, and of context nothing."""
    exact = all(isinstance(entry.subject, str) and not entry.claims for entry in entitlement.eligibility)
    given = entitlement.context
    ours = {
        "window": given.windows,
        "network": given.networks,
        "environment": given.environments,
        "budget": given.max_active or given.max_requests,
        "approval": entitlement.approval,
        "heartbeat": entitlement.heartbeat,
    }
    return {
        "eligibility": Point.ENGINE if exact else Point.BROKER,
        "scope": Point.ENGINE,
        "end by time": Point.NONE if worst is Revocability.LASTING else Point.ENGINE,
        "revocation": Point.ENGINE if worst in {Revocability.PROVABLE, Revocability.RECALLABLE} else Point.NONE,
        "policy": Point.BROKER,
        **{name: Point.BROKER if said else Point.NONE for name, said in ours.items()},
    }


def _workload(entry: Eligibility) -> str:
    who = f"{entry.issuer} {_pattern(entry.subject)}"
    claims = ", ".join(f"{path} = {_pattern(match)}" for path, match in sorted(entry.claims.items()))
    return f"{who} with {claims}" if claims else who


def _pattern(match: str | Glob) -> str:
    return f"anything like {match.glob}" if isinstance(match, Glob) else match


def _approval(entitlement: Entitlement) -> str:
    approval = entitlement.approval
    if approval is not None:
        return f"{approval.quorum} of {', '.join(approval.from_)} must agree"
    return "break-glass: nobody has to agree, somebody else must review it" if entitlement.break_glass else _FREE


_FREE = "nobody has to agree"
