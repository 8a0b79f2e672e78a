"""Real servers for tests: one OpenBao and one PostgreSQL per worker, in a directory of their own, gone afterwards."""

from collections.abc import Generator

import pytest

from controlplane.dev import orders
from controlplane.dev.home import Home
from controlplane.dev.issuer import DevIssuer
from controlplane.dev.openbao import OpenBao, bao_binary
from controlplane.dev.postgres import PostgreSQL
from controlplane.dev.stack import Stack
from controlplane.keys.files import load
from controlplane.settings import bao_program
from controlplane.vault.client import Server, VaultClient
from controlplane.vault.session import JwtSession
from controlplane.world import RandomIds, SystemClock


@pytest.fixture(scope="session")
def dev_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home.of(tmp_path_factory.mktemp("project"))
    home.make()
    return home


@pytest.fixture(scope="session")
def openbao(dev_home: Home) -> Generator[OpenBao]:
    server = OpenBao(home=dev_home)
    try:
        server.start(bao_binary(bao_program()))
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def issuer(dev_home: Home) -> Generator[DevIssuer]:
    server = DevIssuer(home=dev_home)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def vault_root(openbao: OpenBao) -> Generator[VaultClient]:
    """May do everything: for looking and tampering, which no identity of ours could."""
    operator = openbao.operator_client()
    operator.write(
        "sys/policies/acl/test-root",
        {"policy": 'path "*" {capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]}'},
    )
    operator.write(
        "auth/shorthold-bootstrap/role/test-root",
        {
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_audiences": ["shorthold-bootstrap"],
            "token_policies": ["test-root"],
            "token_ttl": "1h",
        },
    )
    operator.close()
    server = Server(openbao.addr)
    session = JwtSession(
        server, "shorthold-bootstrap", "test-root", load(openbao.bootstrap_key), clock=SystemClock(), ids=RandomIds()
    )
    client = VaultClient(server, session)
    yield client
    client.close()
    session.close()


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


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """Everything that `dev up` starts, the control plane included, with the shipped entitlements synced."""
    # Tests start control planes with stores of their own beside this one: none may call another's tokens orphans.
    alone = {"SHORTHOLD_WORKER__RECONCILE": "off"}
    whole = Stack(project=tmp_path_factory.mktemp("stack"), say=print, settings=alone)
    try:
        whole.up()
        yield whole
    finally:
        whole.destroy()
