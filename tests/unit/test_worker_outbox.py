"""The outbox's threads: a sink that hangs or fails keeps nobody waiting but itself (L09)."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from controlplane.model.errors import StoreUnavailableError
from controlplane.worker.outbox import Outbox, Tell

SOON, NEVER = timedelta(milliseconds=5), timedelta(hours=1)
PATIENCE = 10.0


class Telling:
    """Fits Tell: counts its calls, and does what it is told to at each."""

    def __init__(self, name: str, act: Callable[[int], bool] = lambda _: False) -> None:
        self.name, self.act, self.calls = name, act, 0

    def __call__(self, stopping: Callable[[], bool]) -> bool:
        self.calls += 1
        return self.act(self.calls) and not stopping()


@contextmanager
def running(*tells: Tell, tick: timedelta = SOON) -> Generator[Outbox]:
    outbox = Outbox(tells, tick=tick)
    outbox.start()
    try:
        yield outbox
    finally:
        outbox.stop()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("shorthold-sink-")]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def test_every_tick_looks_again_and_a_backlog_waits_for_no_tick() -> None:
    with running(again := Telling("a")):
        until(lambda: again.calls > 3)
    with running(backlog := Telling("b", lambda calls: calls < 50), tick=NEVER):
        until(lambda: backlog.calls == 50)


def test_l09_a_sink_that_hangs_keeps_no_other_waiting() -> None:
    gate = threading.Event()
    hanging, well = Telling("hangs", lambda _: gate.wait(PATIENCE)), Telling("well")
    with running(hanging, well):
        until(lambda: well.calls > 5)
        assert hanging.calls == 1
        gate.set()


@pytest.mark.parametrize("error", [StoreUnavailableError("the disk is full"), RuntimeError("a fault of ours")])
def test_whatever_goes_wrong_is_logged_and_tried_again(error: Exception) -> None:
    def fail(calls: int) -> bool:
        if calls < 3:
            raise error
        return False

    with capture_logs() as logged, running(telling := Telling("a", fail)):
        until(lambda: telling.calls > 3)
    assert [(line["event"], line["sink"]) for line in logged] == [("outbox_cannot_tell", "a")] * 2


def test_one_that_was_never_started_or_has_no_sinks_stops_at_once() -> None:
    Outbox((Telling("a"),), tick=NEVER).stop()
    with running():
        pass
