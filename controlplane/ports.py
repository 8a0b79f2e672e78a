"""The sockets: what the verbs need of the world, in our words. Every adapter and every fake fits one of these."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, TypeVar

from controlplane.model.approval import Denial, GivenApproval
from controlplane.model.canonical import JsonObject, JsonValue
from controlplane.model.cursor import SinkCursor
from controlplane.model.cut import Changed, Cut, CutId, Outcome, Preview, Progress, Surveyed
from controlplane.model.decision import Ruling
from controlplane.model.entitlement import Entitlement, Revocability, Risk, Scope
from controlplane.model.event import Event, Head, Kind, Link
from controlplane.model.freeze import Freeze, FreezeId
from controlplane.model.grant import Grant, GrantId, Revision, State, TaskId, Why
from controlplane.model.identity import SingleUse, VerifiedClaims, WorkloadId
from controlplane.model.lease import (
    Accessor,
    Ask,
    Credential,
    Evidence,
    Lease,
    LeaseFacts,
    LeaseId,
    Response,
    Target,
    TaskToken,
    TokenFacts,
    Wrapped,
)
from controlplane.model.orphan import Epoch, Login, Orphan, OrphanKind, Tally
from controlplane.model.plan import Compiled, Layout, Naming, Places, VaultObject
from controlplane.model.request import GrantRequest
from controlplane.model.review import Review
from controlplane.model.rotation import Rotation
from controlplane.model.secret import Secret
from controlplane.model.selection import NOTHING, Note, Selection
from controlplane.model.signal import Signal
from controlplane.model.situation import Situation, Usage
from controlplane.model.task import Task

T = TypeVar("T")


class Clock(Protocol):
    """What time it is."""

    def now(self) -> datetime:
        """The instant, aware UTC."""
        ...


class Skew(Protocol):
    """How far our clock is from the one by which credentials end."""

    def __call__(self) -> timedelta | None:
        """How far ahead ours is, negative where it is behind; None where nobody knows. Never raises."""
        ...


class Ids(Protocol):
    """Names that nobody can guess and nobody used before."""

    def new(self, prefix: str) -> str:
        """`prefix`, `_` and 24 characters `[a-z2-7]` of randomness (120 bits)."""
        ...


class Issuers(Protocol):
    """The parties whose tokens are believed."""

    def verify(self, token: Secret) -> VerifiedClaims:
        """Check signature, issuer, audience, times and required claims of a compact JWS.

        Raises: NotAuthenticatedError: whatever failed; `detail` is for the audit log, never for the caller.
        Source: RFC 7519 7.2, RFC 8725 (best current practices).
        """
        ...

    def signal(self, token: Secret) -> Signal:
        """Check a security event token: what an issuer says has happened to a subject of its own.

        Raises: NotAuthenticatedError: whatever failed; `detail` is for the audit log, never for the sender.
        Source: RFC 8417.
        """
        ...


class Entitlements(Protocol):
    """The reviewed entitlements as they stand now, compiled. A file with an error is not among them."""

    def get(self, name: str) -> Compiled | None:
        """The entitlement of that name, None where there is none or its file is broken."""
        ...

    def all(self) -> Sequence[Compiled]:
        """Every sound entitlement, by name."""
        ...


class Rule(Protocol):
    """What policies said at one moment, to be asked of requests: it touches no file, and never waits."""

    def __call__(
        self, entitlement: Entitlement, who: VerifiedClaims, asked: GrantRequest, situation: Situation
    ) -> Ruling:
        """Whether some policy permits it and none forbids. Never raises: what cannot be evaluated is a no.

        Asked for eligible workloads only, because its reasons name what is in force.
        """
        ...


class Policy(Protocol):
    """Policy-as-code: rules that people wrote beside the entitlements."""

    def now(self) -> Rule:
        """The policies as they stand now. Never raises: what cannot be read rules no.

        It may read files, so it is called before a transaction begins: the store's one writer waits for nothing.
        """
        ...


class Engine(Protocol):
    """One kind of target as data and pure functions. Adding a file to `engines/` adds an engine."""

    @property
    def word(self) -> str:
        """What the YAML says: `engine: <word>`; also the file's name."""
        ...

    @property
    def scope_model(self) -> type[Scope]:
        """The pydantic model of its scopes."""
        ...

    @property
    def revocability(self) -> Revocability:
        """What ending one of its credentials can mean."""
        ...

    @property
    def unasked(self) -> str:
        """What a receipt says of an end that nobody at the target can confirm; "" where its prober can."""
        ...

    @property
    def mounting(self) -> JsonObject:
        """What a new mount of it is made with; `type` is Vault's word. Source: OpenBao docs, api/system/mounts."""
        ...

    def places(self, mount: str) -> Places:
        """Where its roles and its leases are when it is mounted at `mount`."""
        ...

    def roles(self, scope: Scope, naming: Naming, *, default: timedelta, maximum: timedelta) -> Sequence[VaultObject]:
        """What one scope needs besides the ACL policy, in the form in which Vault reads it back and writing order."""
        ...

    @property
    def example(self) -> str:
        """One scope in YAML: for the documentation, and compiled in a test."""
        ...

    def capabilities(self, scope: Scope, naming: Naming) -> Mapping[str, JsonObject]:
        """Exact Vault paths, no wildcards, with what an ACL policy says of each so that one credential can be made."""
        ...

    def ask(self, scope: Scope, naming: Naming, *, ttl: timedelta) -> Ask:
        """The request that makes one credential."""
        ...

    def receive(self, scope: Scope, response: Response) -> Credential:
        """The credential out of Vault's answer.

        Raises: ValueError: the answer lacks what this engine always gives; the lease must be revoked.
        """
        ...

    def target(self, scope: Scope) -> Target:
        """Whom to ask whether a credential is gone."""
        ...

    def reach(self, scope: Scope) -> Sequence[str]:
        """What the scope can touch, one plain sentence each: the blast radius."""
        ...


class TaskChanges(Protocol):
    """What a transaction asks and changes of tasks. Each is its workload's own: a name is the caller's word."""

    def lineage(self, workload: WorkloadId, task: TaskId) -> Sequence[Task]:
        """The task and those above it, up to one that stands by itself; empty where there is no such task.

        Until this transaction ends, nobody finishes any of them: what is added on the strength of it holds.
        """
        ...

    def begin_task(self, task: Task) -> Task:
        """Save a new task; where there is one of that name, that one stands and is given back.

        Raises: LostRaceError: there is no such parent.
        """
        ...

    def finish_task(self, task: Task, *events: Event, at: datetime, why: Why) -> Task:
        """Save that a task is finished, for good; where it was before, as it was, and no event.

        It waits for whoever asked for its `lineage`, and sees what they added. From then on no grant of it is added.
        """
        ...

    def cover(
        self,
        workload: WorkloadId,
        task: TaskId,
        entitlement: str,
        revision: Revision,
        *,
        only: GrantId | None,
    ) -> Grant | None:
        """The active grant of a task, and of this revision, that lasts longest; with `only`, that one or none.

        Until this transaction ends, nobody ends it: what is added under it is found by whoever does.
        """
        ...

    def open_in_tree(self, workload: WorkloadId, task: TaskId) -> Sequence[Grant]:
        """Every grant of a task and of all below it that has not ended, newest first; nobody else moves them now."""
        ...


class CutChanges(Protocol):
    """What a transaction changes of cuts."""

    def preview(self, preview: Preview, *events: Event) -> None:
        """Save what somebody was shown. Raises: LostRaceError: there is one of that digest."""
        ...

    def cut(self, cut: Cut, *events: Event) -> None:
        """Save a new cut. Raises: LostRaceError: another one was ordered by that preview, or there is no such one."""
        ...

    def take(self, cut: Cut, selection: Selection) -> None:
        """Make a part of the cut whatever is selected, has not ended and is none yet."""
        ...

    def next_of_cut(self, cut: CutId, *, limit: int) -> Sequence[tuple[Grant, Risk]]:
        """Grants of the cut that have not begun to end, riskiest first; nobody else moves them now.

        Those that somebody else moves at this moment are left out. What nobody knows the risk of counts as high.
        """
        ...

    def end_cut(self, cut: Cut, *events: Event) -> bool:
        """Save that a cut has ended; False, and no event, where it had before."""
        ...


class Transaction(TaskChanges, CutChanges, Protocol):
    """Changes and their events, committed together or not at all."""

    def add(self, grant: Grant, *events: Event, note: Note = NOTHING) -> None:
        """Save a new grant, with what was known when it was asked for, to select it by.

        Raises:
            LostRaceError: its id or idempotency key was used before.
            IllegalTransitionError: no grant begins in this state, or its task is finished.
        """
        ...

    def usage(self, entitlement: str, workload: WorkloadId, *, since: datetime, enough: int) -> Usage:
        """What of the entitlement's budgets is used up, this transaction's own changes included.

        Each count stops at `enough`; `requested` are those after `since`. Until this transaction ends, nobody
        else who asks this of the same entitlement gets an answer: what is added on the strength of it holds.
        """
        ...

    def save(self, grant: Grant, *events: Event) -> None:
        """Save the next version of a grant (compare-and-set on `version - 1`); what was asked is never changed.

        Raises:
            LostRaceError: somebody else saved that version first; the transaction is void.
            IllegalTransitionError: the store knows no such move, or the grant contradicts itself.
        """
        ...

    def add_leases(self, grant: GrantId, leases: Iterable[Lease], *events: Event) -> None:
        """Save leases of a grant. Repeating it with the same leases changes nothing, and writes no event again.

        Raises: LostRaceError: there is no such grant, or another one holds the lease.
        """
        ...

    def rotate_lease(self, lease: LeaseId, rotation: Rotation, *events: Event) -> None:
        """Save how far the rotation is that a lease ends with. Raises: LostRaceError: there is no such lease."""
        ...

    def move_leases(self, grant: GrantId, expires_at: datetime) -> None:
        """Save that every lease of a grant ends then."""
        ...

    def spend(self, token: SingleUse, grant: GrantId) -> None:
        """Save that a token asked for this grant, which was added before.

        Raises:
            TokenReplayedError: it asked for one before, here or at another replica; the transaction is void.
            LostRaceError: there is no such grant.
        """
        ...

    def waiting(self, workload: WorkloadId, *, enough: int) -> int:
        """How many grants of the workload wait for people, counted up to `enough`.

        Until this transaction ends, nobody else who asks this of the same workload gets an answer.
        """
        ...

    def approve(self, grant: GrantId, approval: GivenApproval) -> None:
        """Save one yes.

        Raises: LostRaceError: this subject of this issuer has agreed to the grant before, or there is no such grant.
        """
        ...

    def deny(self, grant: GrantId, denial: Denial) -> None:
        """Save the no. Raises: LostRaceError: somebody else denied the grant before, or there is no such grant."""
        ...

    def open_reviews(self, names: frozenset[str]) -> Sequence[GrantId]:
        """Grants with an open review that shares one of these names, oldest first, this transaction's own included.

        Until this transaction ends, nobody else who asks this of one of the names gets an answer: what is added on
        the strength of it holds.
        """
        ...

    def open_review(self, review: Review, *events: Event) -> None:
        """Save a new, open review of a grant that was added before.

        Raises: LostRaceError: an open review has one of its names, the grant has a review, or there is no grant.
        """
        ...

    def close_review(self, review: Review, *events: Event) -> None:
        """Save how an open review was closed.

        Raises: LostRaceError: it is not open any more, or never was; the transaction is void.
        """
        ...

    def freezes(self, at: datetime) -> Sequence[Freeze]:
        """The freezes that are active at `at`, oldest first; `Store.settle_freezes` waits until this transaction ends.

        Ask before anything else that waits for others.
        """
        ...

    def freeze(self, freeze: Freeze, *events: Event) -> None:
        """Save a new freeze. Raises: LostRaceError: its id was used before."""
        ...

    def thaw(self, before: Freeze, after: Freeze, *events: Event) -> None:
        """Save who wants a freeze to end, and since when it has (compare-and-set); nothing else of it ever changes.

        Raises: LostRaceError: it is not as `before` any more; the transaction is void.
        """
        ...

    def append(self, *events: Event) -> None:
        """Append events that are about no change of a grant."""
        ...

    def find(self, orphan: Orphan, *events: Event) -> bool:
        """Save an orphan; False, and no event, where it is saved already."""
        ...

    def lay(self, kind: OrphanKind, name: str, *events: Event) -> bool:
        """Take an orphan off the list; False, and no event, where it is not on it."""
        ...


class Rounds(Protocol):
    """Work that is done every so often, by one replica at a time."""

    def begin_round(self, name: str, now: datetime, *, hold: timedelta) -> bool:
        """Whether this caller is to do it now: its time has come, and nobody else has begun within `hold`."""
        ...

    def end_round(self, name: str, again: datetime, *, mark: int = 0) -> None:
        """It is done until `again`. `mark` is kept where it is higher than the one before."""
        ...

    def mark(self, name: str) -> int:
        """The highest mark of a round that ended; 0 where there is none."""
        ...


class Orphans(Protocol):
    """What the store says of what is found in Vault and at targets. Raises StoreUnavailableError when it cannot."""

    def held_tokens(self, accessors: Iterable[Accessor]) -> frozenset[Accessor]:
        """Those among `accessors` that are an open grant's task token."""
        ...

    def held_leases(self, ids: Iterable[LeaseId]) -> frozenset[LeaseId]:
        """Those among `ids` that an open grant holds."""
        ...

    def held_principals(self) -> frozenset[str]:
        """The principals of all leases that open grants hold."""
        ...

    def lease(self, id: LeaseId) -> tuple[GrantId, Lease] | None:
        """A lease that some grant holds, open or not, and which."""
        ...

    def unsettled(self) -> Sequence[Grant]:
        """Open grants of which an unseen effect may still appear or lie about: `settles_at` is not None."""
        ...

    def orphans(self) -> Sequence[Orphan]:
        """What was found and has not ended, oldest first."""
        ...


class Tasks(Protocol):
    """What the store says of tasks. Raises StoreUnavailableError when it cannot."""

    def lineage(self, workload: WorkloadId, task: TaskId) -> Sequence[Task]:
        """The task and those above it, up to one that stands by itself; empty where there is no such task."""
        ...

    def parts(self, workload: WorkloadId, task: TaskId, *, limit: int) -> Sequence[Task]:
        """The tasks right below it, oldest first."""
        ...

    def open_in_tree(self, workload: WorkloadId, task: TaskId) -> Sequence[Grant]:
        """Every grant of the task and of all below it that has not ended, newest first."""
        ...

    def under(self, grant: GrantId) -> Sequence[Grant]:
        """Grants that hang from this one and have not begun to end."""
        ...


class Selected(Protocol):
    """What the store says of selections. Raises StoreUnavailableError when it cannot."""

    def selected(
        self, selection: Selection, at: datetime, *, before: GrantId | None = None, limit: int = 100
    ) -> Sequence[Grant]:
        """A page of the grants that are selected at `at`, ended ones too, newest first; `before` as for `grants`."""
        ...

    def note(self, grant: GrantId) -> Note:
        """What was known when a grant was asked for; nothing where nothing was written down."""
        ...


class Cuts(Protocol):
    """What the store says of cuts. Raises StoreUnavailableError when it cannot."""

    def survey(self, selection: Selection, at: datetime) -> Surveyed:
        """What is selected at `at` of all that has not ended, counted."""
        ...

    def selected_principals(
        self, selection: Selection, at: datetime, engine: str, target: str, names: Iterable[str]
    ) -> frozenset[str]:
        """Those among `names` that leases of this engine have at this target, and are selected and have not ended."""
        ...

    def open_selected(self, selection: Selection, at: datetime, *, limit: int) -> Sequence[Grant]:
        """Grants that are selected at `at` and have not ended, newest first."""
        ...

    def changed(self, selection: Selection, preview: Preview) -> Changed:
        """What differs since a preview of this selection, ages reckoned as then."""
        ...

    def previewed(self, digest: str) -> Preview | None:
        """What was shown under that digest."""
        ...

    def cut(self, id: CutId) -> Cut | None:
        """The cut of that id."""
        ...

    def cut_by(self, digest: str) -> Cut | None:
        """The cut that was ordered by that preview."""
        ...

    def cuts(self, *, running: bool = False, before: CutId | None = None, limit: int = 100) -> Sequence[Cut]:
        """A page of cuts, newest first: those that run, or all; `before` as for `grants`."""
        ...

    def untaken(self, cut: Cut, selection: Selection) -> bool:
        """Whether something is selected that has not ended and is not a part of the cut yet."""
        ...

    def progress(self, cut: CutId) -> Progress:
        """How many of its grants have come how far."""
        ...

    def of_cut(self, cut: CutId, outcomes: Iterable[Outcome], *, limit: int = 100) -> Sequence[Grant]:
        """Its grants of these outcomes, oldest first."""
        ...


class Traces(Protocol):
    """What the store says of things that were seen elsewhere. Raises StoreUnavailableError when it cannot."""

    def first_link(self, of: Iterable[GrantId]) -> int | None:
        """The number of the first link of the chain that is about one of these grants; None where none is."""
        ...

    def grant_of(self, accessor: Accessor) -> Grant | None:
        """The grant that had this task token, open or not. Looks at every grant where that one has ended."""
        ...


class Store(Rounds, Orphans, Tasks, Selected, Cuts, Traces, Protocol):
    """Grants, leases and the audit chain. Every method raises StoreUnavailableError when it cannot."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """One atomic unit; durable (fsync) when the block has ended without an exception."""
        ...

    def grant(self, id: GrantId) -> Grant | None:
        """The grant of that id."""
        ...

    def asked_before(self, workload: WorkloadId, key: str) -> Grant | None:
        """The grant that this workload asked for with this idempotency key."""
        ...

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
        """A page of grants, newest first; `before` is the last id of the page before."""
        ...

    def pending(
        self, entitlements: Iterable[str], *, before: GrantId | None = None, limit: int = 100
    ) -> Sequence[Grant]:
        """A page of grants of these entitlements that wait for people, newest first; `before` as for `grants`."""
        ...

    def approvals(self, grant: GrantId) -> Sequence[GivenApproval]:
        """Every yes to a grant, oldest first."""
        ...

    def denial(self, grant: GrantId) -> Denial | None:
        """The no to a grant."""
        ...

    def leases(self, grant: GrantId) -> Sequence[Lease]:
        """The leases of a grant, in the order of their issue."""
        ...

    def known_leases(self, ids: Iterable[LeaseId]) -> frozenset[LeaseId]:
        """Those among `ids` that some grant holds."""
        ...

    def review(self, grant: GrantId) -> Review | None:
        """The review of a break-glass grant, open or closed; None where there is none."""
        ...

    def reviews(self, *, after: GrantId | None = None, limit: int = 100) -> Sequence[Review]:
        """A page of open reviews, oldest first; `after` is the last grant of the page before."""
        ...

    def claim_due(self, now: datetime, *, limit: int, hold: timedelta, again: bool = False) -> Sequence[Grant]:
        """Grants whose `due_at` has come, oldest first, held for this caller until `now + hold`.

        Those that are tried for the first time, or, with `again`, those that have resisted before. Two callers
        never get the same grant while its hold lasts; a hold that runs out is taken over.
        """
        ...

    def release(self, grant: GrantId) -> None:
        """Give up a hold early. Repeating it, or a hold that ran out, changes nothing."""
        ...

    def spent(self, token: SingleUse) -> bool:
        """Whether the token asked for a grant before."""
        ...

    def forget_tokens(self, now: datetime) -> int:
        """Forget spent tokens whose `until` is `now` or before, some hundred at a time; how many. 0: none is left."""
        ...

    def tallies(self, *, engines: bool = False) -> Sequence[Tally]:
        """How many grants are in each open state; with `engines`, only those that end, by engine."""
        ...

    def freeze(self, id: FreezeId) -> Freeze | None:
        """The freeze of that id."""
        ...

    def freezes(
        self, *, active_at: datetime | None = None, before: FreezeId | None = None, limit: int = 100
    ) -> Sequence[Freeze]:
        """A page of freezes, newest first: those active at an instant, or all; `before` as in `grants`."""
        ...

    def settle_freezes(self) -> None:
        """Return once every transaction has ended that asked for freezes before this call, at any replica.

        Whoever asks from now on sees every freeze that is committed now.
        Raises: StoreUnavailableError: one of them hangs; whatever was committed stays.
        """
        ...

    def links(self, *, after: int = 0, limit: int = 1000) -> Sequence[Link]:
        """Links of the audit chain with `seq` greater than `after`, in order."""
        ...

    def head(self) -> Head | None:
        """The sealed head of the chain, from the store's first moment on; None where somebody removed it."""
        ...


class Cursors(Protocol):
    """How far each sink was told. Every method raises StoreUnavailableError when it cannot."""

    def at(self, sink: str) -> SinkCursor | None:
        """The cursor as it stands, None for a sink that was never told anything."""
        ...

    def claim(self, sink: str, now: datetime, *, hold: timedelta, start: int) -> SinkCursor | None:
        """The cursor, held for this caller until `now + hold`; one that is not there yet is made at `start`.

        None: another caller holds it, or it is not due. A hold that runs out is taken over.
        """
        ...

    def save(self, claimed: SinkCursor, now: SinkCursor) -> None:
        """Save how far a claimed cursor has come, never back.

        Raises: LostRaceError: the hold ran out and was taken over; nothing is saved.
        """
        ...


class Sink(Protocol):
    """Somebody outside who is told of audit events: a webhook, a file. Used by one thread at a time."""

    def tell(self, link: Link) -> None:
        """Tell one event, durably where the other side can. The same may be told again, with the same id.

        Raises: SinkUnavailableError: it was not taken, or nobody knows; `detail` holds no secret and no address.
        """
        ...


class Signer(Protocol):
    """The key that issuing power hangs on."""

    def sign(self, claims: JsonObject) -> Secret:
        """A compact JWS (ES256) of `claims`, with our `kid`. Source: RFC 7515, RFC 7518 3.4."""
        ...


class Logins(Protocol):
    """Vault as the place where a task logs in. Source: OpenBao docs, api/auth/jwt."""

    def login(self, role: str, assertion: Secret) -> TaskToken:
        """Log in with a task JWT. Never repeated by us: each login that arrives makes a token.

        Raises:
            NotSyncedError: Vault has no such role: nothing was made.
            VaultRefusedError: Vault said no (4xx): nothing was made.
            VaultUnavailableError: 5xx, timeout, broken answer: a token may exist.
        """
        ...

    def facts(self, accessor: Accessor) -> TokenFacts | None:
        """What Vault knows of a token, None where the accessor is unknown. Raises: VaultUnavailableError."""
        ...

    def accessors_of(self, grant: GrantId) -> Sequence[Accessor]:
        """Accessors of our task tokens whose metadata names this grant. Reads every accessor: for repair only."""
        ...

    def read(self, token: Secret, ask: Ask) -> Response:
        """Make one credential. Raises: VaultRefusedError; VaultUnavailableError: a lease may exist."""
        ...

    def wrap(self, token: Secret, payload: Mapping[str, Mapping[str, Secret]], ttl: timedelta) -> Wrapped:
        """Wrap `payload` for one unwrapping. Source: OpenBao docs, api/system/wrapping-wrap."""
        ...


class Answer(StrEnum):
    """What Vault's answer to a token revocation means; never that anything is gone (docs/vault-facts)."""

    REQUESTED = "requested"  # 204: it will try
    UNKNOWN_TOKEN = "unknown-token"  # 200 with a warning: gone, or never was
    ZOMBIE = "zombie"  # 400 "token not found": the token is lost, its leases may live for ever


class Leases(Protocol):
    """Vault as the keeper of leases.

    Every method raises VaultUnavailableError when the outcome is unknown, VaultRefusedError on 403 and 404.
    Source: OpenBao docs, concepts/lease, api/system/leases.
    """

    def revoke_token(self, accessor: Accessor) -> Answer:
        """Ask Vault to revoke a token and all its leases. Idempotent; it works later than it answers."""
        ...

    def renew(self, accessor: Accessor, leases: Sequence[LeaseId], ttl: timedelta) -> None:
        """Let the token and its leases end `ttl` from now, sooner or later than before, never past their maximum."""
        ...

    def extend(self, accessor: Accessor, leases: Sequence[LeaseId], ttl: timedelta) -> None:
        """Let the leases and, last, their token end `ttl` from now, which is later than before.

        The token ends all that hangs from it: where this breaks off before it, everything ends as it would have.
        Raises: VaultRefusedError: Vault says no, or gives less; what it has given is for the caller to take back.
        """
        ...

    def facts(self, lease: LeaseId) -> LeaseFacts | None:
        """What Vault knows of a lease, None once its record is gone."""
        ...

    def revoke(self, lease: LeaseId) -> None:
        """Revoke one lease and wait for it. Idempotent.

        Raises: VaultRefusedError: the target resisted; `detail` says why, without secrets.
        """
        ...

    def ask_to_revoke(self, lease: LeaseId) -> None:
        """Ask Vault to revoke one lease. Idempotent; it works later than it answers, and waits for no target."""
        ...

    def under(self, path: str) -> Sequence[LeaseId]:
        """Every lease that hangs from credentials read at `path`."""
        ...


class Survey(Protocol):
    """One look at the server's tokens: every accessor in it, and the task tokens among those that nobody knew."""

    @property
    def listed(self) -> frozenset[Accessor]:
        """Every accessor in the server, whoever's."""
        ...

    @property
    def tokens(self) -> Sequence[TokenFacts]:
        """The task tokens among the unknown: as many as one look may take, others the next time."""
        ...


class Census(Protocol):
    """Everything in Vault under our names, whoever made it.

    Every method raises VaultUnavailableError when the outcome is unknown, VaultRefusedError on 403 and 404.
    """

    def survey(self, known: Callable[[Sequence[Accessor]], frozenset[Accessor]]) -> Survey:
        """Look at the tokens that `known` does not give back. Takes its time, so that no login is disturbed."""
        ...

    def places(self) -> Sequence[str]:
        """Every path of ours under which a lease hangs, of any revision; the prober's own are not among them."""
        ...

    def epoch(self) -> Epoch | None:
        """What was noted last, None where nothing was."""
        ...

    def note(self, epoch: Epoch) -> None:
        """Note how far the store is. Repeating it changes nothing."""
        ...


class Roster(Protocol):
    """Who can log in to one kind of target."""

    @property
    def kind(self) -> str:
        """Of target: the word that names its prober, too."""
        ...

    def logins(self, target: str) -> Sequence[Login]:
        """Every login of a group of ours. Raises: TargetUnavailableError: no answer."""
        ...


class Prober(Protocol):
    """Asks one kind of target whether a credential is gone, through a login that can see and not touch."""

    def ask(self, target: Target, principal: str, *, issued_at: datetime) -> Evidence:
        """Whether `principal` is gone: it exists no more and no session of it is open.

        Raises: TargetUnavailableError: no answer; that never counts as gone.
        """
        ...


class Roles(Protocol):
    """Vault's configuration, as sync sees it: only objects under our prefix, ever."""

    def read(self, layout: Layout) -> Mapping[str, VaultObject]:
        """All objects of ours by path, in the form in which `compile` writes them."""
        ...

    def write(self, item: VaultObject) -> None:
        """Write one object. Repeating it changes nothing.

        Raises: VaultRefusedError, VaultUnavailableError.
        """
        ...

    def delete(self, item: VaultObject) -> None:
        """Delete one object; one that is not there is fine."""
        ...

    def leases_under(self, item: VaultObject) -> int:
        """How many leases hang from a secret role; 0 for other kinds."""
        ...


class GrantRoles(Protocol):
    """Roles in Vault that are made for one grant each, by an identity that may make no others.

    Every method raises VaultUnavailableError when the outcome is unknown, VaultRefusedError on 403 and 404.
    """

    def write(self, roles: Sequence[VaultObject]) -> None:
        """Write the roles of one grant, and see that they stand as they were compiled.

        Raises: NotSyncedError: they do not.
        """
        ...

    def remove(self, grant: GrantId) -> None:
        """Delete every role of a grant. Repeating it changes nothing."""
        ...

    def present(self) -> Mapping[GrantId, Sequence[str]]:
        """The grants of which there are roles, each with the paths at which leases of theirs would hang."""
        ...


class Rotator(Protocol):
    """Replaces static secrets in Vault, by an identity that may read none of them.

    Every method raises VaultUnavailableError when the outcome is unknown, VaultRefusedError on 4xx.
    """

    def rotate(self, path: str, rotation: Rotation) -> int:
        """Replace the fields of the secret that is read at `path`, and leave its others: the version that was made.

        Repeating it makes another one. Source: OpenBao docs, api/secret/kv/kv-v2, "Patch secret".
        """
        ...

    def version(self, path: str) -> int | None:
        """The newest version of the secret that is read at `path`, None where there is no such secret at all."""
        ...


class Recorder(Protocol):
    """Makes audit events."""

    def __call__(self, kind: Kind, grant: GrantId | None = None, /, **body: JsonValue) -> Event:
        """An event of now, with a new id."""
        ...


class Spool(Protocol):
    """Events that the store could not take, kept elsewhere in their order until it can. No method raises."""

    def put(self, event: Event) -> None:
        """Keep it, durably where that is possible; one of its kind about its grant that waits already is enough."""
        ...

    def waiting(self) -> Sequence[Event]:
        """Those that are kept, oldest first."""
        ...

    def forget(self, event: Event) -> None:
        """Let go of one that is in the store now. After a crash it may be offered again."""
        ...


class Meanwhile(Protocol):
    """Runs something beside the caller."""

    def __call__(self, call: Callable[[], T]) -> Callable[[], T]:
        """Begin `call`; what is given back waits for it, returns what it returns and raises what it raises."""
        ...


class Wake(Protocol):
    """Tells the worker that something is due now, so that it need not wait for its next tick."""

    def __call__(self) -> None:
        """Wake it. Losing a call costs time only: the next tick finds what is due."""
        ...
