"""The schema's versions: they make exactly the tables that the code knows, whole or not at all."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, insert, inspect
from sqlalchemy.schema import SchemaItem

import controlplane.stores
from controlplane.audit.chain import GENESIS, seal_head
from controlplane.model.errors import ConfigurationError, StoreUnavailableError
from controlplane.stores.rows import grant_row
from controlplane.stores.schema import audit_head, grants, metadata
from controlplane.stores.sql import open_store
from controlplane.stores.upgrade import LATEST
from controlplane.testing.store import AUDIT_KEY, sample_event, sample_grant


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def open_and_close(path: Path) -> None:
    open_store(f"sqlite:///{path}", audit_key=AUDIT_KEY).close()


def schema(path: Path) -> set[tuple[str, str, str]]:
    with closing(sqlite3.connect(path)) as database:
        return set(database.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_master"))


def is_on_sqlite(item: SchemaItem, *_: object) -> bool:
    return item.info.get("only") in {None, "sqlite"}


def test_the_versions_make_the_tables_that_the_code_knows(path: Path) -> None:
    open_and_close(path)
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        opts = {"compare_type": True, "compare_server_default": True, "include_object": is_on_sqlite}
        context = MigrationContext.configure(connection, opts=opts)
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_the_versions_make_the_constraints_that_the_code_knows(path: Path) -> None:
    # Alembic compares no CHECKs: compare what a database says of both.
    open_and_close(path)
    engine = create_engine(f"sqlite:///{path.with_name('plain.db')}")
    metadata.create_all(engine)
    engine.dispose()

    def checks(found: set[tuple[str, str, str]]) -> set[tuple[str, str]]:
        return {
            (name, line.strip().rstrip(","))
            for kind, name, sql in found
            if kind == "table"
            for line in sql.splitlines()
            if "CHECK" in line or "FOREIGN KEY" in line or "UNIQUE" in line
        }

    expected = checks(schema(path.with_name("plain.db")))
    assert len(expected) >= 13
    assert checks(schema(path)) - {("alembic_version", "")} == expected


def test_the_latest_version_is_the_one_the_code_works_with() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(controlplane.stores.__file__).with_name("migrations")))
    assert ScriptDirectory.from_config(config).get_heads() == [LATEST]


def test_opening_again_changes_nothing(path: Path) -> None:
    open_and_close(path)
    before = schema(path)
    open_and_close(path)
    assert schema(path) == before


def test_an_upgrade_that_fails_leaves_nothing_behind(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("CREATE TABLE events (theirs TEXT)")
    with pytest.raises(StoreUnavailableError, match="tables are not as this release made them"):
        open_and_close(path)
    assert [(kind, name) for kind, name, _ in schema(path)] == [("table", "events")]
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("DROP TABLE events")
    open_and_close(path)


def test_a_store_of_a_newer_release_is_left_alone(path: Path) -> None:
    open_and_close(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    before = schema(path)
    with pytest.raises(ConfigurationError, match="a newer one made it"):
        open_and_close(path)
    assert schema(path) == before


def test_processes_that_start_at_once_make_one_store(path: Path) -> None:
    stores = [open_store(f"sqlite:///{path}", audit_key=AUDIT_KEY) for _ in range(3)]
    for number, store in enumerate(stores):
        with store.transaction() as tx:
            tx.add(sample_grant(number), sample_event(number))
    assert [link.seq for link in stores[0].links()] == [1, 2, 3]
    for store in stores:
        store.close()


@pytest.mark.parametrize("released", [f"{number:04}" for number in range(1, int(LATEST))])
def test_a_store_of_every_earlier_release_is_brought_forward_with_what_it_holds(path: Path, released: str) -> None:
    engine = create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(Path(controlplane.stores.__file__).with_name("migrations")))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, released)
        head = seal_head(AUDIT_KEY, GENESIS.seq, GENESIS.mac)
        connection.execute(insert(audit_head).values(place=1, seq=head.seq, mac=head.mac, seal=head.seal))
        then = {column["name"] for column in inspect(connection).get_columns("grants")}
        row = {name: value for name, value in grant_row(sample_grant()).items() if name in then}
        connection.execute(grants.insert().values(**row))
    engine.dispose()
    store = open_store(f"sqlite:///{path}", audit_key=AUDIT_KEY)
    old = sample_grant()
    assert store.grant(old.id) == old
    if released < "0009":  # that release began tasks itself
        assert [(task.id, task.begun_at) for task in store.lineage(old.workload, old.task)] == [
            (old.task, old.requested_at)
        ]
    with store.transaction() as tx:
        tx.add(sample_grant(2), sample_event(2))
    assert [link.seq for link in store.links()] == [1]
    store.close()
    fresh = path.with_name("fresh.db")
    open_and_close(fresh)
    assert schema(path) == schema(fresh)
