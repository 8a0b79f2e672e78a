"""`/openapi.json`: every route with every status it can answer, and every error as a problem.

A route says what is its own: the model of each success, and the errors its verb raises, by `answers`. What any route
may answer (too slow, too large, not authenticated …) is added here, so that no route has to remember it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from controlplane.http import refusals
from controlplane.http.answers import Problem
from controlplane.model.errors import (
    ControlPlaneError,
    InvalidRequestError,
    NotAuthenticatedError,
    StoreUnavailableError,
)

_ANY: Final = (
    refusals.MalformedRequestError,
    refusals.TooSlowError,
    refusals.UriTooLongError,
    refusals.HeadTooLargeError,
    ControlPlaneError,
)
_WITH_BODY: Final = (refusals.TooLargeError, refusals.UnsupportedMediaTypeError, InvalidRequestError)
_WITH_PARAMETERS: Final = (InvalidRequestError,)
_AUTHENTICATED: Final = (
    NotAuthenticatedError,
    refusals.RateLimitedError,
    refusals.BusyError,
    StoreUnavailableError,
)
_HEADERS: Final[Mapping[str, Mapping[str, str]]] = {
    "401": {"WWW-Authenticate": "RFC 6750: with `error` where a token was sent."},
    "429": {"Retry-After": "Seconds until it is worth asking again."},
}
_PROBLEM: Final = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}

Responses = dict[int | str, dict[str, Any]]


def answers(told: Mapping[int, type[BaseModel]], *errors: type[ControlPlaneError]) -> Responses:
    """For a route's `responses`: the model of each success, and the errors that are its own."""
    successes: Responses = {
        status: {"model": model, "description": _sentence(model.__doc__)} for status, model in told.items()
    }
    return {**successes, **_problems(errors)}


def install(app: FastAPI) -> None:
    """Let `app` describe itself so; the description is made once."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app)
        return app.openapi_schema

    app.openapi = described


def _described(app: FastAPI) -> dict[str, Any]:
    whole = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        openapi_version="3.1.0",
        routes=app.routes,
        description="Every error is a problem (RFC 9457) with a stable `code`. Every answer carries `X-Request-Id`.",
        license_info={"name": "MPL-2.0", "identifier": "MPL-2.0"},
    )
    for item in cast("dict[str, dict[str, Any]]", whole["paths"]).values():
        for operation in item.values():
            _complete(operation)
    schemas = cast("dict[str, Any]", whole["components"]["schemas"])
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(cast("dict[str, Any]", problem.pop("$defs")))
    schemas["Problem"] = problem
    return whole


def _complete(operation: dict[str, Any]) -> None:
    responses = cast("dict[str, Any]", operation["responses"])
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    errors = [*_ANY]
    errors += _WITH_BODY if "requestBody" in operation else ()
    errors += _WITH_PARAMETERS if operation.get("parameters") else ()
    errors += _AUTHENTICATED if operation.get("security") else ()
    for status, response in _problems(errors).items():
        known = responses.setdefault(str(status), response)
        if known is not response:
            known["description"] = "\n\n".join(dict.fromkeys([known["description"], response["description"]]))
    operation["responses"] = dict(sorted(responses.items()))


def _problems(errors: Iterable[type[ControlPlaneError]]) -> Responses:
    found: Responses = {}
    for error in dict.fromkeys(errors):
        status = str(int(error.status))
        line = f"`{error.code}`: {_sentence(error.__doc__)}"
        if status in found:
            found[status]["description"] += f"\n\n{line}"
            continue
        found[status] = {"description": line, "content": _PROBLEM}
        if status in _HEADERS:
            found[status]["headers"] = {
                name: {"description": said, "schema": {"type": "string"}} for name, said in _HEADERS[status].items()
            }
    return found


def _sentence(doc: str | None) -> str:
    return " ".join((doc or "").split("\n\n", maxsplit=1)[0].split())
