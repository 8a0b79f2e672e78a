"""Where schedules are played: real servers, everything between them that can break, and control planes that die."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql
from sqlalchemy import URL
from typing_extensions import override

from controlplane.dev import loopback
from controlplane.dev.engines import database_connection
from controlplane.dev.openbao import bao_binary
from controlplane.dev.outside import Target
from controlplane.dev.postgres import SUPERUSER
from controlplane.dev.process import until
from controlplane.dev.stack import LAYOUT, Stack
from controlplane.settings import bao_program
from controlplane.testing.fault_proxy import FaultProxy, fault_proxy
from controlplane.testing.relay import Relay, relay
from controlplane.testing.served import ServedPlane, Witness, witness
from controlplane.vault.census import epoch_path

READY: Final = timedelta(minutes=2)
"""For a server to be there: generous, for the machine may have other work to do."""
QUICK: Final = {
    "VAULT__TIMEOUT": "1s",
    "VAULT__ISSUING_WITHIN": "1s",
    "VAULT__MAX_REQUEST_DURATION": "1s",
    "WORKER__TICK": "1s",
    "WORKER__HOLD": "2s",
    "WORKER__RECONCILE": "1s",
}
"""Everything that takes its time in production, shortened; the order of events is the real one."""


class Cradle:
    """A process that has everything imported: from it a control plane is there in a tenth of the time."""

    def __init__(self) -> None:
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(  # `-c` keeps our own directory off the way of what it imports
            [sys.executable, "-m", "tests.chaos.dying"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=root,
            text=True,
        )

    def bear(self, order: Mapping[str, Any]) -> int:
        """Start a control plane. Its number."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it, and all that it bore."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(READY.total_seconds())
        self._process.stdout.close()


@dataclass
class MortalPlane(ServedPlane):
    """A served control plane that may be told after how many steps it dies."""

    cradle: Cradle = field(kw_only=True)
    pid: int | None = None
    deaths: Counter[str] = field(default_factory=Counter[str])
    """How its lives ended, those in which it was ready to serve: `killed`, or `by its own hand`."""
    _ready: threading.Event = field(default_factory=threading.Event)
    _doomed: bool = False

    def begin(self, after: int = 0) -> threading.Thread:
        """Start it, and wait for nothing; the thread ends when it answers, or has died on its way."""
        order = {"arguments": ["serve", *self.options], "after": after, "log": str(self.log)}
        self.pid = pid = self.cradle.bear({**order, "cwd": str(self.directory), "environment": self.environment})
        self._doomed, self._ready = False, threading.Event()
        ready = self._ready

        def wait() -> None:
            if until(lambda: self._answers() or not _runs(pid), READY) and _runs(pid):
                ready.set()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        return thread

    def live(self) -> bool:
        """Start it, to live on; whether it came up. One that died on its way is no failure: a server may be down."""
        self.begin().join()
        return self._ready.is_set() and self.alive

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        if self.pid is not None and not _runs(self.pid):
            self.pid = None
            if self._ready.is_set():
                self.deaths["killed" if self._doomed else "by its own hand"] += 1
        return self.pid is not None

    def told(self, what: int) -> None:
        """Send it a signal, if it still lives."""
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, what)

    @override
    def kill(self) -> None:
        """End it with kill -9, and wait until it is dead."""
        self._doomed = True
        self.told(signal.SIGKILL)
        if not until(lambda: not self.alive, READY):
            raise AssertionError(f"process {self.pid} does not die")


@dataclass
class Site:
    """The servers of one run, one store, and control planes over it; made by `site`."""

    stack: Stack
    kind: str
    url: str
    seer: Witness
    proxy: FaultProxy
    line: Relay
    """Between OpenBao and PostgreSQL."""
    road: Relay
    """Between us and PostgreSQL: the prober's questions, and the store where it is there."""
    reachable: "Reachable"
    planes: Sequence[MortalPlane]
    granted: int = 0
    """In all schedules that were played on it."""

    def start_openbao(self) -> None:
        """Start it, unsealed; one that runs well is left alone."""
        if not self.stack.openbao.active():
            self.stack.openbao.stop()
        self.stack.openbao.start(bao_binary(bao_program()))

    def kill_openbao(self) -> None:
        """With -9; its port is free again then."""
        pid, port = self.stack.openbao.process.pid, int(self.stack.vault_addr.rpartition(":")[2])
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        # Its last thread may hold the port a little longer, and it would come back at another one.
        if not until(lambda: self.stack.openbao.process.pid is None and loopback.is_free(port), READY):
            raise AssertionError("OpenBao does not die")

    def start_postgresql(self) -> None:
        """Start it; one that runs is left alone."""
        self.stack.postgres.start()

    def kill_postgresql(self) -> None:
        """With -9, and everything that it had started."""
        pid = self.stack.postgres.process.pid
        if pid is not None:
            os.killpg(pid, signal.SIGKILL)  # it leads its own session
        if not until(lambda: self.stack.postgres.process.pid is None, READY):
            raise AssertionError("PostgreSQL does not die")

    def calm(self) -> None:
        """Every fault is over, and every server runs."""
        self.proxy.calm()
        self.line.calm()
        self.road.calm()
        self.reachable.openbao_postgresql = self.reachable.us_postgresql = True
        self.start_postgresql()
        self.start_openbao()
        for plane in self.planes:
            plane.told(signal.SIGCONT)

    def revive(self) -> None:
        """Start the control planes that are dead, to live on; until all of them do."""

        def all_live() -> bool:
            return all(plane.alive or plane.live() for plane in self.planes)

        if not until(all_live, READY):
            raise AssertionError(self.planes[0].log.read_text(encoding="utf-8")[-4000:])


@dataclass
class Reachable:
    """Who gets through to PostgreSQL at all."""

    openbao_postgresql: bool = True
    us_postgresql: bool = True


@contextmanager
def servers(project: Path) -> Generator[Stack]:
    """Servers of our own, for they are killed, with our own entitlements; the stack's control plane is stopped."""
    shutil.copytree(Path(__file__).parent / "roles", project / "roles")
    stack = Stack(project=project, say=lambda _: None)
    try:
        stack.up()
        stack.serve.stop()
        yield stack
    finally:
        stack.destroy()


@contextmanager
def site(stack: Stack, directory: Path, kind: str) -> Generator[Site]:
    """A site with a new store, `sqlite` or `postgresql` with two replicas; nothing of it runs on afterwards.

    No other control plane may run on the stack: each would take the other's tokens for orphans.
    """
    port, reachable = stack.postgres.port, Reachable()
    with ExitStack() as opened:
        seer = witness(stack)
        opened.callback(seer.vault.close)
        proxy = opened.enter_context(fault_proxy(stack.vault_addr))
        line = opened.enter_context(relay(lambda: port if reachable.openbao_postgresql else None))
        road = opened.enter_context(relay(lambda: port if reachable.us_postgresql else None))
        _connect(stack, seer, line.port)
        opened.callback(_connect, stack, seer, port)
        seer.vault.delete(epoch_path(LAYOUT))  # of the store that was here before
        seer.vault.write(epoch_path(LAYOUT), {"policies": [], "disabled": True})
        url, settings = _store(stack, directory, kind, road.port, opened)
        cradle = Cradle()
        opened.callback(cradle.close)
        own = {**QUICK, "VAULT__ADDR": proxy.addr, "TARGETS__ORDERS__PORT": str(road.port), "STORE__URL": settings}
        planes = [MortalPlane(stack, directory, own, cradle=cradle) for _ in range(1 if kind == "sqlite" else 2)]
        made = Site(
            stack=stack,
            kind=kind,
            url=url,
            seer=seer,
            proxy=proxy,
            line=line,
            road=road,
            reachable=reachable,
            planes=planes,
        )
        opened.callback(made.calm)
        made.revive()
        yield made


def _connect(stack: Stack, seer: Witness, port: int) -> None:
    target = Target(host=loopback.HOST, port=port, sslmode="disable", owner=stack.postgres.owner)
    database_connection(seer.vault, LAYOUT, target, stack.postgres.manager_password, anew=True)


def _store(stack: Stack, directory: Path, kind: str, port: int, opened: ExitStack) -> tuple[str, str]:
    """Where the store is, for us to look and for the control plane to work."""
    if kind == "sqlite":
        url = f"sqlite:///{directory / 'shorthold.db'}"
        return url, url
    name, server = f"chaos_{secrets.token_hex(6)}", stack.postgres
    _execute(server.owner.reveal(), sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
    opened.callback(_execute, server.owner.reveal(), drop)

    def at(port: int) -> str:
        whole = URL.create("postgresql", SUPERUSER, server.password.reveal(), loopback.HOST, port, name)
        return whole.render_as_string(hide_password=False)

    return at(server.port), at(port)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _execute(dsn: str, statement: sql.Composed) -> None:
    with psycopg.connect(dsn, autocommit=True) as database:
        database.execute(statement)
