"""What comes in: only a whole, small, unambiguous request reaches a route; any other is refused here, fast."""

import asyncio
import re
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.http.problems import problem
from controlplane.http.refusals import (
    MalformedRequestError,
    TooLargeError,
    TooSlowError,
    UnsupportedMediaTypeError,
    UriTooLongError,
)
from controlplane.issuers.jose.strict_json import parse_object
from controlplane.model.errors import ControlPlaneError, InvalidRequestError

LARGEST_BODY: Final = 64 * 1024
"""Bytes."""
BODY_WITHIN: Final = 10.0
"""Seconds from the end of the headers to the last byte of the body."""
_MOST_VALUES: Final = 1000
_LONGEST_URI: Final = 8 * 1024
SIGNALS: Final = "/v1/signals"
"""The one path whose body is no JSON: `http/signals.py` reads it."""
_ONCE: Final = ("host", "content-type", "content-length", "content-encoding", "idempotency-key")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_JSON: Final = re.compile(r'application/json[ \t]*(?:;[ \t]*charset="?utf-8"?[ \t]*)?', re.ASCII | re.IGNORECASE)
_SIGNAL: Final = re.compile(r"application/secevent\+jwt[ \t]*", re.ASCII | re.IGNORECASE)
_CLOSE: Final = {"Connection": "close"}  # whatever else the other side sends belongs to a request that was refused


class Intake:
    """Reads and checks the whole request before the application sees it."""

    def __init__(self, app: ASGIApp, *, body_within: float = BODY_WITHIN) -> None:
        self._app = app
        self._body_within = body_within

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, refused or passed on whole."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            has_body = _checked_head(scope)
            body = await self._whole(receive) if has_body else b""
            if body and scope["path"] != SIGNALS:
                _checked_json(body)
        except ControlPlaneError as error:
            answer = problem(error)
            answer.headers.update(_CLOSE if not isinstance(error, InvalidRequestError) else {})
            await answer(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _again(body, receive), send)

    async def _whole(self, receive: Receive) -> bytes | None:
        """The body; None where the other side went away before its end."""
        parts: list[bytes] = []
        size, more = 0, True
        try:
            async with asyncio.timeout(self._body_within):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts.append(message.get("body", b""))
                    size, more = size + len(parts[-1]), message.get("more_body", False)
                    if size > LARGEST_BODY:
                        raise TooLargeError(f"the body is larger than {LARGEST_BODY} bytes")
        except TimeoutError:
            raise TooSlowError(f"the body did not arrive within {self._body_within:g} s") from None
        return b"".join(parts)


def _checked_head(scope: Scope) -> bool:
    """Whether there is a body, once the head is seen to mean one thing only."""
    headers = Headers(scope=scope)
    if len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"]) > _LONGEST_URI:
        raise UriTooLongError(f"path and query are longer than {_LONGEST_URI} bytes")
    for name in _ONCE:
        if len(headers.getlist(name)) > 1:
            raise MalformedRequestError(f"the header {name} was sent twice")
    _check_host(headers.get("host"), scope["http_version"])
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise MalformedRequestError("the header content-length is no number")
    if "transfer-encoding" not in headers and length.strip("0") == "":
        return False
    if len(length) > 10 or int(length) > LARGEST_BODY:  # noqa: PLR2004 # digits
        raise TooLargeError(f"the body is larger than {LARGEST_BODY} bytes")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaTypeError("the body is compressed")
    wanted, said = (_SIGNAL, "secevent+jwt") if scope["path"] == SIGNALS else (_JSON, "json in UTF-8")
    if not wanted.fullmatch(headers.get("content-type", "")):
        raise UnsupportedMediaTypeError(f"the body is not said to be application/{said}")
    return True


def _check_host(host: str | None, version: str) -> None:
    # Nothing here depends on it; but where proxies and servers disagree about it, requests are smuggled.
    if host is None:
        if version == "1.1":
            raise MalformedRequestError("the header host is missing")
    elif not _HOST.fullmatch(host):
        raise MalformedRequestError("the header host is no host")


def _checked_json(body: bytes) -> None:
    try:
        value = parse_object(body)
    except ValueError as error:
        raise InvalidRequestError(f"body: it {error}") from None
    left, seen = [*value.values()], 0
    while left:
        seen += 1
        # Each unknown key costs a sentence about it: ten thousand of them are a second of this machine's time.
        if seen > _MOST_VALUES:
            raise InvalidRequestError(f"body: it has more than {_MOST_VALUES} values")
        inner = left.pop()
        if isinstance(inner, dict | list):
            left.extend(inner.values() if isinstance(inner, dict) else inner)


def _again(body: bytes, receive: Receive) -> Receive:
    """The body as one message, and after it what else `receive` has to say: that the other side went away."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def once() -> Message:
        return waiting.pop() if waiting else await receive()

    return once
