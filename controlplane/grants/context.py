"""Is it right now? Every condition that an entitlement names, held against the situation; pure and total.

What a condition needs and the situation does not have (no address, no environment, nothing counted) breaks it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.model.decision import Decides, Reason
from controlplane.model.entitlement import Context, Entitlement
from controlplane.model.rate import RateLimit
from controlplane.model.situation import Situation, Usage
from controlplane.model.window import WeeklyWindow

BUDGETS = frozenset({"over-max-active-per-subject", "over-max-active-total", "over-max-requests"})
"""The codes of what only says how much: it refuses one grant more, and ends none."""

_AT_ONCE = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A condition that holds."""

    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A condition that does not. `budget`: it only says how much; `retry_after`: when the same may hold again."""

    reason: Reason
    budget: bool = False
    retry_after: timedelta | None = None


def context(entitlement: Entitlement, situation: Situation) -> Iterator[Held | Broken]:
    """What each condition says, in the order in which they are documented."""
    named = entitlement.context
    if named == Context():
        yield _held("in-context", "the entitlement names no condition")
    if named.windows:
        yield _window(named.windows, situation.at)
    if named.networks:
        yield _network(named, situation)
    if named.environments:
        yield _environment(named, situation)
    if named.budgeted and situation.usage is None:
        yield _broken("budget-unknown", "what was used of its budgets is not known")
    elif situation.usage is not None:
        yield from _budgets(named, situation.usage, situation.at)


def counted(named: Context) -> tuple[timedelta, int]:
    """What a store has to count for its budgets: how far back requests go, and the count that suffices."""
    active, requests = named.max_active, named.max_requests
    limits = (active.per_subject, active.total) if active is not None else ()
    rate = () if requests is None else (requests.per_subject.count,)
    back = timedelta(0) if requests is None else requests.per_subject.per
    return back, max(limit for limit in (*limits, *rate, 0) if limit is not None)


def _window(windows: tuple[WeeklyWindow, ...], at: datetime) -> Held | Broken:
    for window in windows:
        if window.holds(at):
            return _held("in-window", f"{window} is open")
    every = " or ".join(map(str, windows))
    opens = min((opens for window in windows if (opens := window.opens_after(at)) is not None), default=None)
    when = "" if opens is None else f"; the next opens at {opens.isoformat(timespec='seconds')}"
    return _broken("outside-window", f"it is outside {every}{when}")


def _network(named: Context, situation: Situation) -> Held | Broken:
    every = ", ".join(map(str, named.networks))
    address = situation.address
    if address is None:
        return _broken("address-unknown", f"nobody vouches for the caller's address, which must be in {every}")
    for network in named.networks:
        if address in network:
            return _held("in-network", f"{address} is in {network}")
    return _broken("outside-network", f"{address} is in none of {every}")


def _environment(named: Context, situation: Situation) -> Held | Broken:
    every, here = ", ".join(named.environments), situation.environment
    if here is None:
        return _broken("environment-unknown", f"the settings of the control plane name none of {every}")
    if here in named.environments:
        return _held("in-environment", f"this control plane is in {here}")
    return _broken("other-environment", f"this control plane is in {here}, which is none of {every}")


def _budgets(named: Context, usage: Usage, at: datetime) -> Iterator[Held | Broken]:
    active = named.max_active
    if active is not None and active.per_subject is not None:
        yield _active("max-active-per-subject", usage.active_of_subject, active.per_subject, "of this subject")
    if active is not None and active.total is not None:
        yield _active("max-active-total", usage.active, active.total, "of all subjects")
    if named.max_requests is not None:
        yield _requests(named.max_requests.per_subject, usage, at)


def _active(code: str, used: int, limit: int, whose: str) -> Held | Broken:
    if used < limit:
        return _held(f"within-{code}", f"{used} of {limit} grants {whose} have not ended")
    return _broken(f"over-{code}", f"{limit} grants {whose} have not ended, and no more are allowed", budget=True)


def _requests(limit: RateLimit, usage: Usage, at: datetime) -> Held | Broken:
    if usage.requested < limit.count:
        return _held("within-max-requests", f"{usage.requested} of {limit} were asked for by this subject")
    leaves = at if usage.oldest is None else usage.oldest + limit.per
    return _broken(
        "over-max-requests",
        f"this subject has asked for {limit}, and no more is allowed: an entitlement needed that often is too broad",
        budget=True,
        retry_after=max(leaves - at, _AT_ONCE),
    )


def _held(code: str, detail: str) -> Held:
    return Held(reason=Reason(decision=Decides.CONTEXT, code=code, detail=detail))


def _broken(code: str, detail: str, *, budget: bool = False, retry_after: timedelta | None = None) -> Broken:
    reason = Reason(decision=Decides.CONTEXT, code=code, detail=detail)
    return Broken(reason=reason, budget=budget, retry_after=retry_after)
