"""Whether it lives, whether it can grant, and the public half of its task key."""

from fastapi import APIRouter, Response

from controlplane.http.caller import Plane
from controlplane.model.canonical import JsonValue

router = APIRouter(tags=["health"])


@router.get("/healthz")
def alive() -> dict[str, JsonValue]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
def ready(plane: Plane, response: Response) -> dict[str, JsonValue]:
    """Whether a grant could be made now: 503 with what is missing otherwise."""
    missing = plane.missing()
    if missing:
        response.status_code = 503
    return {"status": "not ready" if missing else "ok", "missing": list(missing)}


@router.get("/.well-known/jwks.json")
def keys(plane: Plane) -> dict[str, JsonValue]:
    """The public keys that sign task JWTs (RFC 7517)."""
    return {"keys": [dict(plane.task_key)]}
