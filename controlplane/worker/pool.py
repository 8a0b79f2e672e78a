"""Work through what is due: threads over claims in the store, woken by a tick or by whoever made something due."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final, Protocol, cast

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from controlplane.model.errors import ControlPlaneError
from controlplane.model.grant import TERMINAL, Grant, State
from controlplane.ports import Clock, Store
from controlplane.worker.pace import Pace, Turns

_FORGET_EVERY = timedelta(minutes=1)
_FORGET_AFTER = timedelta(minutes=5)
"""More than clocks of replicas may differ: one that is behind still takes a token that this one calls expired."""
_ROUNDS_END = timedelta(seconds=10)
"""A round that is under way uses the store, which is closed after us. One that takes longer loses its connections."""

log = structlog.stdlib.get_logger(__name__)


class _Scheduler(Protocol):
    def add_job(self, func: Callable[[], None], trigger: str | None = None, *, seconds: float = ...) -> object: ...
    def start(self) -> None: ...
    def shutdown(self, *, wait: bool) -> None: ...


class Worker:
    """Runs `reap` on every due grant. Every replica has one; the store sees to it that no two get the same grant.

    What is tried for the first time and what has resisted before have threads of their own, so that targets which
    do not answer never keep a grant that ends now waiting.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        reap: Callable[[Grant], Grant],
        tick: timedelta,
        threads: int,
        hold: timedelta,
        reconcile: Callable[[], object] | None = None,
        every: timedelta = timedelta(seconds=10),
        save_unsaved: Callable[[], bool] | None = None,
        end_unclaimed: Callable[[], object] | None = None,
        begin: Callable[[], object] | None = None,
        carry_out: Callable[[], int] | None = None,
        ask_ahead: Callable[[], int] | None = None,
        pace: Pace | None = None,
        watch: Callable[[], object] | None = None,
        watch_every: timedelta = timedelta(minutes=5),
    ) -> None:
        self._store, self._clock, self._tick = store, clock, tick
        self._compare, self._every = reconcile, every
        self._save_unsaved, self._end_unclaimed = save_unsaved, end_unclaimed
        self._unbegun, self._cuts, self._ahead = begin, carry_out, ask_ahead
        self._watch, self._watch_every = watch, watch_every
        self._stopping = threading.Event()
        first, again = (
            _Lane(
                store,
                clock,
                reap,
                threads=threads,
                hold=hold,
                again=again,
                cannot=self._cannot_claim,
                turns=Turns(threads, pace or Pace(clock)),
            )
            for again in (False, True)
        )
        self._first, self._lanes = first, (first, again)
        # In memory only: a persistent job store would run every job once per replica (APScheduler docs, FAQ).
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        self._scheduler = cast("_Scheduler", BackgroundScheduler(job_defaults=defaults, timezone="UTC"))

    def start(self) -> None:
        """Begin; what became due while nobody ran comes first, and before that what could not be saved then."""
        self._catch_up()
        self._scheduler.add_job(self._look, "interval", seconds=self._tick.total_seconds())
        self._scheduler.add_job(self._catch_up, "interval", seconds=self._tick.total_seconds())
        self._scheduler.add_job(self.forget, "interval", seconds=_FORGET_EVERY.total_seconds())
        if self._unbegun is not None:
            self._scheduler.add_job(self._begin, "interval", seconds=self._tick.total_seconds())
        if self._cuts is not None:
            self._scheduler.add_job(self._carry_out, "interval", seconds=self._tick.total_seconds())
        if self._ahead is not None:
            self._scheduler.add_job(self._ask_ahead, "interval", seconds=self._tick.total_seconds())
        if self._compare is not None:
            self._scheduler.add_job(self._reconcile, "interval", seconds=self._every.total_seconds())
        if self._watch is not None:
            # Twice in each span, so that a look comes when it is due and not one span later.
            self._scheduler.add_job(self._look_out, "interval", seconds=self._watch_every.total_seconds() / 2)
        self._scheduler.start()
        for lane in self._lanes:
            lane.start()

    def wake(self) -> None:
        """Look at once for what is due for the first time; what has resisted waits for a tick. Never blocks."""
        self._first.wake()

    def begin_cut(self) -> None:
        """Carry out at once what was ordered just now, and not with the next tick. Never blocks."""
        self._scheduler.add_job(self._carry_out)

    def stop(self) -> None:
        """Finish what is at hand and stop; what remains is in the store. Repeating it changes nothing."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        for lane in self._lanes:
            lane.ask_to_stop()
        rounds = threading.Thread(target=self._scheduler.shutdown, kwargs={"wait": True}, daemon=True)
        rounds.start()
        for lane in self._lanes:
            lane.join()
        rounds.join(_ROUNDS_END.total_seconds())

    def _begin(self) -> None:
        """Do what is done once at the start, as soon as it can be done."""
        if self._unbegun is None or self._stopping.is_set():
            return
        try:
            self._unbegun()
            self._unbegun = None
        except ControlPlaneError as error:
            log.warning("worker_cannot_begin", code=error.code, detail=error.detail)

    def _carry_out(self) -> None:
        """Save that what responders cut ends; how it ends is the lanes' matter."""
        if self._tried(self._cuts, "worker_cannot_carry_out_cuts"):
            self.wake()

    def _ask_ahead(self) -> None:
        """Ask for the end of what the lanes will only come to later."""
        self._tried(self._ahead, "worker_cannot_ask_ahead")

    def _reconcile(self) -> None:
        """Compare Vault with the store, if it is this replica's turn; it may take its time, in a thread of its own."""
        self._tried(self._compare, "worker_cannot_reconcile")

    def _look_out(self) -> None:
        """Look for drift, if it is this replica's turn."""
        self._tried(self._watch, "worker_cannot_look_for_drift")

    def _catch_up(self) -> None:
        """Save what the store could not take when it happened."""
        if self._tried(self._save_unsaved, "worker_cannot_save_yet"):
            self.wake()

    def _tried(self, job: Callable[[], object] | None, trouble: str) -> object:
        """What `job` returns; None where there is none, we are stopping, or it failed: it comes again by itself."""
        if job is None or self._stopping.is_set():
            return None
        try:
            return job()
        except ControlPlaneError as error:
            log.warning(trouble, code=error.code, detail=error.detail)
            return None

    def _cannot_claim(self) -> None:
        """Have Vault end what is due all the same."""
        if self._end_unclaimed is None:
            return
        try:
            self._end_unclaimed()
        except ControlPlaneError as error:
            log.warning("worker_cannot_end_unclaimed", code=error.code, detail=error.detail)

    def forget(self) -> None:
        """Let spent tokens go that nobody takes any more. It runs by itself once a minute."""
        try:
            while not self._stopping.is_set() and self._store.forget_tokens(self._clock.now() - _FORGET_AFTER):
                pass
        except ControlPlaneError as error:
            log.warning("worker_cannot_forget_tokens", code=error.code, detail=error.detail)

    def _look(self) -> None:
        for lane in self._lanes:
            lane.wake()


class _Lane:
    """One dispatcher that claims, and the threads that work on what it claimed."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        reap: Callable[[Grant], Grant],
        *,
        threads: int,
        hold: timedelta,
        again: bool,
        cannot: Callable[[], None],
        turns: Turns,
    ) -> None:
        self._store, self._clock, self._reap, self._hold, self._again = store, clock, reap, hold, again
        self._cannot, self._turns = cannot, turns
        name = "shorthold-again" if again else "shorthold-first"
        self._due = threading.Event()
        self._stopping = threading.Event()
        self._free = threading.Semaphore(threads)
        self._dispatcher = threading.Thread(target=self._dispatch, name=name, daemon=True)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def start(self) -> None:
        self._due.set()
        self._dispatcher.start()

    def wake(self) -> None:
        self._due.set()

    def ask_to_stop(self) -> None:
        self._stopping.set()
        self._due.set()

    def join(self) -> None:
        self._dispatcher.join()
        self._pool.shutdown(wait=True)

    def _dispatch(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            if self._stopping.is_set():
                return
            try:
                while self._claim():
                    pass
            except ControlPlaneError as error:
                log.warning("worker_cannot_claim", code=error.code, detail=error.detail)
                if not self._again:
                    self._cannot()
            except Exception:
                log.exception("worker_cannot_claim")  # whatever it was, the next tick tries again

    def _claim(self) -> bool:
        """Start as many due grants as threads are free for; False when no more is due, or when we are stopping."""
        self._free.acquire()
        room = 1
        while self._free.acquire(blocking=False):
            room += 1
        claimed: list[Grant] = []
        try:
            if not self._stopping.is_set():
                claimed.extend(self._store.claim_due(self._clock.now(), limit=room, hold=self._hold, again=self._again))
        finally:
            if len(claimed) < room:
                self._free.release(room - len(claimed))
        for grant in claimed:
            self._pool.submit(self._work, grant)
        return len(claimed) == room

    def _work(self, grant: Grant) -> None:
        try:
            with self._turns.turn():
                reaped = self._reap(grant)
            _tell(reaped)
            if reaped.state not in TERMINAL:  # nobody holds a tombstone
                self._store.release(grant.id)
        except ControlPlaneError as error:
            # Its hold runs out by itself; that is the back-off when not even the store could be told.
            log.warning("grant_not_reaped", grant=grant.id, code=error.code, detail=error.detail)
        except Exception:
            log.exception("grant_not_reaped", grant=grant.id)
        finally:
            self._free.release()


_MANY_TRIES: Final = 4
"""Whatever is only slow is gone by then: it is 4 s old."""


def _tell(grant: Grant) -> None:
    """Say what may be alive and should not: somebody has to look."""
    told = {"grant": grant.id, "tries": grant.attempts, "failing": grant.failing}
    if grant.state is State.IRREVOCABLE:
        log.error("grant_irrevocable", **told)
    elif grant.state is State.REVOKING and grant.attempts >= _MANY_TRIES:
        log.warning("grant_not_gone", **told)
