"""Signals over HTTP: issuers push security event tokens here. Source: RFC 8935."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response

from controlplane.http.caller import Plane
from controlplane.http.description import answers
from controlplane.http.intake import SIGNALS
from controlplane.http.rates import Rates
from controlplane.http.refusals import RateLimitedError
from controlplane.http.threads import ENDING, in_thread
from controlplane.model.errors import SignalRefusedError, StoreUnavailableError
from controlplane.model.secret import Secret

router = APIRouter(prefix=SIGNALS, tags=["freezes"])

_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "A security event token (RFC 8417), signed by a configured issuer.",
        "content": {"application/secevent+jwt": {"schema": {"type": "string"}}},
    }
}
_RESPONSES: Final = {
    **answers({}, SignalRefusedError, RateLimitedError, StoreUnavailableError),
    202: {"description": "It was heard before, or it is heard now."},
}


async def _token(request: Request) -> Secret:
    # What is no ASCII is no token; what stands in its place only has to be refused like any other.
    return Secret((await request.body()).decode("ascii", "replace"))


@router.post("", status_code=202, tags=[ENDING], responses=_RESPONSES, openapi_extra=_BODY, response_class=Response)
async def take_signal(request: Request, plane: Plane, token: Annotated[Secret, Depends(_token)]) -> Response:
    """Hear what has happened to a subject of the issuer that signed it: a revoked session is frozen.

    Its signature is all the authentication that it needs, and the same signal again does nothing.
    """
    signal = await in_thread(request, plane.hear, token)
    rates: Rates = request.app.state.rates
    rates.take(signal.about, ending=True)
    await in_thread(request, plane.heed, signal)
    return Response(status_code=202)
