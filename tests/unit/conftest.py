"""Unit tests speak to nobody: sockets are off, but for the socket pairs that event loops are made of."""

import asyncio
from collections.abc import Callable, Generator
from typing import Any, cast

import httpx
import pytest
from pytest_socket import disable_socket, enable_socket

from controlplane.http.app import create_app
from controlplane.testing.plane import FakePlane
from controlplane.wiring.plane import ControlPlane


@pytest.fixture(autouse=True)
def no_sockets() -> Generator[None]:
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()


@pytest.fixture(scope="session")
def http() -> Callable[..., httpx.Response]:
    """`http(plane, method, path, **options)`: one request to the HTTP door over a FakePlane, without a socket."""

    def call(plane: FakePlane, method: str, path: str, **options: Any) -> httpx.Response:
        async def once() -> httpx.Response:
            app = create_app(cast("ControlPlane", plane), worker=False)
            transport = httpx.ASGITransport(app)  # what the application raises unexpectedly, it raises here too
            async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
                return await client.request(method, path, **options)

        return asyncio.run(once())

    return call
