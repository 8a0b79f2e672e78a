"""Whether it lives, whether it can grant, and the public half of its task key: what anybody may ask, and for little."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from controlplane.http.answers import Alive, Keys, Ready
from controlplane.http.caller import Plane
from controlplane.http.description import answers
from controlplane.model.canonical import JsonValue
from controlplane.wiring.plane import ControlPlane

log = structlog.stdlib.get_logger(__name__)

router = APIRouter(tags=["health"])

_FRESH: Final = 1.0
"""Seconds for which a look at Vault and the store answers everybody who asks."""


@dataclass(slots=True)
class LastLook:
    """What was missing when somebody last looked. Strangers may ask, so asking more often looks no more often."""

    at: float = float("-inf")
    missing: tuple[str, ...] = ()
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def look(self, plane: ControlPlane) -> tuple[str, ...]:
        """What is missing now, or was within the last second."""
        async with self.lock:
            if time.monotonic() - self.at >= _FRESH:
                found: Mapping[str, str] = await run_in_threadpool(plane.missing)
                for what, why in found.items():
                    log.warning("not_ready", missing=what, why=why)
                self.missing, self.at = tuple(found), time.monotonic()
            return self.missing


@router.get("/healthz", responses=answers({200: Alive}), response_model=None)
async def alive() -> dict[str, JsonValue]:
    """The process answers."""
    return {"status": "ok"}  # from no thread: whoever asks whether it lives must not wait for what hangs


@router.get("/readyz", responses=answers({200: Ready, 503: Ready}), response_model=None)
async def ready(plane: Plane, request: Request, response: Response) -> dict[str, JsonValue]:
    """Whether a grant could be made now: 503 with what is missing otherwise; why is for the log, not for everybody."""
    last: LastLook = request.app.state.last_look
    missing = await last.look(plane)
    if missing:
        response.status_code = 503
    return {"status": "not ready" if missing else "ok", "missing": list(missing)}


@router.get("/.well-known/jwks.json", responses=answers({200: Keys}), response_model=None)
async def keys(plane: Plane) -> dict[str, JsonValue]:
    """The public keys that sign task JWTs and receipts, and those that once signed receipts (RFC 7517)."""
    return {"keys": [dict(plane.task_key), *(dict(key) for key in plane.receipt_keys)]}
