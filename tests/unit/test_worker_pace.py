"""While Vault answers 429 or 5xx, or not at all, fewer work at a time; and more again when it recovers (C20, R26)."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from controlplane.testing.clock import FakeClock
from controlplane.worker.pace import Pace, Turns

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize("status", [None, 429, 500, 503])
def test_trouble_halves_it_once_a_second_and_one_always_works(status: int | None) -> None:
    clock = FakeClock()
    pace = Pace(clock)
    assert pace.of(16) == 16
    for left in (8, 4, 2, 1, 1, 1, 1, 1, 1):
        for _ in range(5):
            pace.saw(status)
        assert pace.of(16) == left
        clock.advance(SECOND)
    for _ in range(63):
        pace.saw(204)
    assert pace.of(16) == 16


@pytest.mark.parametrize("status", [200, 204, 400, 403, 404])
def test_an_answer_is_no_trouble_whatever_it_says(status: int) -> None:
    pace = Pace(FakeClock())
    pace.saw(status)
    assert pace.of(4) == 4


def test_no_more_threads_have_a_turn_than_the_pace_allows() -> None:
    clock = FakeClock()
    pace = Pace(clock)
    pace.saw(503)
    turns, lock, now, most = Turns(4, pace), threading.Lock(), 0, 0

    def work() -> None:
        nonlocal now, most
        with turns.turn():
            with lock:
                now += 1
                most = max(most, now)
            with lock:
                now -= 1

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for _ in range(50)]:
            done.result(10)
    assert 1 <= most <= 2
