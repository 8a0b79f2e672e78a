"""Break-glass: what an emergency is granted for without approval, and what stands in the way of it. Pure."""

from collections.abc import Iterator

from controlplane.model.decision import Decides, Reason
from controlplane.model.entitlement import Entitlement
from controlplane.model.request import GrantRequest
from controlplane.model.situation import Situation


def unreasoned(entitlement: Entitlement, asked: GrantRequest) -> Iterator[Reason]:
    """Nobody agrees beforehand, so the request itself says why."""
    if entitlement.break_glass and not asked.reason.strip():
        yield Reason(
            decision=Decides.SCOPE,
            code="reason-needed",
            detail="this breaks the glass: say with `reason` why it cannot wait for anybody",
        )


def unreviewed(entitlement: Entitlement, situation: Situation) -> Iterator[Reason]:
    """While a review of the caller's is open, he breaks no other glass."""
    if not entitlement.break_glass:
        return
    if situation.open_reviews is None:
        yield _approval("review-unknown", "whether a review of the caller's is open is not known")
    for grant in situation.open_reviews or ():
        yield _approval(
            "review-open", f"nobody has reviewed {grant} yet: somebody else closes its review, once it has ended"
        )


def broken() -> Reason:
    """Why no approval is needed."""
    return _approval("break-glass", "nobody has to agree first; somebody else must review it afterwards")


def _approval(code: str, detail: str) -> Reason:
    return Reason(decision=Decides.APPROVAL, code=code, detail=detail)
