"""Who calls, and the control plane that answers: what every route depends on."""

from typing import Annotated, cast

from fastapi import Depends, Request

from controlplane.http.address import caller_address
from controlplane.model.access import Standing, standing
from controlplane.model.errors import NotAuthenticatedError
from controlplane.model.identity import VerifiedClaims
from controlplane.model.network import Address
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


def _address(request: Request, plane: Plane) -> Address | None:
    peer = None if request.client is None else request.client.host
    return caller_address(peer, request.headers.getlist("x-forwarded-for"), plane.trusted_proxies)


From = Annotated[Address | None, Depends(_address)]
"""The caller's address, as far as somebody whom the settings trust vouches for it."""
Caller = Annotated[VerifiedClaims, Depends(_caller)]
"""The verified caller of a route. Source: RFC 6750 2.1; a missing header is 401, never 422."""


def _standing(who: Caller, plane: Plane) -> Standing:
    return standing(plane.access, who)


Stands = Annotated[Standing, Depends(_standing)]
"""The caller's roles and groups, by the access rules as they stand now."""
