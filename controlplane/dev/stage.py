"""Where the story is played: one stack in a directory of its own, and the hands that act on it."""

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Final

import psycopg

from controlplane.dev import loopback
from controlplane.dev.issuer import mint
from controlplane.dev.orders import DATABASE
from controlplane.dev.stack import Stack
from controlplane.keys import audit as audit_key
from controlplane.model.secret import Secret
from controlplane.world import RandomIds, SystemClock

_DEAD_WITHIN: Final = 10.0  # seconds


def _nowhere(sentence: str) -> None:
    del sentence


@dataclass(slots=True)
class Stage:
    """The stack in `directory`, everything of it gone after `clear`."""

    directory: Path
    stack: Stack = field(init=False)

    def __post_init__(self) -> None:
        self.stack = Stack(project=self.directory, say=_nowhere)

    def up(self, say: Callable[[str], None]) -> None:
        """Start it all. Raises: ConfigurationError: a server does not start."""
        Stack(project=self.directory, say=say).up()

    def clear(self) -> None:
        """Stop and remove it all."""
        self.stack.destroy()

    @property
    def api(self) -> str:
        """Where the control plane listens."""
        return self.stack.api

    @property
    def vault_addr(self) -> str:
        """Where OpenBao listens."""
        return self.stack.vault_addr

    @property
    def store(self) -> Path:
        """The control plane's database file."""
        return self.stack.home.directory / "shorthold.db"

    @property
    def store_url(self) -> str:
        """The same as the settings say it."""
        return f"sqlite:///{self.store}"

    @property
    def target(self) -> str:
        """Where the demo's database is, as psycopg has it: without a user or a password."""
        return f"host={loopback.HOST} port={self.stack.postgres.port} dbname={DATABASE}"

    @property
    def audit_key(self) -> Secret:
        """The key of the audit chain."""
        return audit_key.load(self.stack.home.part("keys") / audit_key.FILE)

    def token(self, subject: str) -> Secret:
        """A token of the dev issuer for `subject`: what a cluster or GitHub would hand to a workload."""
        issuer = self.stack.issuer
        return mint(issuer.key, issuer.url, subject, now=SystemClock().now(), ids=RandomIds())

    def connect(self, credential: Mapping[str, Secret]) -> psycopg.Connection:
        """A session at the database as the issued user. Raises: psycopg.OperationalError: PostgreSQL refuses."""
        return psycopg.connect(
            host=loopback.HOST,
            port=self.stack.postgres.port,
            dbname=DATABASE,
            user=credential["username"].reveal(),
            password=credential["password"].reveal(),
            connect_timeout=10,
            autocommit=True,
        )

    def opens(self, credential: Mapping[str, Secret]) -> bool:
        """Whether the login still works."""
        try:
            self.connect(credential).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill_control_plane(self) -> None:
        """Kill it with -9: it gets no chance to tidy up."""
        pid = self.stack.serve.pid
        if pid is None:
            return
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + _DEAD_WITHIN
        while self.stack.serve.pid is not None and time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.02)

    def restart_control_plane(self) -> None:
        """Start it again as `dev up` would."""
        self.stack.start_control_plane()

    def control_plane_answers(self) -> bool:
        """Whether anybody answers where it listens."""
        return loopback.ask(int(self.api.rsplit(":", 1)[1]), "GET", "/healthz")[0] == HTTPStatus.OK

    def copy_of_store(self) -> Path:
        """A whole copy of the database, made while it is in use."""
        copy = self.directory / "copy.db"
        with (
            contextlib.closing(sqlite3.connect(self.store)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        return copy
