"""Ends that a real store could not take: access ends at once, each end is told once, in order, when it is back (P6)."""

import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import Connection
from sqlalchemy.event import listen, remove

from controlplane.audit.chain import Intact, verify
from controlplane.grants.unsaved import EndUnclaimed
from controlplane.model.errors import StoreUnavailableError
from controlplane.model.event import Kind
from controlplane.model.grant import GrantId, State, Step, Why
from controlplane.stores import sqlite
from controlplane.stores.sql import SqlStore, open_store
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane
from controlplane.testing.store import AUDIT_KEY, FakeStore, sample_event

Broken = Callable[[SqlStore, Path], Generator[None]]


def full(store: SqlStore, path: Path) -> Generator[None]:
    del path
    with store.writer.begin() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    for number, size in enumerate((50_000, 1_000, 1_000, 1_000, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1), start=100):
        try:
            with store.transaction() as tx:
                tx.append(*(sample_event(number) for _ in range(size // 100 + 1)))
        except StoreUnavailableError:
            continue
    yield
    with store.writer.begin() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")


def read_only(store: SqlStore, path: Path) -> Generator[None]:
    del path
    engine = cast("sqlite.Writer", store.writer).engine

    def refuse(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA query_only = ON")

    listen(engine, "begin", refuse)
    yield
    remove(engine, "begin", refuse)
    engine.dispose()
    store.writer.close()


def locked(store: SqlStore, path: Path) -> Generator[None]:
    del store
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[SqlStore]:
    monkeypatch.setattr(sqlite, "_PATIENCE", 0.01)
    with closing(open_store(f"sqlite:///{tmp_path}/store.db", audit_key=AUDIT_KEY)) as opened:
        yield opened


@pytest.fixture
def plane(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> FakePlane:
    monkeypatch.setattr("controlplane.testing.plane._WatchedStore", as_it_is)
    entitlement = compiled_entitlement(eligibility=[{"issuer": "dev", "subject": AGENT}])
    return FakePlane(entitlement, store=cast("FakeStore", store))


def as_it_is(store: object, _journal: object) -> object:
    """A real store, whose commits no journal watches."""
    return store


def finish(plane: FakePlane, id: GrantId, why: Why = Why.COMPLETED) -> None:
    with pytest.raises(StoreUnavailableError):
        plane.finish(plane.agent(), id, why)


def token_lives(plane: FakePlane, id: GrantId) -> bool:
    accessor = plane.grant(id).accessor
    assert accessor is not None
    return plane.vault.logins.facts(accessor) is not None


@pytest.mark.parametrize("broken", [full, read_only, locked])
def test_p6_l01_g16_ends_that_a_store_could_not_take_are_told_once_each_and_in_order(
    plane: FakePlane, store: SqlStore, tmp_path: Path, broken: Broken
) -> None:
    ids = [plane.ask().grant.id for _ in range(3)]
    plane.clock.advance(timedelta(seconds=30))
    said = dict(zip(ids, (Why.COMPLETED, Why.FAILED, Why.COMPLETED), strict=True))
    who = plane.agent()
    with contextmanager(broken)(store, tmp_path / "store.db"):
        for id in (ids[1], ids[0], ids[2], ids[1]):  # the last one again: whoever is told 503 asks again
            with pytest.raises(StoreUnavailableError):
                plane.finish(who, id, said[id])
            plane.clock.advance(timedelta(seconds=1))
            assert not token_lives(plane, id)
    at = {id: event.at for event in plane.spool.waiting() if (id := GrantId(str(event.grant)))}
    plane.wait(timedelta(minutes=30))  # longer than they could have lived: and still nothing says `expired`
    links = store.links(limit=1_000)
    ends = [link.event for link in links if link.event.kind is Kind.GRANT_ENDED]
    assert [(event.grant, event.body["why"]) for event in ends] == [
        (id, said[id].value) for id in (ids[1], ids[0], ids[2])
    ]
    assert {event.grant: event.at for event in ends} == at
    assert [link.event.kind for link in links].count(Kind.GRANT_REVOKED) == 3
    assert isinstance(verify(links, store.head(), AUDIT_KEY), Intact)
    for id in ids:
        grant = plane.grant(id)
        assert (grant.state, grant.why, grant.revoking_at) == (State.REVOKED, said[id], at[id])
        assert grant.receipt is not None
        assert grant.receipt.verified
    assert plane.spool.waiting() == []
    assert plane.alive() == []


def test_p6_an_end_that_was_committed_though_nobody_was_told_is_not_told_twice() -> None:
    plane = FakePlane(compiled_entitlement())
    id = plane.ask().grant.id
    plane.journal.fail("after", "commit grant.ended", StoreUnavailableError)
    finish(plane, id)
    plane.wait(timedelta(minutes=1))
    assert len(plane.events(Kind.GRANT_ENDED, id)) == len(plane.events(Kind.GRANT_REVOKED, id)) == 1
    assert plane.spool.waiting() == []


def test_p6_what_somebody_else_ended_meanwhile_has_one_end() -> None:
    plane = FakePlane(compiled_entitlement())
    id = plane.ask().grant.id
    plane.journal.fail("before", "commit grant.ended", StoreUnavailableError)
    finish(plane, id)
    plane.finish(plane.agent(), id, Why.FAILED)
    plane.wait(timedelta(minutes=1))
    assert [event.body["why"] for event in plane.events(Kind.GRANT_ENDED, id)] == ["failed"]
    assert plane.spool.waiting() == []


def test_p6_an_end_of_a_grant_that_a_restored_store_does_not_know_is_still_told() -> None:
    plane = FakePlane(compiled_entitlement())
    end = sample_event(7, kind=Kind.GRANT_ENDED, grant=GrantId("gr_" + "z" * 24))
    plane.spool.put(end)
    plane.work()
    assert plane.events(Kind.GRANT_ENDED) == [end]
    assert plane.spool.waiting() == []


def test_g16_a_lost_heartbeat_ends_also_while_no_worker_can_claim_it(
    plane: FakePlane, store: SqlStore, tmp_path: Path
) -> None:
    plane.change(compiled_entitlement(heartbeat="1m", eligibility=[{"issuer": "dev", "subject": AGENT}]))
    silent = plane.ask(ttl=timedelta(minutes=10)).grant
    plane.clock.advance(timedelta(minutes=2))
    with contextmanager(read_only)(store, tmp_path):
        EndUnclaimed(clock=plane.clock, store=store, leases=plane.finish.leases)()
    assert not token_lives(plane, silent.id)


def test_g16_what_is_due_ends_also_while_no_worker_can_claim_it(
    plane: FakePlane, store: SqlStore, tmp_path: Path
) -> None:
    over, ending, young = (plane.ask(ttl=timedelta(minutes=minutes)).grant for minutes in (1, 10, 10))
    now = plane.clock.now()
    with store.transaction() as tx:
        known = plane.grant(ending.id)
        tx.save(known.after(Step.END, why=Why.COMPLETED, revoking_at=now, due_at=now))
    plane.clock.advance(timedelta(minutes=2))
    before = plane.journal.steps.count("leases.revoke_token")
    with contextmanager(read_only)(store, tmp_path):
        unclaimed = EndUnclaimed(clock=plane.clock, store=store, leases=plane.finish.leases)
        for _ in range(5):
            unclaimed()
        assert not token_lives(plane, over.id)
        assert not token_lives(plane, ending.id)
        assert token_lives(plane, young.id)
        assert plane.journal.steps.count("leases.revoke_token") == before + 2  # each once, not once a tick (R02)
    plane.work()
    assert {plane.grant(grant.id).state for grant in (over, ending)} == {State.REVOKED}
