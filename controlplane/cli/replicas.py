"""Several processes on one listening socket: each a whole control plane, started anew when it dies."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Final

import click

_PATIENCE: Final = 30.0
"""Seconds that a process may take to finish what is at hand; then it is killed, which loses nothing."""
_PAUSE: Final = 1.0
"""Seconds before a process that died is started again: one that cannot start must not eat the machine."""


class Replicas:
    """Starts `count` processes of `command`, and keeps as many running until it is told to stop."""

    def __init__(self, command: Sequence[str], listener: socket.socket, count: int) -> None:
        self._command, self._listener, self._count = command, listener, count
        self._stopping = threading.Event()

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, which every process gets. The exit status: 0, or 1 if one had to be killed."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        with tempfile.TemporaryDirectory(prefix="shorthold-metrics-") as figures:
            running = [self._start(figures) for _ in range(self._count)]
            while not self._stopping.wait(0.2):
                for place, process in enumerate(running):
                    status = process.poll()
                    if status is not None and not self._stopping.wait(_PAUSE):
                        click.echo(f"Process {process.pid} ended with {status}: another one takes its place.", err=True)
                        running[place] = self._start(figures)
            return self._end(running)

    def _start(self, figures: str) -> "subprocess.Popen[bytes]":
        from controlplane.settings import environment_with

        return subprocess.Popen(  # noqa: S603 # our own command, and a number
            [*self._command, "--socket", str(self._listener.fileno())],
            stdin=subprocess.PIPE,  # never written to: it is closed when we are gone, see `end_with_parent`
            env=environment_with(PROMETHEUS_MULTIPROC_DIR=figures),
            pass_fds=(self._listener.fileno(),),
            start_new_session=True,  # Ctrl-C at a terminal reaches them through us, once
        )

    def _end(self, running: "Sequence[subprocess.Popen[bytes]]") -> int:
        for process in running:
            process.send_signal(signal.SIGTERM)
        until, killed = time.monotonic() + _PATIENCE, 0
        for process in running:
            try:
                process.wait(max(until - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed = 1
        return killed

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stopping.set()


def end_with_parent() -> None:
    """In a process that `Replicas` started: finish as on SIGTERM once that one is gone, however it went.

    Otherwise what is left of it keeps the port, and nobody starts anew what dies.
    """

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="shorthold-parent", daemon=True).start()


def command(*, worker: bool) -> Sequence[str]:
    """How one of the processes is started."""
    return [sys.executable, "-m", "controlplane", "serve", *([] if worker else ["--no-worker"])]
