"""Reading the audit trail as evidence: nothing is written, and every change of a stored record is found (L03)."""

import hashlib
import os
import shutil
import sqlite3
import stat
import threading
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.audit.chain import Broken, Checkpoint, Fault, Intact
from controlplane.audit.verify import verify_trail
from controlplane.model.errors import ConfigurationError, StoreUnavailableError
from controlplane.model.event import Kind
from controlplane.model.grant import GrantId
from controlplane.model.secret import Secret
from controlplane.stores.sql import SqlStore, open_store
from controlplane.stores.trail import open_trail
from controlplane.testing.store import AUDIT_KEY, sample_event, sample_grant

RECORDS = 9


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store with a chain of nine records."""
    path = tmp_path_factory.mktemp("original") / "store.db"
    store = open_store(f"sqlite:///{path}", audit_key=AUDIT_KEY)
    fill(store)
    store.close()
    return path


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path / "copy.db"))


@pytest.fixture
def running(tmp_path: Path) -> Generator[SqlStore]:
    store = open_store(f"sqlite:///{tmp_path}/store.db", audit_key=AUDIT_KEY)
    fill(store)
    yield store
    store.close()


def fill(store: SqlStore) -> None:
    for number in range(1, RECORDS + 1):
        with store.transaction() as tx:
            grant = GrantId(f"gr_{number % 2}") if number % 3 else None
            tx.append(sample_event(number, Kind.LEASE_ISSUED, grant))


def check(path: Path, key: Secret = AUDIT_KEY, start: Checkpoint | None = None) -> Intact | Broken:
    trail = open_trail(f"sqlite:///{path}")
    try:
        return verify_trail(trail, key) if start is None else verify_trail(trail, key, start=start)
    finally:
        trail.close()


def tamper(path: Path, *statements: str) -> Broken:
    """What verifying says after somebody with the file, but without the key, ran SQL on it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for trigger in ("an_event_never_changes", "an_event_is_never_removed"):
            database.execute(f"DROP TRIGGER {trigger}")
        for statement in statements:
            database.execute(statement)
    found = check(path)
    assert isinstance(found, Broken), found
    return found


def state(path: Path) -> dict[str, tuple[str, int]]:
    return {
        file.name: (hashlib.sha256(file.read_bytes()).hexdigest(), stat.S_IMODE(file.stat().st_mode))
        for file in path.parent.iterdir()
    }


def test_a_copy_is_verified_without_a_trace(copy: Path) -> None:
    before = state(copy)
    found = check(copy)
    assert isinstance(found, Intact)
    assert found.records == RECORDS
    assert state(copy) == before


def test_a_copy_with_what_was_not_yet_in_the_file_is_verified_too(running: SqlStore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("store.db", "store.db-wal"):
        shutil.copy(tmp_path / name, tmp_path / "elsewhere" / name)
    before = state(tmp_path / "elsewhere" / "store.db")
    found = check(tmp_path / "elsewhere" / "store.db")
    assert isinstance(found, Intact)
    assert found.records == RECORDS
    after = state(tmp_path / "elsewhere" / "store.db")
    assert {name: after[name] for name in before} == before
    assert running.head() is not None


def test_a_running_store_is_verified_while_others_write(running: SqlStore, tmp_path: Path) -> None:
    stop, written = threading.Event(), list[int]()

    def write() -> None:
        while not stop.is_set():
            with running.transaction() as tx:
                tx.append(sample_event())
            written.append(1)

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        counts = [check(tmp_path / "store.db") for _ in range(5)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert all(isinstance(found, Intact) for found in counts), counts
    last = check(tmp_path / "store.db")
    assert isinstance(last, Intact)
    assert last.records == RECORDS + len(written)


def test_a_writer_never_waits_for_a_verification(running: SqlStore, tmp_path: Path) -> None:
    trail = open_trail(f"sqlite:///{tmp_path}/store.db")
    with trail.snapshot() as snapshot:
        assert next(snapshot.links).seq == 1
        with running.transaction() as tx:
            tx.append(sample_event())
        assert sum(1 for _ in snapshot.links) == RECORDS - 1
    trail.close()


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="no database"):
        open_trail(f"sqlite:///{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []


def test_something_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello " * 1_000)
    with pytest.raises(StoreUnavailableError, match="no SQLite database"):
        check(tmp_path / "text")
    sqlite3.connect(tmp_path / "empty.db").execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(StoreUnavailableError, match="tables are not"):
        check(tmp_path / "empty.db")
    with pytest.raises(ConfigurationError):
        open_trail("mysql://h/db")


@pytest.mark.parametrize("seq", [1, 5, RECORDS])
@pytest.mark.parametrize(
    "change",
    [
        "id = id || 'x'",
        "at = '2026-01-05T09:30:00.000001Z'",
        "kind = 'grant.revoked'",
        "grant_id = 'gr_other'",
        "body = '{\"number\":42}'",
        "mac = substr(mac, 2) || substr(mac, 1, 1)",
    ],
)
def test_l03_a_changed_field_is_found_in_its_record(copy: Path, seq: int, change: str) -> None:
    found = tamper(copy, f"UPDATE events SET {change} WHERE seq = {seq}")  # noqa: S608 # the tampering is the test
    assert (found.seq, found.fault) == (seq, Fault.CHANGED)
    assert str(seq) in found.detail


@pytest.mark.parametrize(
    "change",
    [
        "body = ' ' || body",  # the same JSON to a reader
        'body = \'{"number":4,"number":5}\'',
        "body = '{\"n\\u0075mber\":5}'",
        "body = 'no json'",
        "body = CAST(x'ff' AS TEXT)",
        "body = x'7b7d'",
        "body = '[1]'",
        "at = '2026-01-05T09:30:00Z'",  # the same instant
        "at = '2026-01-05T10:30:00.000000+01:00'",
        "at = 'yesterday'",
        "at = 5",
        "kind = 'grant.conjured'",
        "kind = CAST(x'ff' AS TEXT)",
        "id = CAST(x'ff' AS TEXT)",
        "mac = x'00'",
        "grant_id = CAST(x'80' AS TEXT)",
    ],
)
def test_l03_what_does_not_read_back_as_written_is_found_in_its_record(copy: Path, change: str) -> None:
    found = tamper(copy, f"UPDATE events SET {change} WHERE seq = 5")  # noqa: S608 # the tampering is the test
    assert (found.seq, found.fault) == (5, Fault.UNREADABLE)


@pytest.mark.parametrize(
    ("statements", "seq", "fault"),
    [
        (["DELETE FROM events WHERE seq = 4"], 4, Fault.MISSING),
        (["DELETE FROM events WHERE seq = 4", "UPDATE events SET seq = seq - 1 WHERE seq > 4"], 4, Fault.CHANGED),
        (["DELETE FROM events WHERE seq > 6"], 7, Fault.CUT_OFF),
        (["DELETE FROM events"], 1, Fault.CUT_OFF),
        (["DELETE FROM audit_head"], RECORDS + 1, Fault.HEAD_MISSING),
        (["DELETE FROM events", "DELETE FROM audit_head"], 1, Fault.HEAD_MISSING),
        (["DELETE FROM events WHERE seq > 6", "UPDATE audit_head SET seq = 6"], 6, Fault.HEAD_FORGED),
        (["UPDATE audit_head SET mac = CAST(x'ff' AS TEXT)"], RECORDS + 1, Fault.HEAD_MISSING),
        (["UPDATE events SET seq = 0 WHERE seq = 4", "UPDATE events SET seq = 4 WHERE seq = 5"], 0, Fault.REPEATED),
        (["INSERT INTO events SELECT -7, id, at, kind, grant_id, body, mac FROM events WHERE seq = 1"], -7, "repeated"),
        (["INSERT INTO events SELECT 10, id, at, kind, grant_id, body, mac FROM events WHERE seq = 9"], 10, "changed"),
        (
            [
                "UPDATE events SET seq = 100 WHERE seq = 3",
                "UPDATE events SET seq = 3 WHERE seq = 6",
                "UPDATE events SET seq = 6 WHERE seq = 100",
            ],
            3,
            Fault.CHANGED,
        ),
    ],
)
def test_l03_a_chain_that_was_rearranged_is_found_at_its_first_bad_record(
    copy: Path, statements: list[str], seq: int, fault: str
) -> None:
    found = tamper(copy, *statements)
    assert (found.seq, found.fault) == (seq, fault)


def test_l03_a_copy_put_back_is_found_by_a_checkpoint_kept_elsewhere(running: SqlStore, tmp_path: Path) -> None:
    older = check(tmp_path / "store.db")
    assert isinstance(older, Intact)
    shutil.copy(tmp_path / "store.db", tmp_path / "old.db")
    shutil.copy(tmp_path / "store.db-wal", tmp_path / "old.db-wal")
    with running.transaction() as tx:
        tx.append(sample_event(10))
    newer = check(tmp_path / "store.db", start=older.upto)
    assert isinstance(newer, Intact)
    assert newer.records == 1
    put_back = check(tmp_path / "old.db", start=newer.upto)
    assert isinstance(put_back, Broken)
    assert put_back.fault is Fault.CUT_OFF


def test_another_key_says_so(copy: Path) -> None:
    found = check(copy, Secret("77" * 32))
    assert isinstance(found, Broken)
    assert found.fault is Fault.FOREIGN


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_l03_one_changed_byte_of_a_record_in_the_file_names_that_record(
    data: st.DataObject, original: Path, tmp_path: Path
) -> None:
    raw = bytearray(original.read_bytes())
    seq = data.draw(st.integers(1, RECORDS), label="seq")
    text = b'{"number":%d}' % seq
    assert raw.count(text) == 1
    at = raw.index(text) + data.draw(st.integers(0, len(text) - 1), label="byte")
    raw[at] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    (tmp_path / "bitten.db").write_bytes(raw)
    found = check(tmp_path / "bitten.db")
    assert isinstance(found, Broken)
    assert found.seq == seq


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_l03_a_byte_changed_anywhere_in_the_file_is_never_a_crash_nor_a_false_chain(
    data: st.DataObject, original: Path, tmp_path: Path
) -> None:
    raw = bytearray(original.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1), label="at")] ^= data.draw(st.integers(1, 255), label="by")
    (tmp_path / "bitten.db").write_bytes(raw)
    try:
        found = check(tmp_path / "bitten.db")
    except StoreUnavailableError:
        return
    # Pages of other tables and indexes may change unseen; what is called intact has every record.
    assert isinstance(found, Broken) or found.records == RECORDS


def test_the_newest_and_the_following_links_are_of_one_grant_or_of_all(copy: Path) -> None:
    trail = open_trail(f"sqlite:///{copy}")
    assert [link.seq for link in trail.newest(3)] == [7, 8, 9]
    assert [link.seq for link in trail.newest(2, grant=GrantId("gr_1"))] == [5, 7]
    assert [link.seq for link in trail.following(6)] == [7, 8, 9]
    assert [link.seq for link in trail.following(2, grant=GrantId("gr_0"))] == [4, 8]
    assert trail.following(9) == []
    trail.close()


def test_a_trail_longer_than_a_page_is_read_whole(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/store.db", audit_key=AUDIT_KEY)
    with store.transaction() as tx:
        tx.append(*[sample_event(number) for number in range(2_500)])
    store.close()
    found = check(tmp_path / "store.db")
    assert isinstance(found, Intact)
    assert found.records == 2_500


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_copy_on_a_read_only_medium_is_verified(copy: Path) -> None:
    copy.chmod(0o400)
    copy.parent.chmod(0o500)
    try:
        assert isinstance(check(copy), Intact)
    finally:
        copy.parent.chmod(0o700)


def test_a_store_keeps_its_grants_out_of_the_trail(running: SqlStore, tmp_path: Path) -> None:
    with running.transaction() as tx:
        tx.add(sample_grant())  # a change that nobody tells of adds no link
    found = check(tmp_path / "store.db")
    assert isinstance(found, Intact)
    assert found.records == RECORDS
