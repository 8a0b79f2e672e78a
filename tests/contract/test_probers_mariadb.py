"""The prober asks a real MariaDB: what it sees, what it cannot see, and that a target which hangs never holds it."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pymysql
import pytest

from controlplane.dev import loopback
from controlplane.engines.dialects.mariadb import MariadbOptions
from controlplane.model.errors import TargetUnavailableError
from controlplane.model.lease import Target
from controlplane.model.orphan import Login
from controlplane.model.secret import Secret
from controlplane.probers.lines.line import ProberLogin
from controlplane.probers.mariadb import MariadbProber, prober
from controlplane.testing.clock import FakeClock
from controlplane.testing.halted import halted
from controlplane.testing.mariadb import MariaDB

pytestmark = pytest.mark.servers

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SHOP = Target(kind="mariadb", name="shop")
PROBER, AGENT, GROUP = "test_prober", "v-test-agent", "sh-test-roster-0a1b2c3d-it"


def login(name: str) -> ProberLogin:
    assert name == "shop"
    return ProberLogin(username=PROBER, password=Secret("p" * 24), renew_at=NOW + timedelta(hours=1))


def asking_at(port: int, **options: object) -> MariadbProber:
    target = MariadbOptions.model_validate({"kind": "mariadb", "port": port, "tls": "off"} | options)
    return prober({"shop": target}, login, FakeClock(NOW), "sh")


@pytest.fixture
def asking(mariadb: MariaDB) -> Iterator[MariadbProber]:
    clear = [f"DROP USER IF EXISTS '{name}'@'%'" for name in (PROBER, AGENT)]
    mariadb.run(
        *clear,
        f"CREATE USER '{PROBER}'@'%' IDENTIFIED BY '{'p' * 24}'",
        *(f"GRANT EXECUTE ON PROCEDURE shorthold.{name} TO '{PROBER}'@'%'" for name in ("present", "roster")),
    )
    asking = asking_at(mariadb.port)
    yield asking
    asking.close()
    mariadb.run(*clear, f"DROP EVENT IF EXISTS shorthold.`{AGENT}`")


def gone(asking: MariadbProber) -> bool:
    return asking.ask(SHOP, AGENT, issued_at=NOW).gone


def test_an_account_is_gone_when_neither_it_nor_a_session_of_it_is_there(
    asking: MariadbProber, mariadb: MariaDB
) -> None:
    assert gone(asking)
    mariadb.run(f"CREATE USER '{AGENT}'@'%' IDENTIFIED BY 'secret'")
    assert not gone(asking)
    session = mariadb.connect(AGENT, "secret")
    mariadb.run(f"DROP USER '{AGENT}'@'%'")
    evidence = asking.ask(SHOP, AGENT, issued_at=NOW)
    assert (evidence.gone, evidence.detail) == (False, f"mariadb shop: no account {AGENT}, 1 open session")
    session.close()
    ends = time.monotonic() + 60
    while not gone(asking):
        assert time.monotonic() < ends


def test_the_roster_names_accounts_that_have_a_clock_of_ours(asking: MariadbProber, mariadb: MariaDB) -> None:
    clock = f"CREATE EVENT shorthold.`{AGENT}` ON SCHEDULE AT '2036-01-01 00:00:00' COMMENT '{GROUP}' DO DO 1"
    mariadb.run("SET time_zone = '+00:00'", clock)
    assert AGENT not in [found.name for found in asking.logins("shop")], "a clock without an account"
    mariadb.run(f"CREATE USER '{AGENT}'@'%' IDENTIFIED BY 'secret'")
    session = mariadb.connect(AGENT, "secret")
    (found,) = [found for found in asking.logins("shop") if found.name == AGENT]
    assert (found.group, found.sessions) == (GROUP, 1)
    assert isinstance(found, Login)
    assert found.valid_until is not None
    assert abs(found.valid_until - datetime(2036, 1, 1, tzinfo=UTC)) < timedelta(days=1)
    session.close()
    mariadb.run(f"ALTER EVENT shorthold.`{AGENT}` COMMENT 'somebody else'")
    assert AGENT not in [found.name for found in asking.logins("shop")]


def test_a_prober_sees_no_password_no_statement_and_no_table(asking: MariadbProber, mariadb: MariaDB) -> None:
    del asking
    with mariadb.connect(PROBER, "p" * 24) as session, session.cursor() as cursor:
        for forbidden in ("SELECT * FROM mysql.global_priv", "SELECT * FROM mysql.event", "SHOW TABLES FROM mysql"):
            with pytest.raises(pymysql.MySQLError, match="denied"):
                cursor.execute(forbidden)
        cursor.execute("SELECT DISTINCT USER FROM information_schema.PROCESSLIST")
        assert cursor.fetchall() == ((PROBER,),)


def test_a_sleeping_scheduler_is_told(asking: MariadbProber, mariadb: MariaDB) -> None:
    assert asking.advice("shop") == []
    mariadb.run("SET GLOBAL event_scheduler = OFF")
    try:
        ((what, _),) = asking.advice("shop")
        assert "scheduler is off" in what
    finally:
        mariadb.run("SET GLOBAL event_scheduler = ON")


def test_a_target_that_hangs_is_given_up_and_never_counts_as_gone(
    monkeypatch: pytest.MonkeyPatch, asking: MariadbProber, mariadb: MariaDB
) -> None:
    monkeypatch.setattr("controlplane.probers.mariadb.TIMEOUT", 1)
    assert gone(asking)
    assert mariadb.process is not None
    with halted(mariadb.process.pid), pytest.raises(TargetUnavailableError, match="mariadb shop did not answer"):
        gone(asking)
    assert gone(asking)


def test_nobody_there_somebody_else_there_or_no_tls_never_counts_as_gone(
    mariadb: MariaDB, openbao: object, asking: MariadbProber
) -> None:
    del openbao, asking
    for port, options in ((loopback.free_port(but=set()), {}), (mariadb.port, {"tls": "verify"})):
        other = asking_at(port, **options)
        with pytest.raises(TargetUnavailableError):
            gone(other)
        other.close()
    with pytest.raises(TargetUnavailableError, match="no target called"):
        prober({}, login, FakeClock(NOW), "sh").ask(SHOP, AGENT, issued_at=NOW)
