"""Tasks in every store: finished once and for good, whoever asks for a grant at the same moment (C13, C21, P03)."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from controlplane.model.errors import IllegalTransitionError, LostRaceError
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, Revision, State, Step, TaskId, Why
from controlplane.model.identity import IssuerName, WorkloadId, workload_id
from controlplane.model.lease import Accessor
from controlplane.model.task import DEEPEST, Task
from controlplane.ports import Store
from controlplane.testing.clock import START
from controlplane.testing.store import sample_event, sample_grant

MINE = sample_grant().workload
THEIRS = workload_id(IssuerName("dev"), "somebody-else")
SECOND = timedelta(seconds=1)


def name(text: str) -> TaskId:
    return TaskId(text)


def sample_task(id: str = "T-1", *, parent: str | None = None, depth: int = 1, workload: WorkloadId = MINE) -> Task:
    above = None if parent is None else name(parent)
    return Task(workload=workload, id=name(id), parent=above, depth=depth, begun_at=START)


def begin(store: Store, *tasks: Task) -> None:
    for task in tasks:
        with store.transaction() as tx:
            assert tx.begin_task(task) == task


def finish(store: Store, task: Task, why: Why = Why.COMPLETED) -> Task:
    with store.transaction() as tx:
        return tx.finish_task(task, sample_event(1, Kind.TASK_FINISHED), at=START + SECOND, why=why)


def activated(store: Store, grant: Grant) -> Grant:
    active = grant.after(Step.DELIVER, issued_at=grant.requested_at, accessor=Accessor(f"a-{grant.id}"))
    with store.transaction() as tx:
        tx.add(grant)
        tx.save(active)
    return active


def test_a_task_is_begun_once_and_the_first_one_stands(store: Store) -> None:
    begin(store, sample_task())
    later = Task(workload=MINE, id=name("T-1"), begun_at=START + SECOND)
    with store.transaction() as tx:
        assert tx.begin_task(later) == sample_task()
    assert store.lineage(MINE, name("T-1")) == [sample_task()]
    assert store.lineage(MINE, name("T-2")) == []


def test_the_same_name_at_another_workload_is_another_task(store: Store) -> None:
    theirs = sample_task(workload=THEIRS)
    begin(store, sample_task(), theirs)
    finish(store, theirs)
    assert store.lineage(MINE, name("T-1")) == [sample_task()]
    (ended,) = store.lineage(THEIRS, name("T-1"))
    assert (ended.finished_at, ended.why) == (START + SECOND, Why.COMPLETED)


def test_a_finished_task_stays_as_it_was_finished_first_and_is_told_once(store: Store) -> None:
    begin(store, sample_task())
    first = finish(store, sample_task(), Why.FAILED)
    assert finish(store, sample_task(), Why.COMPLETED) == first
    assert first.why is Why.FAILED
    assert [link.event.kind for link in store.links()] == [Kind.TASK_FINISHED]


def test_no_grant_begins_in_a_finished_task_whatever_the_verb_thought(store: Store) -> None:
    begin(store, sample_task())
    finish(store, sample_task())
    with pytest.raises(IllegalTransitionError, match="no grant begins in a finished task"), store.transaction() as tx:
        tx.add(sample_grant())
    with store.transaction() as tx:
        tx.add(sample_grant(2, task=name("T-2")))
    assert [grant.id for grant in store.grants()] == [sample_grant(2).id]


def test_c21_a_part_has_a_parent_of_the_same_workload_and_tasks_are_no_deeper_than_allowed(store: Store) -> None:
    begin(store, sample_task("T-1", workload=THEIRS))
    with pytest.raises(LostRaceError), store.transaction() as tx:
        tx.begin_task(sample_task("T-1/a", parent="T-1", depth=2))
    begin(store, sample_task("T-1"))
    for depth, parent in ((DEEPEST + 1, "T-1"), (1, "T-1"), (2, None)):
        with pytest.raises(IllegalTransitionError, match="as deep as it may be"), store.transaction() as tx:
            tx.begin_task(sample_task("T-1/a", parent=parent, depth=depth))
    with pytest.raises((IllegalTransitionError, LostRaceError)), store.transaction() as tx:
        tx.begin_task(sample_task("T-2", parent="T-2", depth=2))


def test_the_line_of_a_task_goes_up_to_one_that_stands_by_itself(store: Store) -> None:
    line = [sample_task("a"), sample_task("b", parent="a", depth=2), sample_task("c", parent="b", depth=3)]
    begin(store, *line, sample_task("d", parent="a", depth=2))
    assert store.lineage(MINE, name("c")) == line[::-1]
    with store.transaction() as tx:
        assert tx.lineage(MINE, name("c")) == line[::-1]
    assert [task.id for task in store.parts(MINE, name("a"), limit=10)] == ["b", "d"]
    assert [task.id for task in store.parts(MINE, name("a"), limit=1)] == ["b"]
    assert store.parts(MINE, name("c"), limit=10) == []


def test_what_is_open_in_a_tree_is_all_of_it_and_nothing_else(store: Store) -> None:
    begin(store, sample_task("a"), sample_task("b", parent="a", depth=2), sample_task("c", parent="b", depth=3))
    begin(store, sample_task("z"))
    for number, task in enumerate(("a", "b", "c", "z"), 1):
        with store.transaction() as tx:
            tx.add(sample_grant(number, task=name(task), at=START + number * SECOND))
    waiting = sample_grant(5, task=name("c"), at=START + 5 * SECOND, state=State.PENDING)
    with store.transaction() as tx:
        tx.add(waiting)
        tx.add(sample_grant(6, task=name("a"), workload=THEIRS))
    ended = sample_grant(7, task=name("b"), state=State.PENDING)
    with store.transaction() as tx:
        tx.add(ended)
        tx.save(ended.after(Step.LAPSE, due_at=None))
    numbers = [int(grant.id.rsplit("_", maxsplit=1)[1]) for grant in store.open_in_tree(MINE, name("a"))]
    assert numbers == [5, 3, 2, 1]
    with store.transaction() as tx:
        assert tx.open_in_tree(MINE, name("b")) == [store.grant(sample_grant(n).id) for n in (5, 3, 2)]
    assert store.open_in_tree(MINE, name("nothing")) == []


def test_a_cover_is_the_longest_active_grant_of_the_same_revision_of_the_task(store: Store) -> None:
    begin(store, sample_task())
    short = activated(store, sample_grant(1))
    long = activated(store, sample_grant(2, expires_at=START + timedelta(minutes=9)))
    activated(store, sample_grant(3, revision=Revision("other"), expires_at=START + timedelta(minutes=20)))
    activated(store, sample_grant(4, task=name("T-2"), expires_at=START + timedelta(minutes=20)))
    activated(store, sample_grant(5, workload=THEIRS, expires_at=START + timedelta(minutes=20)))
    with store.transaction() as tx:
        tx.add(sample_grant(6, expires_at=START + timedelta(minutes=20)))  # issuing: nobody has it yet
    what = (MINE, name("T-1"), short.entitlement, short.revision)
    with store.transaction() as tx:
        assert tx.cover(*what, only=None) == long
        assert tx.cover(*what, only=short.id) == short
        assert tx.cover(*what, only=GrantId("gr_none")) is None
        assert tx.cover(MINE, name("T-1"), "other", short.revision, only=None) is None
    with store.transaction() as tx:
        tx.save(long.after(Step.END, why=Why.COMPLETED, revoking_at=START, due_at=START))
    with store.transaction() as tx:
        assert tx.cover(*what, only=None) == short
        assert tx.cover(*what, only=long.id) is None


def test_what_hangs_from_a_grant_is_found_until_it_begins_to_end(store: Store) -> None:
    above = activated(store, sample_grant(1))
    part = activated(store, sample_grant(2, under=above.id))
    assert store.under(above.id) == [part]
    assert store.grant(part.id) == part
    with store.transaction() as tx:
        tx.save(part.after(Step.END, why=Why.PARENT_ENDED, revoking_at=START, due_at=START, under=None))
    assert store.under(above.id) == []
    moved = store.grant(part.id)
    assert moved is not None
    assert (moved.why, moved.under) == (Why.PARENT_ENDED, above.id)


def together(*jobs: Callable[[], None]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def test_c13_a_grant_that_races_the_end_of_its_task_is_refused_or_seen_by_it(replicas: Callable[[], Store]) -> None:
    asking, ending = replicas(), replicas()
    for number in range(12):
        task, grant = sample_task(f"R-{number}"), sample_grant(number, task=name(f"R-{number}"))
        begin(asking, task)
        start, seen, added = threading.Barrier(2), list[GrantId](), list[GrantId]()

        def ask(start: threading.Barrier, task: Task, grant: Grant, added: list[GrantId]) -> None:
            start.wait()
            with asking.transaction() as tx:
                (now,) = tx.lineage(MINE, task.id)
                if now.finished_at is None:
                    tx.add(grant)
                    added.append(grant.id)

        def end(start: threading.Barrier, task: Task, seen: list[GrantId]) -> None:
            start.wait()
            with ending.transaction() as tx:
                tx.finish_task(task, at=START, why=Why.COMPLETED)
                seen += [grant.id for grant in tx.open_in_tree(MINE, task.id)]

        together(lambda: ask(start, task, grant, added), lambda: end(start, task, seen))  # noqa: B023 # joined here
        assert seen == added


def test_c13_who_finishes_waits_for_who_has_asked_and_sees_what_that_one_adds(replicas: Callable[[], Store]) -> None:
    asking, ending = replicas(), replicas()
    begin(asking, sample_task())
    seen, done = list[GrantId](), threading.Event()

    def end() -> None:
        with ending.transaction() as tx:
            tx.finish_task(sample_task(), at=START, why=Why.COMPLETED)
            seen.extend(grant.id for grant in tx.open_in_tree(MINE, name("T-1")))
        done.set()

    thread = threading.Thread(target=end)
    with asking.transaction() as tx:
        assert tx.lineage(MINE, name("T-1"))
        thread.start()
        assert not done.wait(0.2)
        tx.add(sample_grant())
    thread.join(60)
    assert seen == [sample_grant().id]


def test_c21_who_ends_a_cover_waits_for_who_counts_on_it_and_finds_what_hangs_from_it(
    replicas: Callable[[], Store],
) -> None:
    asking, ending = replicas(), replicas()
    begin(asking, sample_task())
    above = activated(asking, sample_grant())
    done = threading.Event()

    def end() -> None:
        with ending.transaction() as tx:
            tx.save(above.after(Step.END, why=Why.COMPLETED, revoking_at=START, due_at=START))
        done.set()

    thread = threading.Thread(target=end)
    with asking.transaction() as tx:
        assert tx.cover(MINE, above.task, above.entitlement, above.revision, only=None) == above
        thread.start()
        assert not done.wait(0.2)
        tx.add(sample_grant(2, under=above.id))
    thread.join(60)
    assert done.is_set()
    assert [grant.id for grant in ending.under(above.id)] == [sample_grant(2).id]


def test_tasks_that_begin_at_once_are_one_task(replicas: Callable[[], Store]) -> None:
    one, other = replicas(), replicas()
    start, standing = threading.Barrier(2), list[Task]()

    def begin_it(store: Store, second: int) -> None:
        start.wait()
        with store.transaction() as tx:
            standing.append(tx.begin_task(Task(workload=MINE, id=name("T-1"), begun_at=START + second * SECOND)))

    together(lambda: begin_it(one, 0), lambda: begin_it(other, 1))
    assert standing[0] == standing[1]
    assert [*one.lineage(MINE, name("T-1"))] == standing[:1]
