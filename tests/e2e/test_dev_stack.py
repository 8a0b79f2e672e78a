"""`shorthold dev` as somebody uses it: in a directory, from a shell, with kill -9 and Ctrl-C in between."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import jwt
import psutil
import psycopg
import pytest

from controlplane.dev.account import ROOTS_PLACE
from controlplane.dev.home import Home, write_private
from controlplane.dev.issuer import mint
from controlplane.dev.loopback import HOST, is_free
from controlplane.dev.openbao import OpenBao, bao_binary
from controlplane.dev.postgres import PostgreSQL
from controlplane.dev.stack import Part, Stack
from controlplane.model.secret import Secret
from controlplane.sdk.client import Shorthold
from controlplane.world import RandomIds, SystemClock

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """A project whose stack runs; every test here leaves it running."""
    project = tmp_path_factory.mktemp("running")
    project.chmod(0o750)
    modes = {path: path.stat().st_mode for path in (project, *project.parents)}
    up = _shorthold(project, "dev", "up")
    assert up.returncode == 0, up.stderr
    yield project
    Stack(project=project, say=print).destroy()
    assert {path: path.stat().st_mode for path in modes} == modes


def test_status_tells_what_runs_and_where(running: Path) -> None:
    asked = _shorthold(running, "dev", "status", "-o", "json")
    told = json.loads(asked.stdout)
    assert {part["name"]: part["state"] for part in told["parts"]} == dict.fromkeys(
        ("postgres", "openbao", "issuer", "serve"), "running"
    )
    stack = Stack(project=running, say=print)
    assert (told["api"], told["vault_addr"]) == (stack.api, stack.vault_addr)
    assert (told["database_url"], told["issuer"]) == (stack.database_url, stack.issuer.url)
    assert stack.postgres.password.reveal() not in asked.stdout


def test_a_second_up_leaves_everything_alone(running: Path) -> None:
    before = _parts(running)
    again = _shorthold(running, "dev", "up")
    assert again.returncode == 0
    assert again.stderr.count("Runs already") == 4
    assert _parts(running) == before


def test_after_kill_9_of_every_server_the_next_up_goes_on_at_the_same_addresses_with_all_data(running: Path) -> None:
    before = _parts(running)
    with psycopg.connect(_orders(running)) as connection:
        connection.execute("UPDATE sales.customers SET name = 'kept' WHERE id = 7")
    for part in before:
        assert part.pid is not None
        os.kill(part.pid, signal.SIGKILL)
    again = _shorthold(running, "dev", "up")
    assert again.returncode == 0, again.stderr
    after = _parts(running)
    assert [part.state for part in after] == ["running"] * 4
    assert {part.pid for part in after}.isdisjoint({part.pid for part in before})
    assert [part.address for part in after] == [part.address for part in before]
    with psycopg.connect(_orders(running)) as connection:
        assert connection.execute("SELECT name FROM sales.customers WHERE id = 7").fetchone() == ("kept",)
    assert "create " not in again.stderr  # OpenBao still has everything


def test_a_port_that_was_taken_meanwhile_is_replaced_and_grants_go_on(running: Path) -> None:
    before = _parts(running)
    assert _shorthold(running, "dev", "down").returncode == 0
    with ExitStack() as squatters:
        for part in before:
            squatters.enter_context(socket.create_server((HOST, _port(part))))
        again = _shorthold(running, "dev", "up")
        assert again.returncode == 0, again.stderr
        assert {part.address for part in _parts(running)}.isdisjoint({part.address for part in before})
        stack = Stack(project=running, say=print)
        with Shorthold(stack.api, lambda: _agent(stack)) as client:
            answer = client.request(
                {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question", "reason": "new ports"}
            )
            credential = client.unwrap(stack.vault_addr, Secret(answer["wrapping_token"]))["orders"]
            login = stack.postgres.dsn(credential["username"].reveal(), credential["password"], "orders")
            with psycopg.connect(login.reveal()) as connection:
                assert connection.execute("SELECT count(*) FROM sales.orders").fetchone() == (4000,)
            assert client.finish(answer["grant"]["id"], wait="20s")["grant"]["state"] == "revoked"


def test_everything_in_the_directory_is_closed_to_others(running: Path) -> None:
    home = running / ".shorthold"
    assert [path for path in (home, *home.iterdir()) if path.stat().st_mode & 0o077] == []


def test_what_dev_env_exports_reaches_the_database_and_changes_nothing_for_dev_up(running: Path) -> None:
    before = _parts(running)
    exported = subprocess.run(
        ["/bin/sh", "-c", 'eval "$1" && env', "sh", _shorthold(running, "dev", "env").stdout],
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    env = dict(line.split("=", 1) for line in exported.stdout.splitlines())
    assert set(env) >= {"SHORTHOLD_ADDR", "SHORTHOLD_CONFIG", "BAO_ADDR", "VAULT_ADDR", "DATABASE_URL", "PGPASSFILE"}
    assert PostgreSQL.at(Home.of(running)).password.reveal() not in exported.stdout
    with psycopg.connect(env["DATABASE_URL"], passfile=env["PGPASSFILE"]) as connection:
        assert connection.execute("SELECT count(*) FROM billing.invoices").fetchone() == (4000,)
    again = _shorthold(running, "dev", "up", env=env)
    assert again.returncode == 0, again.stderr
    assert "evaluate" not in again.stderr
    moved = {**env, "SHORTHOLD_DEV_ADDRESSES": "http://127.0.0.1:1", "BAO_ADDR": "http://127.0.0.1:1"}
    again = _shorthold(running, "dev", "up", env=moved)
    assert again.returncode == 0, again.stderr
    assert "evaluate `shorthold dev env` again" in again.stderr
    assert _parts(running) == before


def test_a_token_from_the_command_line_has_the_claims_that_were_asked_for(running: Path) -> None:
    asked = _shorthold(
        running,
        *("dev", "token", "--subject", "repo:acme/agent:ref:refs/heads/main", "--lifetime", "90s"),
        *("--claim", "kubernetes.io/namespace=agents", "--claim-json", 'groups=["billing"]'),
    )
    claims = jwt.decode(asked.stdout.strip(), options={"verify_signature": False})
    assert claims["sub"] == "repo:acme/agent:ref:refs/heads/main"
    assert claims["kubernetes.io"] == {"namespace": "agents"}
    assert claims["groups"] == ["billing"]
    assert claims["exp"] - claims["iat"] == 90
    for wrong in (
        ("--claim", "x"),
        ("--claim", "iss=x"),
        ("--claim-json", "x={"),
        ("--lifetime", "90"),
        ("--lifetime", "2h"),
        ("--subject", ""),
    ):
        refused = _shorthold(running, "dev", "token", "--subject", "x", *wrong)
        assert refused.returncode == 1
        assert refused.stdout == ""
        assert "Traceback" not in refused.stderr


def test_two_projects_live_side_by_side_and_down_leaves_nothing_of_its_own(running: Path, tmp_path: Path) -> None:
    before = _parts(running)
    ups = [_begin(tmp_path), _begin(tmp_path)]  # two at once are one
    for up in ups:
        _, told = up.communicate(timeout=120)
        assert up.returncode == 0, told
    try:
        own = _parts(tmp_path)
        assert [part.state for part in own] == ["running"] * 4
        assert _leaders(tmp_path) == {part.pid for part in own}
        assert {part.address for part in own}.isdisjoint({part.address for part in before})
        assert _shorthold(tmp_path, "dev", "down").returncode == 0
        assert [part.state for part in _parts(tmp_path)] == ["stopped"] * 4
        assert _processes_of(tmp_path) == []
        assert [part.address for part in own if not is_free(_port(part))] == []
        postgres = PostgreSQL.at(Home.of(tmp_path)).data
        assert _shorthold(tmp_path, "dev", "down", "--destroy", typed="destroy\n").returncode == 0
        assert list(tmp_path.iterdir()) == []
        assert not postgres.exists()
        assert _parts(running) == before
    finally:
        Stack(project=tmp_path, say=print).destroy()


def test_interrupted_or_killed_at_any_moment_leaves_nothing_that_the_next_command_does_not_find(tmp_path: Path) -> None:
    try:
        for moment, how in (
            ("PostgreSQL", signal.SIGKILL),
            ("OpenBao", signal.SIGINT),
            ("auth/shorthold/config", signal.SIGKILL),
        ):
            up = _begin(tmp_path)
            assert up.stderr is not None
            while (line := up.stderr.readline()) and moment not in line:
                pass
            up.send_signal(how)
            up.communicate(timeout=60)
            assert up.returncode in ({130, 0} if how is signal.SIGINT else {-9, 0})
        finished = _shorthold(tmp_path, "dev", "up")
        assert finished.returncode == 0, finished.stderr
        assert _leaders(tmp_path) == {part.pid for part in _parts(tmp_path)}
    finally:
        Stack(project=tmp_path, say=print).destroy()
    assert _processes_of(tmp_path) == []


def test_servers_that_the_environment_names_take_the_place_of_the_embedded_ones(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = Home.of(tmp_path_factory.mktemp("elsewhere"))
    elsewhere.make()
    bao, postgres = OpenBao(home=elsewhere), PostgreSQL.at(elsewhere)
    try:
        bao.start(bao_binary(None))
        postgres.start()
        operator = bao.operator_client()
        assert operator.token is not None
        env = {
            "VAULT_ADDR": bao.addr,
            "VAULT_TOKEN": operator.token().reveal(),
            "DATABASE_URL": f"postgresql://postgres:{postgres.password.reveal()}@{HOST}:{postgres.port}/postgres?sslmode=disable",
        }
        operator.close()
        refused = _shorthold(tmp_path, "dev", "up", env={**env, "VAULT_TOKEN": "nobodys"})
        assert refused.returncode == 2, refused.stderr
        with psycopg.connect(postgres.owner.reveal()) as connection:
            assert connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'shorthold_manager'").fetchone() is None
        assert Home.of(tmp_path).recall("database_url") is None
        up = _shorthold(tmp_path, "dev", "up", env=env)
        assert up.returncode == 0, up.stderr
        assert [(part.state, part.pid is None) for part in _parts(tmp_path)] == [
            *(("outside", True), ("outside", True)),
            *(("running", False), ("running", False)),
        ]
        stack = Stack(project=tmp_path, say=print)
        assert stack.vault_addr == bao.addr
        assert stack.database_url == f"postgresql://postgres@{HOST}:{postgres.port}/orders"
        assert not (tmp_path / ".shorthold" / "openbao" / "raft").exists()
        secrets = [env["VAULT_TOKEN"], postgres.password.reveal()]
        kept = [path.read_bytes() for path in (tmp_path / ".shorthold").rglob("*") if path.is_file()]
        assert [secret for secret in secrets if any(secret.encode() in content for content in kept)] == []
        assert _shorthold(tmp_path, "dev", "down").returncode == 0
        assert bao.active()
        assert postgres.answers()
    finally:
        Stack(project=tmp_path, say=print).destroy()
        bao.stop()
        postgres.stop()
        postgres.remove()


def test_half_a_data_directory_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    home = Home.of(tmp_path)
    home.make()
    postgres, bao = PostgreSQL.at(home), OpenBao(home=home)
    try:
        for server in (postgres.start, lambda: bao.start(bao_binary(None)), bao.stop, postgres.stop):
            server()
        needed = [
            *(bao.directory / "seal.key", bao.directory / "raft" / "vault.db", bao.bootstrap_key),
            *(postgres.directory / "superuser.password", postgres.data / "PG_VERSION", postgres.data),
        ]
        for file in needed:
            kept = file.rename(tmp_path / "kept")
            up = _shorthold(tmp_path, "dev", "up")
            assert up.returncode == 1
            assert f"{file}" in up.stderr
            assert "dev down --destroy" in up.stderr
            assert "Traceback" not in up.stderr
            assert not file.exists()
            kept.rename(file)
        password = postgres.directory / "superuser.password"
        write_private(password, "another" + (right := password.read_text()))
        up = _shorthold(tmp_path, "dev", "up")
        assert up.returncode == 1
        assert f"{password}" in up.stderr
        assert right not in up.stderr
        write_private(password, right)
        assert postgres.start() or postgres.answers()
        assert bao.start(bao_binary(None)) or bao.active()
    finally:
        Stack(project=tmp_path, say=print).destroy()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    place = tmp_path if os.geteuid() != 0 else Path("/sys")  # permissions do not stop root
    try:
        up = _shorthold(place, "dev", "up")
    finally:
        tmp_path.chmod(0o700)
    assert up.returncode == 1
    assert f"{place / '.shorthold'} cannot be written" in up.stderr
    assert "Traceback" not in up.stderr


def test_nothing_is_said_to_run_where_nothing_was_started(tmp_path: Path) -> None:
    for command in (("status",), ("env",), ("token", "--subject", "x")):
        asked = _shorthold(tmp_path, "dev", *command)
        assert asked.returncode == 1
        assert "Traceback" not in asked.stderr
        assert "dev up" in asked.stderr
    assert _shorthold(tmp_path, "dev", "down").returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_destroying_wants_the_word_typed(tmp_path: Path) -> None:
    Home.of(tmp_path).make()
    for typed in ("", "yes\n"):
        assert _shorthold(tmp_path, "dev", "down", "--destroy", typed=typed).returncode == 1
        assert Home.of(tmp_path).exists


def _shorthold(
    project: Path, *arguments: str, env: Mapping[str, str] | None = None, typed: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controlplane", *arguments],
        cwd=project,
        env={"PATH": os.defpath, "HOME": str(project), **(env or {})},
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _begin(project: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "controlplane", "dev", "up"],
        cwd=project,
        env={"PATH": os.defpath, "HOME": str(project)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _agent(stack: Stack) -> Secret:
    subject = "repo:acme/support-agent:ref:refs/heads/main"
    return mint(stack.issuer.key, stack.issuer.url, subject, now=SystemClock().now(), ids=RandomIds())


def _parts(project: Path) -> list[Part]:
    return list(Stack(project=project, say=print).parts())


def _port(part: Part) -> int:
    assert part.address is not None
    return int(part.address.rpartition(":")[2].partition("/")[0])


def _leaders(project: Path) -> set[int]:
    """Of those, the ones that no other started: the servers themselves, without PostgreSQL's backends."""
    all_of_them = _processes_of(project)
    pids = {process.pid for process in all_of_them}
    leaders: set[int] = set()
    for process in all_of_them:
        with suppress(psutil.NoSuchProcess):  # PostgreSQL's backends come and go
            leaders |= {process.pid} if process.ppid() not in pids else set()
    return leaders


def _processes_of(project: Path) -> list[psutil.Process]:
    """Processes that work in the project's directory, or in what PostgreSQL keeps for it elsewhere."""
    home = Home.of(project)
    places = [str(home.directory)]
    places += [str(ROOTS_PLACE / home.id)] if home.exists else []
    found: list[psutil.Process] = []
    for pid in psutil.pids():  # not process_iter(): it remembers, and a number may be another process's by now
        try:
            process = psutil.Process(pid)
            if process.cwd().startswith(tuple(places)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _orders(project: Path) -> str:
    postgres = PostgreSQL.at(Home.of(project))
    return postgres.dsn("postgres", postgres.password, "orders").reveal()
