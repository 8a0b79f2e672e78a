"""Every error as a problem: RFC 9457, with our stable code and, for denials, the reasons."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final, cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from controlplane.model.canonical import JsonValue
from controlplane.model.errors import ControlPlaneError, InvalidRequestError, NotAuthenticatedError, OverBudgetError
from controlplane.model.wording import worded

_CODES: Final = {400: "invalid-request", 404: "not-found", 405: "method-not-allowed", 413: "too-large"}
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)

log = structlog.stdlib.get_logger(__name__)


def install(app: FastAPI) -> None:
    """Let every error leave as `application/problem+json`, without a stack trace, SQL or a token in it."""
    app.add_exception_handler(ControlPlaneError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def problem(error: ControlPlaneError) -> JSONResponse:
    """One of our errors as an answer."""
    extra: dict[str, JsonValue] = {"detail": error.detail, "hint": error.hint}
    if error.reasons:
        extra["reasons"] = [{"decision": why.decision, "code": why.code, "detail": why.detail} for why in error.reasons]
    return _answer(error.status, error.code, extra, _headers(error))


def _headers(error: ControlPlaneError) -> dict[str, str]:
    if isinstance(error, NotAuthenticatedError):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, OverBudgetError) and error.retry_after is not None:
        return {"Retry-After": str(math.ceil(error.retry_after.total_seconds()))}
    return {}


def _answer(
    status: int, code: str, extra: Mapping[str, JsonValue], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    body = {"type": "about:blank", "title": code.replace("-", " "), "status": int(status), "code": code, **extra}
    return JSONResponse(body, status, dict(headers or {}), "application/problem+json")


async def _ours(request: Request, error: Exception) -> JSONResponse:
    del request
    assert isinstance(error, ControlPlaneError)  # noqa: S101 # installed for this class only
    return problem(error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    del request
    assert isinstance(error, RequestValidationError)  # noqa: S101 # installed for this class only
    items: Sequence[Mapping[str, object]] = error.errors()
    # What was sent stays out: it may hold what should not be echoed.
    detail = "; ".join(f"{_place(item.get('loc'))}: {_why(item)}" for item in items[:20])
    return problem(InvalidRequestError(detail))


async def _http(request: Request, error: Exception) -> JSONResponse:
    del request
    assert isinstance(error, HTTPException)  # noqa: S101 # installed for this class only
    code = _CODES.get(error.status_code, "http")
    return _answer(error.status_code, code, {"detail": str(error.detail)}, error.headers)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("request_failed", path=request.url.path, exc_info=error)
    return problem(ControlPlaneError("something went wrong here; the log of the control plane says what"))


def _why(item: Mapping[str, object]) -> str:
    context = cast("Mapping[str, object]", item.get("ctx") or {})
    return worded(str(item.get("type")), str(item.get("msg")), context)


def _place(loc: object) -> str:
    parts = cast("tuple[object, ...]", loc) if isinstance(loc, tuple) else ()
    # The name of an unknown key is told, so that a typo is found; but only where it looks like a name.
    return ".".join(str(part) if _NAME.fullmatch(str(part)) else "…" for part in parts if part != "body") or "body"
