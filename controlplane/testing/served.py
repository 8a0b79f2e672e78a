"""A control plane in a process of its own over the servers of a stack: to be killed, starved and cut off."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg
from psycopg import sql
from sqlalchemy import NullPool, create_engine, make_url, text

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
from controlplane.sdk.client import AnsweredError, Shorthold
from controlplane.stores.trail import open_trail
from controlplane.vault.client import Server, VaultClient, part
from controlplane.vault.session import JwtSession
from controlplane.world import RandomIds, SystemClock

_READY: Final = timedelta(seconds=90)
_CREDENTIALS: Final = "database/creds"

Answer = TypeVar("Answer")


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
            self.kill()
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
        """The kinds of the events of a grant, in order, as they stand in the store."""
        found = self._rows("SELECT kind FROM events WHERE grant_id = :id ORDER BY seq", id=grant)
        return [str(row["kind"]) for row in found]

    def grants(self) -> Sequence[dict[str, Any]]:
        """Id, task, state and paths of every grant, as they stand in the store."""
        return self._rows("SELECT * FROM grants ORDER BY requested_at, id")

    def audit(self) -> Intact | Broken:
        """Whether its audit chain is whole."""
        with closing(open_trail(self.environment["SHORTHOLD_STORE__URL"])) as trail:
            return verify_trail(trail, Stage(self.stack.project).audit_key)

    def _rows(self, question: str, **values: str) -> list[dict[str, Any]]:
        given = make_url(self.environment["SHORTHOLD_STORE__URL"])
        on_postgresql = given.get_backend_name() == "postgresql"
        url = (
            given.set(drivername="postgresql+psycopg")
            if on_postgresql
            else f"sqlite:///file:{self.store}?mode=ro&uri=true"
        )
        engine = create_engine(url, poolclass=NullPool)
        with engine.connect() as database:
            return [dict(row) for row in database.execute(text(question), values).mappings()]

    def _answers(self) -> bool:
        return loopback.ask(self.port, "GET", "/healthz")[0] == 200  # noqa: PLR2004 # OK


def ask_again(call: Callable[[], Answer], patience: timedelta = timedelta(seconds=60)) -> Answer:
    """Call as often as a caller would who is told that Vault does not answer: right after an outage it may be slow."""
    answers: list[Answer] = []

    def answered() -> bool:
        try:
            answers.append(call())
        except AnsweredError as error:
            if error.told_code != "vault-unavailable":
                raise
        return bool(answers)

    if not until(answered, patience, every=0.2):
        return call()
    return answers[0]


@dataclass(frozen=True, slots=True)
class Witness:
    """Somebody who may look at everything: what the control plane says is held against what is there.

    Servers are shared, and others leave things: it tells of users and leases that came after it began to look.
    """

    stack: Stack
    vault: VaultClient
    users_before: frozenset[str]
    leases_before: frozenset[str]

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
        """New leases of credentials that were read at `path`, without the path."""
        return [key for key in _list_leases(self.vault, path) if f"{path}/{key}" not in self.leases_before]

    def all_leases(self) -> Sequence[str]:
        """New leases of database credentials, whoever read them; a prober's own are none."""
        return sorted(_all_leases(self.vault) - self.leases_before)

    def users(self) -> Sequence[str]:
        """New database users that were issued to tasks."""
        return [user for user in _users(self.stack) if user not in self.users_before]

    def drop(self, users: Sequence[str]) -> None:
        """Remove database users, so that no later test meets them. One that is gone is none of our business."""
        with psycopg.connect(self.stack.postgres.owner.reveal(), dbname=DATABASE, autocommit=True) as database:
            for user in users:
                with suppress(psycopg.errors.UndefinedObject):
                    database.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(user)))
                    database.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(user)))

    def close(self) -> None:
        """End the client, and whatever a test that failed has left at the database."""
        self.vault.close()
        self.drop(self.users())


def _users(stack: Stack) -> Sequence[str]:
    with psycopg.connect(stack.postgres.owner.reveal(), autocommit=True) as database:
        rows = database.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-sh-%'").fetchall()
    return [str(row[0]) for row in rows if "-prober-" not in str(row[0])]


def _list_leases(vault: VaultClient, path: str) -> Sequence[str]:
    return vault.list(f"sys/leases/lookup/{path}")


def _all_leases(vault: VaultClient) -> frozenset[str]:
    roles = [role.strip("/") for role in _list_leases(vault, _CREDENTIALS) if "-prober-" not in role]
    paths = [f"{_CREDENTIALS}/{role}" for role in roles]
    return frozenset(f"{path}/{key}" for path in paths for key in _list_leases(vault, path))


def witness(stack: Stack, addr: str | None = None) -> Witness:
    """One with all rights at the stack's OpenBao, or at `addr`, a way to it. It begins to look now; close it after."""
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
    vault = VaultClient(server, session)
    return Witness(stack, vault, frozenset(_users(stack)), _all_leases(vault))
