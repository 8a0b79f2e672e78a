"""The Clock and Ids ports: the fakes keep what the real ones promise."""

import re
import threading
from datetime import UTC, timedelta, timezone

import pytest

from controlplane.ports import Clock, Ids
from controlplane.testing.clock import START, FakeClock
from controlplane.testing.ids import CountingIds
from controlplane.world import RandomIds, SystemClock


@pytest.mark.parametrize(
    "clock", [SystemClock(), FakeClock(), FakeClock(START.astimezone(timezone(timedelta(hours=5))))]
)
def test_now_is_aware_utc_and_never_runs_backwards_by_itself(clock: Clock) -> None:
    first, second = clock.now(), clock.now()
    assert first.tzinfo is UTC
    assert first <= second


@pytest.mark.parametrize("ids", [RandomIds(), CountingIds()])
def test_ids_have_their_form_and_are_never_used_twice(ids: Ids) -> None:
    made: list[str] = []

    def make() -> None:
        made.extend(ids.new("gr") for _ in range(200))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1600
    assert all(re.fullmatch(r"gr_[a-z2-7]{24}", id) for id in made)


def test_a_fake_clock_moves_only_when_it_is_told_to() -> None:
    clock = FakeClock(START)
    assert clock.advance(timedelta(minutes=5)) == clock.now() == START + timedelta(minutes=5)
    assert clock.advance(timedelta(hours=-1)) < START
    with pytest.raises(ValueError, match="time zone"):
        FakeClock(START.replace(tzinfo=None))


def test_counted_ids_can_be_said_in_advance() -> None:
    ids = CountingIds()
    assert ids.new("gr") == "gr_aaaaaaaaaaaaaaaaaaaaaaab"
    assert ids.new("tk") == "tk_aaaaaaaaaaaaaaaaaaaaaaac"
