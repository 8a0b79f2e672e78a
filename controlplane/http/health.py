"""Whether it lives, whether it can grant, and the public half of its task key."""

import structlog
from fastapi import APIRouter, Response

from controlplane.http.answers import Alive, Keys, Ready
from controlplane.http.caller import Plane
from controlplane.http.description import answers
from controlplane.model.canonical import JsonValue

log = structlog.stdlib.get_logger(__name__)

router = APIRouter(tags=["health"])


@router.get("/healthz", responses=answers({200: Alive}), response_model=None)
def alive() -> dict[str, JsonValue]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses=answers({200: Ready, 503: Ready}), response_model=None)
def ready(plane: Plane, response: Response) -> dict[str, JsonValue]:
    """Whether a grant could be made now: 503 with what is missing otherwise; why is for the log, not for everybody."""
    missing = plane.missing()
    for what, why in missing.items():
        response.status_code = 503
        log.warning("not_ready", missing=what, why=why)
    return {"status": "not ready" if missing else "ok", "missing": list(missing)}


@router.get("/.well-known/jwks.json", responses=answers({200: Keys}), response_model=None)
def keys(plane: Plane) -> dict[str, JsonValue]:
    """The public keys that sign task JWTs (RFC 7517)."""
    return {"keys": [dict(plane.task_key)]}
