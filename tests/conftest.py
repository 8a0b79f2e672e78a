"""Real servers for tests: one OpenBao and one PostgreSQL per worker, in a directory of their own, gone afterwards."""

from collections.abc import Generator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from controlplane.dev import orders
from controlplane.dev.home import Home, write_private
from controlplane.dev.openbao import OpenBao, bao_binary
from controlplane.dev.postgres import PostgreSQL
from controlplane.settings import bao_program


@pytest.fixture(scope="session")
def dev_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home.of(tmp_path_factory.mktemp("project"))
    home.make()
    return home


@pytest.fixture(scope="session")
def openbao(dev_home: Home) -> Generator[OpenBao]:
    server = OpenBao(home=dev_home, binary=bao_binary(bao_program()))
    key = ec.generate_private_key(ec.SECP256R1())
    write_private(server.bootstrap_key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    try:
        server.start(
            bootstrap_pem=key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        )
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres(dev_home: Home) -> Generator[PostgreSQL]:
    server = PostgreSQL.at(dev_home)
    try:
        server.start()
        orders.prepare(server.owner, server.manager_password, ours=True)
        yield server
    finally:
        server.stop()
        server.remove()
