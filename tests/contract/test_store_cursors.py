"""What every store keeps to with the cursors of sinks: held by one, moved on only, taken over in time (L09)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from controlplane.model.cursor import SinkCursor
from controlplane.model.errors import LostRaceError
from controlplane.ports import Cursors
from controlplane.testing.clock import START
from controlplane.testing.store import FakeStore

SECOND = timedelta(seconds=1)
HOLD = 60 * SECOND


@pytest.fixture
def both(replicas: Callable[[], FakeStore]) -> tuple[Cursors, Cursors]:
    return replicas().cursors, replicas().cursors


def claimed(cursors: Cursors, *, late: timedelta = timedelta(0), start: int = 7) -> SinkCursor:
    found = cursors.claim("pager", START + late, hold=HOLD, start=start)
    assert found is not None
    return found


def free(cursor: SinkCursor, seq: int, *, attempts: int = 0, due_in: timedelta = timedelta(0)) -> SinkCursor:
    return replace(cursor, seq=seq, attempts=attempts, due_at=START + due_in, held_until=None)


def test_a_sink_begins_where_it_is_told_to_and_goes_on_where_it_was(both: tuple[Cursors, Cursors]) -> None:
    here, there = both
    assert here.at("pager") is None
    first = claimed(here)
    assert first == SinkCursor(sink="pager", seq=7, attempts=0, due_at=START, held_until=START + HOLD)
    assert there.at("pager") == first
    here.save(first, free(first, 9))
    assert there.at("pager") == free(first, 9)
    assert claimed(there, late=SECOND, start=50).seq == 9


def test_what_is_held_is_nobody_else_s_until_the_hold_runs_out(both: tuple[Cursors, Cursors]) -> None:
    here, there = both
    first = claimed(here)
    assert there.claim("pager", START + HOLD - SECOND, hold=HOLD, start=0) is None
    assert there.claim("siem", START, hold=HOLD, start=0) is not None
    second = claimed(there, late=HOLD)
    assert second.seq == 7
    with pytest.raises(LostRaceError):
        here.save(first, free(first, 9))
    assert here.at("pager") == second
    there.save(second, free(second, 8))
    with pytest.raises(LostRaceError):  # the hold was given up
        there.save(second, free(second, 9))


def test_a_cursor_never_goes_back(both: tuple[Cursors, Cursors]) -> None:
    cursor = claimed(both[0])
    with pytest.raises(LostRaceError):
        both[0].save(cursor, free(cursor, 6))
    assert both[1].at("pager") == cursor


def test_what_is_put_off_is_not_claimed_before_it_is_due(both: tuple[Cursors, Cursors]) -> None:
    here, there = both
    cursor = claimed(here)
    here.save(cursor, free(cursor, 7, attempts=3, due_in=30 * SECOND))
    assert there.claim("pager", START + 29 * SECOND, hold=HOLD, start=0) is None
    assert claimed(there, late=30 * SECOND).attempts == 3


@pytest.mark.parametrize("known", [False, True])
def test_l09_of_those_who_claim_at_once_one_holds_it(both: tuple[Cursors, Cursors], known: bool) -> None:
    if known:
        cursor = claimed(both[0])
        both[0].save(cursor, free(cursor, 7))
    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(both[place % 2].claim, "pager", START, hold=HOLD, start=7) for place in range(6)]
        assert sum(job.result(60) is not None for job in jobs) == 1
