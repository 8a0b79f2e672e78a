"""The prober asks a real PostgreSQL: what it sees, what it cannot see, and that a target which hangs never holds it."""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from controlplane.dev import loopback
from controlplane.dev.orders import DATABASE
from controlplane.dev.postgres import PostgreSQL
from controlplane.model.errors import TargetUnavailableError
from controlplane.model.lease import Target
from controlplane.model.orphan import Login
from controlplane.model.secret import Secret
from controlplane.probers.lines.line import ProberLogin
from controlplane.probers.postgresql import Address, PostgresqlProber
from controlplane.testing.clock import FakeClock
from controlplane.testing.halted import halted

pytestmark = [pytest.mark.servers]

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ORDERS = Target(kind="postgresql", name="orders")
PROBER, AGENT = "test_prober", "v-test-agent"


class Logins:
    """Hands out one and the same login, and counts."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, name: str) -> ProberLogin:
        assert name == "orders"
        self.asked += 1
        return ProberLogin(username=PROBER, password=Secret("p" * 24), renew_at=NOW + timedelta(hours=1))


@pytest.fixture
def owner(postgres: PostgreSQL) -> Generator[psycopg.Connection]:
    with psycopg.connect(postgres.owner.reveal(), autocommit=True) as owner:
        for name in (PROBER, AGENT):
            owner.execute(f'DROP ROLE IF EXISTS "{name}"'.encode())
        owner.execute(f"CREATE ROLE \"{PROBER}\" LOGIN PASSWORD '{'p' * 24}'".encode())
        yield owner
        for name in (PROBER, AGENT):
            owner.execute(b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (name,))
            owner.execute(f'DROP ROLE IF EXISTS "{name}"'.encode())


@contextmanager
def prober(port: int, logins: Logins, clock: FakeClock | None = None) -> Generator[PostgresqlProber]:
    address = Address(host=loopback.HOST, port=port, database=DATABASE, sslmode="disable")
    asking = PostgresqlProber({"orders": address}, logins, clock or FakeClock(NOW))
    try:
        yield asking
    finally:
        asking.close()


def gone(asking: PostgresqlProber) -> bool:
    return asking.ask(ORDERS, AGENT, issued_at=NOW).gone


def test_the_roster_names_members_of_our_group_roles_with_their_end_and_their_sessions(
    owner: psycopg.Connection, postgres: PostgreSQL
) -> None:
    group, other, manager = "sh-test-roster-0a1b2c3d-orders", "some-roster", "test_roster_manager"
    for name in (group, other, manager):
        owner.execute(f'DROP ROLE IF EXISTS "{name}"'.encode())
    try:
        for name in (group, other):
            owner.execute(f'CREATE ROLE "{name}" NOLOGIN'.encode())
        owner.execute(f'CREATE ROLE "{manager}" NOLOGIN CREATEROLE'.encode())
        owner.execute(f'GRANT "{group}" TO "{manager}" WITH ADMIN OPTION'.encode())
        create = f"CREATE ROLE \"{AGENT}\" LOGIN PASSWORD '{'a' * 24}' VALID UNTIL '2036-01-01T00:00:00Z'"
        owner.execute(create.encode())
        owner.execute(f'GRANT "{other}" TO "{AGENT}"'.encode())
        with prober(postgres.port, Logins()) as asking:
            before = [login.name for login in asking.logins("orders")]
            assert AGENT not in before
            owner.execute(f'GRANT "{group}" TO "{AGENT}" WITH INHERIT TRUE, SET FALSE'.encode())
            ends = datetime(2036, 1, 1, tzinfo=UTC)
            with psycopg.connect(postgres.dsn(AGENT, Secret("a" * 24), DATABASE).reveal()):
                (found,) = [login for login in asking.logins("orders") if login.group == group]
                assert found == Login(name=AGENT, group=group, valid_until=ends, sessions=1)
            owner.execute(f"ALTER ROLE \"{AGENT}\" VALID UNTIL 'infinity'".encode())
            (found,) = [login for login in asking.logins("orders") if login.group == group]
            assert found.valid_until is None
            with pytest.raises(TargetUnavailableError, match="no target called nowhere"):
                asking.logins("nowhere")
    finally:
        owner.execute(f'DROP ROLE IF EXISTS "{AGENT}"'.encode())
        for name in (manager, group, other):
            owner.execute(f'DROP ROLE IF EXISTS "{name}"'.encode())


def test_a_user_is_gone_when_neither_it_nor_a_session_of_it_is_there(
    owner: psycopg.Connection, postgres: PostgreSQL
) -> None:
    with prober(postgres.port, Logins()) as asking:
        assert gone(asking)
        owner.execute(f"CREATE ROLE \"{AGENT}\" LOGIN PASSWORD '{'a' * 24}'".encode())
        assert not gone(asking)
        with psycopg.connect(postgres.dsn(AGENT, Secret("a" * 24), DATABASE).reveal()):
            owner.execute(f'DROP ROLE "{AGENT}"'.encode())
            assert not gone(asking), "its session is still open, and nameless now"
            owner.execute(
                b"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                b" WHERE usename IS NULL AND usesysid IS NOT NULL"
            )
            assert gone(asking)


def test_a_login_with_which_nobody_gets_in_is_not_replaced_at_every_try(owner: psycopg.Connection) -> None:
    del owner
    logins, clock = Logins(), FakeClock(NOW)
    with prober(loopback.free_port(but=set()), logins, clock) as asking:
        for _ in range(20):
            with pytest.raises(TargetUnavailableError):
                gone(asking)
        assert logins.asked == 1
        clock.advance(timedelta(minutes=2))
        for _ in range(3):
            with pytest.raises(TargetUnavailableError):
                gone(asking)
        assert logins.asked == 2


def test_a_line_that_has_gone_silent_is_cut_and_the_question_asked_anew(
    owner: psycopg.Connection, postgres: PostgreSQL
) -> None:
    with prober(postgres.port, Logins()) as asking:
        assert gone(asking)
        row = owner.execute(b"SELECT pid FROM pg_stat_activity WHERE usename = %s", (PROBER,)).fetchone()
        assert row is not None
        with halted(row[0]):
            assert gone(asking)


def test_a_prober_sees_no_statement_of_others(owner: psycopg.Connection, postgres: PostgreSQL) -> None:
    owner.execute(b"SELECT 'iban DE89-CANARY'")
    with psycopg.connect(postgres.dsn(PROBER, Secret("p" * 24), DATABASE).reveal()) as seeing:
        seen = seeing.execute(b"SELECT string_agg(query, ' ') FROM pg_stat_activity").fetchone()
    assert seen is not None
    assert "CANARY" not in str(seen[0])


def test_logins_that_are_named_like_ours_are_listed_in_a_group_or_not_and_probers_are_none(
    owner: psycopg.Connection, postgres: PostgreSQL
) -> None:
    tail = "0123456789abcdefghij-1763834822"
    ours = [f"v-zz-orders-read-de7264fb-or-{tail}", f"v-shorthol-zz-order-{tail}", f"v-zz-probes-de7264fb-{tail}"]
    others = [f"v-zz-prober-orders-{tail}", f"v-token-zz-probe-{tail}", f"v-zzz-orders-{tail}", "v-zz-orders", "zz-ann"]
    try:
        for name in (*ours, *others):
            owner.execute(f'CREATE ROLE "{name}" LOGIN'.encode())
        address = Address(host=loopback.HOST, port=postgres.port, database=DATABASE, sslmode="disable")
        asking = PostgresqlProber({"orders": address}, Logins(), FakeClock(NOW), prefix="zz")
        try:
            found = asking.named("orders")
        finally:
            asking.close()
        assert found == [Login(name=name, group="", valid_until=None, sessions=0) for name in sorted(ours)]
    finally:
        for name in (*ours, *others):
            owner.execute(f'DROP ROLE IF EXISTS "{name}"'.encode())
