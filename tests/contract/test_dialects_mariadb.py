"""The statements of a MariaDB scope, on a real OpenBao and MariaDB: what a login may do, and how it ends."""

import json
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import pymysql
import pytest

from controlplane.engines.dialects.mariadb import parse
from controlplane.model.errors import VaultRefusedError, VaultUnavailableError
from controlplane.model.plan import Compiled, Layout
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.mariadb import MANAGER, MariaDB, Session, preparation
from controlplane.vault.client import VaultClient, part

pytestmark = pytest.mark.servers

LAYOUT = Layout(prefix="em", mounts={"database": "database-em"})
PRIVILEGES = (
    "select on table shop.orders",
    "update (status) on table shop.orders",
    "select (id, name) on table shop.customers",
    'insert (id, note) on table shop."Returned Goods"',
)
TABLES = (
    "CREATE DATABASE shop",
    "CREATE TABLE shop.orders (id INT PRIMARY KEY, status VARCHAR(20), secret VARCHAR(20))",
    "CREATE TABLE shop.customers (id INT PRIMARY KEY, name VARCHAR(20), email VARCHAR(20))",
    "CREATE TABLE shop.`Returned Goods` (id INT PRIMARY KEY, note VARCHAR(20), booked DATETIME)",
    "CREATE TABLE shop.ordersx (id INT)",
    "CREATE DATABASE shopx",
    "CREATE TABLE shopx.orders (id INT)",
    "INSERT INTO shop.orders VALUES (1, 'open', 's')",
    f"GRANT SELECT, INSERT, UPDATE, DELETE ON shop.* TO {MANAGER} WITH GRANT OPTION",
)


def said(session: Session, statement: str) -> list[tuple[Any, ...]]:
    with session.cursor() as cursor:
        cursor.execute(statement)
        return [tuple(row) for row in cursor.fetchall()]


@dataclass(frozen=True, kw_only=True)
class Login:
    """An issued credential; what it opened is closed with the bench."""

    lease: str
    user: str
    password: str
    server: MariaDB
    opened: list[Session]

    def open(self) -> Session:
        session = self.server.connect(self.user, self.password)
        self.opened.append(session)
        return session


class Bench:
    """A role in Vault, and both ends of it."""

    def __init__(self, vault: VaultClient, server: MariaDB) -> None:
        self.vault, self.server = vault, server
        self.issued: list[str] = []
        self.opened: list[Session] = []

    def role(self, *privileges: str, name: str = "bench", sessions: int = 5, **changes: Any) -> Compiled:
        scope = {"name": "it", "engine": "database", "dialect": "mariadb", "connection": "shop", "sessions": sessions}
        compiled = compiled_entitlement(
            LAYOUT, entitlement=name, scopes=[scope | {"privileges": privileges or PRIVILEGES}], **changes
        )
        self.vault.write(compiled.objects[0].path, compiled.objects[0].data)
        return compiled

    def issue(self, role: Compiled) -> Login:
        answer = self.vault.read(f"{LAYOUT.mounts['database']}/creds/{role.naming.scope('it')}")
        data = part(answer, "data")
        login = Login(
            lease=str((answer or {})["lease_id"]),
            user=str(data["username"]),
            password=str(data["password"]),
            server=self.server,
            opened=self.opened,
        )
        self.issued.append(login.lease)
        return login

    def revoke(self, lease: str) -> None:
        self.vault.write("sys/leases/revoke", {"lease_id": lease, "sync": True})

    def exists(self, name: str) -> bool:
        return bool(self.server.ask("SELECT 1 FROM mysql.global_priv WHERE User = %s", name))

    def sessions(self, name: str) -> int:
        ((count,),) = self.server.ask("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = %s", name)
        return cast("int", count)

    def clocks(self, name: str) -> list[tuple[object, ...]]:
        return self.server.ask("SELECT name, comment FROM mysql.event WHERE db = 'shorthold' AND name = %s", name)


@pytest.fixture(scope="module")
def mounted(vault_root: VaultClient, mariadb: MariaDB) -> Generator[VaultClient]:
    mariadb.run(*TABLES)
    vault_root.write(f"sys/mounts/{LAYOUT.mounts['database']}", {"type": "database"})
    vault_root.write(f"{LAYOUT.mounts['database']}/config/shop", mariadb.connection(LAYOUT))
    yield vault_root
    vault_root.delete(f"sys/mounts/{LAYOUT.mounts['database']}")
    mariadb.run("DROP DATABASE shop", "DROP DATABASE shopx")


@pytest.fixture
def bench(mounted: VaultClient, mariadb: MariaDB) -> Iterator[Bench]:
    bench = Bench(mounted, mariadb)
    yield bench
    for session in bench.opened:
        if session.open:
            session.close()
    for lease in bench.issued:
        bench.revoke(lease)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.01)


def test_a_login_may_do_what_is_written(bench: Bench) -> None:
    session = bench.issue(bench.role()).open()
    for allowed in (
        "SELECT * FROM shop.orders",
        "UPDATE shop.orders SET status = 'paid' WHERE id = 1",
        "SELECT id, name FROM shop.customers",
        "INSERT INTO shop.`Returned Goods` (id, note) VALUES (FLOOR(RAND() * 1000000), 'x')",
    ):
        said(session, allowed)


@pytest.mark.parametrize(
    "forbidden",
    [
        "UPDATE shop.orders SET secret = 'x'",
        "DELETE FROM shop.orders",
        "SELECT email FROM shop.customers",
        "SELECT * FROM shop.customers",
        "SELECT * FROM shop.ordersx",
        "SELECT * FROM shopx.orders",
        "SELECT * FROM shop.`Returned Goods`",
        "INSERT INTO shop.`Returned Goods` (id, booked) VALUES (1, NOW())",
        "TRUNCATE TABLE shop.orders",
        "LOCK TABLES shop.orders READ",
        "CREATE TABLE shop.mine (id INT)",
        "CREATE TEMPORARY TABLE shop.mine (id INT)",
        "CREATE DATABASE mine",
        "CREATE USER mine",
        "CREATE EVENT shorthold.mine ON SCHEDULE EVERY 1 DAY DO SELECT 1",
        "CALL shorthold.present('root')",
        "ALTER USER CURRENT_USER() WITH MAX_USER_CONNECTIONS 100",
        "ALTER USER CURRENT_USER() ACCOUNT UNLOCK",
        "GRANT SELECT ON shop.orders TO root@'127.0.0.1'",
        "SELECT * FROM mysql.global_priv",
        "SELECT 1 INTO OUTFILE '/tmp/shorthold-never'",
        "SET GLOBAL event_scheduler = OFF",
        "SHOW CREATE EVENT shorthold.mine",
        "FLUSH TABLES WITH READ LOCK",
    ],
)
def test_and_nothing_else(bench: Bench, forbidden: str) -> None:
    session = bench.issue(bench.role()).open()
    with pytest.raises(pymysql.MySQLError, match="denied"):
        said(session, forbidden)


def test_a_login_has_no_more_sessions_than_its_scope_says_d12(bench: Bench) -> None:
    login = bench.issue(bench.role(sessions=2))
    for _ in range(2):
        login.open()
    with pytest.raises(pymysql.OperationalError, match="max_user_connections"):
        login.open()


def shown(line: str) -> Iterator[str]:
    """The privileges in a line of SHOW GRANTS, in our language."""
    found = re.fullmatch(r"GRANT (.+) ON `(.+)`\.`(.+)` TO `.+`@`%`", line)
    assert found is not None, line
    for verb, columns in re.findall(r"([A-Z]+)(?: \(([^)]*)\))?", found[1]):
        by_column = f" ({columns.replace('`', chr(34))})" if columns else ""
        yield str(parse(f'{verb}{by_column} on table "{found[2]}"."{found[3]}"'))


def test_what_the_server_shows_is_what_was_written(bench: Bench) -> None:
    login = bench.issue(bench.role())
    usage, *lines = [str(row[0]) for row in bench.server.ask(f"SHOW GRANTS FOR '{login.user}'@'%'")]
    assert usage.startswith("GRANT USAGE ON *.* TO")
    assert usage.endswith(" WITH MAX_USER_CONNECTIONS 5")
    assert sorted(text for line in lines for text in shown(line)) == sorted(str(parse(text)) for text in PRIVILEGES)


def test_what_the_management_user_may_not_pass_on_leaves_no_login(bench: Bench) -> None:
    before = bench.server.ask("SELECT User FROM mysql.global_priv")
    role = bench.role("select on table shop.orders", "select on table shopx.orders", name="not-ours")
    with pytest.raises((VaultRefusedError, VaultUnavailableError), match="denied"):
        bench.issue(role)
    assert bench.server.ask("SELECT User FROM mysql.global_priv") == before


def test_without_a_clock_no_login_is_made(bench: Bench) -> None:
    role = bench.role()
    bench.server.run("SET GLOBAL event_scheduler = OFF")
    try:
        with pytest.raises((VaultRefusedError, VaultUnavailableError), match="event_scheduler is not ON"):
            bench.issue(role)
    finally:
        bench.server.run("SET GLOBAL event_scheduler = ON")


def test_the_server_itself_ends_a_login_that_nobody_ended(bench: Bench) -> None:
    """P2, C15: Vault and we may be gone for good. Here the clock is a second, and the lease is left alone."""
    role = bench.role(name="clock")
    data = dict(role.objects[0].data)
    (text,) = cast("list[str]", data["creation_statements"])
    assert "INTERVAL 930 SECOND" in text, "fifteen minutes, and thirty seconds for Vault"
    bench.vault.write(role.objects[0].path, {**data, "creation_statements": [text.replace("930", "1")]})
    login = bench.issue(role)
    session = login.open()
    ((name, group),) = bench.clocks(login.user)
    assert (name, group) == (login.user, role.naming.scope("it"))
    until(lambda: not bench.exists(login.user))
    assert bench.sessions(login.user) == 0
    with pytest.raises(pymysql.MySQLError):
        said(session, "SELECT 1")
    until(lambda: bench.clocks(login.user) == [])


def _open(session: Session) -> None:
    del session


def _rows_locked(session: Session) -> None:
    session.begin()
    said(session, "UPDATE shop.orders SET status = 'kept'")


def _another_password(session: Session) -> None:
    said(session, "SET PASSWORD = PASSWORD('another')")


def _named_lock(session: Session) -> None:
    said(session, "SELECT GET_LOCK('mine', 0)")


def _prepared(session: Session) -> None:
    said(session, "XA START 'mine'")
    said(session, "UPDATE shop.orders SET status = status")


@pytest.mark.parametrize(
    "trick",
    [
        pytest.param(_open, id="D03 an open session"),
        pytest.param(_rows_locked, id="locks on rows"),
        pytest.param(_another_password, id="another password"),
        pytest.param(_named_lock, id="a named lock"),
        pytest.param(_prepared, id="a distributed transaction"),
    ],
)
def test_no_trick_of_a_login_keeps_it_alive(bench: Bench, trick: Callable[[Session], None]) -> None:
    login = bench.issue(bench.role())
    session = login.open()
    trick(session)
    begun = time.monotonic()
    bench.revoke(login.lease)
    assert time.monotonic() - begun < 30  # seconds; who waits for the locks of an open session waits for ever
    assert not bench.exists(login.user)
    assert bench.sessions(login.user) == 0
    assert bench.clocks(login.user) == []
    with pytest.raises(pymysql.MySQLError):
        said(session, "SELECT 1")
    with pytest.raises(pymysql.MySQLError):
        login.open()


def test_a_query_that_runs_is_ended(bench: Bench) -> None:
    login = bench.issue(bench.role())
    session = login.open()
    with ThreadPoolExecutor(1) as pool:
        sleeping = pool.submit(said, session, "SELECT SLEEP(100)")
        until(lambda: bench.sessions(login.user) == 1)
        bench.revoke(login.lease)
        with pytest.raises(pymysql.MySQLError):
            sleeping.result(timeout=60)
    assert bench.sessions(login.user) == 0


@pytest.mark.parametrize("race", range(3))
def test_who_comes_back_at_once_is_out_when_revocation_answers_d09(bench: Bench, race: int) -> None:
    del race
    login = bench.issue(bench.role())
    over, done = threading.Event(), threading.Event()
    kept: list[Session] = []

    def hammer() -> int:
        """How often it got in after revocation had answered."""
        late = 0
        while not over.is_set():
            known = done.is_set()
            try:
                kept.append(login.open())
            except (pymysql.MySQLError, OSError):
                continue
            late += known
        return late

    with ThreadPoolExecutor(3) as pool:
        hammers = [pool.submit(hammer) for _ in range(3)]
        try:
            until(lambda: bool(kept))
            bench.revoke(login.lease)
            done.set()
            gone = not bench.exists(login.user)
            refused_until = time.monotonic() + 0.3
            until(lambda: time.monotonic() > refused_until)
        finally:
            over.set()
        assert [hammer.result() for hammer in hammers] == [0, 0, 0]
    assert gone
    # Who is being refused is in the list of sessions for an instant; who got in would stay, because `kept` holds him.
    until(lambda: bench.sessions(login.user) == 0)


def test_who_stalls_his_login_until_it_was_revoked_gets_nothing_d09(bench: Bench) -> None:
    """MariaDB looks an account up when a login begins, so the lock and the drop may come in between."""
    login = bench.issue(bench.role())
    begun, go_on = threading.Event(), threading.Event()

    class Stalling(pymysql.connections.Connection):
        def _get_server_information(self) -> None:
            super()._get_server_information()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType] # its own
            self._auth_plugin_name = "sha256_password"  # the server asks for another one: a turn of ours to stall

        def _process_auth(self, *said_by_server: object) -> object:
            begun.set()
            go_on.wait(20)
            return super()._process_auth(*said_by_server)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType] # its own

    def stall() -> "list[tuple[Any, ...]] | str":
        try:
            session = Stalling(
                host="127.0.0.1", port=bench.server.port, user=login.user, password=login.password, ssl_disabled=True
            )
            return said(session, "SELECT * FROM shop.orders")
        except pymysql.MySQLError as error:
            return str(error)

    with ThreadPoolExecutor(1) as pool:
        stalled = pool.submit(stall)
        try:
            assert begun.wait(60)
            bench.revoke(login.lease)
        finally:
            go_on.set()
        assert re.search("denied|Lost connection", str(stalled.result(timeout=60)))


def test_a_login_that_was_dropped_by_hand_counts_as_ended_and_its_sessions_end_r14(bench: Bench) -> None:
    login = bench.issue(bench.role())
    session = login.open()
    bench.server.run(f"DROP USER '{login.user}'@'%'")
    bench.revoke(login.lease)
    assert bench.sessions(login.user) == 0
    with pytest.raises(pymysql.MySQLError):
        said(session, "SELECT 1")


def test_nobody_else_is_ended_with_it(bench: Bench) -> None:
    role = bench.role()
    one, other = bench.issue(role), bench.issue(role)
    kept = other.open()
    bench.revoke(one.lease)
    said(kept, "SELECT * FROM shop.orders")
    said(other.open(), "SELECT * FROM shop.orders")


def test_preparing_the_server_twice_changes_nothing(mariadb: MariaDB) -> None:
    accounts = "SELECT Host, User, Priv FROM mysql.global_priv ORDER BY Host, User"
    before = mariadb.ask(accounts)
    mariadb.run(*preparation())
    # CREATE USER IF NOT EXISTS leaves the manager's password and its lock as they are
    assert [(row[0], row[1], json.loads(str(row[2])).get("account_locked")) for row in mariadb.ask(accounts)] == [
        (row[0], row[1], json.loads(str(row[2])).get("account_locked")) for row in before
    ]


def test_the_eyes_of_the_prober_are_nobodys_login(mariadb: MariaDB) -> None:
    with pytest.raises(pymysql.MySQLError, match=r"denied|locked"):
        mariadb.connect("shorthold_eyes", "")
