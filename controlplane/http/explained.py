"""A decision over HTTP: every yes and every no, in the order in which they are decided."""

import math
from http import HTTPStatus

from controlplane.grants.explain import Explanation
from controlplane.model.canonical import JsonValue
from controlplane.model.decision import Allow, Decides, Decision, Deny, NeedsApproval, Reason
from controlplane.model.errors import TokenReplayedError


def explained(explanation: Explanation) -> dict[str, JsonValue]:
    """`says` is yes, no or wait; `status` is what a request would be answered with; `retry_after` is in seconds.

    `token_spent` is whether the token that was shown has asked for a grant before: then it gets no other.
    """
    decision = explanation.decision
    wait = decision.retry_after if isinstance(decision, Deny) else None
    order = list(Decides)
    return {
        "dry_run": True,
        "decision": decision.outcome,
        "status": int(_status(explanation)),
        "token_spent": explanation.spent,
        "retry_after": None if wait is None else math.ceil(wait.total_seconds()),
        "reasons": [
            {"decision": why.decision, "says": says, "code": why.code, "detail": why.detail}
            for why, says in sorted(_said(decision), key=lambda said: order.index(said[0].decision))
        ],
    }


def _said(decision: Decision) -> list[tuple[Reason, str]]:
    match decision:
        case Allow():
            return [(why, "yes") for why in decision.reasons]
        case NeedsApproval():
            return [(why, "wait" if why.decision is Decides.APPROVAL else "yes") for why in decision.reasons]
        case Deny():
            return [(why, "yes") for why in decision.passed] + [(why, "no") for why in decision.reasons]


def _status(explanation: Explanation) -> HTTPStatus:
    decision = explanation.decision
    match decision:
        case Allow() | NeedsApproval() if explanation.spent:
            return TokenReplayedError.status
        case Allow():
            return HTTPStatus.CREATED
        case NeedsApproval():
            return HTTPStatus.ACCEPTED
        case Deny() if decision.frozen:
            return HTTPStatus.LOCKED
        case Deny():
            return HTTPStatus.TOO_MANY_REQUESTS if decision.over_budget else HTTPStatus.FORBIDDEN
