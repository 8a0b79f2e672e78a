"""What the one-shot containers of docker-compose.yml do, done here without containers on a real server and database."""

import json
import os
import stat
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from controlplane.dev import compose, loopback
from controlplane.dev.compose import ISSUER_URL, Compose
from controlplane.dev.home import Home
from controlplane.dev.openbao import bao_binary
from controlplane.dev.postgres import PostgreSQL
from controlplane.dev.process import Process
from controlplane.dev.shipped import shipped
from controlplane.dev.unseal import Unsealing
from controlplane.doctor.finding import Grade
from controlplane.doctor.power import param_power, power, rotate_power
from controlplane.issuers.oidc import KIND, OidcOptions
from controlplane.issuers.trust.issuer import issuer_of
from controlplane.issuers.trust.trusted import TrustedIssuers
from controlplane.keys.files import generate, load
from controlplane.model.errors import LocalServerError, VaultRefusedError
from controlplane.model.plan import Layout
from controlplane.model.secret import Secret
from controlplane.sdk.client import Shorthold
from controlplane.settings import VaultSettings, bao_program
from controlplane.vault.client import Server, VaultClient
from controlplane.vault.session import JwtSession
from controlplane.world import RandomIds, SystemClock

pytestmark = pytest.mark.servers


class SealedServer:
    """A server as the compose file configures it: new, uninitialised, sealed whenever it starts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port, cluster = (loopback.free_port(but=set()) for _ in range(2))
        self.addr = f"http://{loopback.HOST}:{self.port}"
        directory.mkdir()
        (directory / "file").mkdir()
        self.process = Process(name="openbao", directory=directory)
        configuration = (shipped("vault-config") / "docker" / "openbao.hcl").read_text(encoding="utf-8")
        for there, here in (
            ("0.0.0.0:8200", f"{loopback.HOST}:{self.port}"),
            ("127.0.0.1:8201", f"{loopback.HOST}:{cluster}"),
            ("http://vault:8200", self.addr),
            ("/openbao/file", "file"),
            ("/openbao/logs/", ""),
        ):
            assert there in configuration
            configuration = configuration.replace(there, here)
        (directory / "openbao.hcl").write_text(configuration, encoding="utf-8")

    def start(self) -> None:
        binary = str(bao_binary(bao_program()))
        self.process.start([binary, "server", "-config=openbao.hcl"], cwd=self.directory, environment={})


@pytest.fixture
def server(tmp_path: Path) -> Generator[SealedServer]:
    server = SealedServer(tmp_path / "server")
    server.start()
    try:
        yield server
    finally:
        server.process.stop()


@pytest.fixture
def opening(tmp_path: Path, server: SealedServer) -> Unsealing:
    directory = tmp_path / "operator"
    directory.mkdir(mode=0o700)
    return Unsealing(
        server=Server(server.addr),
        directory=directory,
        bootstrap=generate(),
        audit_file=tmp_path / "audit.log",
        say=lambda _: None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Volumes and servers after `setup`."""

    server: SealedServer
    compose: Compose


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """A new Vault and a new PostgreSQL, set up once for those tests that only look."""
    directory = tmp_path_factory.mktemp("compose")
    volumes = {name: directory / name for name in ("database", "operator", "keys")}
    for path in volumes.values():
        path.mkdir(mode=0o700)
    home = Home.of(directory)
    home.make()
    postgres, server = PostgreSQL.at(home), SealedServer(directory / "server")
    try:
        postgres.start()
        server.start()
        (volumes["database"] / "superuser.password").write_text(postgres.password.reveal(), encoding="utf-8")
        vault = VaultSettings(addr=server.addr)
        compose = Compose(
            roles=shipped("roles"), vault=vault, postgres_host=loopback.HOST, postgres_port=postgres.port, **volumes
        )
        compose.setup()
        yield Stack(server=server, compose=compose)
    finally:
        server.process.stop()
        postgres.stop()
        postgres.remove()


def sealed(server: SealedServer) -> bool:
    return loopback.ask(server.port, "GET", "/v1/sys/seal-status")[1]["sealed"]


def session_of(stack: Stack, identity: str) -> JwtSession:
    key = load(stack.compose.keys / f"{identity}.pem")
    return JwtSession(
        Server(stack.server.addr), f"shorthold-{identity}", identity, key, clock=SystemClock(), ids=RandomIds()
    )


def test_what_set_up_leaves_lets_the_broker_do_its_work_and_no_more(stack: Stack) -> None:
    session = session_of(stack, "broker")
    client = VaultClient(Server(stack.server.addr), session)
    assert client.read("database/creds/sh-prober-orders") is not None
    for forbidden in ("sys/policies/acl/shorthold-broker", "database/config/orders", "sys/audit"):
        with pytest.raises(VaultRefusedError):
            client.read(forbidden)
    client.close()
    session.close()


@pytest.mark.parametrize(("identity", "expected"), [("param", param_power), ("rotate", rotate_power)])
def test_who_makes_roles_and_who_rotates_secrets_log_in_and_rule_over_nothing_else(
    stack: Stack, identity: str, expected: Callable[[Layout], Mapping[str, Sequence[str]]]
) -> None:
    session = session_of(stack, identity)
    client = VaultClient(Server(stack.server.addr), session)
    (found,) = power(identity, client, expected(VaultSettings(addr=stack.server.addr).layout))
    assert found.grade is Grade.SOUND, found.detail
    client.close()
    session.close()


def test_no_root_token_remains_and_every_key_is_its_owners_only(stack: Stack) -> None:
    operator, keys = stack.compose.operator, stack.compose.keys
    (kept,) = operator.glob("unseal-*.json")
    assert list(json.loads(kept.read_text(encoding="utf-8"))) == ["key"]
    for path in (*operator.iterdir(), *keys.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
    assert {path.name for path in keys.iterdir()} == {
        "task.pem",
        "broker.pem",
        "param.pem",
        "rotate.pem",
        "audit.key",
        "issuer.jwks.json",
        "receipt.pem",
    }
    session = JwtSession(
        Server(stack.server.addr), "shorthold-bootstrap", "bootstrap", generate(), clock=SystemClock(), ids=RandomIds()
    )
    with pytest.raises(VaultRefusedError):  # no key but the one that is kept opens the operator's door
        session()
    session.close()


def test_a_server_that_was_restarted_is_opened_again_and_nothing_else_is_left_to_do(stack: Stack) -> None:
    before = sorted(path.name for path in stack.compose.operator.iterdir())
    stack.server.process.stop()
    stack.server.start()
    stack.compose.setup()
    assert not sealed(stack.server)
    assert sorted(path.name for path in stack.compose.operator.iterdir()) == before
    assert (stack.server.directory / "audit.log").stat().st_size > 0
    session = session_of(stack, "broker")
    assert session().reveal()
    session.close()


@pytest.fixture
def control_plane(stack: Stack, tmp_path: Path) -> Generator[str]:
    """A control plane with the configuration of the compose file, but for addresses and paths; where it listens."""
    port = loopback.free_port(but=set())
    configuration = (shipped("vault-config") / "docker" / "shorthold.toml").read_text(encoding="utf-8")
    for there, here in (
        ("/etc/shorthold/roles", str(stack.compose.roles)),
        ('"0.0.0.0"', f'"{loopback.HOST}"'),
        ("port = 8700", f"port = {port}"),
        ("/var/lib/shorthold", str(tmp_path)),
        ("/run/shorthold/keys", str(stack.compose.keys)),
        ("http://vault:8200", stack.server.addr),
        ('"postgres"', f'"{loopback.HOST}"\nport = {stack.compose.postgres_port}'),
    ):
        assert there in configuration
        configuration = configuration.replace(there, here)
    (tmp_path / "shorthold.toml").write_text(configuration, encoding="utf-8")
    serve = Process(name="serve", directory=tmp_path)
    environment = {"SHORTHOLD_CONFIG": str(tmp_path / "shorthold.toml")}
    serve.start([sys.executable, "-m", "controlplane", "serve"], cwd=tmp_path, environment=environment)
    try:
        serve.wait(lambda: loopback.ask(port, "GET", "/readyz")[0] == 200, timedelta(seconds=60))
        yield f"http://{loopback.HOST}:{port}"
    finally:
        serve.stop()


def test_the_control_plane_of_the_compose_file_grants_and_proves_the_end(stack: Stack, control_plane: str) -> None:
    agent = "repo:acme/support-agent:ref:refs/heads/main"
    with Shorthold(control_plane, lambda: stack.compose.token(agent, [])) as client:
        answer = client.request({"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"})
        fields = client.unwrap(stack.server.addr, Secret(answer["wrapping_token"]))["orders"]
        login = make_conninfo(
            host=loopback.HOST,
            port=stack.compose.postgres_port,
            dbname="orders",
            user=fields["username"].reveal(),
            password=fields["password"].reveal(),
        )
        with psycopg.connect(login) as database:
            assert database.execute("SELECT count(*) FROM sales.orders").fetchone() != (0,)
        grant = client.finish(answer["grant"]["id"], wait="30s")["grant"]
        assert (grant["state"], grant["receipt"]["ended"][0]["verified"]) == ("revoked", True)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(login)


def test_the_demo_issuers_tokens_verify_against_the_key_set_that_the_control_plane_gets(stack: Stack) -> None:
    keys = stack.compose.keys / "issuer.jwks.json"
    options = OidcOptions(name="dev", url=ISSUER_URL, audiences=("shorthold",), jwks_file=keys)
    who = TrustedIssuers([issuer_of(KIND, options)], SystemClock()).verify(
        stack.compose.token("agent-1", ["environment=prod"])
    )
    assert (who.subject, who.claim("environment")) == ("agent-1", "prod")


def test_an_initialisation_that_was_interrupted_goes_on(opening: Unsealing) -> None:
    opening().close()
    (kept,) = opening.directory.glob("unseal-*.json")
    made = json.loads(kept.read_text(encoding="utf-8"))
    kept.write_text(json.dumps({**made, "root_token": "s.was-revoked-but-not-forgotten"}), encoding="utf-8")
    client = opening()
    assert "shorthold-bootstrap" in client.list("sys/policies/acl")
    client.close()
    assert list(json.loads(kept.read_text(encoding="utf-8"))) == ["key"]


def test_the_key_of_another_server_is_passed_over(server: SealedServer, opening: Unsealing) -> None:
    opening().close()
    (kept,) = opening.directory.glob("unseal-*.json")
    other = opening.directory / "unseal-0000000000000000.json"
    other.write_text(json.dumps({"key": "A" * 43 + "="}), encoding="utf-8")
    server.process.stop()
    server.start()
    opening().close()
    assert not sealed(server)
    server.process.stop()
    server.start()
    kept.unlink()
    with pytest.raises(LocalServerError, match="none of the keys"):
        opening()


def test_the_password_of_the_database_is_made_up_once_and_read_by_its_group_only(tmp_path: Path) -> None:
    arguments = ["--database", str(tmp_path), "prepare", "--reader", str(os.getgid())]
    assert compose.main(arguments) == 0
    file = tmp_path / "superuser.password"
    first = file.read_text(encoding="utf-8")
    assert len(first) >= 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o440
    assert file.stat().st_gid == os.getgid()
    assert compose.main(arguments) == 0
    assert file.read_text(encoding="utf-8") == first


def test_what_is_not_set_up_yet_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compose.main(["--operator", str(tmp_path), "token", "--subject", "agent-1"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"Error: there is no signing key at {tmp_path / 'issuer.pem'}")
    assert said.count("\n") == 1
