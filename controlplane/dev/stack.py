"""One project's whole stack: PostgreSQL, OpenBao, the dev issuer and the control plane, up, down and in between."""

import shutil
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Final

from controlplane.dev import loopback, orders
from controlplane.dev.configuration import configuration_file, roles_directory, write_configuration
from controlplane.dev.engines import certificate_authority, database_connection
from controlplane.dev.entitlements import synchronise
from controlplane.dev.home import Home, kept_password, write_private
from controlplane.dev.issuer import DevIssuer
from controlplane.dev.openbao import OpenBao, bao_binary
from controlplane.dev.outside import OutsideVault, Target, outside_target, outside_vault
from controlplane.dev.postgres import SUPERUSER, PostgreSQL
from controlplane.dev.process import Process, until
from controlplane.keys.files import load_or_create
from controlplane.model.errors import BrokenEntitlementsError, LocalServerError
from controlplane.model.plan import Layout
from controlplane.model.secret import Secret
from controlplane.settings import DEV_ADDRESSES, VaultSettings, bao_program, dev_addresses
from controlplane.vault.bootstrap import Trust, bootstrap
from controlplane.vault.client import VaultClient
from controlplane.vault.policies import IDENTITIES
from controlplane.wiring.identities import server_of

LAYOUT: Final = Layout(mounts={"database": "database", "pki": "pki"})

_READY = timedelta(seconds=60)
_GRACE = timedelta(seconds=30)
_LET_GO = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the stack as it is now; `state` is running, starting, stopped, or outside (somebody else's)."""

    name: str
    state: str
    pid: int | None
    address: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The stack of the project in `project`; `say` gets a sentence for every step.

    `settings` are for its control plane, on top of its configuration, as environment names: `SHORTHOLD_WORKER__TICK`;
    `options` are further ones of its `serve`.
    """

    project: Path
    say: Callable[[str], None]
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    options: Sequence[str] = ()

    @property
    def home(self) -> Home:
        """Where everything is kept."""
        return Home.of(self.project)

    @property
    def openbao(self) -> OpenBao:
        """The embedded OpenBao."""
        return OpenBao(home=self.home)

    @property
    def postgres(self) -> PostgreSQL:
        """The embedded PostgreSQL."""
        return PostgreSQL.at(self.home)

    @property
    def issuer(self) -> DevIssuer:
        """The development OIDC issuer."""
        return DevIssuer(home=self.home)

    @property
    def serve(self) -> Process:
        """The control plane's process."""
        return Process(name="serve", directory=self.home.part("serve"))

    @property
    def api(self) -> str:
        """Where the control plane listens. Raises: LocalServerError: it was never started."""
        return f"http://{loopback.HOST}:{self.home.known_port('serve')}"

    @property
    def vault_addr(self) -> str:
        """OpenBao, or the server that took its place. Raises: LocalServerError: there never was one."""
        return self.home.recall("vault_addr") or self.openbao.addr

    @property
    def database_url(self) -> str:
        """The target database, without a password. Raises: LocalServerError: there never was one."""
        return self.home.recall("database_url") or self._embedded_target().url

    def up(self) -> None:
        """Start what does not run, set up what is not set up. Repeating it changes nothing.

        Raises: LocalServerError, VaultRefusedError, VaultUnavailableError: what stands and runs stays; run it again.
        """
        with _told_plainly():
            broken = self._up()
        if (known := dev_addresses()) and known != self._embedded_addresses():
            self.say("The addresses that this shell has are others: evaluate `shorthold dev env` again.")
        if broken is not None:
            raise broken

    def start_control_plane(self) -> None:
        """Start the control plane and wait until it answers; one that runs is left alone.

        Raises: LocalServerError: it does not come up; with the last lines of its log.
        """
        runs = self.serve.runs(self._serves, _READY)
        if not runs:
            port = self.home.known_port("serve")
            if not until(lambda: loopback.is_free(port), _LET_GO):  # one that was killed may hold it a moment longer
                raise LocalServerError(f"port {port} of the control plane was just taken: run `shorthold dev up` again")
            self.serve.start(
                [sys.executable, "-m", "controlplane", "serve", *self.options],
                cwd=self.home.directory,
                environment={"SHORTHOLD_CONFIG": str(configuration_file(self.home)), **self.settings},
            )
            self.serve.wait(self._serves, _READY)
        self._told(not runs, f"the control plane at {self.api}", self.serve)

    def down(self) -> None:
        """Stop everything of ours, the control plane first. Data stays. Repeating it changes nothing.

        Raises: LocalServerError: a process cannot be stopped.
        """
        if not self.home.exists:
            self.say(f"Nothing was ever started in {self.project}.")
            return
        with _told_plainly(), self.home.lock():
            for name, stop in self._stops():
                self.say(f"{name}: {'stopped' if stop() else 'did not run'}")

    def destroy(self) -> None:
        """Stop everything and remove all data. Raises: LocalServerError: a process cannot be stopped."""
        self.down()
        with _told_plainly():
            if self.home.exists:
                self.postgres.remove()
            if self.home.directory.exists():
                shutil.rmtree(self.home.directory)
                self.say(f"Removed {self.home.directory} with everything in it.")

    def parts(self) -> Sequence[Part]:
        """Every part as it is now. Raises: LocalServerError: nothing was ever started."""
        database, vault = self.home.recall("database_url"), self.home.recall("vault_addr")
        return (
            _outside("postgres", database)
            if database
            else _part(self.postgres.process, lambda: self.database_url, self.postgres.answers),
            _outside("openbao", vault)
            if vault
            else _part(self.openbao.process, lambda: self.vault_addr, self.openbao.active),
            _part(self.issuer.process, lambda: self.issuer.url, self.issuer.answers),
            _part(self.serve, lambda: self.api, self._serves),
        )

    def environment(self) -> dict[str, str]:
        """What a shell needs to work with the stack; passwords stand in a file (0600) that it names."""
        values = {
            "SHORTHOLD_ADDR": self.api,
            "SHORTHOLD_CONFIG": str(configuration_file(self.home)),
            "BAO_ADDR": self.vault_addr,
            "VAULT_ADDR": self.vault_addr,
            "DATABASE_URL": self.database_url,
            DEV_ADDRESSES: " ".join(sorted(self._embedded_addresses())),
        }
        if self.home.recall("database_url") is None:
            passwords = self.postgres.directory / "pgpass"
            line = f"{loopback.HOST}:{self.postgres.port}:*:{SUPERUSER}:{self.postgres.password.reveal()}\n"
            write_private(passwords, line)
            values["PGPASSFILE"] = str(passwords)
        return values

    def _up(self) -> BrokenEntitlementsError | None:
        self.home.make()
        with self.home.lock():
            elsewhere, database = outside_vault(self.home), outside_target(self.home)  # both, before anything is done
            vault, client = self._vault(elsewhere)
            try:
                target = self._target(database)
                self._told(self.issuer.start(), f"the issuer at {self.issuer.url}", self.issuer.process)
                trust = self._trust()
                if elsewhere is not None:
                    bootstrap(
                        client, LAYOUT, trust, apply=False
                    )  # its token may do nothing: the database is not touched
                anew = orders.prepare(target.owner, self._manager_password, ours=database is None)
                self.home.remember("vault_addr", None if elsewhere is None else elsewhere.settings.addr)
                self.home.remember("database_url", None if database is None else database.url)
                self._set_up(client, vault, target, trust, anew=anew)
            finally:
                client.close()
            self._configure(vault, target)
            broken = self._synchronise(vault)
            self.start_control_plane()
        return broken

    def _target(self, outside: Target | None) -> Target:
        """Where the demo's database is, or is to be; the server runs."""
        if outside is None:
            self._told(
                self.postgres.start(), f"PostgreSQL at {loopback.HOST}:{self.postgres.port}", self.postgres.process
            )
        else:
            self.say(f"DATABASE_URL takes the place of the embedded PostgreSQL: {outside.url}")
        return outside or self._embedded_target()

    def _vault(self, outside: OutsideVault | None) -> tuple[VaultSettings, VaultClient]:
        """The server's settings, and a client with an operator's rights."""
        if outside is not None:
            self.say(f"The environment's server takes the place of the embedded OpenBao: {outside.settings.addr}")
            return outside.settings, VaultClient(server_of(outside.settings), lambda: outside.token)
        started = self.openbao.start(bao_binary(bao_program()))
        self._told(started, f"OpenBao at {self.openbao.addr}", self.openbao.process)
        return VaultSettings(addr=self.openbao.addr, max_request_duration=_LIMIT), self.openbao.operator_client()

    @property
    def _manager_password(self) -> Secret:
        return kept_password(self.home.part("postgres") / "manager.password")

    def _trust(self) -> Trust:
        keys = self.home.part("keys")
        public = {name: load_or_create(keys / f"{name}.pem").public_pem for name in _KEYS}
        return Trust(**{f"{name}_key_pem": pem for name, pem in public.items()})

    def _set_up(self, client: VaultClient, vault: VaultSettings, target: Target, trust: Trust, *, anew: bool) -> None:
        self._bootstrap(client, trust)
        if database_connection(client, LAYOUT, target, self._manager_password, anew=anew):
            self.say("Configured the database connection `orders`.")
            self._bootstrap(client, trust)  # a connection has a prober's role
        if certificate_authority(client, LAYOUT, vault.addr):
            self.say("Made a certificate authority at the mount `pki`.")

    def _bootstrap(self, client: VaultClient, trust: Trust) -> None:
        for item in bootstrap(client, LAYOUT, trust, apply=True):
            if item.action != "none":
                self.say(f"  {item.action} {item.path}: {item.what}")

    def _configure(self, vault: VaultSettings, target: Target) -> None:
        running = self.serve.pid is not None
        if not running:
            self.home.fresh_port("serve")
        changed = write_configuration(
            self.home, self.project, vault=vault, layout=LAYOUT, target=target, issuer_url=self.issuer.url
        )
        if changed and running:
            self.serve.stop(patience=_GRACE)  # it started with another configuration

    def _synchronise(self, vault: VaultSettings) -> BrokenEntitlementsError | None:
        """Make the entitlements' roles in Vault. Broken files are no reason not to start the control plane."""
        directory = roles_directory(self.project)
        try:
            changes = synchronise(directory, vault, LAYOUT, self.home.part("keys") / "sync.pem")
        except BrokenEntitlementsError as error:
            return error
        if changes:
            self.say(f"Synced the entitlements in {directory}: {changes} changes in Vault.")
        return None

    def _stops(self) -> Sequence[tuple[str, Callable[[], bool]]]:
        return (
            ("control plane", lambda: self.serve.stop(patience=_GRACE)),
            ("issuer", self.issuer.stop),
            ("OpenBao", self.openbao.stop),
            ("PostgreSQL", self.postgres.stop),
        )

    def _embedded_addresses(self) -> frozenset[str]:
        """What `dev env` names that is ours: it never takes the place of anything."""
        vault = None if self.home.recall("vault_addr") else self.vault_addr
        database = None if self.home.recall("database_url") else self.database_url
        return frozenset(address for address in (self.api, vault, database) if address)

    def _embedded_target(self) -> Target:
        port = self.postgres.port
        return Target(host=loopback.HOST, port=port, sslmode="disable", owner=self.postgres.owner)

    def _serves(self) -> bool:
        return loopback.ask(self.home.known_port("serve"), "GET", "/healthz")[0] == HTTPStatus.OK

    def _told(self, started: bool, what: str, process: Process) -> None:  # noqa: FBT001 # the answer of start()
        self.say(f"{'Started' if started else 'Runs already:'} {what} (process {process.pid}).")


_KEYS: Final = ("task", *IDENTITIES)
_LIMIT: Final = timedelta(seconds=10)
"""What openbao.hcl says."""


@contextmanager
def _told_plainly() -> Generator[None]:
    """A full disk or a file of somebody else's is no traceback."""
    try:
        yield
    except OSError as error:
        raise LocalServerError(f"{error.filename}: {error.strerror}") from None


def _part(process: Process, address: Callable[[], str], answers: Callable[[], bool]) -> Part:
    try:
        where = address()
    except LocalServerError:  # it was never started
        return Part(name=process.name, state="stopped", pid=None, address=None)
    pid = process.pid
    state = "stopped" if pid is None else "running" if answers() else "starting"
    return Part(name=process.name, state=state, pid=pid, address=where)


def _outside(name: str, address: str) -> Part:
    return Part(name=name, state="outside", pid=None, address=address)
