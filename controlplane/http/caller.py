"""Who calls, and the control plane that answers: what every route depends on."""

from typing import Annotated, cast

from fastapi import Depends, Request

from controlplane.model.errors import NotAuthenticatedError
from controlplane.model.identity import VerifiedClaims
from controlplane.model.secret import Secret
from controlplane.wiring import ControlPlane


async def _plane(request: Request) -> ControlPlane:
    # `async` although it waits for nothing: FastAPI takes a plain function to another thread and back.
    return cast("ControlPlane", request.app.state.plane)


Plane = Annotated[ControlPlane, Depends(_plane)]


def _caller(request: Request, plane: Plane) -> VerifiedClaims:
    sent = request.headers.getlist("authorization")
    if len(sent) > 1:
        raise NotAuthenticatedError("two Authorization headers were sent")
    scheme, _, token = (sent[0] if sent else "").partition(" ")
    return plane.identify(Secret(token) if scheme.lower() == "bearer" and token else None)


Caller = Annotated[VerifiedClaims, Depends(_caller)]
"""The verified caller of a route. Source: RFC 6750 2.1; a missing header is 401, never 422."""
