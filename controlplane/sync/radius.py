"""The blast radius of an entitlement: what it lets whom touch, for how long, and whether that can be taken back."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from controlplane.model.entitlement import Eligibility, Entitlement, Glob, Revocability, Risk
from controlplane.ports import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Radius:
    """One entitlement for a reviewer, in sentences; `revocability` is that of its worst scope."""

    entitlement: str
    risk: Risk
    reach: tuple[str, ...]
    workloads: tuple[str, ...]
    longest: timedelta
    approval: str
    revocability: Revocability


def radius(entitlement: Entitlement, engines: Mapping[str, Engine]) -> Radius:
    """What `entitlement` opens."""
    weakest = list(Revocability)
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
        revocability=max((engine.revocability for engine in used), key=weakest.index),
    )


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
