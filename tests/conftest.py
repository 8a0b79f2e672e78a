"""Real servers for tests: one OpenBao and one PostgreSQL per worker, in a directory of their own, gone afterwards."""

import os
from collections.abc import Callable, Generator

import pytest
from hypothesis import settings
from typing_extensions import override
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from controlplane.dev import orders
from controlplane.dev.home import Home
from controlplane.dev.issuer import DevIssuer
from controlplane.dev.openbao import OpenBao, bao_binary
from controlplane.dev.postgres import PostgreSQL
from controlplane.dev.stack import Stack
from controlplane.keys.files import load
from controlplane.settings import bao_program
from controlplane.testing import mariadb as mariadb_server
from controlplane.testing import redis as redis_server
from controlplane.testing.replicated import replicated
from controlplane.vault.client import Server, VaultClient
from controlplane.vault.session import JwtSession
from controlplane.world import RandomIds, SystemClock

# How long an example takes says more about the machine than about the code.
settings.register_profile("unhurried", parent=settings(), deadline=None)
settings.load_profile("unhurried")

_PAGES = "tests/docs/test_commands.py"


class Shared(LoadFileScheduling):
    """A file has one worker, so that its servers start once; but each page of the docs starts servers of its own."""

    @override
    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(_PAGES) else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    return Shared(config, log) if config.getoption("dist") == "loadfile" else None


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
        if os.environ.get("REPLICAS"):  # `make test-replicas`
            whole = replicated(whole)
        yield whole
    finally:
        whole.destroy()


@pytest.fixture(scope="session")
def needed() -> Callable[[str, object], None]:
    """Skip where a person has not installed Debian's package; in CI its absence is a failure, never a skip."""

    def check(package: str, program: object) -> None:
        if program is not None:
            return
        if os.environ.get("CI"):
            pytest.fail(f"{package} is not installed: .ci/run does it")
        pytest.skip(f"{package} is not installed: apt-get install {package}")

    return check


@pytest.fixture(scope="session")
def mariadb(needed: Callable[[str, object], None]) -> Generator[mariadb_server.MariaDB]:
    needed(mariadb_server.PACKAGE, mariadb_server.programs())
    with mariadb_server.mariadb() as server:
        yield server


@pytest.fixture(scope="session")
def redis(needed: Callable[[str, object], None]) -> Generator[redis_server.RedisServer]:
    needed(redis_server.PACKAGE, redis_server.program())
    with redis_server.redis_server() as server:
        yield server
