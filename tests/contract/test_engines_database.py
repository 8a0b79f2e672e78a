"""The statements of a database scope, on a real OpenBao and PostgreSQL: what a login may do, and how it ends."""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import LiteralString, cast

import psycopg
import pytest
from psycopg import sql

from controlplane.dev.engines import database_connection
from controlplane.dev.orders import DATABASE, MANAGER
from controlplane.dev.outside import Target
from controlplane.dev.postgres import PostgreSQL
from controlplane.model.errors import VaultRefusedError, VaultUnavailableError
from controlplane.model.plan import Compiled, Layout
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.vault.client import VaultClient, part

pytestmark = pytest.mark.servers

LAYOUT = Layout(prefix="ed", mounts={"database": "database-ed", "pki": "pki-ed"})
PRIVILEGES = (
    "select on table billing.invoices",
    "update (status) on table billing.invoices",
    "select (id, name) on table sales.customers",
    "insert (invoice_id, amount_cents, reason) on table billing.refunds",
)


@dataclass(frozen=True, kw_only=True)
class Login:
    """An issued credential; what it opened is closed with the bench."""

    lease: str
    user: str
    password: str
    port: int
    opened: list[psycopg.Connection]

    def open(self, database: str = "orders") -> psycopg.Connection:
        session = psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=self.user,
            password=self.password,
            dbname=database,
            autocommit=True,
            connect_timeout=30,
        )
        self.opened.append(session)
        return session


class Bench:
    """A role in Vault, and both ends of it."""

    def __init__(self, vault: VaultClient, postgres: PostgreSQL) -> None:
        self.vault, self.postgres = vault, postgres
        self.owner = psycopg.connect(postgres.owner.reveal(), dbname="orders", autocommit=True)
        self.issued: list[str] = []
        self.opened: list[psycopg.Connection] = []

    def role(self, *privileges: str, name: str = "bench", sessions: int = 5, raw: Sequence[str] = ()) -> Compiled:
        scope = {"name": "it", "engine": "database", "connection": "orders", "privileges": privileges or PRIVILEGES}
        compiled = compiled_entitlement(LAYOUT, entitlement=name, scopes=[scope | {"sessions": sessions, "raw": raw}])
        self.vault.write(compiled.objects[0].path, compiled.objects[0].data)
        return compiled

    def issue(self, role: Compiled) -> Login:
        answer = self.vault.read(f"{LAYOUT.mounts['database']}/creds/{role.naming.scope('it')}")
        data = part(answer, "data")
        login = Login(
            lease=str((answer or {})["lease_id"]),
            user=str(data["username"]),
            password=str(data["password"]),
            port=self.postgres.port,
            opened=self.opened,
        )
        self.issued.append(login.lease)
        return login

    def revoke(self, lease: str) -> None:
        self.vault.write("sys/leases/revoke", {"lease_id": lease, "sync": True})

    def exists(self, name: str) -> bool:
        return self.owner.execute("SELECT FROM pg_roles WHERE rolname = %s", (name,)).fetchone() is not None

    def sessions(self, login: Login) -> int:
        """Sessions of the login, and those that have lost their role."""
        row = self.owner.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = %s OR (usesysid IS NOT NULL AND usename IS NULL)",
            (login.user,),
        ).fetchone()
        return 0 if row is None else int(row[0])

    def run(self, statement: str, **names: str) -> None:
        """Run a statement as the superuser."""
        named = {key: sql.Identifier(value) for key, value in names.items()}
        self.owner.execute(sql.SQL(cast("LiteralString", statement)).format(**named))


@pytest.fixture(scope="module")
def mounted(vault_root: VaultClient, postgres: PostgreSQL) -> Generator[VaultClient]:
    vault_root.write(f"sys/mounts/{LAYOUT.mounts['database']}", {"type": "database"})
    target = Target(host="127.0.0.1", port=postgres.port, sslmode="disable", owner=postgres.owner)
    database_connection(vault_root, LAYOUT, target, postgres.manager_password, anew=True)
    yield vault_root
    vault_root.delete(f"sys/mounts/{LAYOUT.mounts['database']}")


@pytest.fixture
def bench(mounted: VaultClient, postgres: PostgreSQL) -> Iterator[Bench]:
    bench = Bench(mounted, postgres)
    yield bench
    for lease in bench.issued:
        bench.revoke(lease)
    for session in (*bench.opened, bench.owner):
        session.close()


@pytest.mark.parametrize(
    "allowed",
    [
        "SELECT count(*) FROM billing.invoices",
        "UPDATE billing.invoices SET status = status WHERE id = 500001",
        "SELECT id, name FROM sales.customers LIMIT 1",
        "INSERT INTO billing.refunds (invoice_id, amount_cents, reason) VALUES (500001, 1, 'test')",
    ],
)
def test_a_login_may_do_what_is_written(bench: Bench, allowed: LiteralString) -> None:
    with bench.issue(bench.role()).open() as session:
        session.execute(allowed)


@pytest.mark.parametrize(
    "forbidden",
    [
        "UPDATE billing.invoices SET amount_cents = 1",
        "DELETE FROM billing.invoices",
        "SELECT email FROM sales.customers",
        "SELECT * FROM sales.customers",
        "SELECT * FROM sales.orders",
        "SELECT * FROM billing.refunds",
        "INSERT INTO billing.refunds (invoice_id, amount_cents, reason, created_at) VALUES (500001, 1, 'x', now())",
        "TRUNCATE billing.invoices",
        "CREATE TABLE billing.mine ()",
        "CREATE TEMPORARY TABLE mine ()",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "ALTER ROLE CURRENT_USER VALID UNTIL 'infinity'",
        "ALTER ROLE CURRENT_USER CONNECTION LIMIT -1",
        "ALTER ROLE CURRENT_USER CREATEROLE",
        "COPY billing.invoices TO PROGRAM 'true'",
        "SELECT rolpassword FROM pg_authid",
    ],
)
def test_and_nothing_else(bench: Bench, forbidden: LiteralString) -> None:
    with bench.issue(bench.role()).open() as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute(forbidden)


def test_a_raw_grant_reaches_the_login_and_nobody_else_y16(bench: Bench) -> None:
    bench.run("CREATE FUNCTION billing.twice(n integer) RETURNS integer LANGUAGE sql AS 'SELECT 2 * n'")
    bench.run("REVOKE EXECUTE ON FUNCTION billing.twice(integer) FROM PUBLIC")
    bench.run("GRANT EXECUTE ON FUNCTION billing.twice(integer) TO shorthold_manager WITH GRANT OPTION")
    try:
        with_it = bench.issue(bench.role(name="raw-grant", raw=["GRANT EXECUTE ON FUNCTION billing.twice(integer)"]))
        assert with_it.open().execute("SELECT billing.twice(21)").fetchone() == (42,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            bench.issue(bench.role()).open().execute("SELECT billing.twice(21)")
        bench.revoke(with_it.lease)
        assert not bench.exists(with_it.user)
    finally:
        bench.run("DROP FUNCTION billing.twice(integer)")


def test_a_login_inherits_its_group_but_cannot_become_it_d08(bench: Bench) -> None:
    role = bench.role()
    with bench.issue(role).open() as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role.naming.scope("it"))))


def test_a_login_reaches_no_other_database(bench: Bench) -> None:
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        bench.issue(bench.role()).open("postgres")


def test_a_login_has_no_more_sessions_than_its_scope_says_d12(bench: Bench) -> None:
    login = bench.issue(bench.role(sessions=2))
    with login.open(), login.open(), pytest.raises(psycopg.OperationalError, match="too many connections"):
        login.open()


def test_grants_do_not_grow_with_logins_y18(bench: Bench) -> None:
    """PostgreSQL refuses the 2 443rd grant on one table."""
    role = bench.role()
    bench.issue(role)

    def grants() -> object:
        row = bench.owner.execute("SELECT relacl FROM pg_class WHERE oid = 'billing.invoices'::regclass").fetchone()
        return row and row[0]

    before = grants()
    for _ in range(5):
        bench.issue(role)
    assert grants() == before


def test_renewing_moves_the_end_that_postgresql_itself_keeps(bench: Bench) -> None:
    login = bench.issue(bench.role())

    def ends_in() -> float:
        row = bench.owner.execute(
            "SELECT extract(epoch FROM rolvaliduntil - now()) FROM pg_roles WHERE rolname = %s", (login.user,)
        ).fetchone()
        assert row is not None
        return float(row[0])

    assert 290 < ends_in() < 310
    bench.vault.write("sys/leases/renew", {"lease_id": login.lease, "increment": 60})
    assert 50 < ends_in() < 70


def test_many_first_logins_at_once_all_succeed(bench: Bench) -> None:
    roles = [bench.role(f"select on table {table}", name=f"race-{number}")
             for number in range(3) for table in ("sales.orders",)]  # fmt: skip
    with ThreadPoolExecutor(8) as pool:
        logins = list(pool.map(bench.issue, roles * 4))
    assert all(bench.exists(login.user) for login in logins)


def test_creators_on_two_servers_wait_for_each_other(bench: Bench, postgres: PostgreSQL) -> None:
    """One Vault node queues statements of a connection; two nodes do not. The race is run on the database itself."""
    texts: list[str] = []
    for number in range(4):
        data = bench.role("select on table sales.orders", name=f"node-{number % 2}").objects[0].data
        texts += cast("list[str]", data["creation_statements"])
    start = threading.Barrier(len(texts))

    def create(number: int) -> str:
        name = f"ed_race_{number}"
        text = texts[number].replace("{{name}}", name).replace("{{password}}", "x" * 20)
        with psycopg.connect(
            host="127.0.0.1",
            port=postgres.port,
            user="shorthold_manager",
            password=postgres.manager_password.reveal(),
            dbname="orders",
        ) as manager:
            start.wait()
            manager.execute(cast("LiteralString", text.replace("{{expiration}}", "2030-01-01")))
        return name

    for node in range(2):
        bench.run("DROP ROLE IF EXISTS {group}", group=bench.role(name=f"gone-{node}").naming.scope("it"))
    with ThreadPoolExecutor(len(texts)) as pool:
        names = list(pool.map(create, range(len(texts))))
    assert all(bench.exists(name) for name in names)
    for name in names:
        bench.run("DROP ROLE {name}", name=name)


def test_a_group_role_that_was_dropped_or_lost_a_grant_is_made_whole_again(bench: Bench) -> None:
    bench.run("CREATE TABLE billing.made_anew (id bigint)")
    try:
        bench.run("GRANT SELECT ON billing.made_anew TO shorthold_manager WITH GRANT OPTION")
        role = bench.role("select on table billing.made_anew", name="whole")
        group = role.naming.scope("it")
        bench.issue(role)
        bench.run("DROP TABLE billing.made_anew")
        bench.run("CREATE TABLE billing.made_anew (id bigint)")
        bench.run("GRANT SELECT ON billing.made_anew TO shorthold_manager WITH GRANT OPTION")
        with bench.issue(role).open() as session:
            session.execute("SELECT FROM billing.made_anew")
        bench.run("SET ROLE shorthold_manager")  # a superuser would revoke only what the tables' owner granted
        bench.run("DROP OWNED BY {group}", group=group)
        bench.run("RESET ROLE")
        bench.run("DROP ROLE {group}", group=group)
        with bench.issue(role).open() as session:
            session.execute("SELECT FROM billing.made_anew")
    finally:
        bench.run("DROP TABLE IF EXISTS billing.made_anew CASCADE")


def test_a_group_role_that_was_made_a_member_of_another_one_takes_nobody_in_y17(bench: Bench) -> None:
    role = bench.role("select on table sales.orders", name="joined")
    group = role.naming.scope("it")
    bench.revoke(bench.issue(role).lease)
    bench.run("GRANT pg_write_server_files TO {group}", group=group)
    with pytest.raises((VaultRefusedError, VaultUnavailableError), match="is a member of another one"):
        bench.issue(role)
    bench.run("REVOKE pg_write_server_files FROM {group}", group=group)
    with bench.issue(role).open() as session:
        session.execute("SELECT FROM sales.orders")


def test_group_roles_of_old_revisions_go_once_nobody_is_in_them(bench: Bench) -> None:
    roles = [bench.role("select on table sales.orders", name="piling", sessions=number) for number in (1, 2, 3)]
    first, second, third = (role.naming.scope("it") for role in roles)
    bench.revoke(bench.issue(roles[0]).lease)
    alive = bench.issue(roles[1])
    assert not bench.exists(first)
    bench.issue(roles[2])
    assert bench.exists(second), "somebody is in it"
    with alive.open() as session:
        session.execute("SELECT FROM sales.orders")
    bench.revoke(alive.lease)
    bench.issue(roles[0])
    assert not bench.exists(second)
    assert bench.exists(third), "its login lives"


def test_what_the_management_user_may_not_pass_on_is_said_and_leaves_nothing(bench: Bench) -> None:
    bench.run("CREATE TABLE billing.not_ours (id bigint)")
    try:
        bench.run("GRANT SELECT ON billing.not_ours TO shorthold_manager")
        role = bench.role("select on table billing.not_ours", name="not-ours")
        with pytest.raises((VaultRefusedError, VaultUnavailableError), match="lacks a grant option"):
            bench.issue(role)
        assert not bench.exists(role.naming.scope("it"))
    finally:
        bench.run("DROP TABLE billing.not_ours")


def _open(session: psycopg.Connection, login: Login, group: str) -> None:
    del session, login, group


def _large_object(session: psycopg.Connection, login: Login, group: str) -> None:
    del login, group
    session.execute("SELECT lo_create(0)")


def _default_privileges(session: psycopg.Connection, login: Login, group: str) -> None:
    session.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC")
    session.execute(
        sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} GRANT ALL ON TABLES TO {}").format(
            sql.Identifier(group), sql.Identifier(login.user)
        )
    )


def _own_row_locked(session: psycopg.Connection, login: Login, group: str) -> None:
    del login, group
    session.autocommit = False
    session.execute("ALTER ROLE CURRENT_USER PASSWORD 'another'")


def _rows_locked(session: psycopg.Connection, login: Login, group: str) -> None:
    del login, group
    session.autocommit = False
    session.execute("UPDATE billing.invoices SET status = status WHERE id < 500100")


def _held_cursor(session: psycopg.Connection, login: Login, group: str) -> None:
    del login, group
    session.execute("DECLARE mine CURSOR WITH HOLD FOR SELECT generate_series(1, 100000)")
    session.execute("LISTEN somebody")


def _settings(session: psycopg.Connection, login: Login, group: str) -> None:
    del login, group
    session.execute("ALTER ROLE CURRENT_USER SET search_path = 'x'")
    session.execute("ALTER ROLE CURRENT_USER PASSWORD 'another'")


@pytest.mark.parametrize(
    "trick",
    [
        pytest.param(_open, id="D03 an open session"),
        pytest.param(_large_object, id="D01 a large object"),
        pytest.param(_default_privileges, id="D02 default privileges"),
        pytest.param(_own_row_locked, id="D04 a lock on its own row"),
        pytest.param(_rows_locked, id="locks on rows"),
        pytest.param(_held_cursor, id="D10 a cursor with hold"),
        pytest.param(_settings, id="settings and another password"),
    ],
)
def test_no_trick_of_a_login_keeps_it_alive(
    bench: Bench, trick: Callable[[psycopg.Connection, Login, str], None]
) -> None:
    role = bench.role()
    login = bench.issue(role)
    session = login.open()
    trick(session, login, role.naming.scope("it"))
    begun = time.monotonic()
    bench.revoke(login.lease)
    assert time.monotonic() - begun < 30  # seconds; who waits for the locks of an open session waits for ever
    assert not bench.exists(login.user)
    assert bench.sessions(login) == 0
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        login.open()


def test_what_one_login_gave_to_another_keeps_neither_alive(bench: Bench) -> None:
    role = bench.role()
    giver, taker = bench.issue(role), bench.issue(role)
    session = giver.open()
    made = session.execute("SELECT lo_create(0)").fetchone()
    assert made is not None
    session.execute(
        sql.SQL("GRANT SELECT ON LARGE OBJECT {} TO {}").format(sql.Literal(made[0]), sql.Identifier(taker.user))
    )
    bench.revoke(taker.lease)
    assert not bench.exists(taker.user)
    bench.revoke(giver.lease)
    assert not bench.exists(giver.user)


def test_a_session_that_outlived_its_role_is_ended_by_the_next_revocation(bench: Bench) -> None:
    """Whoever was let in at the very last moment has no rights, but a session that a prober would count."""
    role = bench.role()
    orphan, other = bench.issue(role), bench.issue(role)
    session = orphan.open()
    bench.run("DROP ROLE {name}", name=orphan.user)
    assert bench.sessions(orphan) == 1
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("SELECT FROM billing.invoices")
    bench.revoke(other.lease)
    assert bench.sessions(orphan) == 0


def test_a_query_that_runs_is_ended(bench: Bench) -> None:
    login = bench.issue(bench.role())
    session = login.open()
    with ThreadPoolExecutor(1) as pool:
        sleeping = pool.submit(session.execute, "SELECT pg_sleep(100)")
        until(lambda: bench.sessions(login) == 1)
        bench.revoke(login.lease)
        with pytest.raises(psycopg.OperationalError):
            sleeping.result(timeout=60)
    assert bench.sessions(login) == 0


@pytest.mark.parametrize("race", range(3))
@pytest.mark.parametrize("locks", [False, True], ids=["comes back", "comes back and locks its own row"])
def test_who_comes_back_at_once_is_out_when_revocation_answers_d09(bench: Bench, race: int, *, locks: bool) -> None:
    """The window between being let in and being a session is small, so the race is run several times."""
    del race
    login = bench.issue(bench.role())
    over = threading.Event()
    kept: list[psycopg.Connection] = []

    def hammer() -> int:
        """How often it got in after revocation had answered."""
        late = 0
        while not over.is_set():
            known = done.is_set()
            try:
                session = login.open()
                kept.append(session)
                if locks:
                    session.autocommit = False
                    session.execute("ALTER ROLE CURRENT_USER SET search_path = 'x'")
                late += known
            except psycopg.Error:
                continue
        return late

    done = threading.Event()
    with ThreadPoolExecutor(3) as pool:
        hammers = [pool.submit(hammer) for _ in range(3)]
        until(lambda: bool(kept))
        bench.revoke(login.lease)
        done.set()
        gone, left = not bench.exists(login.user), bench.sessions(login)
        refused_until = time.monotonic() + 0.3
        until(lambda: time.monotonic() > refused_until)
        over.set()
        assert [hammer.result() for hammer in hammers] == [0, 0, 0]
    assert gone
    assert left == 0


def test_a_login_that_was_dropped_by_hand_counts_as_ended_r14(bench: Bench) -> None:
    login = bench.issue(bench.role())
    bench.run("DROP ROLE {name}", name=login.user)
    bench.revoke(login.lease)


def test_what_keeps_a_login_from_being_dropped_does_not_keep_it_open(bench: Bench) -> None:
    """It left something in a database where the management user cannot look: nobody gets in, and Vault keeps at it."""
    login = bench.issue(bench.role())
    session = login.open()
    with psycopg.connect(bench.postgres.owner.reveal(), dbname="postgres", autocommit=True) as elsewhere:
        left = elsewhere.execute("SELECT lo_create(0)").fetchone()
        assert left is not None
        elsewhere.execute(
            sql.SQL("ALTER LARGE OBJECT {} OWNER TO {}").format(sql.Literal(left[0]), sql.Identifier(login.user))
        )
        with pytest.raises((VaultRefusedError, VaultUnavailableError)):
            bench.revoke(login.lease)
        assert bench.exists(login.user)
        assert bench.sessions(login) == 0
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
            login.open()
        elsewhere.execute(sql.SQL("SELECT lo_unlink({})").format(sql.Literal(left[0])))
    bench.revoke(login.lease)
    assert not bench.exists(login.user)


def test_revocation_waits_for_an_administrator_who_is_just_changing_the_login(bench: Bench) -> None:
    login = bench.issue(bench.role())
    with psycopg.connect(bench.postgres.owner.reveal(), dbname="orders") as administrator:
        administrator.execute(
            sql.SQL("ALTER ROLE {} SET search_path = 'x'").format(sql.Identifier(login.user))
        )  # the row is locked until the transaction ends
        with ThreadPoolExecutor(1) as pool:
            revoking = pool.submit(bench.revoke, login.lease)
            until(lambda: _waiting(bench) or revoking.done())
            administrator.commit()
            revoking.result(timeout=60)
    assert not bench.exists(login.user)


def _waiting(bench: Bench) -> bool:
    return bench.owner.execute("SELECT FROM pg_locks WHERE NOT granted").fetchone() is not None


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.01)


def test_the_management_user_needs_no_settings_of_its_own(bench: Bench) -> None:
    """Cheap hashing is asked for by the statements, so any PostgreSQL 16 will do."""
    bench.run("ALTER ROLE shorthold_manager RESET scram_iterations")
    try:
        bench.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shorthold_manager'")
        role = bench.role(name="no-settings")
        until(lambda: _issues(bench, role))
        login = replace(bench.issue(role))
        with login.open() as session:
            session.execute("SELECT lo_create(0)")
        row = bench.owner.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (login.user,)).fetchone()
        assert row is not None
        assert row[0].startswith("SCRAM-SHA-256$1:")
        bench.revoke(login.lease)
        assert not bench.exists(login.user)
    finally:
        bench.run("ALTER ROLE shorthold_manager SET scram_iterations = 1")


def _issues(bench: Bench, role: Compiled) -> bool:
    try:
        bench.issue(role)
    except (VaultRefusedError, VaultUnavailableError):
        return False  # the connections that were just ended are being replaced
    return True


def test_i10_a_password_of_the_manager_that_somebody_knows_is_dead_once_vault_changed_it(
    bench: Bench, postgres: PostgreSQL
) -> None:
    """While logins are out: those end as ever, and new ones are made."""
    login = bench.issue(bench.role())
    bench.vault.write(f"{LAYOUT.mounts['database']}/rotate-root/orders", {})
    try:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(postgres.dsn(MANAGER, postgres.manager_password, DATABASE).reveal())
        bench.revoke(login.lease)
        assert not bench.exists(login.user)
        with bench.issue(bench.role()).open() as session:
            session.execute("SELECT count(*) FROM billing.invoices")
    finally:
        password = postgres.manager_password
        bench.owner.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(MANAGER), sql.Literal(password.reveal()))
        )
        target = Target(host="127.0.0.1", port=postgres.port, sslmode="disable", owner=postgres.owner)
        database_connection(bench.vault, LAYOUT, target, password, anew=True)
