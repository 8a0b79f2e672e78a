"""Work through what is due: threads over claims in the store, woken by a tick or by whoever made something due."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Protocol, cast

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from controlplane.model.errors import ControlPlaneError
from controlplane.model.grant import Grant
from controlplane.ports import Clock, Store

_HOLD = timedelta(seconds=60)
"""How long a claimed grant is left to its claimer; a worker that died is taken over after this."""

_FORGET_EVERY = timedelta(minutes=1)
_FORGET_AFTER = timedelta(minutes=5)
"""More than clocks of replicas may differ: one that is behind still takes a token that this one calls expired."""

log = structlog.stdlib.get_logger(__name__)


class _Scheduler(Protocol):
    def add_job(self, func: Callable[[], None], trigger: str, *, seconds: float) -> object: ...
    def start(self) -> None: ...
    def shutdown(self, *, wait: bool) -> None: ...


class Worker:
    """Runs `reap` on every due grant. Every replica has one; the store sees to it that no two get the same grant."""

    def __init__(
        self, *, store: Store, clock: Clock, reap: Callable[[Grant], Grant], tick: timedelta, threads: int
    ) -> None:
        self._store, self._clock, self._reap, self._tick, self._threads = store, clock, reap, tick, threads
        self._due = threading.Event()
        self._stopping = threading.Event()
        self._free = threading.Semaphore(threads)
        self._dispatcher = threading.Thread(target=self._dispatch, name="shorthold-worker", daemon=True)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="shorthold-reap")
        # In memory only: a persistent job store would run every job once per replica (APScheduler docs, FAQ).
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        self._scheduler = cast("_Scheduler", BackgroundScheduler(job_defaults=defaults, timezone="UTC"))

    def start(self) -> None:
        """Begin; what became due while nobody ran comes first."""
        self._scheduler.add_job(self.wake, "interval", seconds=self._tick.total_seconds())
        self._scheduler.add_job(self._forget, "interval", seconds=_FORGET_EVERY.total_seconds())
        self._scheduler.start()
        self._dispatcher.start()
        self.wake()

    def wake(self) -> None:
        """Look at once for what is due. Never blocks."""
        self._due.set()

    def stop(self) -> None:
        """Finish what is at hand and stop; what remains is in the store."""
        self._stopping.set()
        self._due.set()
        self._scheduler.shutdown(wait=False)
        self._dispatcher.join()
        self._pool.shutdown(wait=True)

    def _forget(self) -> None:
        """Let spent tokens go that nobody takes any more."""
        try:
            while not self._stopping.is_set() and self._store.forget_tokens(self._clock.now() - _FORGET_AFTER):
                pass
        except ControlPlaneError as error:
            log.warning("worker_cannot_forget_tokens", code=error.code, detail=error.detail)

    def _dispatch(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            if self._stopping.is_set():
                return
            try:
                while self._claim_one():
                    pass
            except ControlPlaneError as error:
                log.warning("worker_cannot_claim", code=error.code, detail=error.detail)
            except Exception:
                log.exception("worker_cannot_claim")  # whatever it was, the next tick tries again

    def _claim_one(self) -> bool:
        """Start one due grant; False when nothing is due or we are stopping."""
        self._free.acquire()
        if self._stopping.is_set():
            return False
        claimed: list[Grant] = []
        try:
            claimed.extend(self._store.claim_due(self._clock.now(), limit=1, hold=_HOLD))
        finally:
            if not claimed:
                self._free.release()
        for grant in claimed:
            self._pool.submit(self._work, grant)
        return bool(claimed)

    def _work(self, grant: Grant) -> None:
        try:
            self._reap(grant)
            self._store.release(grant.id)
        except ControlPlaneError as error:
            # Its hold runs out by itself; that is the back-off when not even the store could be told.
            log.warning("grant_not_reaped", grant=grant.id, code=error.code, detail=error.detail)
        except Exception:
            log.exception("grant_not_reaped", grant=grant.id)
        finally:
            self._free.release()
