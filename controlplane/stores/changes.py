"""One transaction: changes to grants and leases, and at its end their events, chained to those before."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Dialect, bindparam, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from controlplane.audit.chain import extend, is_sealed
from controlplane.model.approval import Denial, GivenApproval
from controlplane.model.cut import Cut, CutId, Preview
from controlplane.model.entitlement import Risk
from controlplane.model.errors import LostRaceError, StoreUnavailableError, TokenReplayedError
from controlplane.model.event import Event, Head
from controlplane.model.freeze import Freeze
from controlplane.model.grant import TERMINAL, Grant, GrantId, Revision, TaskId, Why
from controlplane.model.identity import SingleUse, WorkloadId
from controlplane.model.lease import Lease, LeaseId
from controlplane.model.orphan import Orphan, OrphanKind
from controlplane.model.review import Review
from controlplane.model.rotation import Rotation
from controlplane.model.secret import Secret
from controlplane.model.selection import NOTHING, Note, Selection
from controlplane.model.situation import Usage
from controlplane.model.task import Task
from controlplane.stores import approvals, cuts, reviews, rows, tasks
from controlplane.stores.budgets import usage
from controlplane.stores.faults import told
from controlplane.stores.freezes import FreezeStatements
from controlplane.stores.prepared import Prepared
from controlplane.stores.schema import audit_head, events, grants, leases, notes, orphans, tokens
from controlplane.stores.tasks import TaskStatements

_SAVE = update(grants).where(grants.c.id == bindparam("its_id"), grants.c.version == bindparam("its_version"))
_MOVE_LEASES = update(leases).where(leases.c.grant_id == bindparam("its_grant")).values(expires_at=bindparam("ends_at"))
_HOLDER = select(leases.c.grant_id).where(leases.c.id == bindparam("its_id"))
# On PostgreSQL the row's lock makes writers of the chain follow each other; SQLite has one writer anyway.
_HEAD = select(audit_head.c.seq, audit_head.c.mac, audit_head.c.seal).with_for_update()
_LAY = delete(orphans).where(orphans.c.kind == bindparam("its_kind"), orphans.c.name == bindparam("its_name"))
_FREE: Final = {"held_by": None, "held_until": None}


class Statements:
    """What a transaction can say, in one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        insert_ = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
        self.add = Prepared(insert(grants), dialect)
        self.note = Prepared(insert(notes), dialect)
        self.save = Prepared(_SAVE, dialect)
        self.add_lease = Prepared(insert_(leases).on_conflict_do_nothing(index_elements=["id"]), dialect)
        spent = insert_(tokens).on_conflict_do_nothing(index_elements=["issuer", "id"])
        self.spend = Prepared(spent, dialect)
        self.find = Prepared(insert_(orphans).on_conflict_do_nothing(index_elements=["kind", "name"]), dialect)
        self.holder = Prepared(_HOLDER, dialect)
        self.freezes = FreezeStatements(dialect)
        self.tasks = TaskStatements(dialect)
        self.head = Prepared(_HEAD, dialect)
        self.append = Prepared(insert(events), dialect)
        self.move_head = Prepared(update(audit_head), dialect)


class Changes:
    """Fits the port Transaction. After the first error it is void: nothing more happens, nothing is kept."""

    def __init__(self, connection: Connection, statements: Statements, key: Secret, place: str) -> None:
        self._connection, self._say, self._key, self._place = connection, statements, key, place
        self._events: list[Event] = []
        self._failure: BaseException | None = None

    def add(self, grant: Grant, *events: Event, note: Note = NOTHING) -> None:
        """Save a new grant. Raises: LostRaceError; IllegalTransitionError: no grant begins in this state."""
        with self._step():
            self._say.add.run(self._connection, rows.grant_row(grant))
            if note:
                self._say.note.run(self._connection, rows.note_row(grant.id, note))
            self._events += events

    def usage(self, entitlement: str, workload: WorkloadId, *, since: datetime, enough: int) -> Usage:
        """What of the entitlement's budgets is used up; until the end nobody else gets an answer to this."""
        with self._step():
            return usage(self._connection, entitlement, workload, since=since, enough=enough)

    def save(self, grant: Grant, *events: Event) -> None:
        """Save the next version of a grant. Raises: LostRaceError; IllegalTransitionError: SQL knows no such move."""
        with self._step():
            # Nobody needs to hold a tombstone, and giving the hold up here spares a write of its own.
            free = _FREE if grant.state in TERMINAL else {}
            before = {"its_id": grant.id, "its_version": grant.version - 1}
            if self._say.save.run(self._connection, {**rows.progress_row(grant), **free, **before}) != 1:
                raise LostRaceError(f"grant {grant.id} is not at version {grant.version - 1} any more")
            self._events += events

    def add_leases(self, grant: GrantId, leases: Iterable[Lease], *events: Event) -> None:
        """Save leases of a grant; where all were saved before, their events were too. Raises: LostRaceError."""
        with self._step():
            new = [lease for lease in leases if self._is_new(grant, lease)]
            if new:
                self._events += events

    def rotate_lease(self, lease: LeaseId, rotation: Rotation, *events: Event) -> None:
        """Save how far the rotation is that a lease ends with. Raises: LostRaceError: there is no such lease."""
        with self._step():
            its = update(leases).where(leases.c.id == lease).values(rotation=rows.rotation_text(rotation))
            if self._connection.execute(its).rowcount != 1:
                raise LostRaceError(f"there is no lease {lease}")
            self._events += events

    def move_leases(self, grant: GrantId, expires_at: datetime) -> None:
        """Save that every lease of a grant ends then."""
        with self._step():
            self._connection.execute(_MOVE_LEASES, {"its_grant": grant, "ends_at": expires_at})

    def spend(self, token: SingleUse, grant: GrantId) -> None:
        """Save that a token asked for a grant. Raises: TokenReplayedError; LostRaceError: there is no such grant."""
        with self._step():
            # Another replica's insert that is not yet committed is waited for: one of the two finds a row there.
            if self._say.spend.run(self._connection, rows.token_row(token, grant)) != 1:
                raise TokenReplayedError("the bearer token has asked for another grant before")

    def waiting(self, workload: WorkloadId, *, enough: int) -> int:
        """How many grants of the workload wait for people; until the end nobody else gets an answer to this."""
        with self._step():
            return approvals.waiting(self._connection, workload, enough=enough)

    def approve(self, grant: GrantId, approval: GivenApproval) -> None:
        """Save one yes. Raises: LostRaceError: this subject said it before, or there is no such grant."""
        with self._step():
            approvals.approve(self._connection, grant, approval)

    def deny(self, grant: GrantId, denial: Denial) -> None:
        """Save the no. Raises: LostRaceError: somebody said it before, or there is no such grant."""
        with self._step():
            approvals.deny(self._connection, grant, denial)

    def open_reviews(self, names: frozenset[str]) -> Sequence[GrantId]:
        """Grants with an open review under one of these names; until the end nobody else gets an answer to this."""
        with self._step():
            return reviews.open_reviews(self._connection, names)

    def open_review(self, review: Review, *events: Event) -> None:
        """Save an open review. Raises: LostRaceError: a name has an open one, or there is no such grant."""
        with self._step():
            reviews.open_review(self._connection, review)
            self._events += events

    def close_review(self, review: Review, *events: Event) -> None:
        """Save how a review was closed. Raises: LostRaceError: it is not open any more."""
        with self._step():
            reviews.close_review(self._connection, review)
            self._events += events

    def lineage(self, workload: WorkloadId, task: TaskId) -> Sequence[Task]:
        """The task and those above it; until the end nobody finishes any of them."""
        with self._step():
            return self._say.tasks.lineage(self._connection, workload, task)

    def begin_task(self, task: Task) -> Task:
        """Save a new task, or give back the one that stands. Raises: LostRaceError: there is no such parent."""
        with self._step():
            return self._say.tasks.begin(self._connection, task)

    def finish_task(self, task: Task, *events: Event, at: datetime, why: Why) -> Task:
        """Save that a task is finished; where it was before, as it was, and no event."""
        with self._step():
            moved, finished = tasks.finish(self._connection, task, at=at, why=why)
            self._events += events if moved else ()
            return finished

    def cover(
        self, workload: WorkloadId, task: TaskId, entitlement: str, revision: Revision, *, only: GrantId | None
    ) -> Grant | None:
        """The active grant of a task that lasts longest; until the end nobody ends it."""
        with self._step():
            return tasks.cover(self._connection, (workload, task, entitlement, revision), only=only)

    def open_in_tree(self, workload: WorkloadId, task: TaskId) -> Sequence[Grant]:
        """Every grant of a task and of all below it that has not ended; nobody else moves them now."""
        with self._step():
            return tasks.open_in_tree(self._connection, workload, task)

    def freezes(self, at: datetime) -> Sequence[Freeze]:
        """The freezes that are active at `at`, oldest first."""
        with self._step():
            return self._say.freezes.active(self._connection, at)

    def freeze(self, freeze: Freeze, *events: Event) -> None:
        """Save a new freeze. Raises: LostRaceError: its id was used before."""
        with self._step():
            self._say.freezes.add(self._connection, freeze)
            self._events += events

    def thaw(self, before: Freeze, after: Freeze, *events: Event) -> None:
        """Save who wants a freeze to end. Raises: LostRaceError: it is not as `before` any more."""
        with self._step():
            if not self._say.freezes.thaw(self._connection, before, after):
                raise LostRaceError(f"freeze {before.id} has changed meanwhile")
            self._events += events

    def preview(self, preview: Preview, *events: Event) -> None:
        """Save what somebody was shown. Raises: LostRaceError: there is one of that digest."""
        with self._step():
            cuts.preview(self._connection, preview)
            self._events += events

    def cut(self, cut: Cut, *events: Event) -> None:
        """Save a new cut. Raises: LostRaceError: its preview has one, or was never made."""
        with self._step():
            cuts.order(self._connection, cut)
            self._events += events

    def take(self, cut: Cut, selection: Selection) -> None:
        """Make a part of the cut whatever is selected and is none yet."""
        with self._step():
            cuts.take(self._connection, cut, selection)

    def next_of_cut(self, cut: CutId, *, limit: int) -> Sequence[tuple[Grant, Risk]]:
        """Grants of the cut that have not begun to end, riskiest first; nobody else moves them now."""
        with self._step():
            return cuts.following(self._connection, cut, limit)

    def end_cut(self, cut: Cut, *events: Event) -> bool:
        """Save that a cut has ended; False, and no event, where it had before."""
        with self._step():
            moved = cuts.end(self._connection, cut)
            self._events += events if moved else ()
            return moved

    def append(self, *events: Event) -> None:
        """Append events that are about no change of a grant."""
        with self._step():
            self._events += events

    def find(self, orphan: Orphan, *events: Event) -> bool:
        """Save an orphan; False, and no event, where it is saved already."""
        with self._step():
            new = self._say.find.run(self._connection, rows.orphan_row(orphan)) == 1
            self._events += events if new else ()
            return new

    def lay(self, kind: OrphanKind, name: str, *events: Event) -> bool:
        """Take an orphan off the list; False, and no event, where it is not on it."""
        with self._step():
            gone = self._connection.execute(_LAY, {"its_kind": kind.value, "its_name": name}).rowcount == 1
            self._events += events if gone else ()
            return gone

    def seal(self) -> None:
        """Chain the events. The chain comes last so that its lock is held shortest, and once a transaction."""
        with self._step():
            if not self._events:
                return
            links, head = extend(self._key, self._head(), self._events)
            self._say.append.run_all(self._connection, [rows.link_row(link) for link in links])
            self._say.move_head.run(self._connection, {"seq": head.seq, "mac": head.mac, "seal": head.seal})

    def _is_new(self, grant: GrantId, lease: Lease) -> bool:
        if self._say.add_lease.run(self._connection, rows.lease_row(grant, lease)) == 1:
            return True
        holder = self._say.holder.first(self._connection, {"its_id": lease.id})
        if holder is None or holder[0] != grant:
            raise LostRaceError(f"lease {lease.id} belongs to another grant")
        return False

    def _head(self) -> Head:
        row = self._say.head.first(self._connection, {})
        head = None if row is None else Head(seq=row[0], mac=row[1], seal=row[2])
        # Another key, or somebody at the table: going on would hide the break behind good links.
        if head is None or not is_sealed(self._key, head):
            raise StoreUnavailableError("the audit chain's head is not ours: run `shorthold audit verify`")
        return head

    @contextmanager
    def _step(self) -> Generator[None]:
        if self._failure is not None:
            raise self._failure
        try:
            with told(self._place):
                yield
        except BaseException as error:
            # SQLite may have rolled everything back: another statement would then commit on its own.
            self._failure = error
            raise
