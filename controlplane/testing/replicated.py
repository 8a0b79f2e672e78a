"""Control planes of several processes over PostgreSQL, where a story was written for one over SQLite."""

import dataclasses
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Final

import psycopg
from psycopg import sql
from sqlalchemy import URL
from typing_extensions import override

from controlplane.dev import loopback
from controlplane.dev.configuration import configuration_file
from controlplane.dev.postgres import SUPERUSER
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.testing.served import ServedPlane

_SEVERAL: Final = ("--workers", "2")


def database(stack: Stack) -> str:
    """The URL of a new, empty database at the stack's PostgreSQL; it goes with the stack."""
    server, name = stack.postgres, f"store_{secrets.token_hex(6)}"
    with psycopg.connect(server.owner.reveal(), autocommit=True) as owner:
        owner.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = URL.create("postgresql", SUPERUSER, server.password.reveal(), loopback.HOST, server.port, name)
    return url.render_as_string(hide_password=False)


def replicated(stack: Stack) -> Stack:
    """The same stack; its control plane is started anew as several processes over PostgreSQL, with an empty store."""
    stack.serve.stop()
    configured = configuration_file(stack.home)
    text = configured.read_text(encoding="utf-8")
    # In its configuration, so that whoever starts it anew finds the same store.
    configured.write_text(text.replace(Stage(stack.project).store_url, database(stack)), encoding="utf-8")
    several = dataclasses.replace(stack, options=_SEVERAL)
    several.start_control_plane()
    return several


@dataclass
class ReplicatedPlane(ServedPlane):
    """A ServedPlane of several processes over PostgreSQL, unless it has another store."""

    @override
    def start(self) -> None:
        """Start them and wait until one answers."""
        if "STORE__URL" not in self.settings:
            self.settings = {**self.settings, "STORE__URL": database(self.stack)}
            self.options = (*self.options, *_SEVERAL)
        super().start()

    @override
    def end(self, signal: Signals) -> int:
        """With SIGKILL all of them die, as with their machine."""
        children = [] if self.process is None or signal is not SIGKILL else _children(self.process.pid)
        status = super().end(signal)
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, SIGKILL)
        return status


def _children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for each in threads for child in each.read_text().split()]
