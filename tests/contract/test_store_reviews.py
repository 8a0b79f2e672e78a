"""What every store keeps to with reviews of broken glass: one open for a person, closed once, by another (C19)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controlplane.model.errors import IllegalTransitionError, LostRaceError
from controlplane.model.event import Kind
from controlplane.model.grant import GrantId
from controlplane.model.identity import IssuerName, workload_id
from controlplane.model.review import Closing, Review
from controlplane.ports import Store
from controlplane.testing.clock import START
from controlplane.testing.store import sample_event, sample_grant

Replica = Callable[[], Store]
SECOND = timedelta(seconds=1)
CLOSING = Closing(at=START + SECOND, issuer=IssuerName("people"), subject="bob", person="bob@acme.example", note="fine")


@pytest.fixture
def store(replicas: Replica) -> Store:
    return replicas()


def review(number: int = 1, *, subject: str = "agent", person: str | None = None, **changes: Any) -> Review:
    plain = Review(
        grant=sample_grant(number).id,
        issuer=IssuerName("dev"),
        subject=subject,
        person=person,
        workload=workload_id(IssuerName("dev"), subject),
        opened_at=START + number * SECOND,
    )
    return replace(plain, **changes)


def open_(store: Store, review: Review, number: int = 1) -> None:
    with store.transaction() as tx:
        tx.add(sample_grant(number), sample_event(number, grant=review.grant))
        tx.open_review(review, sample_event(100 + number, Kind.GLASS_BROKEN, review.grant))


def close(store: Store, review: Review) -> Review:
    closed = replace(review, closing=CLOSING)
    with store.transaction() as tx:
        tx.close_review(closed, sample_event(999, Kind.GLASS_REVIEWED, review.grant))
    return closed


def under(store: Store, *names: str) -> list[GrantId]:
    with store.transaction() as tx:
        return list(tx.open_reviews(frozenset(names)))


@pytest.mark.parametrize("person", [None, "Ann@acme.example"])
def test_c19_a_review_reads_back_as_it_was_opened_and_as_it_was_closed(store: Store, person: str | None) -> None:
    opened = review(person=person)
    open_(store, opened)
    assert store.review(opened.grant) == opened
    assert store.reviews() == [opened]
    closed = close(store, opened)
    assert store.review(opened.grant) == closed
    assert store.reviews() == []
    assert store.review(sample_grant(2).id) is None
    assert [link.event.kind for link in store.links()][1:] == [Kind.GLASS_BROKEN, Kind.GLASS_REVIEWED]


def test_c19_an_open_review_is_found_under_each_of_the_names_in_any_case_and_a_closed_one_under_none(
    store: Store,
) -> None:
    opened = review(subject="Repo:ACME", person="Ann@acme.example")
    open_(store, opened)
    assert under(store, "repo:acme", "ann@acme.example") == [opened.grant]
    assert under(store, "repo:acme") == under(store, "x", "ann@acme.example") == [opened.grant]
    assert under(store, "somebody") == []
    close(store, opened)
    assert under(store, "repo:acme", "ann@acme.example") == []
    open_(store, review(2, subject="Repo:ACME"), 2)


def test_c19_somebody_with_two_identities_is_told_of_the_reviews_of_both(store: Store) -> None:
    first, second = review(1, subject="agent-1"), review(2, subject="agent-2")
    open_(store, first, 1)
    open_(store, second, 2)
    assert under(store, "agent-2", "agent-1") == [first.grant, second.grant]


@pytest.mark.parametrize(
    "second",
    [review(2), review(2, subject="other", person="AGENT"), review(2, issuer=IssuerName("other"))],
    ids=["same", "person", "issuer"],
)
def test_c19_no_second_review_is_opened_under_a_name_that_has_one(store: Store, second: Review) -> None:
    open_(store, review())
    with pytest.raises(LostRaceError):
        open_(store, second, 2)
    assert store.grant(second.grant) is None
    assert len(store.links()) == 2


def test_a_review_is_of_a_grant_that_is_there(store: Store) -> None:
    with pytest.raises(LostRaceError), store.transaction() as tx:
        tx.open_review(review())
    assert store.reviews() == []


def test_c19_of_two_who_break_the_glass_at_once_one_gets_through(replicas: Replica) -> None:
    stores = [replicas(), replicas()]

    def ask(number: int, name: str) -> bool:
        mine = review(number, subject=name)
        with stores[number % 2].transaction() as tx:
            if tx.open_reviews(mine.names):
                return False
            tx.add(sample_grant(number), sample_event(number))
            tx.open_review(mine)
            return True

    with ThreadPoolExecutor(6) as pool:
        for turn in range(5):
            asked = [pool.submit(ask, 10 * turn + place, f"agent-{turn}") for place in range(6)]
            assert sum(answer.result(60) for answer in asked) == 1
    assert len(stores[0].reviews()) == 5


def test_c19_a_review_is_closed_once_whoever_else_tries_at_the_same_time(replicas: Replica) -> None:
    stores = [replicas(), replicas()]
    opened = review()
    open_(stores[0], opened)

    def try_(place: int) -> bool:
        try:
            close(stores[place % 2], opened)
        except LostRaceError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(try_, range(4))) == 1
    assert [link.event.kind for link in stores[0].links()].count(Kind.GLASS_REVIEWED) == 1


def test_c19_the_store_itself_lets_nobody_close_his_own(store: Store) -> None:
    opened = review(subject="bob")
    open_(store, opened)
    with pytest.raises(IllegalTransitionError, match="a review is closed by somebody else"):
        close(store, opened)
    assert store.reviews() == [opened]


def test_a_review_that_never_was_cannot_be_closed(store: Store) -> None:
    with pytest.raises(LostRaceError):
        close(store, review())


def test_pages_of_open_reviews_are_oldest_first_and_complete(store: Store) -> None:
    wanted = [review(number, subject=f"agent-{number}", opened_at=START + number // 3 * SECOND) for number in range(7)]
    for number, each in enumerate(wanted):
        open_(store, each, number)
    close(store, wanted[4])
    del wanted[4]
    found = list(store.reviews(limit=3))
    while page := store.reviews(after=found[-1].grant, limit=3):
        found += page
    assert found == wanted
    assert store.reviews(after=sample_grant(99).id) == []
