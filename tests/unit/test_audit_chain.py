"""The hash chain on its own: every way to lie about it names the first bad record (attack L03)."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.audit.chain import (
    GENESIS,
    Broken,
    Checkpoint,
    Fault,
    Intact,
    Unreadable,
    extend,
    is_sealed,
    seal_head,
    seal_link,
    verify,
)
from controlplane.model.event import Event, Head, Kind, Link
from controlplane.model.secret import Secret

KEY = Secret("5a" * 32)
OTHER_KEY = Secret("a5" * 32)
EMPTY = seal_head(KEY, GENESIS.seq, GENESIS.mac)
START = datetime(2025, 3, 1, 12, tzinfo=UTC)


def event(number: int) -> Event:
    return Event(
        id=f"ev_{number}",
        at=START + timedelta(seconds=number),
        kind=Kind.GRANT_REVOKED if number % 2 else Kind.LEASE_ISSUED,
        grant=f"gr_{number % 3}" if number % 5 else None,
        body={"number": number, "subject": "agent-é", "nested": {"list": [1, None, True, 1.5]}},
    )


def chain(length: int, key: Secret = KEY) -> tuple[list[Link], Head]:
    return extend(key, seal_head(key, GENESIS.seq, GENESIS.mac), map(event, range(length)))


def broken(links: list[Link] | list[Link | Unreadable], head: Head | None, *, start: Checkpoint = GENESIS) -> Broken:
    found = verify(links, head, KEY, start=start)
    assert isinstance(found, Broken), found
    return found


lengths = st.integers(min_value=1, max_value=12)


@given(lengths)
def test_an_untouched_chain_is_intact_and_tells_where_it_ends(length: int) -> None:
    links, head = chain(length)
    assert verify(links, head, KEY) == Intact(upto=Checkpoint(seq=length, mac=links[-1].mac), records=length)


def test_an_empty_chain_with_its_sealed_head_is_intact() -> None:
    assert verify([], EMPTY, KEY) == Intact(upto=GENESIS, records=0)


def test_an_empty_chain_without_a_head_is_broken() -> None:
    assert broken([], None).fault is Fault.HEAD_MISSING


def test_a_chain_grows_the_same_way_in_one_step_and_in_many() -> None:
    links, head = chain(5)
    grown: list[Link] = []
    last = EMPTY
    for number in range(5):
        made, last = extend(KEY, last, [event(number)])
        grown += made
    assert (grown, last) == (links, head)


@given(st.data(), lengths)
def test_l03_a_changed_field_of_a_record_names_that_record(data: st.DataObject, length: int) -> None:
    links, head = chain(length)
    at = data.draw(st.integers(0, length - 1))
    link = links[at]
    forged = data.draw(
        st.sampled_from(
            [
                replace(link, event=replace(link.event, id=link.event.id + "x")),
                replace(link, event=replace(link.event, at=link.event.at + timedelta(microseconds=1))),
                replace(link, event=replace(link.event, kind=Kind.GRANT_DENIED)),
                replace(link, event=replace(link.event, grant="gr_other")),
                replace(link, event=replace(link.event, body={**link.event.body, "number": -1})),
                replace(link, event=replace(link.event, body={**link.event.body, "new": None})),
                replace(link, mac="0" * 64),
                replace(link, mac="é"),
                replace(link, mac=""),
            ]
        )
    )
    links[at] = forged
    found = broken(links, head)
    assert (found.seq, found.fault, found.kind) == (at + 1, Fault.CHANGED, forged.event.kind.value)


@given(st.data(), lengths)
def test_l03_one_flipped_bit_of_a_mac_names_that_record(data: st.DataObject, length: int) -> None:
    links, head = chain(length)
    at, place = data.draw(st.integers(0, length - 1)), data.draw(st.integers(0, 63))
    mac = links[at].mac
    links[at] = replace(links[at], mac=f"{mac[:place]}{int(mac[place], 16) ^ 1:x}{mac[place + 1 :]}")
    assert broken(links, head).seq == at + 1


@given(st.data(), lengths)
def test_l03_a_removed_record_is_named(data: st.DataObject, length: int) -> None:
    links, head = chain(length)
    at = data.draw(st.integers(0, length - 1))
    del links[at]
    found = broken(links, head)
    assert found.seq == at + 1
    assert found.fault is (Fault.CUT_OFF if at == length - 1 else Fault.MISSING)


@given(st.data(), lengths)
def test_l03_a_removed_record_is_found_though_the_rest_is_renumbered(data: st.DataObject, length: int) -> None:
    links, head = chain(length)
    at = data.draw(st.integers(0, length - 1))
    del links[at]
    renumbered = [replace(link, seq=seq) for seq, link in enumerate(links, start=1)]
    found = broken(renumbered, head)
    assert (found.seq, found.fault) == (at + 1, Fault.CUT_OFF if at == length - 1 else Fault.CHANGED)


@given(st.data(), st.integers(2, 12))
def test_l03_two_swapped_records_are_found_at_the_first(data: st.DataObject, length: int) -> None:
    links, head = chain(length)
    one = data.draw(st.integers(0, length - 2))
    other = data.draw(st.integers(one + 1, length - 1))
    links[one], links[other] = links[other], links[one]
    found = broken(links, head)
    assert (found.seq, found.fault) == (one + 1, Fault.MISSING)


@given(st.data(), st.integers(2, 12))
def test_l03_two_records_that_swapped_numbers_are_found_at_the_first(data: st.DataObject, length: int) -> None:
    links, head = chain(length)
    one = data.draw(st.integers(0, length - 2))
    other = data.draw(st.integers(one + 1, length - 1))
    links[one], links[other] = replace(links[other], seq=one + 1), replace(links[one], seq=other + 1)
    found = broken(links, head)
    assert (found.seq, found.fault) == (one + 1, Fault.CHANGED)


@given(st.data(), lengths)
def test_l03_a_repeated_record_is_found(data: st.DataObject, length: int) -> None:
    links, head = chain(length)
    at = data.draw(st.integers(0, length - 1))
    links.insert(at + 1, links[at])
    found = broken(links, head)
    assert (found.seq, found.fault) == (at + 1, Fault.REPEATED)


@given(st.data(), lengths)
def test_l03_a_cut_off_tail_is_found_by_the_sealed_head(data: st.DataObject, length: int) -> None:
    links, head = chain(length)
    kept = data.draw(st.integers(0, length - 1))
    found = broken(links[:kept], head)
    assert (found.seq, found.fault) == (kept + 1, Fault.CUT_OFF)


@given(st.data(), st.integers(2, 12))
def test_l03_a_tail_cut_back_to_an_older_sealed_head_is_found_by_a_checkpoint(data: st.DataObject, length: int) -> None:
    links, _ = chain(length)
    kept = data.draw(st.integers(1, length - 1))
    older, checkpoint = chain(kept)[1], Checkpoint(seq=length, mac=links[-1].mac)
    assert isinstance(verify(links[:kept], older, KEY), Intact)
    assert broken([], older, start=checkpoint).fault is Fault.CUT_OFF


@given(st.data(), lengths)
def test_verifying_from_a_checkpoint_checks_what_came_after_it(data: st.DataObject, length: int) -> None:
    links, head = chain(length)
    at = data.draw(st.integers(0, length))
    start = Checkpoint(seq=at, mac=links[at - 1].mac) if at else GENESIS
    found = verify(links[at:], head, KEY, start=start)
    assert found == Intact(upto=Checkpoint(seq=length, mac=head.mac), records=length - at)


def test_a_checkpoint_of_another_chain_is_not_continued() -> None:
    links, head = chain(4)
    assert broken(links[2:], head, start=Checkpoint(seq=2, mac="1" * 64)).seq == 3
    assert broken([], head, start=Checkpoint(seq=4, mac="1" * 64)).fault is Fault.HEAD_FORGED


def test_l03_a_missing_head_is_found() -> None:
    links, _ = chain(3)
    found = broken(links, None)
    assert (found.seq, found.fault) == (4, Fault.HEAD_MISSING)


def test_l03_a_head_that_somebody_moved_is_found() -> None:
    links, head = chain(3)
    shorter = replace(head, seq=2, mac=links[1].mac)
    assert broken(links[:2], shorter).fault is Fault.HEAD_FORGED


def test_records_added_after_the_sealed_head_are_found() -> None:
    links, _ = chain(4)
    _, older = chain(3)
    found = broken(links, older)
    assert (found.seq, found.fault) == (4, Fault.UNSEALED)


def test_l03_a_log_that_was_replaced_and_chained_again_without_the_key_is_foreign() -> None:
    links, head = chain(5, OTHER_KEY)
    found = broken(links, head)
    assert (found.seq, found.fault) == (1, Fault.FOREIGN)


def test_l03_two_logs_spliced_with_the_same_key_are_found_at_the_seam() -> None:
    links, _ = chain(6)
    others, head = extend(KEY, EMPTY, (event(number + 100) for number in range(6)))
    found = broken([*links[:3], *others[3:]], head)
    assert (found.seq, found.fault) == (4, Fault.CHANGED)


def test_a_record_that_cannot_be_read_is_named() -> None:
    links, head = chain(3)
    found = broken([links[0], Unreadable(seq=2, what="its body is not what was written"), links[2]], head)
    assert (found.seq, found.fault) == (2, Fault.UNREADABLE)


@pytest.mark.parametrize("text", ["\ud800", "x"])
def test_text_that_is_no_unicode_is_a_change_and_not_a_crash(text: str) -> None:
    links, head = chain(2)
    links[1] = replace(links[1], event=replace(links[1].event, body={"a": text}))
    assert broken(links, head).seq == 2


def test_a_link_can_never_pass_for_a_head() -> None:
    links, head = chain(1)
    assert not is_sealed(KEY, Head(seq=head.seq, mac=head.mac, seal=links[0].mac))
    assert is_sealed(KEY, head)
    assert not is_sealed(OTHER_KEY, head)


def test_a_mac_depends_on_everything_before_it() -> None:
    assert seal_link(KEY, "0" * 64, 1, event(1)) != seal_link(KEY, "1" * 64, 1, event(1))
    assert seal_link(KEY, "0" * 64, 1, event(1)) != seal_link(KEY, "0" * 64, 2, event(1))


def test_a_mac_is_the_documented_one() -> None:
    # A frozen vector: a change of the bytes would make every chain that was written before it look broken.
    at = datetime(2025, 3, 1, 13, 0, 0, 5, tzinfo=UTC)
    fact = Event(id="ev_1", at=at, kind=Kind.GRANT_REVOKED, grant="gr_1", body={"b": [1, "é"], "a": None})
    assert seal_link(KEY, GENESIS.mac, 1, fact) == "91fa90636dc34b1a2e5028f4b225edd969f21ae1d8a843d713d634ebbbb4119d"
    assert seal_head(KEY, 1, "ab" * 32).seal == "c4290c72d7c3ea57d6242ac35e208928bf63645fca116acbb402a8aa8d1bdb6c"


def test_a_long_chain_is_verified_in_constant_memory() -> None:
    length = 5_000
    head = list(accumulate(map(event, range(length)), lambda last, one: extend(KEY, last, [one])[1], initial=EMPTY))[-1]

    def stream() -> Iterator[Link]:
        last = EMPTY
        for number, _ in enumerate(repeat(None, length)):
            made, last = extend(KEY, last, [event(number)])
            yield from made

    tracemalloc.start()
    try:
        assert isinstance(verify(stream(), head, KEY), Intact)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
