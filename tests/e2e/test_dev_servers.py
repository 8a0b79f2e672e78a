"""The embedded servers, each on its own."""

import os
import secrets
import signal
import stat
from pathlib import Path

import psutil
import psycopg
import pytest

from controlplane.dev import orders
from controlplane.dev.loopback import HOST
from controlplane.dev.openbao import OpenBao, bao_binary
from controlplane.dev.postgres import PostgreSQL
from controlplane.keys.files import generate
from controlplane.model.errors import LocalServerError, VaultRefusedError
from controlplane.model.secret import Secret
from controlplane.vault.client import Server
from controlplane.vault.session import JwtSession
from controlplane.world import RandomIds, SystemClock

pytestmark = pytest.mark.servers


def test_openbao_is_active_and_survives_kill_9_on_the_same_port(openbao: OpenBao) -> None:
    before, port = openbao.process.pid, openbao.addr
    assert before is not None
    os.kill(before, signal.SIGKILL)
    assert openbao.start(bao_binary(None))
    assert openbao.active()
    assert openbao.process.pid not in {None, before}
    assert openbao.addr == port
    assert openbao.audit_log.stat().st_size > 0
    assert not openbao.start(bao_binary(None))


def test_on_somebody_elses_postgres_a_manager_with_another_password_is_left_as_it_is(postgres: PostgreSQL) -> None:
    with pytest.raises(LocalServerError, match="another project"):
        orders.prepare(postgres.owner, Secret("another-password"), ours=False)
    assert not orders.prepare(postgres.owner, postgres.manager_password, ours=False)
    psycopg.connect(postgres.dsn(orders.MANAGER, postgres.manager_password, orders.DATABASE).reveal()).close()


def test_only_the_bootstrap_key_opens_openbao_and_it_opens_no_more_than_setting_up_takes(openbao: OpenBao) -> None:
    operator = openbao.operator_client()
    assert set(operator.list("sys/policies/acl")) >= {"shorthold-bootstrap"}
    for forbidden in ("sys/raw/core", "sys/leases/count", "database/creds/anything", "identity/entity"):
        with pytest.raises(VaultRefusedError):
            operator.read(forbidden)
    stranger = JwtSession(
        Server(openbao.addr), "shorthold-bootstrap", "bootstrap", generate(), clock=SystemClock(), ids=RandomIds()
    )
    with pytest.raises(VaultRefusedError):
        stranger()
    operator.close()
    stranger.close()


def test_postgres_keeps_its_rows_when_it_is_killed_and_its_pid_file_names_another_process(postgres: PostgreSQL) -> None:
    before = postgres.process.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(before)] if psutil.pid_exists(before) else [], timeout=60)
    pid_file = postgres.data / "postmaster.pid"
    pid_file.write_text(pid_file.read_text().replace(str(before), str(os.getpid()), 1))
    assert postgres.start()
    with psycopg.connect(postgres.dsn("postgres", postgres.password, "orders").reveal()) as connection:
        counts = [
            connection.execute("SELECT count(*) FROM sales.customers").fetchone(),
            connection.execute("SELECT count(*) FROM sales.orders").fetchone(),
            connection.execute("SELECT count(*) FROM billing.invoices").fetchone(),
        ]
    assert counts == [(1500,), (4000,), (4000,)]


def test_postgres_never_runs_as_root_and_listens_on_loopback_only(postgres: PostgreSQL) -> None:
    process = psutil.Process(postgres.process.pid)
    assert process.uids().effective != 0
    assert {c.laddr.ip for c in process.net_connections(kind="inet") if c.status == "LISTEN"} == {HOST}


def test_postgres_refuses_a_wrong_and_an_empty_password(postgres: PostgreSQL) -> None:
    for password in ("wrong", ""):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(host=HOST, port=postgres.port, user="postgres", password=password, dbname="postgres")


def test_the_manager_can_hand_on_what_it_has_and_is_no_superuser(postgres: PostgreSQL) -> None:
    with psycopg.connect(postgres.dsn(orders.MANAGER, postgres.manager_password, "orders").reveal()) as connection:
        connection.execute("CREATE ROLE probe_group NOLOGIN")
        connection.execute("GRANT USAGE ON SCHEMA billing TO probe_group")
        connection.execute("GRANT SELECT, UPDATE (status) ON billing.invoices TO probe_group")
        connection.execute("CREATE ROLE probe_user LOGIN PASSWORD 'made-up' IN ROLE probe_group")
        connection.execute("GRANT pg_read_all_stats TO probe_user")
        assert connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)
        connection.rollback()


def test_a_password_in_a_statement_of_the_manager_reaches_no_log_and_nobody_who_watches(postgres: PostgreSQL) -> None:
    canary = "canary-" + secrets.token_hex(8)
    dsn = postgres.dsn(orders.MANAGER, postgres.manager_password, "orders").reveal()
    with psycopg.connect(dsn, autocommit=True) as manager, psycopg.connect(postgres.owner.reveal()) as owner:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            manager.execute(f"CREATE ROLE probe_super SUPERUSER PASSWORD '{canary}'".encode())
        seen = owner.execute("SELECT query FROM pg_stat_activity WHERE usename = %s", (orders.MANAGER,)).fetchall()
    assert seen
    assert [query for (query,) in seen if canary in (query or "")] == []
    assert canary not in postgres.process.log.read_text()


def test_everything_kept_is_closed_to_others(openbao: OpenBao, postgres: PostgreSQL) -> None:
    def open_to_others(path: Path) -> bool:
        return bool(path.lstat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))

    home = openbao.home.directory
    parts = [home, home / "openbao", home / "postgres", home / "keys", postgres.data]
    files = ["openbao/seal.key", "openbao/openbao.log", "openbao/audit.log", "openbao/process.json"]
    files += ["postgres/superuser.password", "postgres/manager.password", "postgres/postgres.log", "state.json"]
    assert [path for path in [*parts, *(home / name for name in files)] if open_to_others(path)] == []
