"""A real Redis for tests: Debian's program, in a directory of its own, on loopback, never as root, never on disk."""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from controlplane.dev import loopback
from controlplane.dev.account import Account, unprivileged
from controlplane.dev.process import until
from controlplane.model.canonical import JsonObject
from controlplane.model.plan import Layout
from controlplane.model.secret import Secret

PACKAGE: Final = "redis-server"
"""Debian's package that has the program."""

MANAGER: Final = "shorthold_manager"
_READY: Final = timedelta(seconds=60)


def program() -> Path | None:
    """The server: Valkey where there is one, else Redis; None where neither is installed."""
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    return None if found is None else Path(found)


@dataclass(kw_only=True)
class RedisServer:
    """One server. `root` may do everything on it, `manager` is whom Vault uses."""

    directory: Path
    account: Account | None
    port: int = field(default_factory=lambda: loopback.free_port(but=set()))
    root: Secret = field(default_factory=lambda: Secret(secrets.token_urlsafe(24)))
    manager: Secret = field(default_factory=lambda: Secret(secrets.token_urlsafe(24)))
    process: "subprocess.Popen[bytes] | None" = None

    def connect(self, user: str, password: str) -> Any:  # noqa: ANN401 # the client and its answers are hardly typed
        """A connection of that user, which is authenticated when this returns."""
        client = redis.Redis(
            host=loopback.HOST,
            port=self.port,
            username=user,
            password=password,
            socket_timeout=30,
            single_connection_client=True,
            decode_responses=True,
            protocol=2,
            retry=Retry(NoBackoff(), retries=0),  # what is closed stays closed
        )
        cast("Any", client).ping()
        return client

    def ask(self, *command: str) -> Any:  # noqa: ANN401 # the client and its answers are hardly typed
        """The answer that the administrator gets."""
        client = self.connect("root", self.root.reveal())
        try:
            return client.execute_command(*command)
        finally:
            client.close()

    def connection(self, layout: Layout) -> JsonObject:
        """What an operator writes at `database/config/<name>`."""
        return {
            "plugin_name": "valkey-database-plugin",
            "host": loopback.HOST,
            "port": self.port,
            "username": MANAGER,
            "password": self.manager.reveal(),
            "tls": False,
            "allowed_roles": [f"{layout.prefix}-*"],
        }

    def start(self) -> None:
        """Start it, and wait until it answers."""
        server = program()
        if server is None:
            raise AssertionError(f"{PACKAGE} is not installed")
        configuration = "\n".join(
            (
                f"bind {loopback.HOST}",
                f"port {self.port}",
                f"dir {self.directory}",
                'save ""',
                "appendonly no",
                "user default off",
                f"user root on >{self.root.reveal()} ~* &* +@all",
                # As docs/databases.md says it: whoever may set users can give himself everything.
                f"user {MANAGER} on >{self.manager.reveal()} -@all +ping +acl|setuser +acl|deluser",
                "",
            )
        )
        account = self.account
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 # Debian's program, no shell
                [str(server), "-"],  # passwords come in by its stdin
                cwd=self.directory,
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                user=None if account is None else account.uid,
                group=None if account is None else account.gid,
                extra_groups=None if account is None else [],
                umask=0o077,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        process = self.process
        if process.stdin is not None:
            with process.stdin as into:
                into.write(configuration.encode())
        if not until(lambda: self._answers() or process.poll() is not None, _READY) or process.poll() is not None:
            raise AssertionError((self.directory / "log").read_text(errors="replace")[-2000:])

    def stop(self) -> None:
        """End it at once."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def _answers(self) -> bool:
        try:
            self.connect("root", self.root.reveal()).close()
        except (redis.RedisError, OSError):
            return False
        return True


@contextmanager
def redis_server() -> Generator[RedisServer]:
    """A server that is prepared for Shorthold, in a directory that is gone afterwards."""
    account = unprivileged()
    directory = Path(tempfile.mkdtemp(prefix="shorthold-redis-"))
    server = RedisServer(directory=directory, account=account)
    try:
        if account is not None:
            shutil.chown(directory, account.uid, account.gid)
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)
