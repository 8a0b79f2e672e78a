"""What `docker compose up` does before the control plane starts: passwords, unsealing, trust, the demo's database.

`python -m controlplane.dev.compose prepare | setup | token`; docs/docker.md says when each of them runs.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import make_conninfo

from controlplane.dev import orders
from controlplane.dev.engines import certificate_authority, database_connection
from controlplane.dev.entitlements import synchronise
from controlplane.dev.home import kept_password, write_private
from controlplane.dev.issuer import mint, nested
from controlplane.dev.outside import Target
from controlplane.dev.process import until
from controlplane.dev.unseal import Unsealing
from controlplane.keys import audit, receipts
from controlplane.keys.files import load, load_or_create
from controlplane.model.errors import ControlPlaneError, LocalServerError
from controlplane.model.plan import Layout
from controlplane.model.secret import Secret
from controlplane.settings import VaultSettings
from controlplane.vault.bootstrap import Trust, bootstrap
from controlplane.vault.client import VaultClient
from controlplane.wiring.identities import server_of
from controlplane.world import RandomIds, SystemClock

ISSUER_URL: Final = "https://issuer.compose.invalid"
"""`iss` of the tokens that `token` prints. Nothing answers there: the control plane has the key set as a file."""

_LAYOUT: Final = Layout(mounts={"database": "database", "pki": "pki"})
_LIMIT: Final = timedelta(seconds=10)
"""`max_request_duration` in vault-config/docker/*.hcl."""
_READY: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compose:
    """The volumes of docker-compose.yml as the one-shot containers see them, and where the servers are.

    `database` holds PostgreSQL's superuser password, which PostgreSQL reads too; `operator` what nobody but these
    one-shots may see: unseal and bootstrap keys, the keys of sync, responder and demo issuer; `keys` what the running
    control plane holds: its signing keys and the issuer's public key set. `roles` are the entitlements to be synced.
    """

    database: Path
    operator: Path
    keys: Path
    roles: Path
    vault: VaultSettings
    postgres_host: str
    postgres_port: int = 5432
    audit_file: Path = Path("/vault/logs/audit.log")

    def prepare(self, reader: int) -> None:
        """Make up PostgreSQL's superuser password, for itself and the group `reader`. Repeating it changes nothing."""
        kept_password(self._superuser_file)
        os.chown(self._superuser_file, -1, reader)
        self._superuser_file.chmod(0o440)

    def setup(self) -> None:
        """Open Vault and set up all that the control plane needs. Repeating it changes nothing but what is missing.

        Raises: LocalServerError, VaultRefusedError, VaultUnavailableError: run it again, it goes on where it stopped.
        """
        public = {
            "task": load_or_create(self.keys / "task.pem").public_pem,
            "broker": load_or_create(self.keys / "broker.pem").public_pem,
            "sync": load_or_create(self.operator / "sync.pem").public_pem,
            "param": load_or_create(self.keys / "param.pem").public_pem,
            "rotate": load_or_create(self.keys / "rotate.pem").public_pem,
            "responder": load_or_create(self.operator / "responder.pem").public_pem,
            "drift": load_or_create(self.operator / "drift.pem").public_pem,
        }
        audit.load_or_create(self.keys / audit.FILE)
        load_or_create(self.keys / receipts.FILE)
        issuer = load_or_create(self.operator / "issuer.pem")
        write_private(self.keys / "issuer.jwks.json", json.dumps({"keys": [issuer.jwk]}))
        client = Unsealing(
            server=server_of(self.vault),
            directory=self.operator,
            bootstrap=load_or_create(self.operator / "bootstrap.pem"),
            audit_file=self.audit_file,
            say=_say,
        )()
        try:
            self._fill(client, Trust(**{f"{name}_key_pem": pem for name, pem in public.items()}))
        finally:
            client.close()
        changes = synchronise(self.roles, self.vault, _LAYOUT, self.operator / "sync.pem")
        _say(f"Synced the entitlements: {changes} changes in Vault.")

    def token(self, subject: str, claims: Sequence[str]) -> Secret:
        """A workload's token of the demo issuer. Raises: ConfigurationError: `setup` has not run."""
        return mint(
            load(self.operator / "issuer.pem"),
            ISSUER_URL,
            subject,
            now=SystemClock().now(),
            ids=RandomIds(),
            claims=nested(dict(claim.split("=", 1) for claim in claims)),
        )

    @property
    def _superuser_file(self) -> Path:
        return self.database / "superuser.password"

    def _fill(self, client: VaultClient, trust: Trust) -> None:
        password = kept_password(self.operator / "manager.password")
        target = Target(host=self.postgres_host, port=self.postgres_port, sslmode="disable", owner=self._owner())
        if not until(lambda: _connects(target.owner), _READY, every=0.2):
            raise LocalServerError(f"PostgreSQL at {target.host}:{target.port} does not let its owner in")
        anew = orders.prepare(target.owner, password, ours=True)
        bootstrap(client, _LAYOUT, trust, apply=True)
        database_connection(client, _LAYOUT, target, password, anew=anew)
        bootstrap(client, _LAYOUT, trust, apply=True)  # a connection has a prober's role
        certificate_authority(client, _LAYOUT, self.vault.addr)
        _say("The database connection `orders` and a certificate authority stand in Vault.")

    def _owner(self) -> Secret:
        password = Secret(self._superuser_file.read_text(encoding="utf-8").strip())
        return Secret(
            make_conninfo(
                host=self.postgres_host,
                port=self.postgres_port,
                user="postgres",
                password=password.reveal(),
                dbname="postgres",
                connect_timeout=5,
            )
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one of the three; its exit status."""
    parser = argparse.ArgumentParser(prog="controlplane.dev.compose", description=__doc__)
    parser.add_argument("--database", type=Path, default=Path("/run/shorthold/database"))
    parser.add_argument("--operator", type=Path, default=Path("/run/shorthold/operator"))
    parser.add_argument("--keys", type=Path, default=Path("/run/shorthold/keys"))
    parser.add_argument("--roles", type=Path, default=Path("/etc/shorthold/roles"))
    parser.add_argument("--vault", default="http://vault:8200")
    parser.add_argument("--postgres", default="postgres:5432")
    steps = parser.add_subparsers(dest="step", required=True)
    prepare = steps.add_parser("prepare", help="make up PostgreSQL's superuser password")
    prepare.add_argument("--reader", type=int, required=True, help="the group id by which PostgreSQL reads it")
    steps.add_parser("setup", help="open Vault, set it and the database up")
    token = steps.add_parser("token", help="print a workload's token of the demo issuer")
    token.add_argument("--subject", required=True)
    token.add_argument("--claim", action="append", default=[], metavar="K=V")
    wanted = parser.parse_args(arguments)
    host, _, port = wanted.postgres.rpartition(":")
    compose = Compose(
        database=wanted.database,
        operator=wanted.operator,
        keys=wanted.keys,
        roles=wanted.roles,
        vault=VaultSettings(addr=wanted.vault, max_request_duration=_LIMIT),
        postgres_host=host,
        postgres_port=int(port),
    )
    try:
        match wanted.step:
            case "prepare":
                compose.prepare(wanted.reader)
            case "setup":
                compose.setup()
            case _:
                sys.stdout.write(compose.token(wanted.subject, wanted.claim).reveal() + "\n")
    except (ControlPlaneError, OSError) as error:
        _say(f"Error: {error}")
        return 1
    return 0


def _connects(owner: Secret) -> bool:
    try:
        psycopg.connect(owner.reveal()).close()
    except psycopg.OperationalError:
        return False
    return True


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
