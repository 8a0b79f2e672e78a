"""A real MariaDB for tests: Debian's program, in a directory of its own, on loopback, never as root."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import pymysql
from pymysql.connections import Connection
from pymysql.cursors import Cursor

import controlplane
from controlplane.dev import loopback
from controlplane.dev.account import Account, unprivileged
from controlplane.dev.engines import USERNAME
from controlplane.dev.process import until
from controlplane.model.canonical import JsonObject
from controlplane.model.plan import Layout
from controlplane.model.secret import Secret

if TYPE_CHECKING:
    Session = Connection[Cursor]
else:
    Session = Connection  # generic in its stubs only

PACKAGE: Final = "mariadb-server-core"
"""Debian's package that has the program."""

MANAGER: Final = "shorthold_manager"
_SYSTEM: Final = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
_READY: Final = timedelta(seconds=60)
_SMALL: Final = ("--innodb-log-file-size=8M", "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0")


def programs() -> tuple[Path, Path] | None:
    """The server and the directory of its SQL; None where they are not installed."""
    server = shutil.which("mariadbd", path=f"{os.defpath}:/usr/sbin:/sbin")
    texts = Path("/usr/share/mysql")
    return None if server is None or not (texts / _SYSTEM[0]).exists() else (Path(server), texts)


def preparation() -> list[str]:
    """The statements of `vault-config/targets/mariadb.sql`, one by one."""
    package = Path(controlplane.__file__).parent
    inside = package / "shipped" / "vault-config"
    file = (inside if inside.exists() else package.parent / "vault-config") / "targets" / "mariadb.sql"
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("--")]
    return [statement for part in "\n".join(lines).split(";\n") if (statement := part.strip().rstrip(";"))]


@dataclass(kw_only=True)
class MariaDB:
    """One server. `root` may do everything on it, `manager` is whom Vault uses."""

    directory: Path
    account: Account | None
    port: int = field(default_factory=lambda: loopback.free_port(but=set()))
    root: Secret = field(default_factory=lambda: Secret(secrets.token_urlsafe(24)))
    manager: Secret = field(default_factory=lambda: Secret(secrets.token_urlsafe(24)))
    process: "subprocess.Popen[bytes] | None" = None

    def connect(self, user: str, password: str, *, connect_timeout: int = 5) -> Session:
        """A session of that user."""
        return pymysql.connect(
            host=loopback.HOST,
            port=self.port,
            user=user,
            password=password,
            connect_timeout=connect_timeout,
            autocommit=True,
            ssl_disabled=True,
        )

    def owner(self) -> Session:
        """A session of the administrator."""
        return self.connect("root", self.root.reveal())

    def run(self, *statements: str) -> None:
        """Run statements as the administrator."""
        with self.owner() as session, session.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def ask(self, question: str, *values: str) -> list[tuple[object, ...]]:
        """The rows that the administrator gets."""
        with self.owner() as session, session.cursor() as cursor:
            cursor.execute(question, values or None)
            return [tuple(row) for row in cursor.fetchall()]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        found = programs()
        if found is None:
            raise AssertionError(f"{PACKAGE} is not installed")
        server, texts = found
        data = self.directory / "data"
        if not data.exists():
            data.mkdir(mode=0o700)
            self.own(data)
            self._initialise(server, texts, data)
        with (self.directory / "log").open("ab") as log:
            command = [*self._command(server, data), f"--port={self.port}", "--event-scheduler=ON"]
            self.process = self._popen(command, log=log)
        process = self.process
        if not until(lambda: self._answers() or process.poll() is not None, _READY) or process.poll() is not None:
            raise self._failure()

    def stop(self) -> None:
        """End it at once; what it held is of no use to anybody."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def prepare(self) -> None:
        """What an operator does once (docs/databases.md), and the manager's password."""
        self.run(*preparation(), f"ALTER USER {MANAGER} IDENTIFIED BY '{self.manager.reveal()}' ACCOUNT UNLOCK")

    def connection(self, layout: Layout) -> JsonObject:
        """What an operator writes at `database/config/<name>`."""
        return {
            "plugin_name": "mysql-database-plugin",
            "connection_url": f"{{{{username}}}}:{{{{password}}}}@tcp({loopback.HOST}:{self.port})/",
            "username": MANAGER,
            "password": self.manager.reveal(),
            "allowed_roles": [f"{layout.prefix}-*"],
            "username_template": USERNAME,
            "max_open_connections": 8,
            "max_idle_connections": 8,
        }

    def _initialise(self, server: Path, texts: Path, data: Path) -> None:
        password = self.root.reveal()
        script = "\n".join(
            (
                "CREATE DATABASE mysql;",
                "USE mysql;",
                "SET @auth_root_socket=NULL, @skip_auth_anonymous=1, @current_hostname='localhost';",
                *((texts / name).read_text(encoding="utf-8") for name in _SYSTEM),
                "DELETE FROM global_priv WHERE User='root' AND Host<>'127.0.0.1';",
                "FLUSH PRIVILEGES;",
                f"ALTER USER root@'127.0.0.1' IDENTIFIED BY '{password}';",
                "",
            )
        )
        (self.directory / "bootstrap.sql").write_text(script, encoding="utf-8")
        with (self.directory / "bootstrap.sql").open("rb") as read, (self.directory / "log").open("ab") as log:
            made = self._popen([*self._command(server, data), "--bootstrap"], read=read, log=log)
            if made.wait(_READY.total_seconds()) != 0:
                raise self._failure()

    def _command(self, server: Path, data: Path) -> list[str]:
        places = (f"--datadir={data}", f"--tmpdir={data}", f"--socket={data}/s", f"--pid-file={data}/pid")
        return [
            str(server),
            "--no-defaults",
            *places,
            f"--bind-address={loopback.HOST}",
            "--skip-name-resolve",
            *_SMALL,
        ]

    def _popen(self, command: list[str], *, log: IO[bytes], read: IO[bytes] | None = None) -> "subprocess.Popen[bytes]":
        account = self.account
        return subprocess.Popen(  # noqa: S603 # Debian's program, no shell
            command,
            cwd=self.directory,
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
            umask=0o077,
            stdin=subprocess.DEVNULL if read is None else read,
            stdout=log,
            stderr=log,
        )

    def own(self, path: Path) -> None:
        """Give `path` to the account that the server runs as."""
        if self.account is not None:
            shutil.chown(path, self.account.uid, self.account.gid)

    def _failure(self) -> AssertionError:
        return AssertionError((self.directory / "log").read_text(errors="replace")[-2000:])

    def _answers(self) -> bool:
        try:
            self.owner().close()
        except pymysql.MySQLError:
            return False
        return True


@contextmanager
def mariadb() -> Generator[MariaDB]:
    """A server that is prepared for Shorthold, in a directory that is gone afterwards."""
    account = unprivileged()
    directory = Path(tempfile.mkdtemp(prefix="shorthold-mariadb-"))
    server = MariaDB(directory=directory, account=account)
    try:
        server.own(directory)
        server.start()
        server.prepare()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)
