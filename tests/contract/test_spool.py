"""What every spool keeps to: the one in memory, and the file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.model.event import Kind
from controlplane.model.grant import GrantId
from controlplane.ports import Spool
from controlplane.stores.spool import FileSpool
from controlplane.testing.spool import FakeSpool
from controlplane.testing.store import AUDIT_KEY, sample_event


@pytest.fixture(params=["fake", "file"])
def again(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Spool]:
    """Opens the same spool once more, as the next process would."""
    fake = FakeSpool()
    return lambda: fake if request.param == "fake" else FileSpool(tmp_path / "spool", AUDIT_KEY)


def test_p6_what_was_put_by_is_there_for_the_next_process_in_its_order(again: Callable[[], Spool]) -> None:
    events = [sample_event(number, kind=Kind.GRANT_ENDED, grant=GrantId(f"gr_{number}")) for number in (2, 1, 3)]
    for event in events:
        again().put(event)
    assert again().waiting() == sorted(events, key=lambda event: event.at)


def test_p6_one_end_of_a_grant_is_enough(again: Callable[[], Spool]) -> None:
    first = sample_event(1, kind=Kind.GRANT_ENDED, grant=GrantId("gr_1"))
    again().put(first)
    again().put(sample_event(2, kind=Kind.GRANT_ENDED, grant=GrantId("gr_1")))
    assert again().waiting() == [first]


def test_what_was_let_go_of_comes_no_more_and_there_is_room_again(again: Callable[[], Spool]) -> None:
    events = [sample_event(number, kind=Kind.GRANT_ENDED, grant=GrantId(f"gr_{number}")) for number in range(1, 4)]
    for round_ in range(2):
        for event in events:
            again().put(event)
        for left in range(3):
            again().forget(events[left])
            assert list(again().waiting()) == events[left + 1 :], round_
