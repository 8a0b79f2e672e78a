"""One server process of ours: started detached, found again by number and birth, never by name."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from controlplane.dev import launch
from controlplane.dev.account import Account
from controlplane.model.errors import LocalServerError

_LAST_LINES = 12
_TAIL = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """`directory` (ours, 0700) holds its record `process.json` and its log `<name>.log`, both 0600."""

    name: str
    directory: Path

    @property
    def log(self) -> Path:
        """Its stdout and stderr."""
        return self.directory / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Its number while it runs, None while it does not."""
        return launch.recorded(self._record)

    def start(
        self, command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], account: Account | None = None
    ) -> None:
        """Start it in a session of its own, as `account` where one is given. It sees only `environment`.

        Raises: LocalServerError: it cannot be started; nothing runs.
        """
        wanted = {
            "command": list(command),
            "cwd": str(cwd),
            "environment": {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": str(cwd), **environment},
            "record": str(self._record),
            "log": str(self.log),
            "account": None if account is None else [account.uid, account.gid],
        }
        done = subprocess.run(  # noqa: S603 # our own file
            [sys.executable, "-I", "-S", launch.__file__],
            input=json.dumps(wanted),
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,  # Ctrl-C reaches us, not a launch under way
        )
        if done.returncode != 0:
            raise LocalServerError(f"{self.name} could not be started: {done.stderr.strip()}")

    def stop(self, *, asking: signal.Signals = signal.SIGTERM, patience: timedelta = timedelta(seconds=20)) -> bool:
        """Ask it to end and wait; kill it when patience runs out. Whether there was anything to stop."""
        pid = self.pid
        if pid is None:
            self._record.unlink(missing_ok=True)
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, asking)
        if not until(lambda: self.pid is None, patience):
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # it leads its own session, so this is all of it
            if not until(lambda: self.pid is None, patience):
                raise LocalServerError(f"{self.name} (process {pid}) cannot be stopped")
        self._record.unlink(missing_ok=True)
        return True

    def runs(self, ready: Callable[[], bool], patience: timedelta) -> bool:
        """Whether it runs, once it is `ready`; False where it does not run, or ends while we wait.

        Raises: LocalServerError: patience ran out; with the last lines of its log.
        """
        if not until(lambda: self.pid is None or ready(), patience):
            raise self._failure(f"is not ready after {patience.total_seconds():.0f} s")
        return self.pid is not None

    def wait(self, ready: Callable[[], bool], patience: timedelta) -> None:
        """Wait until it is `ready`.

        Raises: LocalServerError: it ended, or patience ran out; with the last lines of its log.
        """
        if not self.runs(ready, patience):
            raise self._failure("ended at once")

    @property
    def _record(self) -> Path:
        return self.directory / "process.json"

    def _failure(self, what: str) -> LocalServerError:
        return LocalServerError(f"{self.name} {what}. The end of {self.log}:\n{self._last_lines()}")

    def _last_lines(self) -> str:
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - _TAIL))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError as error:
            return f"  ({error})"
        return "\n".join("  " + "".join(c if c.isprintable() else " " for c in line) for line in lines[-_LAST_LINES:])


def until(true: Callable[[], bool], patience: timedelta, *, every: float = 0.03) -> bool:
    """Ask again and again whether something is true; False once patience ran out."""
    deadline = time.monotonic() + patience.total_seconds()
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True
