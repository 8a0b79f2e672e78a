"""Every error as a problem: RFC 9457, with our stable code and, for denials, the reasons."""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Final, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from controlplane.http.refusals import MethodNotAllowedError, NoSuchPathError
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import ControlPlaneError, InvalidRequestError, NotAuthenticatedError
from controlplane.model.wording import worded

_PROBED: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_CHALLENGE: Final = 'Bearer realm="shorthold"'  # RFC 6750 3: without an error where no token was sent
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)


def install(app: FastAPI) -> None:
    """Let every error leave as `application/problem+json`, without a stack trace, SQL or a token in it.

    What nobody expected is answered by `Envelope`, which is around everything.
    """
    app.add_exception_handler(ControlPlaneError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def problem(error: ControlPlaneError) -> JSONResponse:
    """One of our errors as an answer."""
    extra: dict[str, JsonValue] = {"detail": error.detail, "hint": error.hint}
    if error.reasons:
        extra["reasons"] = [{"decision": why.decision, "code": why.code, "detail": why.detail} for why in error.reasons]
    return _answer(error.status, error.code, extra, _headers(error))


def _headers(error: ControlPlaneError) -> dict[str, str]:
    if isinstance(error, NotAuthenticatedError):
        return {"WWW-Authenticate": _CHALLENGE}
    wait: object = getattr(error, "retry_after", None)
    return {"Retry-After": str(max(1, math.ceil(wait.total_seconds())))} if isinstance(wait, timedelta) else {}


def _answer(
    status: int, code: str, extra: Mapping[str, JsonValue], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    body = {"type": "about:blank", "title": code.replace("-", " "), "status": int(status), "code": code, **extra}
    return JSONResponse(body, status, dict(headers or {}), "application/problem+json")


async def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ControlPlaneError)  # noqa: S101 # installed for this class only
    answer = problem(error)
    if isinstance(error, NotAuthenticatedError) and "authorization" in request.headers:
        # The same for every token that is not good: which check it failed is for the audit log.
        answer.headers["WWW-Authenticate"] = f'{_CHALLENGE}, error="invalid_token"'
    return answer


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    del request
    assert isinstance(error, RequestValidationError)  # noqa: S101 # installed for this class only
    items: Sequence[Mapping[str, object]] = error.errors()
    # What was sent stays out: it may hold what should not be echoed.
    detail = "; ".join(f"{_place(item.get('loc'))}: {_why(item)}" for item in items[:20])
    return problem(InvalidRequestError(detail))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 # installed for this class only
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            return problem(NoSuchPathError("there is nothing at this path"))
        case HTTPStatus.METHOD_NOT_ALLOWED:
            answer = problem(MethodNotAllowedError("this path is not for this method"))
            answer.headers["Allow"] = ", ".join(_allowed(request))
            return answer
        case HTTPStatus.BAD_REQUEST:  # FastAPI's, where a body is no JSON in a way that `Intake` lets pass
            return problem(InvalidRequestError("body: it is not JSON"))
        case _:
            raise error  # nobody here makes any other: it is a fault, and `Envelope` answers for it


def _allowed(request: Request) -> list[str]:
    """Every method that some route has at this path; the framework's own list is of one route only."""
    app = cast("FastAPI", request.app)
    found = [
        method
        for method in _PROBED
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in app.router.routes)
    ]
    return ["HEAD", *found] if "GET" in found else found


def _why(item: Mapping[str, object]) -> str:
    context = cast("Mapping[str, object]", item.get("ctx") or {})
    return worded(str(item.get("type")), str(item.get("msg")), context)


def _place(loc: object) -> str:
    parts = cast("tuple[object, ...]", loc) if isinstance(loc, tuple) else ()
    # The name of an unknown key is told, so that a typo is found; but only where it looks like a name.
    return ".".join(str(part) if _NAME.fullmatch(str(part)) else "…" for part in parts if part != "body") or "body"
