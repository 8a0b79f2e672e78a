"""Setting Vault up on a real server: once, without surprises, and with identities that can do what they must only."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hvac.api.auth_methods import JWT, Token
from psycopg import sql

from controlplane.dev.openbao import OpenBao
from controlplane.dev.postgres import PostgreSQL
from controlplane.keys.files import SigningKey, generate
from controlplane.model.canonical import JsonObject
from controlplane.model.errors import ConfigurationError, VaultRefusedError
from controlplane.model.plan import Layout
from controlplane.model.secret import Secret
from controlplane.vault.bootstrap import BootstrapItem, Trust, bootstrap
from controlplane.vault.client import Server, VaultClient, part
from controlplane.vault.policies import IDENTITIES
from controlplane.vault.session import JwtSession
from controlplane.world import RandomIds, SystemClock

pytestmark = pytest.mark.servers

LAYOUT = Layout(prefix="vb", auth_mount="shorthold-vb", mounts={"database": "database", "pki": "pki"})
CONNECTION, MANAGER = "vb-orders", "vb_manager"
PROBER = f"database/creds/vb-prober-{CONNECTION}"


def trust_in(keys: dict[str, SigningKey]) -> Trust:
    return Trust(**{f"{name}_key_pem": key.public_pem for name, key in keys.items()})


def new_keys() -> dict[str, SigningKey]:
    return {name: generate() for name in ("task", *IDENTITIES)}


def undone(items: list[BootstrapItem]) -> dict[str, str]:
    return {item.path: item.action for item in items if item.action != "none"}


def session(server: Server, identity: str, key: SigningKey, *, auth_mount: str = LAYOUT.auth_mount) -> JwtSession:
    return JwtSession(server, f"{auth_mount}-{identity}", identity, key, clock=SystemClock(), ids=RandomIds())


@pytest.fixture(scope="module")
def operator(openbao: OpenBao) -> Generator[VaultClient]:
    """Has the policy that comes with the embedded server, and no more."""
    client = openbao.operator_client()
    yield client
    client.close()


@pytest.fixture(scope="module")
def keys() -> dict[str, SigningKey]:
    return new_keys()


@pytest.fixture(scope="module")
def target(operator: VaultClient, postgres: PostgreSQL, keys: dict[str, SigningKey]) -> PostgreSQL:
    """Bootstrapped twice, as `dev up` does: a connection needs its mount, and a prober's role needs a connection."""
    bootstrap(operator, LAYOUT, trust_in(keys), apply=True)
    password = RandomIds().new("pw")
    with psycopg.connect(postgres.owner.reveal(), autocommit=True) as owner:
        owner.execute(
            sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}").format(
                sql.Identifier(MANAGER), sql.Literal(password)
            )
        )
        owner.execute("GRANT pg_signal_backend TO vb_manager")
        owner.execute("GRANT pg_read_all_stats TO vb_manager WITH ADMIN OPTION")
    url = f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{postgres.port}/orders?sslmode=disable"
    operator.write(
        f"database/config/{CONNECTION}",
        {
            "plugin_name": "postgresql-database-plugin",
            "connection_url": url,
            "username": MANAGER,
            "password": password,
            "allowed_roles": ["vb-*"],
            "password_authentication": "scram-sha-256",
        },
    )
    assert f"database/roles/vb-prober-{CONNECTION}" in undone(bootstrap(operator, LAYOUT, trust_in(keys), apply=True))
    return postgres


@dataclass
class Identities:
    broker: VaultClient
    sync: VaultClient
    responder: VaultClient
    drift: VaultClient
    param: VaultClient
    rotate: VaultClient


@pytest.fixture(scope="module")
def identities(openbao: OpenBao, target: PostgreSQL, keys: dict[str, SigningKey]) -> Generator[Identities]:
    del target
    server = Server(openbao.addr)
    sessions = {name: session(server, name, keys[name]) for name in IDENTITIES}
    clients = {name: VaultClient(server, sessions[name]) for name in IDENTITIES}
    yield Identities(**clients)
    for closing in (*clients.values(), *sessions.values()):
        closing.close()


def test_looking_first_writes_nothing(operator: VaultClient) -> None:
    layout = replace(LAYOUT, prefix="vd", auth_mount="shorthold-vd")
    looked = bootstrap(operator, layout, trust_in(new_keys()), apply=False)
    assert undone(looked)["sys/auth/shorthold-vd"] == "create"
    assert undone(bootstrap(operator, layout, trust_in(new_keys()), apply=False)) == undone(looked)
    assert not [mount for mount in part(operator.read("sys/auth"), "data") if mount.startswith("shorthold-vd")]


def test_what_was_said_is_what_is_done_and_a_second_run_has_nothing_to_do(operator: VaultClient) -> None:
    layout = replace(LAYOUT, prefix="ve", auth_mount="shorthold-ve")
    trust = trust_in(new_keys())
    said = bootstrap(operator, layout, trust, apply=False)
    assert bootstrap(operator, layout, trust, apply=True) == said
    assert undone(bootstrap(operator, layout, trust, apply=True)) == {}


def test_what_somebody_changed_is_said_and_put_back(
    operator: VaultClient, target: PostgreSQL, keys: dict[str, SigningKey]
) -> None:
    del target
    trust = trust_in(keys)
    theirs = generate().public_pem
    role: JsonObject = {"token_policies": ["default"], "bound_subject": "", "token_period": 60, "clock_skew_leeway": 60}
    edits: dict[str, JsonObject] = {
        "auth/shorthold-vb/config": {
            "jwt_validation_pubkeys": [trust.task_key_pem, theirs],
            "jwt_supported_algs": ["ES256", "RS256"],
        },
        "auth/shorthold-vb-sync/config": {"jwt_validation_pubkeys": [theirs], "jwt_supported_algs": ["ES256"]},
        "sys/policies/acl/shorthold-vb-broker": {"policy": 'path "database/*" { capabilities = ["read"] }'},
        "auth/shorthold-vb-broker/role/broker": {
            **part(operator.read("auth/shorthold-vb-broker/role/broker"), "data"),
            **role,
        },
        "sys/auth/shorthold-vb/tune": {"max_lease_ttl": "100h"},
        f"database/roles/vb-prober-{CONNECTION}": {
            "db_name": CONNECTION,
            "creation_statements": ["CREATE ROLE \"{{name}}\" SUPERUSER LOGIN PASSWORD '{{password}}'"],
        },
    }
    for path, body in edits.items():
        operator.write(path, body)
    assert undone(bootstrap(operator, LAYOUT, trust, apply=False)) == dict.fromkeys(edits, "change")
    assert undone(bootstrap(operator, LAYOUT, trust, apply=True)) == dict.fromkeys(edits, "change")
    assert undone(bootstrap(operator, LAYOUT, trust, apply=False)) == {}


def test_a_mount_that_is_something_else_is_not_touched(operator: VaultClient) -> None:
    operator.write("sys/auth/shorthold-vf-sync", {"type": "userpass"})
    layout = replace(LAYOUT, prefix="vf", auth_mount="shorthold-vf")
    with pytest.raises(ConfigurationError, match="shorthold-vf-sync"):
        bootstrap(operator, layout, trust_in(new_keys()), apply=False)
    with pytest.raises(ConfigurationError, match="cubbyhole"):
        bootstrap(operator, replace(layout, mounts={"pki": "cubbyhole"}), trust_in(new_keys()), apply=False)


def test_nobody_logs_in_with_another_identitys_key(openbao: OpenBao, identities: Identities) -> None:
    del identities
    for name in IDENTITIES:
        stranger = session(Server(openbao.addr), name, generate())
        with pytest.raises(VaultRefusedError):
            stranger()
        stranger.close()


def test_one_key_opens_one_mount(openbao: OpenBao, identities: Identities, keys: dict[str, SigningKey]) -> None:
    del identities
    for name in IDENTITIES:
        for other in {"task", *IDENTITIES} - {name}:
            wrong = session(Server(openbao.addr), name, keys[other])
            with pytest.raises(VaultRefusedError):
                wrong()
            wrong.close()


def test_an_identitys_token_has_its_policy_only_and_lives_an_hour(
    identities: Identities, vault_root: VaultClient
) -> None:
    tokens: Any = Token(adapter=vault_root.adapter)
    for name in IDENTITIES:
        source = getattr(identities, name).token
        facts = tokens.lookup(source().reveal())["data"]
        assert facts["policies"] == [f"shorthold-vb-{name}"]
        assert facts["type"] == "service"
        assert facts["explicit_max_ttl"] == 3600
        assert "period" not in facts


def refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except VaultRefusedError as error:
        return "403" in error.detail
    return False


ROLE: JsonObject = {"db_name": CONNECTION, "creation_statements": ["SELECT 1"]}
POLICY: JsonObject = {"policy": '{"path":{"*":{"capabilities":["sudo"]}}}'}
NOBODY: dict[str, Callable[[VaultClient], object]] = {
    "read another's credential": lambda client: client.read("database/creds/vb-orders-read-0a1b2c3d-orders"),
    "read a foreign credential": lambda client: client.read("database/creds/readonly"),
    "write its own policy": lambda client: client.write("sys/policies/acl/shorthold-vb-broker", POLICY),
    "write the default policy": lambda client: client.write("sys/policies/acl/default", POLICY),
    "write a foreign policy": lambda client: client.write("sys/policies/acl/vbx", POLICY),
    "write its own role": lambda client: client.write("auth/shorthold-vb-sync/role/sync", {"token_policies": "root"}),
    "write a trusted key": lambda client: client.write("auth/shorthold-vb/config", {"jwt_validation_pubkeys": []}),
    "write a prober's role": lambda client: client.write(f"database/roles/vb-prober-{CONNECTION}", ROLE),
    "write a foreign role": lambda client: client.write("database/roles/readonly", ROLE),
    "read a connection": lambda client: client.read(f"database/config/{CONNECTION}"),
    "write a connection": lambda client: client.write(f"database/config/{CONNECTION}", {}),
    "make a certificate": lambda client: client.write("pki/issue/vb-orders-read-0a1b2c3d-client", {"common_name": "x"}),
    "read a key pair": lambda client: client.write("pki/root/generate/exported", {"common_name": "x"}),
    "mount": lambda client: client.write("sys/mounts/vb-kv", {"type": "kv"}),
    "mount an auth method": lambda client: client.write("sys/auth/vb-auth", {"type": "jwt"}),
    "make a token": lambda client: client.write("auth/token/create", {}),
    "make a free token": lambda client: client.write("auth/token/create-orphan", {}),
    "renew itself": lambda client: client.write("auth/token/renew-self", {}),
    "wrap": lambda client: client.write("sys/wrapping/wrap", {"a": "b"}),
    "seal": lambda client: client.write("sys/seal", {}),
    "see audit devices": lambda client: client.read("sys/audit"),
    "revoke by prefix": lambda client: client.write("sys/leases/revoke-prefix/database/creds", {}),
    "force-revoke": lambda client: client.write("sys/leases/revoke-force/database/creds/vb-x", {}),
    "list all leases": lambda client: client.list("sys/leases/lookup"),
    "list foreign leases": lambda client: client.list("sys/leases/lookup/database/creds/readonly"),
    "revoke a foreign lease": lambda client: client.write(
        "sys/leases/revoke", {"lease_id": "database/creds/readonly/x"}
    ),
    "renew a foreign lease": lambda client: client.write("sys/leases/renew", {"lease_id": "auth/token/create/x"}),
}
SYNC_MAY_NOT: dict[str, Callable[[VaultClient], object]] = {
    "read a prober's login": lambda client: client.read(PROBER),
    "list accessors": lambda client: client.list("auth/token/accessors"),
    "look a token up": lambda client: client.write("auth/token/lookup-accessor", {"accessor": "x"}),
    "revoke a token": lambda client: client.write("auth/token/revoke-accessor", {"accessor": "x"}),
    "revoke a lease": lambda client: client.write("sys/leases/revoke", {"lease_id": f"{PROBER}/x"}),
    "see a prober's role": lambda client: client.read(f"database/roles/vb-prober-{CONNECTION}"),
    "write an identity's role": lambda client: client.write("auth/shorthold-vb-broker/role/broker", {}),
}
NOT_SYNC: dict[str, Callable[[VaultClient], object]] = {
    "write a role": lambda client: client.write("database/roles/vb-orders-read-0a1b2c3d-orders", ROLE),
    "write a certificate role": lambda client: client.write("pki/roles/vb-orders-read-0a1b2c3d-client", {}),
    "write a task policy": lambda client: client.write("sys/policies/acl/vb-orders-read-0a1b2c3d", POLICY),
    "write a task role": lambda client: client.write("auth/shorthold-vb/role/vb-orders-read-0a1b2c3d", {}),
    "read a role": lambda client: client.read("database/roles/vb-orders-read-0a1b2c3d-orders"),
}
RESPONDER_MAY_NOT: dict[str, Callable[[VaultClient], object]] = {
    "read a prober's login": lambda client: client.read(PROBER),
    "renew a token": lambda client: client.write("auth/token/renew-accessor", {"accessor": "x"}),
    "renew a lease": lambda client: client.write("sys/leases/renew", {"lease_id": f"{PROBER}/x"}),
}


@pytest.mark.parametrize("what", [*NOBODY, *NOT_SYNC])
def test_the_broker_may_not(identities: Identities, what: str) -> None:
    """P7."""
    assert refused(lambda: (NOBODY | NOT_SYNC)[what](identities.broker))


@pytest.mark.parametrize("what", [*NOBODY, *SYNC_MAY_NOT])
def test_sync_may_not(identities: Identities, what: str) -> None:
    """Y32."""
    assert refused(lambda: (NOBODY | SYNC_MAY_NOT)[what](identities.sync))


@pytest.mark.parametrize("what", [*NOBODY, *NOT_SYNC, *RESPONDER_MAY_NOT])
def test_the_responder_may_not(identities: Identities, what: str) -> None:
    assert refused(lambda: (NOBODY | NOT_SYNC | RESPONDER_MAY_NOT)[what](identities.responder))


@pytest.mark.parametrize("what", [*NOBODY, *NOT_SYNC, *RESPONDER_MAY_NOT])
def test_who_makes_roles_for_single_grants_may_not(identities: Identities, what: str) -> None:
    """P7."""
    assert refused(lambda: (NOBODY | NOT_SYNC | RESPONDER_MAY_NOT)[what](identities.param))


def test_the_broker_looks_up_renews_and_revokes(identities: Identities, vault_root: VaultClient) -> None:
    made = part(vault_root.write("auth/token/create-orphan", {"ttl": "1h", "policies": ["default"]}), "auth")
    tokens: Any = Token(adapter=identities.broker.adapter)
    assert made["accessor"] in identities.broker.list("auth/token/accessors")
    assert tokens.lookup_accessor(made["accessor"])["data"]["ttl"] > 3500
    assert tokens.renew_accessor(made["accessor"], increment="60s")["auth"]["lease_duration"] == 60
    assert tokens.revoke_accessor(made["accessor"]) is None


def test_sync_writes_and_removes_what_carries_the_prefix(identities: Identities) -> None:
    written: dict[str, JsonObject] = {
        "database/roles/vb-orders-read-0a1b2c3d-orders": ROLE,
        "pki/roles/vb-orders-read-0a1b2c3d-client": {"allow_any_name": False},
        "sys/policies/acl/vb-orders-read-0a1b2c3d": {"policy": '{"path":{"a":{"capabilities":["read"]}}}'},
        "auth/shorthold-vb/role/vb-orders-read-0a1b2c3d": {
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_audiences": ["x"],
        },
    }
    for path, body in written.items():
        identities.sync.write(path, body)
        assert identities.sync.read(path) is not None
        folder, _, name = path.rpartition("/")
        assert name in identities.sync.list(folder)
    assert identities.sync.list("sys/leases/lookup/database/creds/vb-orders-read-0a1b2c3d-orders") == []
    assert identities.sync.list("sys/leases/lookup/pki/issue/vb-orders-read-0a1b2c3d-client") == []
    for path in written:
        identities.sync.delete(path)
        assert identities.sync.read(path) is None


def test_the_prober_sees_who_is_logged_in_and_no_row(identities: Identities, target: PostgreSQL) -> None:
    answer = identities.broker.read(PROBER)
    assert answer is not None
    login = part(answer, "data")
    dsn = target.dsn(str(login["username"]), Secret(str(login["password"])), "orders")
    with (
        psycopg.connect(target.owner.reveal(), dbname="orders") as somebody,
        psycopg.connect(dsn.reveal(), autocommit=True) as prober,
    ):
        seen = prober.execute(
            "SELECT usename, query FROM pg_stat_activity WHERE pid = %s", (somebody.info.backend_pid,)
        ).fetchone()
        assert seen == (somebody.info.user, "<insufficient privilege>"), "it sees who is there, not what they do"
        for forbidden in (
            "SELECT * FROM sales.orders",
            "SELECT rolpassword FROM pg_authid",
            "CREATE TABLE public.t (a int)",
            "CREATE TEMPORARY TABLE t (a int)",
            "CREATE ROLE x",
            f"SELECT pg_terminate_backend({somebody.info.backend_pid})",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                prober.execute(forbidden.encode())
        identities.responder.write("sys/leases/revoke", {"lease_id": answer["lease_id"], "sync": True})
        with pytest.raises(psycopg.OperationalError):
            prober.execute("SELECT 1")
        gone = somebody.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (login["username"],)).fetchone()
        assert gone is None


def test_a_task_token_cannot_outlive_the_mounts_ceiling(
    openbao: OpenBao, identities: Identities, keys: dict[str, SigningKey]
) -> None:
    """P2: even if sync's identity were turned against us, Vault caps what its roles say."""
    role = "vb-ceiling-0a1b2c3d"
    identities.sync.write(
        f"auth/shorthold-vb/role/{role}",
        {
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_audiences": ["a"],
            "token_ttl": "700h",
            "token_max_ttl": "700h",
        },
    )
    now = int(SystemClock().now().timestamp())
    signed = keys["task"].sign({"aud": "a", "sub": "x", "iat": now, "nbf": now, "exp": now + 10})
    client = VaultClient(Server(openbao.addr), None)
    api: Any = JWT(adapter=client.adapter)
    auth = api.jwt_login(role, signed.reveal(), use_token=False, path="shorthold-vb")["auth"]
    client.close()
    assert timedelta(seconds=auth["lease_duration"]) <= timedelta(hours=8)
    identities.sync.delete(f"auth/shorthold-vb/role/{role}")
