"""Entitlements over HTTP: only those the caller is eligible for."""

from fastapi import APIRouter

from controlplane.http.answers import Entitlements
from controlplane.http.caller import Caller, Plane
from controlplane.http.description import answers
from controlplane.model.canonical import JsonValue
from controlplane.model.duration import format_duration

router = APIRouter(prefix="/v1/entitlements", tags=["entitlements"])


@router.get("", responses=answers({200: Entitlements}), response_model=None)
def list_entitlements(plane: Plane, who: Caller) -> dict[str, JsonValue]:
    """What the caller may ask for, with the intents it may name and for how long."""
    return {
        "entitlements": [
            {
                "entitlement": compiled.entitlement.name,
                "revision": compiled.revision,
                "purpose": compiled.entitlement.purpose,
                "intents": list(compiled.entitlement.intents),
                "risk": compiled.entitlement.risk,
                "ttl": {
                    "default": format_duration(compiled.entitlement.ttl.default),
                    "max": format_duration(compiled.entitlement.ttl.max),
                },
                "approval": compiled.entitlement.approval is not None,
            }
            for compiled in plane.entitlements.all()
            if compiled.entitlement.admits(who)
        ]
    }
