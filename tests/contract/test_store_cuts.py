"""Cuts in every store: previewed once, cut once, taken at once, never by two at a time (P10; C20, I01, I02)."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from controlplane.model.cut import RESISTS, Cut, CutId, Outcome, Preview, digest_of, lease_group
from controlplane.model.entitlement import Risk
from controlplane.model.errors import IllegalTransitionError, LostRaceError
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State, Step, TaskId, Why
from controlplane.model.identity import IssuerName
from controlplane.model.lease import Accessor, Ended, LeaseId, Receipt
from controlplane.ports import Store
from controlplane.selectors import selection
from controlplane.testing.clock import START
from controlplane.testing.store import sample_event, sample_grant, sample_lease

SECOND = timedelta(seconds=1)
NOW = START + timedelta(minutes=1)
EVERYTHING = selection("all")
T1 = selection("task=T-1")


def shown(number: int = 1, text: str = "task=T-1", count: int = 2) -> Preview:
    digest, issuer = f"{number:064}", IssuerName("people")
    return Preview(digest=digest, selection=text, at=NOW, count=count, issuer=issuer, subject="ann")


def ordered(number: int = 1, text: str = "task=T-1") -> Cut:
    return Cut(
        id=CutId(f"ct_{number:024}"),
        incident="INC-7",
        selection=text,
        digest=f"{number:064}",
        previewed_at=NOW,
        reason="leaked",
        issuer=IssuerName("people"),
        subject="ann",
        freeze=None,
        ordered_at=NOW + number * SECOND,
    )


def order(store: Store, number: int = 1, text: str = "task=T-1") -> Cut:
    cut = ordered(number, text)
    with store.transaction() as tx:
        tx.preview(shown(number, text), sample_event(kind=Kind.SELECTION_PREVIEWED))
        tx.cut(cut, sample_event(kind=Kind.CUT_ORDERED))
        tx.take(cut, selection(text))
    return cut


def add(store: Store, *grants: Grant, risk: str | None = None) -> None:
    for grant in grants:
        with store.transaction() as tx:
            tx.add(grant, note={} if risk is None else {"risk": (risk,)})


def ended(grant: Grant, *verified: bool) -> Sequence[Grant]:
    """A grant on its way to its end, step by step; what is said in it looks like what is stored of it."""
    active = grant.after(Step.DELIVER, accessor=Accessor(f"a-{grant.id}"), issued_at=NOW)
    revoking = active.after(Step.END, why=Why.CUT, revoking_at=NOW)
    ends = [
        Ended(lease=LeaseId("l"), principal="p", method="m", at=NOW, verified=one, evidence='"verified":false')
        for one in verified
    ]
    gone = revoking.after(Step.CONFIRM_GONE, revoked_at=NOW, receipt=Receipt(ended=tuple(ends)), due_at=None)
    return [active, revoking, gone]


def save(store: Store, *grants: Grant) -> None:
    for grant in grants:
        with store.transaction() as tx:
            tx.save(grant)


def test_a_survey_counts_exactly_what_is_selected_and_has_not_ended(store: Store) -> None:
    one, two, other = (
        sample_grant(1),
        sample_grant(2, subject="b", state=State.PENDING),
        sample_grant(3, task=TaskId("T-2")),
    )
    lapsed = sample_grant(4, state=State.PENDING)
    add(store, one, two, other, lapsed)
    save(store, lapsed.after(Step.LAPSE, why=Why.EXPIRED, due_at=None))
    with store.transaction() as tx:
        tx.add_leases(one.id, [sample_lease(1), sample_lease(2)])
    seen = store.survey(T1, NOW)
    assert [(group.subject, group.state, group.count) for group in seen.groups] == [
        ("b", State.PENDING, 1),
        (one.subject, State.ISSUING, 1),
    ]
    assert seen.leases == [lease_group("database", "orders", ["v-sh-1", "v-sh-2"])]
    asked = ["v-sh-1", "v-sh-3", *(f"v-no-{number}" for number in range(600))]
    assert store.selected_principals(T1, NOW, "database", "orders", asked) == {"v-sh-1"}
    assert store.selected_principals(T1, NOW, "database", "other", asked) == frozenset()
    assert store.selected_principals(T1, NOW, "database", "orders", []) == frozenset()
    assert store.selected_principals(selection("task=T-2"), NOW, "database", "orders", asked) == frozenset()
    assert [(one.task, one.grants) for one in seen.doing] == [("T-1", 1)]
    assert (seen.count, seen.of) == (2, 3)
    assert [grant.id for grant in store.open_selected(T1, NOW, limit=10)] == [two.id, one.id]
    assert store.survey(selection("task=T-9"), NOW).count == 0
    assert digest_of("task=T-1", NOW, seen) != digest_of("task=T-1", NOW + SECOND, seen)


def test_what_has_changed_since_a_preview_is_counted(store: Store) -> None:
    add(store, sample_grant(1), sample_grant(2, state=State.PENDING))
    assert (store.changed(T1, shown()).new, store.changed(T1, shown()).ended) == (0, 0)
    add(store, sample_grant(3, at=NOW + SECOND))
    save(store, sample_grant(2, state=State.PENDING).after(Step.LAPSE, why=Why.EXPIRED, due_at=None))
    assert (store.changed(T1, shown()).new, store.changed(T1, shown()).ended) == (1, 1)


def test_p10_a_preview_is_cut_once_and_only_what_was_previewed_can_be(store: Store) -> None:
    cut = order(store)
    assert (store.previewed(cut.digest), store.cut(cut.id), store.cut_by(cut.digest)) == (shown(), cut, cut)
    for twin in (replace(cut, id=CutId("ct_twin")), ordered(2)):
        with pytest.raises(LostRaceError), store.transaction() as tx:
            tx.cut(twin, sample_event())
    with pytest.raises(LostRaceError), store.transaction() as tx:
        tx.preview(shown(), sample_event())
    assert (store.previewed("0"), store.cut(CutId("ct_no")), store.cut_by("0")) == (None, None, None)
    assert [link.event.kind for link in store.links()] == [Kind.SELECTION_PREVIEWED, Kind.CUT_ORDERED]


def test_cuts_are_paged_newest_first_and_end_once(store: Store) -> None:
    cuts = [order(store, number) for number in (1, 2, 3)]
    with store.transaction() as tx:
        tx.preview(shown(4))
    with pytest.raises(IllegalTransitionError), store.transaction() as tx:
        tx.cut(replace(ordered(4), ended_at=NOW))
    with store.transaction() as tx:
        assert tx.end_cut(cuts[1].over(NOW + 9 * SECOND), sample_event(kind=Kind.CUT_ENDED))
    with store.transaction() as tx:
        assert not tx.end_cut(cuts[1].over(NOW + 10 * SECOND), sample_event(kind=Kind.CUT_ENDED))
    assert store.cuts() == [cuts[2], cuts[1].over(NOW + 9 * SECOND), cuts[0]]
    assert store.cuts(running=True) == [cuts[2], cuts[0]]
    assert store.cuts(before=cuts[2].id, limit=1) == [cuts[1].over(NOW + 9 * SECOND)]
    assert store.cuts(before=CutId("ct_no")) == []
    assert [link.event.kind for link in store.links()].count(Kind.CUT_ENDED) == 1


def test_i01_a_cut_takes_what_is_selected_once_and_what_comes_later_too(store: Store) -> None:
    add(store, sample_grant(1), sample_grant(2), sample_grant(3, task=TaskId("T-2")))
    cut = order(store)
    assert store.progress(cut.id).counts == {Outcome.WAITING: 2}
    assert not store.untaken(cut, T1)
    with store.transaction() as tx:
        tx.take(cut, T1)
    assert store.progress(cut.id).total == 2
    add(store, sample_grant(4, at=NOW + timedelta(hours=1)))
    assert store.untaken(cut, T1)
    with store.transaction() as tx:
        tx.take(cut, T1)
    assert store.progress(cut.id).total == 3


def test_i01_age_is_reckoned_as_it_was_previewed_so_that_time_alone_takes_nothing(store: Store) -> None:
    add(store, sample_grant(1), sample_grant(2, at=START + 31 * SECOND))
    cut = order(store, 1, "age>30s")
    assert store.progress(cut.id).total == 1
    assert not store.untaken(cut, selection("age>30s"))


def test_the_riskiest_come_first_and_what_nobody_knows_the_risk_of_is_high(store: Store) -> None:
    for number, risk in enumerate(("low", "medium", None, "high"), 1):
        add(store, sample_grant(number), risk=risk)
    cut = order(store)
    with store.transaction() as tx:
        batch = tx.next_of_cut(cut.id, limit=3)
    assert [(grant.id[-1], risk) for grant, risk in batch] == [("3", Risk.HIGH), ("4", Risk.HIGH), ("2", Risk.MEDIUM)]


def test_every_outcome_is_told_apart_and_named(store: Store) -> None:
    grants = [sample_grant(number) for number in range(1, 7)]
    pending = sample_grant(7, state=State.PENDING)
    add(store, *grants, pending)
    cut = order(store)
    save(store, *ended(grants[1], True), *ended(grants[2], True, False), *ended(grants[3])[:2])
    resisting = ended(grants[4])[:2]
    save(store, *resisting, resisting[-1].but(attempts=RESISTS))
    stranded = ended(grants[5])[:2]
    save(store, *stranded, stranded[-1].after(Step.STRAND))
    save(store, pending.after(Step.LAPSE, why=Why.CUT, due_at=None))
    assert store.progress(cut.id).counts == {
        Outcome.WAITING: 1,
        Outcome.VERIFIED: 1,
        Outcome.UNVERIFIABLE: 1,
        Outcome.ENDING: 1,
        Outcome.RESIDUAL: 2,
        Outcome.WITHDRAWN: 1,
    }
    assert [grant.id for grant in store.of_cut(cut.id, [Outcome.RESIDUAL])] == [grants[4].id, grants[5].id]
    assert [grant.id for grant in store.of_cut(cut.id, [Outcome.UNVERIFIABLE, Outcome.WAITING])] == [
        grants[0].id,
        grants[2].id,
    ]
    assert store.progress(CutId("ct_no")).total == 0


def test_i02_two_replicas_end_each_grant_once(replicas: Callable[[], Store]) -> None:
    stores = [replicas(), replicas()]
    add(stores[0], *(sample_grant(number) for number in range(60)))
    cut = order(stores[0])
    done: list[GrantId] = []
    begin = threading.Barrier(2)

    def work(store: Store) -> None:
        begin.wait()
        while store.progress(cut.id).of(Outcome.WAITING):
            with store.transaction() as tx:
                for grant, _ in tx.next_of_cut(cut.id, limit=7):
                    tx.save(grant.after(Step.END, why=Why.CUT, revoking_at=NOW))
                    done.append(grant.id)

    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(done) == len(set(done)) == 60
