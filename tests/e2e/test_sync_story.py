"""`shorthold sync` as a platform team runs it: its own identity, a real server, and every way to interrupt it."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from controlplane.dev.engines import certificate_authority, database_connection
from controlplane.dev.openbao import OpenBao
from controlplane.dev.outside import Target
from controlplane.dev.postgres import PostgreSQL
from controlplane.keys.files import load_or_create
from controlplane.model.canonical import JsonObject
from controlplane.model.errors import VaultRefusedError
from controlplane.model.plan import Layout
from controlplane.vault.bootstrap import Trust, bootstrap
from controlplane.vault.client import Server, VaultClient
from controlplane.vault.policies import IDENTITIES
from controlplane.vault.roles import VaultRoles
from controlplane.vault.session import JwtSession
from controlplane.world import RandomIds, SystemClock

pytestmark = pytest.mark.servers

LAYOUT = Layout(prefix="es", auth_mount="shorthold-es", mounts={"database": "database-es", "pki": "pki-es"})
ROLES = Path(__file__).parents[2] / "roles"
OBJECTS = 17  # of the six shipped entitlements, one of which makes its roles for each grant


@dataclass(frozen=True, kw_only=True)
class Platform:
    """A team's working directory."""

    directory: Path
    environment: dict[str, str]
    root: VaultClient

    @property
    def roles(self) -> Path:
        return self.directory / "roles"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "controlplane", "sync", *arguments],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        assert process.returncode == status, f"{process.returncode}\n{out}\n{err}"
        assert "Traceback" not in err
        return out, err

    @staticmethod
    def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
        err = process.communicate(timeout=60)[1]
        return process.returncode, err

    def edit(self, name: str, old: str, new: str) -> None:
        file = self.roles / f"{name}.yaml"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def standing(self) -> set[str]:
        return set(VaultRoles(LAYOUT, self.root).read(LAYOUT))

    def logins(self) -> set[str]:
        return {path.rpartition("/")[2] for path in self.standing() if path.startswith("auth/")}


@pytest.fixture(scope="module")
def sync_key(
    tmp_path_factory: pytest.TempPathFactory, vault_root: VaultClient, postgres: PostgreSQL, openbao: OpenBao
) -> Path:
    for engine, mount in LAYOUT.mounts.items():
        vault_root.write(f"sys/mounts/{mount}", {"type": engine, "config": {"max_lease_ttl": "87600h"}})
    target = Target(host="127.0.0.1", port=postgres.port, sslmode="disable", owner=postgres.owner)
    database_connection(vault_root, LAYOUT, target, postgres.manager_password, anew=True)
    certificate_authority(vault_root, LAYOUT, openbao.addr)
    directory = tmp_path_factory.mktemp("keys")
    pems = {name: load_or_create(directory / f"{name}.pem").public_pem for name in ("task", *IDENTITIES)}
    bootstrap(vault_root, LAYOUT, Trust(**{f"{name}_key_pem": pem for name, pem in pems.items()}), apply=True)
    return directory / "sync.pem"


@pytest.fixture
def platform(tmp_path: Path, sync_key: Path, openbao: OpenBao, vault_root: VaultClient) -> Generator[Platform]:
    shutil.copytree(ROLES, tmp_path / "roles")
    platform = Platform(
        directory=tmp_path,
        root=vault_root,
        environment={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "BAO_ADDR": openbao.addr,
            "SHORTHOLD_VAULT__PREFIX": LAYOUT.prefix,
            "SHORTHOLD_VAULT__AUTH_MOUNT": LAYOUT.auth_mount,
            "SHORTHOLD_VAULT__MOUNTS": json.dumps(dict(LAYOUT.mounts)),
            "SHORTHOLD_VAULT__SYNC__MOUNT": f"{LAYOUT.auth_mount}-sync",
            "SHORTHOLD_VAULT__SYNC__ROLE": "sync",
            "SHORTHOLD_VAULT__SYNC__KEY_FILE": str(sync_key),
        },
    )
    yield platform
    roles = VaultRoles(LAYOUT, vault_root)
    for item in roles.read(LAYOUT).values():
        roles.delete(item)


def test_plan_then_apply_then_nothing_to_change(platform: Platform) -> None:
    out, _ = platform.run("plan", "--out", "it.plan", "--detailed-exitcode", status=2)
    assert out.count("\n+ ") + out.startswith("+ ") == OBJECTS
    assert "may read (country, id, name) of sales.customers in orders" in out
    assert f"Plan: {OBJECTS} to create." in out
    assert platform.standing() == set()

    _, err = platform.run("apply", "it.plan")
    assert f"Applied: {OBJECTS} created." in err
    assert len(platform.standing()) == OBJECTS

    _, err = platform.run("apply", "--yes")
    assert f"Nothing to change: {OBJECTS} objects of 6 entitlements stand in Vault as compiled." in err
    _, err = platform.run("plan", "--detailed-exitcode")
    assert "Nothing to change" in err


def test_a_change_is_a_new_name_and_the_old_login_goes_at_once(platform: Platform) -> None:
    platform.run("apply", "--yes")
    before = platform.logins()
    platform.edit("orders-read", "max: 15m", "max: 10m")
    out, _ = platform.run("plan", "-o", "json")
    actions = [change["action"] for change in json.loads(out)["changes"]]
    assert actions == ["create"] * 3 + ["retire"] * 3
    platform.run("apply", "--yes")
    assert len(platform.logins() - before) == len(before - platform.logins()) == 1


def test_a_role_with_a_lease_waits_for_it(platform: Platform) -> None:
    platform.run("apply", "--yes")
    mount = LAYOUT.mounts["database"]
    name = next(name for name in platform.root.list(f"{mount}/roles") if name.startswith("es-orders-read"))
    lease = (platform.root.read(f"{mount}/creds/{name}") or {})["lease_id"]
    (platform.roles / "orders-read.yaml").unlink()
    out, _ = platform.run("plan", "--out", "it.plan")
    assert "1 lease hangs from it still" in out
    _, err = platform.run("apply", "it.plan")
    assert "1 retired, 2 waiting" in err
    _, err = platform.run("apply", "--yes")
    assert "Nothing to change" in err
    assert "2 old objects wait for leases to end" in err
    assert f"{mount}/roles/{name}" in platform.standing()

    platform.root.write("sys/leases/revoke", {"lease_id": lease, "sync": True})
    _, err = platform.run("apply", "--yes")
    assert "Applied: 2 retired." in err
    assert not any("orders-read" in path for path in platform.standing())


def test_a_hand_made_change_is_shown_field_by_field_and_repaired_y28(platform: Platform) -> None:
    platform.run("apply", "--yes")
    mount = LAYOUT.mounts["database"]
    name = next(name for name in platform.root.list(f"{mount}/roles") if name.startswith("es-invoice-status"))
    platform.root.write(f"{mount}/roles/{name}", {"revocation_statements": ["SELECT 1"], "db_name": "orders"})
    base = name.removesuffix("-invoices")
    platform.root.write(f"sys/policies/acl/{base}", {"policy": 'path "*" {capabilities = ["sudo"]}'})
    platform.root.write(
        f"auth/{LAYOUT.auth_mount}/role/{base}",
        {"role_type": "jwt", "token_policies": ["default"], "bound_subject": "me", "bound_claims_type": "glob"},
    )
    out, err = platform.run("plan", "--detailed-exitcode", status=2)
    assert "Server: OpenBao 2." in err
    assert "uses: engine-database, engine-pki; not used: namespaces, cel-roles, control-groups" in err
    assert "Plan: 3 to repair." in out
    assert '-["SELECT 1"]' in out
    assert '-"path \\"*\\" {capabilities' in out
    assert f'~ token_policies: ["default"] -> ["{base}"]' in out
    assert '~ bound_subject: "me" -> ""' in out
    platform.run("apply", "--yes")
    platform.run("plan", "--detailed-exitcode")


def test_what_is_not_ours_is_never_touched(platform: Platform) -> None:
    platform.run("apply", "--yes")
    mount = LAYOUT.mounts["database"]
    foreign: dict[str, JsonObject] = {
        f"{mount}/roles/es-readonly": {"db_name": "orders", "creation_statements": ["SELECT 1"]},
        f"{mount}/roles/es-prober-orders-0a1b2c3d-x": {"db_name": "orders", "creation_statements": ["SELECT 1"]},
        "sys/policies/acl/es-admins": {"policy": "{}"},
    }
    for path, body in foreign.items():
        platform.root.write(path, body)
    for file in platform.roles.glob("*.yaml"):
        file.unlink()
    platform.run("apply", "--yes", "--prune")
    assert platform.standing() == set()
    for path in foreign:
        assert platform.root.read(path) is not None
        platform.root.delete(path)


def test_a_plan_that_was_overtaken_is_refused_and_a_broken_file_stops_everything(platform: Platform) -> None:
    platform.run("plan", "--out", "it.plan")
    platform.edit("orders-read", "max: 15m", "max: 10m")
    _, err = platform.run("apply", "it.plan", status=1)
    assert "stale-plan" in err
    assert platform.standing() == set()
    platform.edit("orders-read", "max: 10m", "max: 10m, max: 9m")
    _, err = platform.run("apply", "--yes", status=1)
    assert "orders-read.yaml:20:30: error: the key max stands in line 20 already [duplicate-key]" in err
    assert platform.standing() == set()


def test_nobody_is_asked_where_nobody_can_answer(platform: Platform) -> None:
    _, err = platform.run("apply", status=1)
    assert "--yes" in err
    assert platform.standing() == set()


def test_killed_at_any_moment_it_is_finished_by_the_next_y26(platform: Platform) -> None:
    chance = random.Random(7)  # noqa: S311 # moments to kill, not secrets
    for turn in range(3):
        platform.edit("orders-refund", f"sessions: {turn + 1}", f"sessions: {turn + 2}")
        before = platform.standing()
        process = platform.start("apply", "--yes")
        moment = time.monotonic() + 60
        until = chance.randrange(1, 7)
        while process.poll() is None and len(platform.standing() ^ before) < until and time.monotonic() < moment:
            time.sleep(0.01)
        process.kill()
        process.communicate()
        standing = platform.standing()
        for login in platform.logins():
            assert f"sys/policies/acl/{login}" in standing, "a login without its policy"
            of_grants = "customer-certificate" in login  # its roles are made for each grant
            assert of_grants or any(f"/roles/{login}-" in path for path in standing), "a login without its role"
    platform.run("apply", "--yes")
    assert len(platform.standing()) == OBJECTS
    platform.run("plan", "--detailed-exitcode")


def test_two_at_once_do_not_spoil_each_other_y29(platform: Platform) -> None:
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(platform.finish, [platform.start("apply", "--yes") for _ in range(2)]))
    for status, err in ended:
        assert "Traceback" not in err
        assert status == 0 or "stale-plan" in err
    assert 0 in {status for status, _ in ended}
    assert len(platform.standing()) == OBJECTS
    platform.run("plan", "--detailed-exitcode")


def test_the_identity_that_writes_roles_cannot_use_them_y32(
    platform: Platform, sync_key: Path, openbao: OpenBao
) -> None:
    platform.run("apply", "--yes")
    server = Server(openbao.addr)
    session = JwtSession(
        server, f"{LAYOUT.auth_mount}-sync", "sync", load_or_create(sync_key), clock=SystemClock(), ids=RandomIds()
    )
    sync = VaultClient(server, session)
    roles = [path for path in platform.standing() if "/roles/" in path]
    assert roles
    for path in roles:
        mount, _, name = path.partition("/roles/")
        with pytest.raises(VaultRefusedError):
            sync.read(f"{mount}/creds/{name}")
        with pytest.raises(VaultRefusedError):
            sync.write(f"{mount}/issue/{name}", {"common_name": "checkout.agents.acme.example"})
    forbidden: dict[str, JsonObject] = {
        "sys/policies/acl/shorthold-es-broker": {"policy": "{}"},
        f"auth/{LAYOUT.auth_mount}/config": {"jwt_validation_pubkeys": []},
        f"{LAYOUT.mounts['database']}/config/orders": {"username": "postgres"},
        f"{LAYOUT.mounts['database']}/roles/es-prober-orders": {"db_name": "orders"},
        "auth/token/create": {},
    }
    for path, body in forbidden.items():
        with pytest.raises(VaultRefusedError):
            sync.write(path, body)
    sync.close()
    session.close()


def test_without_a_server_it_says_so(platform: Platform) -> None:
    platform.environment["BAO_ADDR"] = "http://127.0.0.1:9"
    _, err = platform.run("plan", status=2)
    assert "vault-unavailable" in err
    _, err = platform.run("drift", status=1)  # 2 would say that something was found
    assert "vault-unavailable" in err
