"""The outbox: in order, at least once, by one teller, from the cursor on, and with patience (L09)."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.testing import capture_logs
from typing_extensions import override

from controlplane.audit.outbox import HOLD, TellSink
from controlplane.model.errors import SinkUnavailableError, StoreUnavailableError
from controlplane.model.event import Kind, Link
from controlplane.testing.clock import FakeClock
from controlplane.testing.store import FakeStore, sample_event

SECOND = timedelta(seconds=1)


class FakeSink:
    """Fits the port Sink: takes what it is told, but for the first `refuses` times it is told an event in `wrong`."""

    def __init__(self, clock: FakeClock | None = None, *, takes: timedelta = timedelta(0)) -> None:
        self.told: list[int] = []
        self.ids: list[str] = []
        self.down = False
        self.wrong: set[int] = set()
        self._clock, self._takes = clock, takes

    def tell(self, link: Link) -> None:
        if self._clock is not None:
            self._clock.advance(self._takes)
        if self.down or link.seq in self.wrong:
            raise SinkUnavailableError("it answered 500")
        self.told.append(link.seq)
        self.ids.append(link.event.id)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink()


def outbox(store: FakeStore, clock: FakeClock, sink: FakeSink, name: str = "pager", *kinds: Kind) -> TellSink:
    return TellSink(
        name=name,
        sink=sink,
        kinds=frozenset(kinds) or None,
        everything=True,
        clock=clock,
        store=store,
        cursors=store.cursors,
    )


def happen(store: FakeStore, *numbers: int, kind: Kind = Kind.GRANT_ALLOWED) -> None:
    with store.transaction() as tx:
        tx.append(*(sample_event(number, kind) for number in numbers))


def seq(store: FakeStore, name: str = "pager") -> int:
    cursor = store.cursors.at(name)
    assert cursor is not None
    return cursor.seq


def test_l09_every_event_is_told_once_in_the_order_of_the_chain(
    store: FakeStore, clock: FakeClock, sink: FakeSink
) -> None:
    tell = outbox(store, clock, sink)
    happen(store, *range(1, 251))
    while tell():
        pass
    assert sink.told == list(range(1, 251))
    assert sink.ids == [event.id for event in store.events()]
    happen(store, 251)
    assert not tell()
    assert sink.told[-1] == 251
    assert not tell()
    assert len(sink.told) == 251


def test_a_new_sink_begins_with_now_unless_it_wants_everything(
    store: FakeStore, clock: FakeClock, sink: FakeSink
) -> None:
    happen(store, 1, 2)
    later = replace(outbox(store, clock, sink), everything=False)
    later()
    assert sink.told == []
    happen(store, 3)
    later()
    assert sink.told == [3]


def test_a_sink_is_told_only_of_the_kinds_it_is_for_and_its_cursor_moves_past_the_others(
    store: FakeStore, clock: FakeClock, sink: FakeSink
) -> None:
    tell = outbox(store, clock, sink, "pager", Kind.GLASS_BROKEN)
    happen(store, *range(1, 150))
    happen(store, 150, kind=Kind.GLASS_BROKEN)
    happen(store, 151)
    while tell():
        pass
    assert sink.told == [150]
    assert seq(store) == 151


def test_l09_what_a_sink_does_not_take_is_told_again_before_anything_after_it(
    store: FakeStore, clock: FakeClock, sink: FakeSink
) -> None:
    tell = outbox(store, clock, sink)
    happen(store, 1, 2, 3)
    sink.wrong = {2}
    with capture_logs() as logged:
        assert not tell()
    assert sink.told == [1]
    assert seq(store) == 1
    (line,) = logged
    assert (line["event"], line["sink"], line["seq"], line["attempts"]) == ("sink_not_told", "pager", 2, 1)
    sink.wrong = set()
    clock.advance(2 * SECOND)
    with capture_logs() as logged:
        tell()
    assert sink.told == [1, 2, 3]
    assert [line["event"] for line in logged] == ["sink_recovered"]


def test_l09_it_backs_off_up_to_some_minutes_and_begins_anew_after_progress(
    store: FakeStore, clock: FakeClock, sink: FakeSink
) -> None:
    tell = outbox(store, clock, sink)
    happen(store, 1, 2)
    sink.down = True
    waits: list[float] = []
    for _ in range(14):
        with capture_logs():
            tell()
        cursor = store.cursors.at("pager")
        assert cursor is not None
        waits.append((cursor.due_at - clock.now()).total_seconds())
        clock.advance((cursor.due_at - clock.now()) / 2)
        assert not tell()  # it is not due
        clock.advance(cursor.due_at - clock.now())
    for number, wait in enumerate(waits):
        span = min(2.0**number, 300)
        assert 0.75 * span <= wait <= 1.25 * span
    assert len({round(wait / min(2.0**number, 300), 3) for number, wait in enumerate(waits)}) > 5  # jitter
    sink.down, sink.wrong = False, {2}
    with capture_logs() as logged:
        tell()
    assert [line["attempts"] for line in logged] == [1]


def test_l09_two_replicas_do_not_tell_the_same_event(store: FakeStore, clock: FakeClock, sink: FakeSink) -> None:
    happen(store, 1, 2)
    mine = store.cursors.claim("pager", clock.now(), hold=HOLD, start=0)
    assert mine is not None
    tell = outbox(store, clock, sink)
    assert not tell()
    assert sink.told == []
    clock.advance(HOLD)  # the other one died
    tell()
    assert sink.told == [1, 2]


def test_l09_whoever_lost_his_hold_moves_no_cursor(store: FakeStore, clock: FakeClock) -> None:
    happen(store, 1)
    slow = FakeSink(clock, takes=HOLD)
    another = outbox(store, clock, other := FakeSink())

    class Meanwhile(FakeSink):
        @override
        def tell(self, link: Link) -> None:
            slow.tell(link)
            another()

    with capture_logs() as logged:
        assert not outbox(store, clock, Meanwhile())()
    assert [line["event"] for line in logged] == ["sink_taken_over"]
    assert (slow.told, other.told, seq(store)) == ([1], [1], 1)


def test_a_slow_sink_gives_its_cursor_up_in_time_and_goes_on_from_there(store: FakeStore, clock: FakeClock) -> None:
    happen(store, *range(1, 6))
    slow = FakeSink(clock, takes=HOLD / 4)
    tell = outbox(store, clock, slow)
    assert tell()
    assert slow.told == [1, 2]
    assert tell()
    assert tell() or slow.told == [1, 2, 3, 4, 5]
    assert slow.told == [1, 2, 3, 4, 5]


def test_stopping_leaves_the_rest_for_the_next(store: FakeStore, clock: FakeClock, sink: FakeSink) -> None:
    happen(store, 1, 2, 3)
    tell = outbox(store, clock, sink)
    assert not tell(lambda: len(sink.told) == 2)
    assert (sink.told, seq(store)) == ([1, 2], 2)
    tell()
    assert sink.told == [1, 2, 3]


def test_l09_a_crash_after_telling_repeats_with_the_same_id_and_loses_nothing(
    store: FakeStore, clock: FakeClock, sink: FakeSink
) -> None:
    happen(store, 1, 2)

    class Dying(FakeSink):
        @override
        def tell(self, link: Link) -> None:
            sink.tell(link)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outbox(store, clock, Dying())()
    clock.advance(HOLD)
    outbox(store, clock, sink)()
    assert sink.told == [1, 1, 2]
    assert sink.ids[0] == sink.ids[1]


def test_a_store_that_is_down_is_told_of_and_nothing_is_lost(
    store: FakeStore, clock: FakeClock, sink: FakeSink
) -> None:
    happen(store, 1)
    store.down = "the disk is full"
    with pytest.raises(StoreUnavailableError):
        outbox(store, clock, sink)()
    store.down = None
    outbox(store, clock, sink)()
    assert sink.told == [1]


def test_a_record_that_cannot_be_read_puts_the_sink_off_and_is_left_to_others(clock: FakeClock, sink: FakeSink) -> None:
    class Damaged(FakeStore):
        @override
        def links(self, *, after: int = 0, limit: int = 1000) -> Sequence[Link]:
            raise StoreUnavailableError("audit record 1: its kind is none that this release knows")

    store = Damaged()
    happen(store, 1)
    with capture_logs() as logged:
        assert not outbox(store, clock, sink)()
    assert [(line["event"], line["code"]) for line in logged] == [("sink_not_told", "store-unavailable")]
    cursor = store.cursors.at("pager")
    assert cursor is not None
    assert (cursor.seq, cursor.held_until) == (0, None)


def test_sinks_go_their_own_ways(store: FakeStore, clock: FakeClock) -> None:
    sinks: Sequence[FakeSink] = (FakeSink(), FakeSink())
    sinks[0].down = True
    happen(store, 1, 2)
    with capture_logs():
        for name, sink in zip(("dead", "well"), sinks, strict=True):
            outbox(store, clock, sink, name)()
    assert [sink.told for sink in sinks] == [[], [1, 2]]
