"""SQLite: who waits for whom, what shares a commit, and what a broken disk looks like."""

import os
import signal
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from controlplane.audit.chain import Intact, verify
from controlplane.model.errors import (
    ConfigurationError,
    ControlPlaneError,
    IllegalTransitionError,
    InvalidRequestError,
    LostRaceError,
    StoreUnavailableError,
)
from controlplane.model.secret import Secret
from controlplane.ports import Store, Transaction
from controlplane.stores import sqlite
from controlplane.stores.sql import SqlStore, open_store
from controlplane.testing.clock import START
from controlplane.testing.store import AUDIT_KEY, sample_event, sample_grant, sample_lease

Body = Callable[[Transaction], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Generator[SqlStore]:
    opened = open_at(path)
    yield opened
    opened.close()


def open_at(path: Path, key: Secret = AUDIT_KEY) -> SqlStore:
    return open_store(f"sqlite:///{path}", audit_key=key)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.001)


def adding(number: int, reason: str = "") -> Body:
    return lambda tx: tx.add(sample_grant(number, reason=reason), sample_event(number))


def add(store: SqlStore, number: int, reason: str = "") -> None:
    with store.transaction() as tx:
        adding(number, reason)(tx)


def numbers(store: Store) -> list[int]:
    """Which grants there are; each has its event, each event its grant, and the chain holds."""
    assert isinstance(verify(store.links(), store.head(), AUDIT_KEY), Intact)
    found = sorted(int(grant.id.removeprefix("gr_")) for grant in store.grants())
    assert sorted(int(link.event.id.removeprefix("ev_")) for link in store.links()) == found
    return found


def writer(store: SqlStore) -> sqlite.Writer:
    return cast("sqlite.Writer", store.writer)


def sharing(store: SqlStore, *bodies: Body) -> list[BaseException | None]:
    """Run each body in a transaction of its own thread; all others wait for their turn while the first has it.

    So they are of one batch: the turns are taken in this order, and then the first comes to commit.
    """
    turns, inside = writer(store).turns, threading.Event()
    outcomes: list[BaseException | None] = [None] * len(bodies)

    def run(number: int) -> None:
        try:
            with store.transaction() as tx:
                if number == 0:
                    inside.set()
                    until(lambda: turns.waiting == len(bodies) - 1)
                bodies[number](tx)
        except Exception as error:  # noqa: BLE001 # the outcome is what is tested
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(bodies))]
    threads[0].start()
    assert inside.wait(60)
    for number, thread in enumerate(threads[1:], start=1):
        thread.start()
        if number < len(bodies) - 1:  # with the last one the queue begins to move
            until(lambda number=number: turns.waiting == number)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return outcomes


@contextmanager
def commits(store: SqlStore) -> Generator[list[object]]:
    seen: list[object] = []

    def see(connection: object) -> None:
        seen.append(connection)

    event.listen(writer(store).engine, "commit", see)
    yield seen
    event.remove(writer(store).engine, "commit", see)


# Turns and shared commits -----------------------------------------------------------------------------------------


def test_threads_that_wait_for_each_other_share_one_commit(store: SqlStore) -> None:
    with commits(store) as seen:
        assert sharing(store, *map(adding, range(1, 7))) == [None] * 6
    assert len(seen) == 1
    assert numbers(store) == [1, 2, 3, 4, 5, 6]


def test_a_thread_alone_commits_its_own(store: SqlStore) -> None:
    with commits(store) as seen:
        add(store, 1)
        add(store, 2)
    assert len(seen) == 2


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_of_a_shared_commit_only_the_part_that_failed_is_taken_back(store: SqlStore, bad: int) -> None:
    bodies = [adding(1), adding(2), adding(3)]

    def fails(tx: Transaction) -> None:
        adding(bad + 1)(tx)
        raise ZeroDivisionError

    bodies[bad] = fails
    outcomes = sharing(store, *bodies)
    assert [type(outcome) for outcome in outcomes] == [
        ZeroDivisionError if number == bad else type(None) for number in range(3)
    ]
    assert numbers(store) == [number for number in (1, 2, 3) if number != bad + 1]


def test_a_commit_that_fails_fails_for_everybody_who_shared_it(store: SqlStore, path: Path) -> None:
    def refuse(_: object) -> None:
        raise OperationalError(None, None, sqlite3.OperationalError("disk I/O error"))

    engine = writer(store).engine
    event.listen(engine, "commit", refuse)
    outcomes = sharing(store, adding(1), adding(2), lambda tx: tx.save(sample_grant(1).but().but()))
    event.remove(engine, "commit", refuse)
    # The third lost a race against a change that was never kept, so it is not told of a race either.
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailableError] * 3
    assert numbers(store) == []
    add(store, 4)
    store.close()
    assert numbers(open_at(path)) == [4]


def test_who_lost_a_race_against_an_uncommitted_change_is_told_when_the_winner_can_be_seen(store: SqlStore) -> None:
    add(store, 1)
    turns, inside = writer(store).turns, threading.Event()
    seen: list[int] = []

    def win() -> None:
        with store.transaction() as tx:
            inside.set()
            until(lambda: turns.waiting == 1)
            tx.save(sample_grant(1).but(attempts=1))

    def lose() -> None:
        with pytest.raises(LostRaceError), store.transaction() as tx:
            tx.save(sample_grant(1).but(attempts=2))
        found = store.grant(sample_grant(1).id)
        seen.append(0 if found is None else found.attempts)

    winner, loser = threading.Thread(target=win), threading.Thread(target=lose)
    winner.start()
    assert inside.wait(60)
    loser.start()
    winner.join(60)
    loser.join(60)
    assert seen == [1]


def test_turns_come_in_the_order_of_asking() -> None:
    turns, order = sqlite.Turns(), list[int]()

    def take(number: int) -> None:
        with turns:
            order.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(20)]
    with turns:
        for number, thread in enumerate(threads):
            thread.start()
            until(lambda number=number: turns.waiting == number + 1)
    for thread in threads:
        thread.join()
    assert order == list(range(20))


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread")
def test_ctrl_c_while_waiting_for_a_turn_gives_up_the_place_in_the_queue() -> None:
    turns, go = sqlite.Turns(), threading.Event()

    def hold() -> None:
        with turns:
            assert go.wait(60)

    def interrupt(_: int, __: object) -> None:
        raise KeyboardInterrupt

    holder = threading.Thread(target=hold)
    holder.start()
    until(lambda: turns.taken)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt), turns:
            pass
    finally:
        signal.signal(signal.SIGALRM, before)
    assert turns.waiting == 0
    go.set()
    holder.join(60)
    with turns:
        assert turns.taken
    assert not turns.taken


def test_a_reader_never_waits_for_a_writer(store: SqlStore) -> None:
    add(store, 1)
    with store.transaction() as tx:
        adding(2)(tx)
        found = list[int]()
        reading = threading.Thread(target=lambda: found.extend(numbers(store)))
        reading.start()
        reading.join(60)
        assert found == [1]


def test_another_process_that_writes_is_waited_for(store: SqlStore, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = threading.Thread(target=add, args=(store, 1))
        waiting.start()
        until(lambda: writer(store).turns.taken)
        other.execute("COMMIT")
        waiting.join(60)
    assert numbers(store) == [1]


# The file ---------------------------------------------------------------------------------------------------------


def test_the_files_are_their_owners_only_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "data" / "store.db"
    before = os.umask(0)
    try:
        store = open_at(path)
        add(store, 1)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    store.close()
    assert [file.name for file in path.parent.iterdir()] == ["store.db"]


def test_everything_is_durable_and_checked(store: SqlStore) -> None:
    with writer(store).begin() as connection:
        asked = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert asked == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_what_was_written_is_there_after_opening_it_again(path: Path) -> None:
    for number in range(1, 4):
        store = open_at(path)
        add(store, number)
        assert numbers(store) == list(range(1, number + 1))
        store.close()


def test_instants_are_text_of_one_width_in_utc(store: SqlStore, path: Path) -> None:
    elsewhere = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    with store.transaction() as tx:
        tx.add(sample_grant(at=elsewhere))
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT requested_at FROM grants").fetchone() == ("2026-07-01T06:30:00.000000Z",)
    found = store.grant(sample_grant().id)
    assert found is not None
    assert found.requested_at == elsewhere
    assert found.requested_at.tzinfo is UTC


def test_an_instant_without_a_zone_is_never_stored(store: SqlStore) -> None:
    with pytest.raises(ValueError, match="time zone"), store.transaction() as tx:
        tx.add(sample_grant(expires_at=datetime(2026, 1, 1)))  # noqa: DTZ001 # that is the point
    assert numbers(store) == []


def test_text_that_is_no_unicode_is_refused_as_such(store: SqlStore) -> None:
    with pytest.raises(InvalidRequestError):
        add(store, 1, reason="\ud800")
    assert numbers(store) == []


# Faults -----------------------------------------------------------------------------------------------------------


def broken(path: Path) -> str:
    with pytest.raises(StoreUnavailableError) as caught:
        open_at(path)
    return caught.value.detail


def test_a_full_disk_refuses_whole_transactions_and_heals_when_there_is_room(store: SqlStore) -> None:
    add(store, 1)
    with writer(store).begin() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailableError, match="the disk is full"):
        add(store, 2, reason="x" * 1_000_000)
    assert numbers(store) == [1]
    with writer(store).begin() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    add(store, 3)
    assert numbers(store) == [1, 3]


def test_a_disk_that_fills_up_takes_from_a_shared_commit_nothing_that_was_reported_as_kept(store: SqlStore) -> None:
    with writer(store).begin() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 20}")
    outcomes = sharing(store, adding(1), adding(2, "x" * 1_000_000), adding(3))
    assert isinstance(outcomes[1], StoreUnavailableError)
    kept = [number for number, outcome in enumerate(outcomes, start=1) if outcome is None]
    assert numbers(store) == kept
    assert all(outcome is None or isinstance(outcome, ControlPlaneError) for outcome in outcomes)


def test_a_store_that_may_not_be_written_can_still_be_read(store: SqlStore) -> None:
    add(store, 1)
    with writer(store).begin() as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")
    with pytest.raises(StoreUnavailableError, match="read-only"):
        add(store, 2)
    assert numbers(store) == [1]


def test_a_file_that_another_process_keeps_locked_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_at(path).close()
    monkeypatch.setattr(sqlite, "_PATIENCE", 0.01)
    store = open_at(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="another process keeps it locked"):
            add(store, 1)
        other.execute("ROLLBACK")
    add(store, 2)
    assert numbers(store) == [2]
    store.close()


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.write_bytes(b"these are not the bytes you are looking for" * 100)
    assert "is no SQLite database" in broken(path)
    assert path.read_bytes().startswith(b"these are not")


def test_a_damaged_file_is_named_with_what_to_do(path: Path) -> None:
    store = open_at(path)
    for number in range(1, 50):
        add(store, number)
    store.close()
    raw = bytearray(path.read_bytes())
    for at in range(4096, len(raw), 4096):
        raw[at : at + 64] = b"\xff" * 64
    path.write_bytes(raw)
    with pytest.raises(StoreUnavailableError, match=r"damaged|cannot be read"):
        add(open_at(path), 50)


def test_a_place_where_no_file_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file" / "store.db") in broken(tmp_path / "file" / "store.db")
    (tmp_path / "folder").mkdir()
    assert "cannot be opened" in broken(tmp_path / "folder")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("not a url with s3cret in it", "no database URL"),
        ("mysql://user:s3cret@host/db", "only sqlite and postgresql"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_showing_it(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        open_store(url, audit_key=AUDIT_KEY)
    assert "s3cret" not in caught.value.detail


def test_a_postgresql_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(StoreUnavailableError, match="cannot be reached") as caught:
        open_store("postgresql://shorthold:s3cret@127.0.0.1:1/shorthold", audit_key=AUDIT_KEY)
    assert "s3cret" not in caught.value.detail
    assert "127.0.0.1" in caught.value.detail


def test_no_refusal_shows_sql_or_values(store: SqlStore) -> None:
    add(store, 1, reason="s3cret")
    failures: list[ControlPlaneError] = []
    bodies: list[Body] = [
        adding(1, "s3cret"),
        lambda tx: tx.save(sample_grant(1).but(attempts=-1, ttl=timedelta(0), failing="s3cret")),
        lambda tx: tx.add_leases(sample_grant(9).id, [sample_lease()]),
    ]
    for body in bodies:
        with pytest.raises((LostRaceError, IllegalTransitionError)) as caught, store.transaction() as tx:
            body(tx)
        failures.append(caught.value)
    for failure in failures:
        assert "s3cret" not in str(failure)
        assert "INSERT" not in str(failure)
        assert failure.__cause__ is None


# The chain's key --------------------------------------------------------------------------------------------------


def test_a_store_does_not_open_with_another_audit_key(path: Path) -> None:
    open_at(path).close()
    with pytest.raises(ConfigurationError, match="audit verify"):
        open_at(path, Secret("11" * 32))


@pytest.mark.parametrize(
    "tampering",
    ["UPDATE audit_head SET seq = 0", "DELETE FROM audit_head", "UPDATE audit_head SET mac = CAST(x'ff' AS TEXT)"],
)
def test_nothing_is_written_behind_a_head_that_somebody_changed(store: SqlStore, path: Path, tampering: str) -> None:
    add(store, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(tampering)
    with pytest.raises(StoreUnavailableError):
        add(store, 2)
    assert [grant.id for grant in store.grants(before=None)] == [sample_grant(1).id]
    assert store.claim_due(START + timedelta(hours=1), limit=1, hold=timedelta(minutes=1))


def test_a_record_that_somebody_changed_is_not_handed_out_as_an_event(store: SqlStore, path: Path) -> None:
    add(store, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("DROP TRIGGER an_event_never_changes")
        database.execute("UPDATE events SET body = ' ' || body")
    with pytest.raises(StoreUnavailableError, match="audit record 1"):
        store.links()
