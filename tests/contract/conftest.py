"""The stores that every contract is held against: the one in memory, SQLite on a file, PostgreSQL."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL

from controlplane.dev.loopback import HOST
from controlplane.dev.postgres import SUPERUSER, PostgreSQL
from controlplane.ports import Store
from controlplane.stores.sql import open_store
from controlplane.testing.store import AUDIT_KEY, FakeStore


class Databases:
    """Makes databases on a server, each a copy of one that was opened before: no test upgrades a schema of its own."""

    def __init__(self, server: PostgreSQL) -> None:
        self._server = server
        self._pattern = f"store_{secrets.token_hex(6)}"
        self._do("CREATE DATABASE {}", self._pattern)
        open_store(self.url(self._pattern), audit_key=AUDIT_KEY).close()

    def url(self, name: str) -> str:
        url = URL.create("postgresql", SUPERUSER, self._server.password.reveal(), HOST, self._server.port, name)
        return url.render_as_string(hide_password=False)

    def make(self) -> str:
        name = f"store_{secrets.token_hex(6)}"
        self._do("CREATE DATABASE {} TEMPLATE {}", name, self._pattern)
        return name

    def make_empty(self) -> str:
        """One that no release has seen."""
        name = f"store_{secrets.token_hex(6)}"
        self._do("CREATE DATABASE {}", name)
        return name

    def drop(self, name: str | None = None) -> None:
        self._do("DROP DATABASE {} WITH (FORCE)", name or self._pattern)

    def _do(self, statement: LiteralString, *names: str) -> None:
        with psycopg.connect(self._server.owner.reveal(), autocommit=True) as owner:
            owner.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@pytest.fixture(scope="module")
def databases(postgres: PostgreSQL) -> Iterator[Databases]:
    made = Databases(postgres)
    yield made
    made.drop()


@pytest.fixture(params=["fake", "sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def replicas(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the same store once more, as another process would; the one in memory has one process only."""
    if request.param == "fake":
        fake = FakeStore()
        yield lambda: fake
        return
    made: tuple[Databases, str] | None = None
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/store.db"
    else:
        databases: Databases = request.getfixturevalue("databases")
        made = (databases, databases.make())
        url = databases.url(made[1])
    opened = [open_store(url, audit_key=AUDIT_KEY)]
    waiting = list(opened)

    def another() -> Store:
        if not waiting:
            opened.append(open_store(url, audit_key=AUDIT_KEY))
            return opened[-1]
        return waiting.pop()

    yield another
    for store in opened:
        store.close()
    if made is not None:
        made[0].drop(made[1])


@pytest.fixture
def store(replicas: Callable[[], Store]) -> Store:
    return replicas()


@pytest.fixture
def url(databases: Databases) -> Iterator[str]:
    """A database on PostgreSQL, of the test's own."""
    name = databases.make()
    yield databases.url(name)
    databases.drop(name)


@pytest.fixture
def empty_url(databases: Databases) -> Iterator[str]:
    """A database on PostgreSQL that no release has seen."""
    name = databases.make_empty()
    yield databases.url(name)
    databases.drop(name)
