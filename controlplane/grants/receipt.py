"""What a receipt says when it is signed: whose access to what it was, why it ended, and the proof for each lease."""

from controlplane.model.canonical import JsonObject, JsonValue, instant
from controlplane.model.grant import Grant
from controlplane.model.lease import Receipt


def statement(revoked: Grant, receipt: Receipt) -> JsonObject:
    """All of it under the one name `receipt`: so it has no claim that a login looks for. No secret is in it."""
    ended: list[JsonValue] = [{**end.told()} for end in receipt.ended]
    times = {
        "requested_at": revoked.requested_at,
        "issued_at": revoked.issued_at,
        "revoking_at": revoked.revoking_at,
        "revoked_at": revoked.revoked_at,
    }
    return {
        "receipt": {
            "grant": revoked.id,
            "issuer": revoked.issuer,
            "subject": revoked.subject,
            "entitlement": revoked.entitlement,
            "revision": revoked.revision,
            "task": revoked.task,
            "intent": revoked.intent,
            **({"parameters": {**revoked.parameters}} if revoked.parameters else {}),
            "why": revoked.why,
            **{name: None if at is None else instant(at) for name, at in times.items()},
            "verified": receipt.verified,
            "ended": ended,
        }
    }
