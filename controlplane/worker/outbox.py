"""Keep every sink told: a thread for each, so that one which is slow or dead keeps nobody waiting but itself."""

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol

import structlog

from controlplane.model.errors import ControlPlaneError

log = structlog.stdlib.get_logger(__name__)


class Tell(Protocol):
    """Tells one sink what is new; whether more waits."""

    @property
    def name(self) -> str:
        """The sink's name."""
        ...

    def __call__(self, stopping: Callable[[], bool]) -> bool:
        """Do it; between two events it asks whether to stop."""
        ...


class Outbox:
    """Looks every `tick` for what each sink has not been told. Every replica has one; the store keeps them apart."""

    def __init__(self, tells: Sequence[Tell], *, tick: timedelta) -> None:
        self._tick = tick.total_seconds()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(tell,), name=f"shorthold-sink-{tell.name}", daemon=True)
            for tell in tells
        ]

    def start(self) -> None:
        """Begin; what happened while nobody ran comes first."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the event at hand of each sink and stop; what remains is in the store."""
        self._stopping.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _run(self, tell: Tell) -> None:
        while not self._stopping.is_set():
            if not self._told(tell):
                self._stopping.wait(self._tick)

    def _told(self, tell: Tell) -> bool:
        try:
            return tell(self._stopping.is_set)
        except ControlPlaneError as error:
            log.warning("outbox_cannot_tell", sink=tell.name, code=error.code, detail=error.detail)
        except Exception:
            # Whatever it was: the hold on its cursor runs out, and that is the back-off.
            log.exception("outbox_cannot_tell", sink=tell.name)
        return False
