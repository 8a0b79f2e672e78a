"""Who calls, and the control plane that answers: what every route depends on."""

from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from controlplane.http.address import caller_address
from controlplane.http.rates import Rates
from controlplane.http.threads import in_thread, is_ending
from controlplane.model.access import Standing, standing
from controlplane.model.errors import NotAuthenticatedError
from controlplane.model.identity import VerifiedClaims
from controlplane.model.network import Address
from controlplane.model.secret import Secret
from controlplane.wiring.plane import ControlPlane


async def _plane(request: Request) -> ControlPlane:
    # `async` although it waits for nothing: FastAPI takes a plain function to another thread and back.
    return cast("ControlPlane", request.app.state.plane)


Plane = Annotated[ControlPlane, Depends(_plane)]


_scheme = HTTPBearer(
    scheme_name="bearer",
    bearerFormat="JWT",
    description="An OIDC token of a configured issuer, made for this control plane's audience.",
    auto_error=False,  # it is here for the description; what is sent is read below
)


async def _caller(
    request: Request, plane: Plane, described: Annotated[HTTPAuthorizationCredentials | None, Security(_scheme)]
) -> VerifiedClaims:
    del described
    sent = request.headers.getlist("authorization")
    if len(sent) > 1:
        raise NotAuthenticatedError("two Authorization headers were sent")
    scheme, _, token = (sent[0] if sent else "").partition(" ")
    who = await in_thread(request, plane.identify, Secret(token) if scheme.lower() == "bearer" and token else None)
    rates: Rates = request.app.state.rates
    rates.take(who.workload, ending=is_ending(request))
    return who


async def _address(request: Request, plane: Plane) -> Address | None:
    peer = None if request.client is None else request.client.host
    return caller_address(peer, request.headers.getlist("x-forwarded-for"), plane.trusted_proxies)


From = Annotated[Address | None, Depends(_address)]
"""The caller's address, as far as somebody whom the settings trust vouches for it."""
Caller = Annotated[VerifiedClaims, Depends(_caller)]
"""The verified caller of a route. Source: RFC 6750 2.1; a missing header is 401, never 422."""


async def _standing(who: Caller, plane: Plane) -> Standing:
    return standing(plane.access, who)


Stands = Annotated[Standing, Depends(_standing)]
"""The caller's roles and groups, by the access rules as they stand now."""
