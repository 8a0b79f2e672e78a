"""Grants narrowed to values, on real servers: what was asked for is all that works, and nothing of it is left."""

import contextlib
import shutil
import subprocess
import threading
from collections.abc import Callable, Generator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, LiteralString, cast

import psycopg
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from controlplane.dev.process import until
from controlplane.dev.shipped import shipped
from controlplane.dev.stack import LAYOUT, Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.engines import engines
from controlplane.model.errors import ControlPlaneError, DeniedError, VaultRefusedError
from controlplane.model.secret import Secret
from controlplane.sdk.client import AnsweredError, Shorthold
from controlplane.sync.compile import compiled
from controlplane.testing.entitlements import document, entitlement
from controlplane.testing.fault_proxy import When, fault_proxy
from controlplane.testing.real import RealPlane
from controlplane.testing.served import ServedPlane, Witness, witness

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

DESK: Final[dict[str, Any]] = {
    "entitlement": "desk-ticket",
    "intents": ["answer-question"],
    "eligibility": [{"issuer": "dev", "subject": AGENT}],
    "parameters": {"ticket": {"pattern": "[0-9]{1,9}"}},
    "scopes": [
        {
            "name": "desk",
            "engine": "database",
            "connection": "orders",
            "privileges": ["select on table desk.tickets", "update (state) on table desk.tickets"],
            "rows": {"ticket": "{ticket}"},
        }
    ],
    "ttl": {"default": "1m", "max": "2m"},
}
TABLE: Final = """
DROP SCHEMA IF EXISTS desk CASCADE;
CREATE SCHEMA desk;
CREATE TABLE desk.tickets (ticket bigint PRIMARY KEY, state text NOT NULL);
INSERT INTO desk.tickets VALUES (41, 'open'), (42, 'open'), (421, 'open');
GRANT USAGE ON SCHEMA desk TO shorthold_manager WITH GRANT OPTION;
GRANT SELECT, UPDATE ON desk.tickets TO shorthold_manager WITH GRANT OPTION;
ALTER TABLE desk.tickets ENABLE ROW LEVEL SECURITY;
CREATE POLICY one_ticket ON desk.tickets USING (ticket::text = shorthold.row_value('ticket'));
"""
QUICK: Final = {
    "VAULT__TIMEOUT": "5s",
    "VAULT__ISSUING_WITHIN": "4s",
    "VAULT__MAX_REQUEST_DURATION": "1s",
    "WORKER__TICK": "1s",
    "WORKER__HOLD": "3s",
}


def run(stack: Stack, text: str) -> None:
    with psycopg.connect(stack.postgres.owner.reveal(), dbname="orders", autocommit=True) as owner:
        owner.execute(cast("LiteralString", text))


@pytest.fixture(scope="module")
def desk(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """A table whose owner narrows it by row security, and an entitlement for one row of it: its directory."""
    directory = tmp_path_factory.mktemp("desk") / "roles"
    directory.mkdir()
    shutil.copy(shipped("roles") / "tiers.toml", directory)
    (directory / "desk-ticket.yaml").write_text(yaml.safe_dump(document(**DESK)), encoding="utf-8")
    run(stack, (shipped("vault-config") / "targets" / "postgresql.sql").read_text(encoding="utf-8"))
    run(stack, TABLE)
    looking = witness(stack)
    objects = compiled(entitlement(**DESK), LAYOUT, engines()).objects
    for item in objects:
        looking.vault.write(item.path, item.data)
    yield directory
    for item in objects:
        looking.vault.delete(item.path)
    looking.close()
    run(stack, "DROP SCHEMA desk CASCADE; DROP SCHEMA shorthold CASCADE")


def roles(seer: Witness) -> list[str]:
    """Roles of single grants that are there now, of this entitlement."""
    return [name for name in seer.vault.list("database/roles") if name.startswith("sh-p-desk-ticket-")]


def ask(agent: Shorthold, **values: str) -> dict[str, Any]:
    wish = {"entitlement": "desk-ticket", "task": "T-1", "intent": "answer-question", "parameters": values}
    return agent.request(wish)


def opened(agent: Shorthold, stack: Stack, answer: Mapping[str, Any]) -> Mapping[str, Secret]:
    return agent.unwrap(Stage(stack.project).vault_addr, Secret(answer["wrapping_token"]))["desk"]


def test_y15_c6_a_login_sees_one_row_and_cannot_make_it_another(
    stack: Stack, desk: Path, tmp_path: Path, seer: Witness
) -> None:
    """C6, C9, C10: the narrowest data path; after the end the login is refused and its role is gone."""
    plane, stage = ServedPlane(stack, tmp_path, {"ROLES": str(desk)}), Stage(stack.project)
    plane.start()
    try:
        with plane.agent(AGENT) as agent:
            for wrong in ({"ticket": "42x"}, {"ticket": "1234567890"}, {}, {"ticket": "1", "other": "2"}):
                with pytest.raises(AnsweredError, match="not granted"):
                    ask(agent, **wrong)
            with pytest.raises(AnsweredError, match="letters, digits"):
                ask(agent, ticket="4' OR '1")
            assert (roles(seer), seer.users()) == ([], [])
            wish = ("desk-ticket", "--task", "T-2", "--intent", "answer-question", "--parameter", "ticket=42")
            told = subprocess.run(  # our own command
                plane.command("grant", "request", *wish, "-o", "json"),
                env=plane.environment | {"SHORTHOLD_TOKEN": plane.token(AGENT).reveal()},
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            answer = cast("dict[str, Any]", yaml.safe_load(told.stdout))
            assert answer["grant"]["parameters"] == {"ticket": "42"}
            credential = opened(agent, stack, answer)
            assert len(roles(seer)) == 1
            with stage.connect(credential) as session:
                assert session.execute("SELECT ticket FROM desk.tickets").fetchall() == [(42,)]
                assert session.execute("UPDATE desk.tickets SET state = 'closed'").rowcount == 1
                session.commit()
                for attempt in (
                    "SET shorthold.ticket = '41'",
                    "SET row_security = off; SELECT * FROM desk.tickets",
                    'COMMENT ON ROLE CURRENT_USER IS \'{"ticket":"41"}\'',
                    "ALTER ROLE CURRENT_USER SET ROLE 'shorthold_manager'",
                    "SET SESSION AUTHORIZATION postgres",
                ):
                    with contextlib.suppress(psycopg.Error):
                        session.execute(cast("LiteralString", attempt))
                    session.rollback()
                    assert session.execute("SELECT ticket FROM desk.tickets").fetchall() == [(42,)]
                    session.rollback()
            grant = agent.finish(answer["grant"]["id"], wait="30s")["grant"]
            assert (grant["state"], grant["receipt"]["verified"]) == ("revoked", True)
            assert (roles(seer), seer.users(), stage.opens(credential)) == ([], [], False)
            # What the owner does not narrow, nobody gets: the grant fails, and nothing is left of it.
            run(stack, "CREATE POLICY everything ON desk.tickets FOR SELECT USING (true)")
            with pytest.raises(AnsweredError):
                ask(agent, ticket="42")
            run(stack, "DROP POLICY everything ON desk.tickets; ALTER TABLE desk.tickets DISABLE ROW LEVEL SECURITY")
            with pytest.raises(AnsweredError):
                ask(agent, ticket="42")
            run(stack, "ALTER TABLE desk.tickets ENABLE ROW LEVEL SECURITY")
    finally:
        plane.kill()


def test_p4_killed_between_role_and_login_nothing_is_left_after_a_restart(
    stack: Stack, desk: Path, tmp_path: Path, seer: Witness
) -> None:
    with fault_proxy(stack.vault_addr) as proxy:
        plane = ServedPlane(stack, tmp_path, {**QUICK, "ROLES": str(desk), "VAULT__ADDR": proxy.addr})
        plane.start()
        try:
            before = set(roles(seer))
            login = proxy.hold("/v1/auth/shorthold/login", When.BEFORE)

            def request() -> None:
                with plane.agent(AGENT) as agent, contextlib.suppress(ControlPlaneError):
                    ask(agent, ticket="42")

            asking = threading.Thread(target=request, daemon=True)
            asking.start()
            login.wait()
            assert len(set(roles(seer)) - before) == 1
            plane.kill()
            login.release()
            asking.join()
            plane.start()
            assert until(lambda: all(grant["state"] == "revoked" for grant in plane.grants()), timedelta(seconds=60))
            assert (set(roles(seer)) <= before, seer.users()) == (True, [])
        finally:
            plane.kill()


SHELL: Final[dict[str, Any]] = {
    "entitlement": "one-account",
    "parameters": {"account": {"pattern": "[a-z][a-z0-9]{1,11}"}},
    "scopes": [{"name": "shell", "engine": "ssh", "principals": ["{account}"]}],
}
CLIENT: Final[dict[str, Any]] = {
    "entitlement": "one-name",
    "parameters": {"customer": {"pattern": "[a-z]{3,15}"}},
    "scopes": [{"name": "client", "engine": "pki", "common_name": "{customer}.customers.acme.example"}],
}
TOKEN: Final[dict[str, Any]] = {
    "entitlement": "one-path",
    "parameters": {"customer": {"pattern": "[a-z]{3,15}"}},
    "scopes": [{"name": "token", "engine": "kv", "path": "customers/{customer}/token", "fields": ["value"]}],
}


def test_certificates_accounts_and_paths_are_those_of_one_value(planes: Callable[..., RealPlane]) -> None:
    """C5, C6; Y32: who makes roles for single grants can make no others, nor use them."""
    plane = planes("par", "ssh", "kv", "pki")
    plane.root.write(f"{plane.mount('ssh')}/config/ca", {"generate_signing_key": True, "key_type": "ed25519"})
    authority = {"common_name": "root", "key_type": "ec", "key_bits": 256, "ttl": "24h"}
    plane.root.write(f"{plane.mount('pki')}/root/generate/internal", authority)
    for customer in ("initech", "globex"):
        path = f"{plane.mount('kv')}/data/customers/{customer}/token"
        plane.root.write(path, {"data": {"value": f"canary-{customer}"}})
    plane.entitle(SHELL, CLIENT, TOKEN)

    shell = plane.grant("one-account", account="deploy")
    certificate = load_ssh_public_identity(plane.unwrap(shell)["certificate"].strip().encode())
    assert isinstance(certificate, SSHCertificate)
    assert [*certificate.valid_principals] == [b"deploy"]
    with pytest.raises(DeniedError) as refused:
        plane.grant("one-account", account="root")
    assert [why.code for why in refused.value.reasons] == ["parameter-senseless"]

    client = plane.grant("one-name", customer="initech", ttl="1m")
    leaf = x509.load_pem_x509_certificate(plane.unwrap(client)["certificate"].encode())
    assert leaf.subject.rfc4514_string() == "CN=initech.customers.acme.example"

    token = plane.grant("one-path", customer="globex")
    assert plane.unwrap(token) == {"value": "canary-globex"}

    param = plane.plane.param
    assert param is not None
    mount = plane.mount("pki")
    others = (f"{mount}/roles/par-other", f"{mount}/issue/par-p-x", "sys/policies/acl/par-p-x", f"{mount}/config/urls")
    for path in (*others, f"auth/{plane.layout.auth_mount}/role/par-p-x", f"{plane.mount('kv')}/data/x"):
        with pytest.raises(VaultRefusedError):
            param.client.write(path, {"allow_any_name": True})
    with pytest.raises(VaultRefusedError):
        plane.plane.vault.write(f"{mount}/roles/par-p-x", {"allow_any_name": True})

    # A role that somebody made under such a name, and one of a grant that is over: swept, and told of.
    left = f"{mount}/roles/par-p-one-name-{client.grant.revision}-client-{'a' * 24}"
    param.client.write(left, {"allow_any_name": True})
    plane.compare()
    assert plane.root.read(left) is None
    assert "role.removed" in plane.events()
    assert len(plane.root.list(f"{mount}/roles")) == 1
    for granted in (shell, client, token):
        plane.finished(granted)
    assert plane.root.list(f"{mount}/roles") + plane.root.list(f"{plane.mount('ssh')}/roles") == []
