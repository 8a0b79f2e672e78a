"""Unit tests speak to nobody: sockets are off, but for the socket pairs that event loops are made of."""

from collections.abc import Generator

import pytest
from pytest_socket import disable_socket, enable_socket


@pytest.fixture(autouse=True)
def no_sockets() -> Generator[None]:
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()
