"""Whether it lives, whether it can grant, and the public half of its task key."""

import structlog
from fastapi import APIRouter, Response

from controlplane.http.caller import Plane
from controlplane.model.canonical import JsonValue

log = structlog.stdlib.get_logger(__name__)

router = APIRouter(tags=["health"])


@router.get("/healthz")
def alive() -> dict[str, JsonValue]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
def ready(plane: Plane, response: Response) -> dict[str, JsonValue]:
    """Whether a grant could be made now: 503 with what is missing otherwise; why is for the log, not for everybody."""
    missing = plane.missing()
    for what, why in missing.items():
        response.status_code = 503
        log.warning("not_ready", missing=what, why=why)
    return {"status": "not ready" if missing else "ok", "missing": list(missing)}


@router.get("/.well-known/jwks.json")
def keys(plane: Plane) -> dict[str, JsonValue]:
    """The public keys that sign task JWTs and receipts, and those that once signed receipts (RFC 7517)."""
    return {"keys": [dict(plane.task_key), *(dict(key) for key in plane.receipt_keys)]}
