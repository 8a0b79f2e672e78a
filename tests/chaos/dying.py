"""`python -m tests.chaos.dying`: starts control planes that die by their own hand at an instruction chosen beforehand.

It has everything imported and forks at once, one child for each line on its standard input; it prints the child's
number. When its standard input ends it kills what it started and ends too. A child that is told `after` counts what it
executes of our code, from the first verb on a grant that it enters, and kills itself with -9 when it gets there:
every bytecode instruction of `grants/` counts, and every line of what it speaks to Vault, store and targets with.
Nothing of this is in the control plane itself.
"""

import importlib
import json
import os
import pkgutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

import controlplane
from controlplane.cli.main import main

NEVER: Final = ("controlplane.__main__", "controlplane.dev", "controlplane.testing", "controlplane.stores.migrations")
LATE: Final = (
    *("anyio._backends._asyncio", "apscheduler.triggers.interval", "psycopg", "sqlalchemy.dialects.postgresql"),
    *("uvicorn.lifespan.on", "uvicorn.loops.auto", "uvicorn.protocols.http.httptools_impl", "uvloop"),
)
"""What a control plane imports of others only when it runs. All of ours but `NEVER` is imported before, too."""
CODE: Final = str(Path(controlplane.__file__).parent)
BY_INSTRUCTION: Final = f"{CODE}/grants/"
BY_LINE: Final = tuple(f"{CODE}/{part}/" for part in ("vault", "stores", "probers", "worker", "keys"))
VERBS: Final = tuple(
    f"{BY_INSTRUCTION}{verb}.py"
    for verb in (
        *("request", "approve", "deny", "collect", "issue", "renew", "heartbeat", "undo"),
        *("finish", "finish_task", "reap", "revoke"),
    )
)


@dataclass(slots=True)
class Countdown:
    """Steps that are left; `kill` is what happens then. The count begins with the first verb."""

    left: int
    kill: Callable[[], object]
    begun: bool = False

    def trace(self, frame: FrameType, _event: str, _: object) -> Any:  # noqa: ANN401 # what sys.settrace wants
        """For `sys.settrace`: what to trace of a frame that begins."""
        file = frame.f_code.co_filename
        if not file.startswith(CODE):
            return None
        if not self.begun and file.startswith(VERBS):
            self.begun = True
        if file.startswith(BY_INSTRUCTION):
            frame.f_trace_opcodes = True
            return self._instruction
        return self._line if file.startswith(BY_LINE) else None

    def _instruction(self, _frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401
        if event == "opcode":
            self._count()
        return self._instruction

    def _line(self, _frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401
        if event == "line":
            self._count()
        return self._line

    def _count(self) -> None:
        if self.begun:
            self.left -= 1
            if self.left == 0:
                self.kill()


def die() -> None:
    """End this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def _live(order: Mapping[str, Any]) -> None:
    """In the child: be `shorthold` with these arguments, until it ends or dies."""
    import threading  # noqa: PLC0415 # the parent has no threads and shall have none

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number, file in ((0, nowhere), (1, log), (2, log)):
        os.dup2(file, number)
    sys.argv = ["shorthold", *order["arguments"]]
    if after := order["after"]:
        threading.settrace(Countdown(after, die).trace)  # all verbs run in threads: this one only starts and listens
    main()


def _serve() -> None:
    own = (found.name for found in pkgutil.walk_packages(controlplane.__path__, "controlplane."))
    for module in (*LATE, *(name for name in own if not name.startswith(NEVER))):
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are buried at once: nobody waits for them
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started it
    children: list[int] = []
    try:
        for line in sys.stdin:
            order = json.loads(line)
            child = os.fork()
            if not child:
                try:
                    _live(order)
                finally:
                    os._exit(1)
            children.append(child)
            sys.stdout.write(f"{child}\n")
            sys.stdout.flush()
    finally:
        _end(children)


def _end(children: Sequence[int]) -> None:
    for child in children:
        try:
            if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid()):
                os.kill(child, signal.SIGKILL)
        except OSError:
            continue  # it died long ago


if __name__ == "__main__":
    _serve()
