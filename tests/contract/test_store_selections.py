"""A selection means the same in Python and in SQL, on every store: over random grants and random selections (C20)."""

from collections.abc import Sequence
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.model.approval import Approver, GivenApproval
from controlplane.model.grant import Grant, GrantId, Revision, State, Step, TaskId, Why
from controlplane.model.identity import IssuerName, workload_id
from controlplane.model.lease import Accessor
from controlplane.model.selection import Note, Selectable
from controlplane.model.task import Task
from controlplane.ports import Store
from controlplane.selectors import granted, selection, selectors
from controlplane.testing.clock import START
from controlplane.testing.store import sample_event, sample_grant, sample_lease

MINUTE = timedelta(minutes=1)
NOW = START + timedelta(hours=1)
SUBJECTS = ("a", 'q" OR 1=1 --', "Ü%_")
VALUES = ("billing", "sales", "x, y", 'q" OR 1=1 --', "Ü%_", "true")
ISSUERS = tuple(map(IssuerName, ("dev", "github")))
TASKS = tuple(map(TaskId, ("T-0", "T-1", "T-2")))
NOTES: Sequence[Note] = (
    {},
    {"owner": ("billing",), "label.team": ("billing",), "claim.groups": ("sales", "x, y")},
    {"owner": ("sales",), "claim.a/b": ('q" OR 1=1 --',), "risk": ("high",), "engine": ("database", "pki")},
    {"label.team": ("Ü%_",), "claim.groups": ("true",), "address": ("10.1.2.3",), "mount": ("database",)},
)
TEXTS: dict[str, Sequence[str]] = {
    "subject": SUBJECTS,
    "issuer": ISSUERS,
    "task": TASKS,
    "state": tuple(State),
    "risk": ("low", "medium", "high"),
    "revision": ("0a1b2c3d", "ffffffff"),
    "principal": ("v-sh-1", "v-sh-2", "v-sh-9"),
    "approver": ("ann", "bob"),
    "entitlement": ("orders-read", "orders-refund"),
    "intent": ("answer-question", "other"),
    "address": ("10.1.2.3",),
    "engine": ("database", "ssh"),
}
NAMES = {"label": ("label.team", "label.none"), "claim": ("claim.groups", "claim.a/b", "claim.none")}


def populate(store: Store) -> Sequence[Grant]:
    """Two dozen grants that differ in everything that can be selected by."""
    for number in range(24):
        subject, issuer = SUBJECTS[number % 3], ISSUERS[number % 2]
        workload, task = workload_id(issuer, subject), TASKS[number // 2 % 3]
        at = START + number * MINUTE
        grant = sample_grant(
            number,
            at=at,
            subject=subject,
            issuer=issuer,
            workload=workload,
            task=task,
            revision=Revision("0a1b2c3d" if number % 5 else "ffffffff"),
            entitlement="orders-read" if number % 7 else "orders-refund",
            state=State.PENDING if number % 4 == 0 else State.ISSUING,
        )
        with store.transaction() as tx:
            for depth, one in enumerate(TASKS, 1):  # each is a part of the one before
                above = TASKS[depth - 2] if depth > 1 else None
                tx.begin_task(Task(workload=workload, id=one, parent=above, depth=depth, begun_at=START))
            tx.add(grant, sample_event(number), note=NOTES[number % len(NOTES)])
            if number % 3 == 0:
                tx.add_leases(grant.id, [sample_lease(number)])
            if grant.state is State.PENDING:
                by = Approver(issuer=IssuerName("people"), subject="ann" if number % 8 else "bob")
                tx.approve(grant.id, GivenApproval(by=by, digest="0" * 64, at=at))
            elif number % 2:
                active = grant.after(Step.DELIVER, accessor=Accessor(f"acc-{number}"), issued_at=at + MINUTE / 2)
                tx.save(active)
                if number % 6 == 1:
                    tx.save(active.after(Step.END, why=Why.COMPLETED, revoking_at=at + MINUTE))
    return store.grants(limit=100)


def selectables(store: Store) -> dict[GrantId, Selectable]:
    """Every grant as Python selects it."""
    found: dict[GrantId, Selectable] = {}
    for grant in store.grants(limit=100):
        line = [task.id for task in store.lineage(grant.workload, grant.task)]
        leases, approvals = store.leases(grant.id), store.approvals(grant.id)
        found[grant.id] = granted(grant, store.note(grant.id), line=line, leases=leases, approvals=approvals, at=NOW)
    return found


def quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@st.composite
def terms(draw: st.DrawFn) -> str:
    selector = draw(st.sampled_from(list(selectors().values())))
    if selector.ordered:
        sign = draw(st.sampled_from(["<", "<=", ">", ">=", ""]))
        bound = draw(st.integers(0, 60))
        end = f"{bound + 1}m" if selector.word == "age" else (START + bound * MINUTE / 2).isoformat()
        return f"{selector.word}{sign}{end}" if sign else draw(st.sampled_from(["", "!"])) + selector.word
    key = draw(st.sampled_from(NAMES.get(selector.word, (selector.word,))))
    values = draw(st.lists(st.sampled_from(TEXTS.get(selector.word, VALUES)), min_size=1, max_size=3))
    several = f"({', '.join(map(quoted, values))})"
    return draw(st.sampled_from([key, f"!{key}", f"{key} in {several}", f"{key} notin {several}"]))


def test_c20_a_selection_selects_the_same_in_python_and_in_the_store(store: Store) -> None:
    every = populate(store)
    assert len(every) == 24
    known, hits = selectables(store), set[int]()

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(st.dictionaries(st.integers(), terms(), min_size=1, max_size=3))
    def same(chosen: dict[int, str]) -> None:
        by_key = {term.split(" in ")[0]: term for term in chosen.values()}
        text = ",".join(by_key.values())
        found = [grant.id for grant in store.selected(selection(text), NOW, limit=100)]
        assert set(found) == {id for id, one in known.items() if selection(text).selects(one)}, text
        assert found == [grant.id for grant in every if grant.id in set(found)], "newest first"
        hits.add(len(found))

    same()
    assert hits >= {0, 24}, "it was tried with what selects nothing and what selects everything"


def test_what_is_selected_is_paged_newest_first_and_by_the_instant_that_is_named(store: Store) -> None:
    every = populate(store)
    everything = selection("all")
    first = store.selected(everything, NOW, limit=10)
    rest = store.selected(everything, NOW, before=first[-1].id, limit=100)
    assert [*first, *rest] == every
    assert store.selected(everything, NOW, before=GrantId("gr_none")) == []
    young = selection("age<=10m")
    assert [grant.id for grant in store.selected(young, START + 23 * MINUTE, limit=100)] == [
        grant.id for grant in every if grant.requested_at >= START + 13 * MINUTE
    ]
    assert store.selected(young, NOW) == []


def test_what_was_known_of_a_request_is_read_back_and_of_others_nothing_is(store: Store) -> None:
    populate(store)
    assert store.note(GrantId(f"gr_{1:024}")) == NOTES[1]
    assert store.note(GrantId(f"gr_{0:024}")) == {}
    assert store.note(GrantId("gr_none")) == {}
