"""The tools over HTTP, as an OAuth resource server in the control plane itself: no token goes on to anybody else.

Source: the MCP specification, "Authorization"; RFC 9728 (what protects it), RFC 8707 (whom a token is for), RFC 6750.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

import anyio
from fastapi import FastAPI
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.routes import create_protected_resource_routes
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl, ConfigDict, TypeAdapter
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Scope

from controlplane.http.intake import LARGEST_BODY
from controlplane.mcp.tools import Ask, Tools
from controlplane.model.errors import NotAuthenticatedError
from controlplane.model.secret import Secret
from controlplane.sdk import calls
from controlplane.sdk.calls import Call, Json
from controlplane.wiring.plane import ControlPlane

_SENT_ON: Final = frozenset({b"authorization", b"x-forwarded-for"})
"""Who calls, and from where: the API reads both by its own rules."""
_AS_WRITTEN: Final = TypeAdapter(AnyHttpUrl, config=ConfigDict(url_preserve_empty_path=True))
"""A slash more would be another issuer. Source: RFC 8414 3.3."""


def resource_app(
    plane: ControlPlane, api: FastAPI, *, resource: str, authorization_servers: Sequence[str], page: str | None
) -> Starlette:
    """The tools at the path of `resource`, over `api`, whose issuers take tokens for `resource` and for nothing else.

    `authorization_servers` are those whom clients are sent to for such a token. Closes `plane` when it ends.
    """
    url, *servers = (_AS_WRITTEN.validate_python(each) for each in (resource, *authorization_servers))
    at = urlsplit(resource)
    server = Tools(asks=lambda ctx: _inside(ctx, api), page=page).serve(
        token_verifier=_Issuers(plane),
        # Audiences are checked by our issuers: a token that is for others as well is refused, too.
        auth=AuthSettings(issuer_url=servers[0], resource_server_url=url, validate_token_resource=False),
    )
    tools = server.streamable_http_app(
        streamable_http_path=at.path or "/",
        max_request_body_size=LARGEST_BODY,
        # Whoever made a browser believe that another name is ours is refused.
        transport_security=TransportSecuritySettings(
            allowed_hosts=[at.netloc], allowed_origins=[f"{at.scheme}://{at.netloc}"]
        ),
    )

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncGenerator[None]:
        del app
        async with api.router.lifespan_context(api), tools.router.lifespan_context(tools):
            yield

    metadata = create_protected_resource_routes(url, servers, resource_name="Shorthold")
    return Starlette(routes=[*metadata, Mount("/", tools)], lifespan=life)


@dataclass(frozen=True, slots=True)
class _Issuers(TokenVerifier):
    """Lets in whom the API lets in."""

    plane: ControlPlane

    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            who = await run_in_threadpool(self.plane.identify, Secret(token))
        except NotAuthenticatedError:
            return None
        return AccessToken(
            token="",  # nobody needs it, so nobody keeps it
            client_id=who.workload,
            subject=who.subject,
            claims={"iss": who.issuer},
            scopes=[],
        )


def _inside(ctx: Context[Any, Any], api: ASGIApp) -> Ask:
    """Asks the API of this process, with the caller's own headers, from the caller's own address."""
    request = cast("Request", ctx.request_context.request)

    async def ask(call: Call) -> Json:
        status, raw = await _answer(api, _scope(call, request.scope), calls.content(call))
        return calls.heard(call, "the control plane", status, raw)

    return ask


def _scope(call: Call, outer: Scope) -> Scope:
    """The request as if the caller had sent it to the API himself."""
    path, _, query = call.path.partition("?")
    own = {"host": "localhost", "content-length": str(len(calls.content(call))), **calls.headers_of(call, None, None)}
    headers = [(name.lower().encode(), value.encode()) for name, value in own.items()]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [*headers, *((name, value) for name, value in outer["headers"] if name in _SENT_ON)],
        "client": outer["client"],
        "server": outer.get("server"),
    }


async def _answer(app: ASGIApp, scope: Scope, content: bytes) -> tuple[int, bytes]:
    status, parts, rest = 0, list[bytes](), [content]

    async def receive() -> Message:
        if rest:
            return {"type": "http.request", "body": rest.pop(), "more_body": False}
        await anyio.sleep_forever()
        raise asyncio.CancelledError  # not reached

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)
        parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return status, b"".join(parts)
