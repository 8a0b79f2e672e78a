"""One store for tests of its parts: in memory, SQLite on a file, PostgreSQL, each opened as often as is asked for."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL

from controlplane.dev.loopback import HOST
from controlplane.dev.postgres import SUPERUSER, PostgreSQL
from controlplane.stores.sql import SqlStore, open_store
from controlplane.testing.store import AUDIT_KEY, FakeStore

AnyStore = FakeStore | SqlStore


@pytest.fixture(params=["fake", "sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def replica(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], AnyStore]]:
    """Opens the same store once more, as another process would; the one in memory has one process only."""
    if request.param == "fake":
        fake = FakeStore()
        yield lambda: fake
        return
    server: PostgreSQL | None = None
    name = f"store_{secrets.token_hex(6)}"
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/store.db"
    else:
        postgres: PostgreSQL = request.getfixturevalue("postgres")
        server = postgres
        _do(postgres, "CREATE", name)
        address = URL.create("postgresql", SUPERUSER, postgres.password.reveal(), HOST, postgres.port, name)
        url = address.render_as_string(hide_password=False)
    opened: list[SqlStore] = []

    def another() -> SqlStore:
        opened.append(open_store(url, audit_key=AUDIT_KEY))
        return opened[-1]

    yield another
    for store in opened:
        store.close()
    if server is not None:
        _do(server, "DROP", name)


def _do(server: PostgreSQL, what: str, name: str) -> None:
    statement = sql.SQL("CREATE DATABASE {}") if what == "CREATE" else sql.SQL("DROP DATABASE {} WITH (FORCE)")
    with psycopg.connect(server.owner.reveal(), autocommit=True) as owner:
        owner.execute(statement.format(sql.Identifier(name)))
