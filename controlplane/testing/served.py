"""A control plane in a process of its own over the servers of a stack: to be killed, starved and cut off."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from controlplane.audit.chain import Broken, Intact
from controlplane.audit.verify import verify_trail
from controlplane.dev import loopback
from controlplane.dev.configuration import configuration_file
from controlplane.dev.openbao import MOUNT, OpenBao
from controlplane.dev.orders import DATABASE
from controlplane.dev.process import until
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.keys.files import load
from controlplane.model.errors import VaultRefusedError
from controlplane.model.secret import Secret
from controlplane.sdk.client import Shorthold
from controlplane.stores.trail import open_trail
from controlplane.vault.client import Server, VaultClient, part
from controlplane.vault.session import JwtSession
from controlplane.world import RandomIds, SystemClock

_READY: Final = timedelta(seconds=30)


@dataclass
class ServedPlane:
    """Settings as the stack has them, but a store and a port of its own in `directory`, and what `settings` say.

    `settings` are environment names without their prefix: `VAULT__ADDR`.
    """

    stack: Stack
    directory: Path
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    port: int = field(default_factory=lambda: loopback.free_port(but=set()))
    process: "subprocess.Popen[bytes] | None" = None
    options: Sequence[str] = ()
    """Further options of `serve`."""

    @property
    def api(self) -> str:
        """Where it listens."""
        return f"http://{loopback.HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """What it says, over all of its lives."""
        return self.directory / "serve.log"

    @property
    def store(self) -> Path:
        """Its database."""
        return self.directory / "shorthold.db"

    @property
    def environment(self) -> dict[str, str]:
        """What it, and a command line that belongs to it, sees."""
        own = {
            "STORE__URL": f"sqlite:///{self.store}",
            "API__PORT": str(self.port),
            # The stack's control plane works under the same prefix, with another store: neither may call the other's
            # tokens orphans.
            "WORKER__RECONCILE": "off",
            **self.settings,
        }
        return {
            "PATH": os.defpath,
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
            "SHORTHOLD_CONFIG": str(configuration_file(self.stack.home)),
            "SHORTHOLD_ADDR": self.api,
            **{f"SHORTHOLD_{name}": value for name, value in own.items()},
        }

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 # our own command, with a test's options
                [sys.executable, "-m", "controlplane", "serve", *self.options],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        process = self.process
        if not until(lambda: self._answers() or process.poll() is not None, _READY) or process.poll() is not None:
            raise AssertionError(f"the control plane did not start:\n{self.log.read_text(encoding='utf-8')}")

    def kill(self) -> None:
        """End it with kill -9, and wait until it is dead."""
        self.end(signal.SIGKILL)

    def end(self, signal: signal.Signals) -> int:
        """Send a signal and wait for its end. Its exit status; negative where a signal ended it."""
        if self.process is None:
            return 0
        process, self.process = self.process, None
        process.send_signal(signal)
        return process.wait(_READY.total_seconds())

    def agent(self, subject: str, *, timeout: float = 60.0) -> Shorthold:
        """A client of it. Close it when done."""
        return Shorthold(self.api, lambda: self.token(subject), timeout=timeout)

    def token(self, subject: str) -> Secret:
        """A token of the dev issuer."""
        return Stage(self.stack.project).token(subject)

    def command(self, *arguments: str) -> list[str]:
        """The command line `shorthold …`, to be run with `environment`."""
        return [sys.executable, "-m", "controlplane", *arguments]

    def events(self, grant: str) -> Sequence[str]:
        """The kinds of the events of a grant, in order, as they stand in the file."""
        with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT kind FROM events WHERE grant_id = ? ORDER BY seq", (grant,)).fetchall()
        return [str(row[0]) for row in rows]

    def grants(self) -> Sequence[dict[str, Any]]:
        """Id, task, state and paths of every grant, as they stand in the file."""
        with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute("SELECT * FROM grants ORDER BY requested_at, id")]

    def audit(self) -> Intact | Broken:
        """Whether its audit chain is whole."""
        with closing(open_trail(f"sqlite:///{self.store}")) as trail:
            return verify_trail(trail, Stage(self.stack.project).audit_key)

    def _answers(self) -> bool:
        return loopback.ask(self.port, "GET", "/healthz")[0] == 200  # noqa: PLR2004 # OK


@dataclass(frozen=True, slots=True)
class Witness:
    """Somebody who may look at everything: what the control plane says is held against what is there."""

    stack: Stack
    vault: VaultClient

    def tokens(self, grant: str) -> Sequence[str]:
        """Accessors of living tokens whose metadata names the grant."""
        found: list[str] = []
        for accessor in self.vault.list("auth/token/accessors"):
            try:
                answer = self.vault.adapter.request("POST", "auth/token/lookup-accessor", json={"accessor": accessor})
            except VaultRefusedError:
                continue  # it ended since it was listed
            data = part(answer, "data")
            metadata = data.get("meta")
            if isinstance(metadata, dict) and metadata.get("grant") == grant and data.get("num_uses") != -1:
                found.append(accessor)
        return found

    def leases(self, path: str) -> Sequence[str]:
        """Leases of credentials that were read at `path`."""
        return self.vault.list(f"sys/leases/lookup/{path}")

    def users(self) -> Sequence[str]:
        """Database users that were issued to tasks."""
        with psycopg.connect(self.stack.postgres.owner.reveal(), autocommit=True) as database:
            rows = database.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-sh-%'").fetchall()
        return [str(row[0]) for row in rows if "-prober-" not in str(row[0])]

    def drop(self, users: Sequence[str]) -> None:
        """Remove database users, so that no later test meets them."""
        with psycopg.connect(self.stack.postgres.owner.reveal(), dbname=DATABASE, autocommit=True) as database:
            for user in users:
                database.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(user)))
                database.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(user)))


def witness(stack: Stack, addr: str | None = None) -> Witness:
    """A client with all rights at the stack's OpenBao, or at `addr`, a way to it. Close its `vault` when done."""
    openbao: OpenBao = stack.openbao
    operator = openbao.operator_client()
    rights = '{"capabilities": ["create", "read", "update", "patch", "delete", "list", "sudo"]}'
    operator.write("sys/policies/acl/witness", {"policy": f'{{"path": {{"*": {rights}}}}}'})
    operator.write(
        f"auth/{MOUNT}/role/witness",
        {
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_audiences": [MOUNT],
            "token_policies": ["witness"],
            "token_ttl": "1h",
        },
    )
    operator.close()
    server = Server(addr or openbao.addr)
    session = JwtSession(server, MOUNT, "witness", load(openbao.bootstrap_key), clock=SystemClock(), ids=RandomIds())
    return Witness(stack, VaultClient(server, session))
