"""What is asked of approvers, and what they said, as JSON."""

from collections.abc import Sequence

from controlplane.model.approval import Asked, Denial, GivenApproval
from controlplane.model.canonical import JsonValue
from controlplane.model.duration import format_duration
from controlplane.model.grant import Grant
from controlplane.wiring.plane import ControlPlane


def asked_json(asked: Asked) -> dict[str, JsonValue]:
    """All that an approver is shown, and the digest that his yes has to bring."""
    return {
        "digest": asked.digest,
        "grant": asked.grant,
        "issuer": asked.issuer,
        "subject": asked.subject,
        "person": asked.person,
        "entitlement": asked.entitlement,
        "revision": asked.revision,
        "owner": asked.owner,
        "purpose": asked.purpose,
        "risk": asked.risk,
        "sensitivity": asked.sensitivity,
        "delivery": asked.delivery,
        "task": asked.task,
        "intent": asked.intent,
        "reason": asked.reason,
        "ttl": format_duration(asked.ttl),
        "scopes": [
            {
                "name": scope.name,
                "engine": scope.engine,
                "reach": [*scope.reach],
                "revocability": scope.revocability,
            }
            for scope in asked.scopes
        ],
        "unusual": [*asked.unusual],
        "parameters": {**asked.parameters},
        "quorum": asked.quorum,
        "from": [*asked.from_],
        "not_from": [*asked.not_from],
        "requested_at": asked.requested_at.isoformat(),
        "until": asked.until.isoformat(),
    }


def approvals_json(approvals: Sequence[GivenApproval]) -> list[JsonValue]:
    """Every yes: who, when, why, and what was taken away."""
    return [
        {
            "issuer": given.by.issuer,
            "subject": given.by.subject,
            "person": given.by.person,
            "at": given.at.isoformat(),
            "reason": given.reason,
            "digest": given.digest,
            "narrow": {
                "ttl": None if given.narrow.ttl is None else format_duration(given.narrow.ttl),
                "scopes": None if given.narrow.scopes is None else [*given.narrow.scopes],
            },
        }
        for given in approvals
    ]


def decided_json(plane: ControlPlane, grant: Grant) -> dict[str, JsonValue]:
    """What people were asked for this grant and what they said, as far as there is any of it."""
    asked = plane.watch.asked(grant)
    approvals, denial = plane.watch.said(grant)
    return {
        **({} if asked is None else {"asked": asked_json(asked)}),
        **({"approvals": approvals_json(approvals)} if approvals or asked is not None else {}),
        **({} if denial is None else {"denial": _denial(denial)}),
    }


def _denial(denial: Denial) -> JsonValue:
    by = denial.by
    return {
        "issuer": by.issuer,
        "subject": by.subject,
        "person": by.person,
        "at": denial.at.isoformat(),
        "reason": denial.reason,
    }
