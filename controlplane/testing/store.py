"""A store in memory for tests of the verbs: it refuses what SQL refuses; the contract suite proves it."""

import threading
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from typing_extensions import override

from controlplane.audit.chain import GENESIS, extend, seal_head
from controlplane.model.approval import Denial, GivenApproval
from controlplane.model.cut import Changed, Cut, CutId, Outcome, Preview, Progress, Surveyed, outcome
from controlplane.model.entitlement import Risk
from controlplane.model.errors import IllegalTransitionError, LostRaceError, StoreUnavailableError, TokenReplayedError
from controlplane.model.event import Event, Head, Kind, Link
from controlplane.model.freeze import Freeze, FreezeId
from controlplane.model.grant import INITIAL, TERMINAL, TRANSITIONS, Grant, GrantId, Revision, State, TaskId, Why
from controlplane.model.identity import IssuerName, SingleUse, WorkloadId, workload_id
from controlplane.model.lease import Accessor, Lease, LeaseId, Target
from controlplane.model.orphan import Orphan, OrphanKind
from controlplane.model.review import Review
from controlplane.model.rotation import Rotation
from controlplane.model.secret import Secret
from controlplane.model.selection import NOTHING, Note, Selectable, Selection
from controlplane.model.situation import Usage
from controlplane.model.task import Task
from controlplane.selectors import granted
from controlplane.testing import cuts, reviews, tasks
from controlplane.testing.clock import START
from controlplane.testing.cursors import FakeCursors
from controlplane.testing.cuts import Cuts
from controlplane.testing.orphans import OrphanKey
from controlplane.testing.reviews import Reviews
from controlplane.testing.tasks import FakeTaskBook, Tasks

AUDIT_KEY = Secret("5a" * 32)
"""What the chain of a fake store is made with."""
_MOVES = {(before, after) for (before, _), after in TRANSITIONS.items()}


@dataclass(slots=True)
class _State:
    head: Head
    grants: dict[GrantId, Grant] = field(default_factory=dict[GrantId, Grant])
    leases: dict[LeaseId, tuple[GrantId, Lease]] = field(default_factory=dict[LeaseId, tuple[GrantId, Lease]])
    links: list[Link] = field(default_factory=list[Link])
    tokens: dict[tuple[IssuerName, str], SingleUse] = field(default_factory=dict[tuple[IssuerName, str], SingleUse])
    orphans: dict[OrphanKey, Orphan] = field(default_factory=dict[OrphanKey, Orphan])
    approvals: dict[GrantId, tuple[GivenApproval, ...]] = field(
        default_factory=dict[GrantId, tuple[GivenApproval, ...]]
    )
    denials: dict[GrantId, Denial] = field(default_factory=dict[GrantId, Denial])
    freezes: dict[FreezeId, Freeze] = field(default_factory=dict[FreezeId, Freeze])
    cuts: Cuts = field(default_factory=Cuts)
    notes: dict[GrantId, Note] = field(default_factory=dict[GrantId, Note])
    reviews: Reviews = field(default_factory=Reviews)
    tasks: Tasks = field(default_factory=Tasks)

    def copy(self) -> "_State":
        return replace(
            self,
            grants=dict(self.grants),
            leases=dict(self.leases),
            links=list(self.links),
            tokens=dict(self.tokens),
            approvals=dict(self.approvals),
            denials=dict(self.denials),
            freezes=dict(self.freezes),
            notes=dict(self.notes),
            cuts=self.cuts.copy(),
            reviews=dict(self.reviews),
            tasks=dict(self.tasks),
            orphans=dict(self.orphans),
        )


def sample_grant(number: int = 1, *, at: datetime = START, **changes: Any) -> Grant:
    """A grant that begins `issuing` at `at` and is due a minute later; `changes` are made to it."""
    plain = Grant(
        id=GrantId(f"gr_{number:024}"),
        state=State.ISSUING,
        entitlement="orders-read",
        revision=Revision("0a1b2c3d"),
        issuer=IssuerName("dev"),
        subject="repo:acme/support-agent:ref:refs/heads/main",
        workload=workload_id(IssuerName("dev"), "repo:acme/support-agent:ref:refs/heads/main"),
        task=TaskId("T-1"),
        intent="answer-question",
        reason="who ordered?",
        ttl=timedelta(minutes=5),
        request_digest="0" * 64,
        paths=("database/creds/sh-orders-read-0a1b2c3d-orders",),
        requested_at=at,
        expires_at=at + timedelta(minutes=5),
        due_at=at + timedelta(minutes=1),
        settles_at=at + timedelta(minutes=1),
    )
    return replace(plain, **changes)


def sample_lease(number: int = 1, *, at: datetime = START) -> Lease:
    """A lease of a database credential."""
    path = "database/creds/sh-orders-read-0a1b2c3d-orders"
    return Lease(
        id=LeaseId(f"{path}/{number:024}"),
        scope="orders",
        engine="database",
        path=path,
        target=Target(kind="postgresql", name="orders"),
        principal=f"v-sh-{number}",
        issued_at=at,
        expires_at=at + timedelta(minutes=5),
    )


def sample_event(number: int = 1, kind: Kind = Kind.GRANT_ALLOWED, grant: GrantId | None = None) -> Event:
    """An event that says its number."""
    return Event(id=f"ev_{number:024}", at=START, kind=kind, grant=grant, body={"number": number})


class FakeStore(FakeTaskBook):
    """Fits the port Store. Set `down` to a sentence, and everything raises StoreUnavailableError with it."""

    def __init__(self, audit_key: Secret = AUDIT_KEY) -> None:
        super().__init__()
        self.down: str | None = None
        self._key = audit_key
        self._lock = threading.Lock()
        self._writer: int | None = None
        self._now = _State(seal_head(audit_key, GENESIS.seq, GENESIS.mac))
        self._holds: dict[GrantId, datetime] = {}
        self.cursors = FakeCursors()

    @contextmanager
    def transaction(self) -> "Generator[FakeChanges]":
        """One atomic unit: others see it when the block has ended without an exception."""
        self._up()
        if self._writer == threading.get_ident():
            raise RuntimeError("a thread cannot wait for itself: transactions do not nest")
        with self._writing():
            draft = self._now.copy()
            changes = FakeChanges(draft)
            yield changes
            events = changes.finished()
            self._up()
            links, draft.head = extend(self._key, draft.head, events)
            draft.links += links
            self._now = draft
            for id, grant in draft.grants.items():
                if grant.state in TERMINAL:
                    self._holds.pop(id, None)

    def grant(self, id: GrantId) -> Grant | None:
        """The grant of that id."""
        return self._seen().grants.get(id)

    def asked_before(self, workload: WorkloadId, key: str) -> Grant | None:
        """The grant that this workload asked for with this idempotency key."""
        asked = (g for g in self._seen().grants.values() if g.workload == workload and g.idempotency_key == key)
        return next(asked, None)

    def grants(
        self,
        *,
        workload: WorkloadId | None = None,
        task: TaskId | None = None,
        entitlement: str | None = None,
        states: Iterable[State] = (),
        before: GrantId | None = None,
        limit: int = 100,
    ) -> Sequence[Grant]:
        """A page of grants, newest first. A `before` that is no grant is the end of the list."""
        now, wanted = self._seen(), frozenset(states)
        last = None if before is None else now.grants.get(before)
        if before is not None and last is None:
            return []
        found = [
            grant
            for grant in now.grants.values()
            if (workload is None or grant.workload == workload)
            and (task is None or grant.task == task)
            and (entitlement is None or grant.entitlement == entitlement)
            and (not wanted or grant.state in wanted)
            and (last is None or _age(grant) < _age(last))
        ]
        return sorted(found, key=_age, reverse=True)[:limit]

    def pending(
        self, entitlements: Iterable[str], *, before: GrantId | None = None, limit: int = 100
    ) -> Sequence[Grant]:
        """A page of grants of these entitlements that wait for people, newest first."""
        named = frozenset(entitlements)
        everything = self.grants(states=[State.PENDING], before=before, limit=len(self._seen().grants))
        return [grant for grant in everything if grant.entitlement in named][:limit]

    def selected(
        self, selection: Selection, at: datetime, *, before: GrantId | None = None, limit: int = 100
    ) -> Sequence[Grant]:
        """A page of the grants that are selected at `at`, newest first."""
        now = self._seen()
        every = self.grants(before=before, limit=len(now.grants))
        return [grant for grant in every if selection.selects(_selectable(now, grant, at))][:limit]

    def note(self, grant: GrantId) -> Note:
        """What was known when a grant was asked for."""
        return self._seen().notes.get(grant, NOTHING)

    def survey(self, selection: Selection, at: datetime) -> Surveyed:
        """What is selected at `at` of all that has not ended, counted."""
        now = self._seen()
        return cuts.survey(self._all(selection, at), now.grants.values(), now.leases.values())

    def selected_principals(
        self, selection: Selection, at: datetime, engine: str, target: str, names: Iterable[str]
    ) -> frozenset[str]:
        """Those among `names` that such leases have and are selected."""
        now, asked = self._seen(), frozenset(names)
        its = {grant.id for grant in self.open_selected(selection, at, limit=len(now.grants))}
        return asked & {
            lease.principal
            for id, lease in now.leases.values()
            if id in its and (lease.engine, lease.target.name) == (engine, target)
        }

    def open_selected(self, selection: Selection, at: datetime, *, limit: int) -> Sequence[Grant]:
        """Grants that are selected at `at` and have not ended, newest first."""
        return [grant for grant in self._all(selection, at) if grant.state not in TERMINAL][:limit]

    def changed(self, selection: Selection, preview: Preview) -> Changed:
        """What differs since a preview."""
        return cuts.changed(self._all(selection, preview.at), preview)

    def previewed(self, digest: str) -> Preview | None:
        """What was shown under that digest."""
        return self._seen().cuts.previews.get(digest)

    def cut(self, id: CutId) -> Cut | None:
        """The cut of that id."""
        return self._seen().cuts.cuts.get(id)

    def cut_by(self, digest: str) -> Cut | None:
        """The cut that was ordered by that preview."""
        return next((cut for cut in self._seen().cuts.cuts.values() if cut.digest == digest), None)

    def cuts(self, *, running: bool = False, before: CutId | None = None, limit: int = 100) -> Sequence[Cut]:
        """A page of cuts, newest first. A `before` that is no cut is the end of the list."""
        known = self._seen().cuts.cuts
        if before is not None and before not in known:
            return []
        found = [
            cut
            for cut in known.values()
            if (not running or cut.ended_at is None) and (before is None or cuts.made(cut) < cuts.made(known[before]))
        ]
        return sorted(found, key=cuts.made, reverse=True)[:limit]

    def untaken(self, cut: Cut, selection: Selection) -> bool:
        """Whether something is selected that has not ended and is not a part of the cut yet."""
        taken = self._seen().cuts.items[cut.id]
        return any(one.state not in TERMINAL and one.id not in taken for one in self._all(selection, cut.previewed_at))

    def progress(self, cut: CutId) -> Progress:
        """How many of its grants have come how far."""
        now = self._seen()
        return Progress(counts=Counter(outcome(now.grants[id]) for id in now.cuts.items.get(cut, ())))

    def of_cut(self, cut: CutId, outcomes: Iterable[Outcome], *, limit: int = 100) -> Sequence[Grant]:
        """Its grants of these outcomes, oldest first."""
        now, wanted = self._seen(), frozenset(outcomes)
        found = [now.grants[id] for id in now.cuts.items.get(cut, ()) if outcome(now.grants[id]) in wanted]
        return sorted(found, key=_age)[:limit]

    def _all(self, selection: Selection, at: datetime) -> Sequence[Grant]:
        return self.selected(selection, at, limit=len(self._seen().grants))

    def approvals(self, grant: GrantId) -> Sequence[GivenApproval]:
        """Every yes to a grant, oldest first."""
        found = self._seen().approvals.get(grant, ())
        return sorted(found, key=lambda given: (given.at, given.by.issuer, given.by.subject))

    def denial(self, grant: GrantId) -> Denial | None:
        """The no to a grant."""
        return self._seen().denials.get(grant)

    def leases(self, grant: GrantId) -> Sequence[Lease]:
        """The leases of a grant, in the order of their issue."""
        return [lease for holder, lease in self._seen().leases.values() if holder == grant]

    def known_leases(self, ids: Iterable[LeaseId]) -> frozenset[LeaseId]:
        """Those among `ids` that some grant holds."""
        return frozenset(ids) & self._seen().leases.keys()

    def review(self, grant: GrantId) -> Review | None:
        """The review of a break-glass grant."""
        return self._seen().reviews.get(grant)

    def reviews(self, *, after: GrantId | None = None, limit: int = 100) -> Sequence[Review]:
        """A page of open reviews, oldest first. An `after` that has no review is the end of the list."""
        return reviews.page(self._seen().reviews, after, limit)

    def claim_due(self, now: datetime, *, limit: int, hold: timedelta, again: bool = False) -> Sequence[Grant]:
        """Grants whose `due_at` has come, oldest first, held for this caller until `now + hold`."""
        with self._writing():
            due = [
                (grant.due_at, grant)
                for grant in self._seen().grants.values()
                if grant.due_at is not None and (grant.attempts > 0) == again
            ]
            free = [
                (due_at, grant.id, grant) for due_at, grant in due if due_at <= now and not self._is_held(grant.id, now)
            ]
            claimed = [grant for _, _, grant in sorted(free, key=lambda found: found[:2])[:limit]]
            self._holds.update({grant.id: now + hold for grant in claimed})
            return claimed

    def release(self, grant: GrantId) -> None:
        """Give up a hold early."""
        with self._writing():
            self._seen()
            self._holds.pop(grant, None)

    def spent(self, token: SingleUse) -> bool:
        """Whether the token asked for a grant before."""
        return (token.issuer, token.id) in self._seen().tokens

    def forget_tokens(self, now: datetime) -> int:
        """Forget spent tokens whose `until` is `now` or before; how many."""
        with self._writing():
            tokens = self._seen().tokens
            over = [key for key, token in tokens.items() if token.until <= now]
            for key in over:
                del tokens[key]
            return len(over)

    def freeze(self, id: FreezeId) -> Freeze | None:
        """The freeze of that id."""
        return self._seen().freezes.get(id)

    def freezes(
        self, *, active_at: datetime | None = None, before: FreezeId | None = None, limit: int = 100
    ) -> Sequence[Freeze]:
        """A page of freezes, newest first. A `before` that is no freeze is the end of the list."""
        now = self._seen().freezes
        last = None if before is None else now.get(before)
        if before is not None and last is None:
            return []
        found = [
            freeze
            for freeze in now.values()
            if (active_at is None or freeze.active(active_at)) and (last is None or _made(freeze) < _made(last))
        ]
        return sorted(found, key=_made, reverse=True)[:limit]

    def settle_freezes(self) -> None:
        """Return once every transaction has ended: each has the whole store for itself."""
        with self._writing():
            self._up()

    def links(self, *, after: int = 0, limit: int = 1000) -> Sequence[Link]:
        """Links of the audit chain with `seq` greater than `after`, in order."""
        return [link for link in self._seen().links if link.seq > after][:limit]

    def grant_of(self, accessor: Accessor) -> Grant | None:
        """The grant that had this task token."""
        return next((grant for grant in self._seen().grants.values() if grant.accessor == accessor), None)

    def first_link(self, of: Iterable[GrantId]) -> int | None:
        """The number of the first link that is about one of these grants."""
        wanted = {*of}
        return next((link.seq for link in self._seen().links if link.event.grant in wanted), None)

    def head(self) -> Head | None:
        """The sealed head of the chain."""
        return self._seen().head

    def backup(self) -> "FakeStore":
        """A store as this one is now, as somebody restores it later."""
        copy = FakeStore(self._key)
        copy._now, copy._rounds = self._now.copy(), dict(self._rounds)
        return copy

    def events(self) -> Sequence[Event]:
        """Every event there is, oldest first: what a test of a verb looks at."""
        return [link.event for link in self._now.links]

    @contextmanager
    def _writing(self) -> Generator[None]:
        with self._lock:
            self._writer = threading.get_ident()
            try:
                yield
            finally:
                self._writer = None

    def _is_held(self, grant: GrantId, now: datetime) -> bool:
        until = self._holds.get(grant)
        return until is not None and until > now

    @override
    def _seen(self) -> _State:
        self._up()
        return self._now

    def _up(self) -> None:
        if self.down is not None:
            raise StoreUnavailableError(self.down)


class FakeChanges:
    """Fits the port Transaction."""

    def __init__(self, draft: _State) -> None:
        self._draft = draft
        self._events: list[Event] = []
        self._failure: Exception | None = None

    def add(self, grant: Grant, *events: Event, note: Note = NOTHING) -> None:
        """Save a new grant."""
        with self._step():
            if grant.state not in INITIAL:
                raise IllegalTransitionError(f"no grant begins {grant.state}")
            _check(grant)
            task = self._draft.tasks.get((grant.workload, grant.task))
            if task is not None and task.finished_at is not None:
                raise IllegalTransitionError("the store refuses: no grant begins in a finished task")
            twins = (old for old in self._draft.grants.values() if old.workload == grant.workload)
            keys = {old.idempotency_key for old in twins if old.idempotency_key is not None}
            if grant.id in self._draft.grants or grant.idempotency_key in keys:
                raise LostRaceError("an id or an idempotency key was used before")
            self._draft.grants[grant.id] = grant
            self._draft.notes[grant.id] = note
            self._events += events

    def usage(self, entitlement: str, workload: WorkloadId, *, since: datetime, enough: int) -> Usage:
        """What of the entitlement's budgets is used up; nobody else writes before this transaction ends."""
        with self._step():
            grants = [grant for grant in self._draft.grants.values() if grant.entitlement == entitlement]
            active = [grant for grant in grants if grant.state not in TERMINAL]
            mine = [grant.requested_at for grant in grants if grant.workload == workload]
            newest = sorted((at for at in mine if at > since), reverse=True)[:enough]
            return Usage(
                active_of_subject=min(enough, sum(grant.workload == workload for grant in active)),
                active=min(enough, len(active)),
                requested=len(newest),
                oldest=min(newest, default=None),
            )

    def save(self, grant: Grant, *events: Event) -> None:
        """Save the next version of a grant."""
        with self._step():
            old = self._draft.grants.get(grant.id)
            if old is None or old.version != grant.version - 1:
                raise LostRaceError(f"grant {grant.id} is not at version {grant.version - 1} any more")
            if old.state in TERMINAL or (old.state != grant.state and (old.state, grant.state) not in _MOVES):
                raise IllegalTransitionError(f"grant {grant.id} cannot go from {old.state} to {grant.state}")
            _check(grant)
            self._draft.grants[grant.id] = replace(grant, **{name: getattr(old, name) for name in _ASKED})
            self._events += events

    def add_leases(self, grant: GrantId, leases: Iterable[Lease], *events: Event) -> None:
        """Save leases of a grant; where all were saved before, their events were too."""
        with self._step():
            new = [lease for lease in leases if self._is_new(grant, lease)]
            if new and grant not in self._draft.grants:
                raise LostRaceError("the grant of a lease or token is not in the store")
            self._draft.leases.update({lease.id: (grant, lease) for lease in new})
            if new:
                self._events += events

    def rotate_lease(self, lease: LeaseId, rotation: Rotation, *events: Event) -> None:
        """Save what has become of the rotation that a lease ends with."""
        with self._step():
            if lease not in self._draft.leases:
                raise LostRaceError(f"there is no lease {lease}")
            holder, before = self._draft.leases[lease]
            self._draft.leases[lease] = (holder, replace(before, rotation=rotation))
            self._events += events

    def move_leases(self, grant: GrantId, expires_at: datetime) -> None:
        """Save that every lease of a grant ends then."""
        with self._step():
            for id, (holder, lease) in self._draft.leases.items():
                if holder == grant:
                    self._draft.leases[id] = (holder, replace(lease, expires_at=expires_at))

    def spend(self, token: SingleUse, grant: GrantId) -> None:
        """Save that a token asked for a grant."""
        with self._step():
            if (token.issuer, token.id) in self._draft.tokens:
                raise TokenReplayedError("the bearer token has asked for another grant before")
            if grant not in self._draft.grants:
                raise LostRaceError("the grant of a lease or token is not in the store")
            self._draft.tokens[token.issuer, token.id] = token

    def waiting(self, workload: WorkloadId, *, enough: int) -> int:
        """How many grants of the workload wait for people; nobody else writes before this transaction ends."""
        with self._step():
            waits = [grant for grant in self._draft.grants.values() if grant.state is State.PENDING]
            return min(enough, sum(grant.workload == workload for grant in waits))

    def approve(self, grant: GrantId, approval: GivenApproval) -> None:
        """Save one yes."""
        with self._step():
            if grant not in self._draft.grants:
                raise LostRaceError("the grant of an approval is not in the store")
            before = self._draft.approvals.get(grant, ())
            by = approval.by
            if any((by.issuer, by.subject) == (given.by.issuer, given.by.subject) for given in before):
                raise LostRaceError("this subject has agreed before")
            self._draft.approvals[grant] = (*before, approval)

    def deny(self, grant: GrantId, denial: Denial) -> None:
        """Save the no."""
        with self._step():
            if grant not in self._draft.grants or grant in self._draft.denials:
                raise LostRaceError("there is no such grant, or it was denied before")
            self._draft.denials[grant] = denial

    def open_reviews(self, names: frozenset[str]) -> Sequence[GrantId]:
        """Grants with an open review under one of these names; nobody else writes before this transaction ends."""
        with self._step():
            return reviews.under(self._draft.reviews, names)

    def open_review(self, review: Review, *events: Event) -> None:
        """Save an open review."""
        with self._step():
            reviews.add(self._draft.reviews, review, self._draft.grants)
            self._events += events

    def close_review(self, review: Review, *events: Event) -> None:
        """Save how a review was closed."""
        with self._step():
            reviews.close(self._draft.reviews, review)
            self._events += events

    def lineage(self, workload: WorkloadId, task: TaskId) -> Sequence[Task]:
        """The task and those above it; nobody else writes before this transaction ends."""
        with self._step():
            return tasks.lineage(self._draft.tasks, workload, task)

    def begin_task(self, task: Task) -> Task:
        """Save a new task, or give back the one that stands."""
        with self._step():
            return tasks.begin(self._draft.tasks, task)

    def finish_task(self, task: Task, *events: Event, at: datetime, why: Why) -> Task:
        """Save that a task is finished."""
        with self._step():
            moved, finished = tasks.finish(self._draft.tasks, task, at=at, why=why)
            self._events += events if moved else ()
            return finished

    def cover(
        self, workload: WorkloadId, task: TaskId, entitlement: str, revision: Revision, *, only: GrantId | None
    ) -> Grant | None:
        """The active grant of a task that lasts longest."""
        with self._step():
            return tasks.cover(self._draft.grants, (workload, task, entitlement, revision), only=only)

    def open_in_tree(self, workload: WorkloadId, task: TaskId) -> Sequence[Grant]:
        """Every grant of a task and of all below it that has not ended."""
        with self._step():
            return tasks.open_in_tree(self._draft.tasks, self._draft.grants, workload, task)

    def freezes(self, at: datetime) -> Sequence[Freeze]:
        """The freezes that are active at `at`, oldest first."""
        with self._step():
            return sorted((freeze for freeze in self._draft.freezes.values() if freeze.active(at)), key=_made)

    def freeze(self, freeze: Freeze, *events: Event) -> None:
        """Save a new freeze."""
        with self._step():
            if freeze.id in self._draft.freezes:
                raise LostRaceError("an id or an idempotency key was used before")
            if freeze.expires_at is not None and freeze.expires_at <= freeze.created_at:
                raise IllegalTransitionError("the store refuses: a freeze expires after it was made")
            self._draft.freezes[freeze.id] = freeze
            self._events += events

    def thaw(self, before: Freeze, after: Freeze, *events: Event) -> None:
        """Save who wants a freeze to end."""
        with self._step():
            old = self._draft.freezes.get(before.id)
            if old is None or old.thaws != before.thaws or old.thawed_at is not None:
                raise LostRaceError(f"freeze {before.id} has changed meanwhile")
            if after.thawed_at is not None and not after.thaws:
                raise IllegalTransitionError("the store refuses: a thawed freeze says who thawed it")
            self._draft.freezes[before.id] = replace(old, thaws=after.thaws, thawed_at=after.thawed_at)
            self._events += events

    def preview(self, preview: Preview, *events: Event) -> None:
        """Save what somebody was shown."""
        with self._step():
            self._draft.cuts.show(preview)
            self._events += events

    def cut(self, cut: Cut, *events: Event) -> None:
        """Save a new cut."""
        with self._step():
            self._draft.cuts.order(cut)
            self._events += events

    def take(self, cut: Cut, selection: Selection) -> None:
        """Make a part of the cut whatever is selected, has not ended and is none yet."""
        with self._step():
            draft, taken = self._draft, self._draft.cuts.items[cut.id]
            new = [
                id
                for id, grant in draft.grants.items()
                if grant.state not in TERMINAL
                and id not in taken
                and selection.selects(_selectable(draft, grant, cut.previewed_at))
            ]
            draft.cuts.items[cut.id] = taken | frozenset(new)

    def next_of_cut(self, cut: CutId, *, limit: int) -> Sequence[tuple[Grant, Risk]]:
        """Grants of the cut that have not begun to end, riskiest first; nobody else writes now."""
        with self._step():
            return self._draft.cuts.unbegun(cut, self._draft.grants, self._draft.notes)[:limit]

    def end_cut(self, cut: Cut, *events: Event) -> bool:
        """Save that a cut has ended; False, and no event, where it had before."""
        with self._step():
            moved = self._draft.cuts.end(cut)
            self._events += events if moved else ()
            return moved

    def append(self, *events: Event) -> None:
        """Append events that are about no change of a grant."""
        with self._step():
            self._events += events

    def find(self, orphan: Orphan, *events: Event) -> bool:
        """Save an orphan; False, and no event, where it is saved already."""
        with self._step():
            if (orphan.kind, orphan.name) in self._draft.orphans:
                return False
            self._draft.orphans[orphan.kind, orphan.name] = orphan
            self._events += events
            return True

    def lay(self, kind: OrphanKind, name: str, *events: Event) -> bool:
        """Take an orphan off the list; False, and no event, where it is not on it."""
        with self._step():
            gone = self._draft.orphans.pop((kind, name), None) is not None
            self._events += events if gone else ()
            return gone

    def finished(self) -> Sequence[Event]:
        """The events of a transaction that is not void."""
        with self._step():
            return self._events

    def _is_new(self, grant: GrantId, lease: Lease) -> bool:
        if lease.id not in self._draft.leases:
            return True
        if self._draft.leases[lease.id][0] != grant:
            raise LostRaceError(f"lease {lease.id} belongs to another grant")
        return False

    @contextmanager
    def _step(self) -> Generator[None]:
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except Exception as error:
            self._failure = error
            raise


_ASKED = (
    *("entitlement", "issuer", "subject", "person", "workload", "task", "intent", "reason"),
    *("unusual", "parameters", "under", "idempotency_key", "request_digest", "requested_at"),
)
"""What a save never changes: the facts of the request."""


def _selectable(now: _State, grant: Grant, at: datetime) -> Selectable:
    line = [task.id for task in tasks.lineage(now.tasks, grant.workload, grant.task)]
    leases = [lease for holder, lease in now.leases.values() if holder == grant.id]
    note, approvals = now.notes.get(grant.id, NOTHING), now.approvals.get(grant.id, ())
    return granted(grant, note, line=line, leases=leases, approvals=approvals, at=at)


def _made(freeze: Freeze) -> tuple[datetime, FreezeId]:
    return freeze.created_at, freeze.id


def _age(grant: Grant) -> tuple[datetime, GrantId]:
    return grant.requested_at, grant.id


def _check(grant: Grant) -> None:
    """The constraints of `stores/schema.py`, by their names."""
    ending = grant.state in {State.REVOKING, State.IRREVOCABLE, State.REVOKED}
    rules = {
        "a grant has a version": grant.version >= 1,
        "a grant has a length": grant.ttl > timedelta(0),
        "a grant is revoked only after it began revoking": (
            grant.revoked_at is None or (grant.revoking_at is not None and grant.revoked_at >= grant.revoking_at)
        ),
        "a grant is revoked when it says since when": (grant.state is State.REVOKED) == (grant.revoked_at is not None),
        "a revoked grant has its receipt": (grant.revoked_at is None) == (grant.receipt is None),
        "an active grant was issued with a known token": (
            grant.state is not State.ACTIVE or (grant.issued_at is not None and grant.accessor is not None)
        ),
        "a grant that ends says why and since when": (
            not ending or (grant.why is not None and grant.revoking_at is not None)
        ),
        "a tombstone is never due": grant.state not in TERMINAL or grant.due_at is None,
    }
    for sentence, holds in rules.items():
        if not holds:
            raise IllegalTransitionError(f"the store refuses: {sentence}")
