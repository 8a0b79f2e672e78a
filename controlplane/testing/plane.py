"""A control plane in memory: every verb over fakes, with a journal of what touched the store and Vault, in order.

`journal.before` and `journal.after` name a step and what is to happen then, once: a fault, or what a rival does.
"""

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Never, cast

from controlplane.audit.read import ReadAudit
from controlplane.audit.record import Record
from controlplane.engines import engines, own_probers
from controlplane.grants.anew import DecideAnew
from controlplane.grants.approve import ApproveGrant
from controlplane.grants.ask_to_end import AskToEnd
from controlplane.grants.collect import CollectGrant
from controlplane.grants.deny import DenyGrant
from controlplane.grants.epoch import Epochs
from controlplane.grants.explain import ExplainGrant
from controlplane.grants.find import FindAccess
from controlplane.grants.finish import FinishGrant
from controlplane.grants.finish_task import FinishTask
from controlplane.grants.heartbeat import TakeHeartbeat
from controlplane.grants.identify import Identify
from controlplane.grants.issue import Delivered, IssueGrant
from controlplane.grants.reap import ReapGrant
from controlplane.grants.reconcile import Reconcile
from controlplane.grants.renew import RenewGrant
from controlplane.grants.request import RequestGrant
from controlplane.grants.restore import Restore
from controlplane.grants.review import ReviewGrant
from controlplane.grants.revoke import RevokeGrant
from controlplane.grants.show import ShowGrant
from controlplane.grants.show_task import ShowTask
from controlplane.grants.situate import Situate
from controlplane.grants.sweep import SweepRoles
from controlplane.grants.undo import UndoRenewal
from controlplane.grants.unsaved import SaveUnsaved
from controlplane.grants.unvouched import EndUnvouched
from controlplane.grants.waiting import Watch
from controlplane.grants.who import WhoCould
from controlplane.incident.ask import AskAgain
from controlplane.incident.carry_out import CarryOutCuts
from controlplane.incident.cut import OrderCut
from controlplane.incident.cuts import ShowCuts
from controlplane.incident.freeze import FreezeSelection
from controlplane.incident.freezes import ListFreezes
from controlplane.incident.preview import PreviewSelection
from controlplane.incident.prove import ProveGone
from controlplane.incident.report import ReportIncident
from controlplane.incident.signals import HearSignal, HeedSignal
from controlplane.incident.strays import FindStrays
from controlplane.incident.thaw import ThawFreeze
from controlplane.incident.whois import WhoIs
from controlplane.issuers.trust.known import known
from controlplane.keys.files import generate
from controlplane.metrics import Metrics
from controlplane.model.access import AccessRule, Role
from controlplane.model.canonical import JsonObject
from controlplane.model.errors import StoreUnavailableError
from controlplane.model.event import Event, Kind
from controlplane.model.grant import Grant, GrantId, TaskId, Why
from controlplane.model.identity import VerifiedClaims
from controlplane.model.network import Address
from controlplane.model.plan import Compiled
from controlplane.model.request import GrantRequest
from controlplane.model.secret import Secret
from controlplane.ports import GrantRoles, Leases, Logins, Meanwhile, Policy, Prober, Store, Transaction
from controlplane.testing.clock import FakeClock
from controlplane.testing.entitlements import LAYOUT
from controlplane.testing.ids import CountingIds
from controlplane.testing.issuer import SIGNALS, FakeIssuer, trusting
from controlplane.testing.meanwhile import at_once
from controlplane.testing.policies import shipped_policy
from controlplane.testing.spool import FakeSpool
from controlplane.testing.store import AUDIT_KEY, FakeStore
from controlplane.testing.vault import FakeVault
from controlplane.worker.outbox import Outbox
from controlplane.worker.pool import Worker

AGENT = "repo:acme/agent:ref:refs/heads/main"
"""The subject that the entitlements of `testing.entitlements` name."""
ISSUING_WITHIN = timedelta(seconds=30)
SETTLING = timedelta(seconds=50)
_MANY = 10_000

_KEY = generate()  # one for all: the fake Vault believes every signature, so no test can depend on it
_RECEIPT_KEY = generate()


@dataclass
class Journal:
    """Calls as they are sent (`logins.login`), and commits once they are durable (`commit grant.issued`)."""

    steps: list[str] = field(default_factory=list[str])
    before: dict[str, Callable[[], object]] = field(default_factory=dict[str, Callable[[], object]])
    after: dict[str, Callable[[], object]] = field(default_factory=dict[str, Callable[[], object]])

    def fail(self, when: str, step: str, error: type[BaseException]) -> None:
        """Let `error` happen `before` the next such step, or `after` it has had its effect."""

        def raise_it() -> Never:
            raise error("as the test wants it")

        {"before": self.before, "after": self.after}[when][step] = raise_it

    @contextmanager
    def step(self, name: str) -> Generator[None]:
        """One call, with what was ordered before and after it."""
        self.before.pop(name, _nothing)()
        self.steps.append(name)
        yield
        self.after.pop(name, _nothing)()


class FakePlane:
    """One control plane that may grant `entitlements`, which are synced to its Vault. Time moves by `clock` only.

    Its policies are the shipped ones, asked for real. `assertions` are the task JWTs it signed, `ahead`
    is how far its clock is ahead of Vault's. It has what `http.app.create_app` needs of a ControlPlane.
    Like one that has run for a while, it has compared its store with Vault; one that has just `started` has not.
    """

    def __init__(  # noqa: PLR0915 # a statement for each verb
        self,
        *entitlements: Compiled,
        store: FakeStore | None = None,
        environment: str | None = None,
        vault: FakeVault | None = None,
        clock: FakeClock | None = None,
        ids: CountingIds | None = None,
        tokens: Iterator[int] | None = None,
        policy: Policy | None = None,
        started: bool = False,
        meanwhile: Meanwhile = at_once,
    ) -> None:
        self.clock, self.ids = clock or FakeClock(), ids or CountingIds()
        self.journal = Journal()
        self.vault = vault or FakeVault(LAYOUT, self.clock)
        self.store, self.spool = store or FakeStore(), FakeSpool()
        self.issuer = FakeIssuer(name="dev", clock=self.clock)
        self.entitlements = _Entitlements({})
        self.probers: dict[str, Prober] = {
            **own_probers(self.vault.shown, self.clock),
            "postgresql": cast("Prober", _Watched("prober", self.vault.target, self)),
        }
        self.assertions: list[Secret] = []
        self.woken = 0
        self.ahead: timedelta | None = timedelta(0)
        self._tokens = tokens or itertools.count(1)
        self.task_key, self.task_key_pem, self.receipt_keys = _KEY.jwk, _KEY.public_pem, [_RECEIPT_KEY.jwk]
        self.unready: Mapping[str, str] = {}
        self.trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
        self.monitoring: tuple[IPv4Network | IPv6Network, ...] = (IPv4Network("127.0.0.0/8"),)
        self.metrics = Metrics(clock=self.clock, store=self.store)
        self.access: tuple[AccessRule, ...] = tuple(
            AccessRule(issuer=self.issuer.name, roles=frozenset({role}), claims={"role": role.value}, groups="groups")
            for role in Role
        )
        for compiled in entitlements:
            self.change(compiled)
        store_ = cast("Store", _WatchedStore(self.store, self.journal))
        logins = cast("Logins", _Watched("logins", self.vault.logins, self))
        leases = cast("Leases", _Watched("leases", self.vault.leases, self))
        roles = cast("GrantRoles", _Watched("roles", self.vault.grant_roles, self))
        record = Record(clock=self.clock, ids=self.ids)
        issuers = trusting(self.issuer, clock=self.clock, signals=(SIGNALS,))
        self.identify = Identify(clock=self.clock, issuers=issuers, store=store_, record=record)
        self.hear = HearSignal(clock=self.clock, issuers=issuers, record=record, store=store_)
        self.heed = HeedSignal(clock=self.clock, record=record, store=store_)
        self.issue = IssueGrant(
            clock=self.clock,
            record=record,
            store=store_,
            signer=_Signer(self),
            logins=logins,
            leases=leases,
            engines=engines(),
            layout=LAYOUT,
            wake=self._wake,
            meanwhile=meanwhile,
            roles=roles,
        )
        self.epochs = Epochs(clock=self.clock, record=record, store=store_, census=self.vault.census)
        if not started:
            self.epochs.gate()
        situate = Situate(clock=self.clock, environment=environment)
        self.policy = policy or shipped_policy()
        self.explain = ExplainGrant(
            record=record, entitlements=self.entitlements, store=store_, situate=situate, policy=self.policy
        )
        self.request = RequestGrant(
            clock=self.clock,
            ids=self.ids,
            record=record,
            entitlements=self.entitlements,
            engines=engines(),
            store=store_,
            situate=situate,
            policy=self.policy,
            issue=self.issue,
            issuing_within=ISSUING_WITHIN,
            settling=SETTLING,
            skew=lambda: self.ahead,
            gate=self.epochs.gate,
        )
        self.show = ShowGrant(store=store_)
        self.who_could = WhoCould(
            clock=self.clock,
            entitlements=self.entitlements,
            engines=engines(),
            issuers=known([self.issuer.configured.options]),
        )
        self.find = FindAccess(clock=self.clock, entitlements=self.entitlements, engines=engines())
        anew = DecideAnew(
            clock=self.clock,
            record=record,
            store=store_,
            entitlements=self.entitlements,
            situate=situate,
            policy=self.policy,
            access=lambda: self.access,
            leases=leases,
            spool=self.spool,
            wake=self._wake,
        )
        self.heartbeat = TakeHeartbeat(clock=self.clock, store=store_, anew=anew)
        self.renew = RenewGrant(
            clock=self.clock,
            record=record,
            store=store_,
            leases=leases,
            anew=anew,
            wake=self._wake,
            within=ISSUING_WITHIN,
            skew=lambda: self.ahead,
            gate=self.epochs.gate,
        )
        self.end_unvouched = EndUnvouched(
            clock=self.clock,
            record=record,
            store=store_,
            leases=leases,
            spool=self.spool,
            wake=self._wake,
            issuers=frozenset({self.issuer.name}),
        )
        self.finish = FinishGrant(
            clock=self.clock, record=record, store=store_, leases=leases, spool=self.spool, wake=self._wake
        )
        self.finish_task = FinishTask(
            clock=self.clock, record=record, store=store_, leases=leases, spool=self.spool, wake=self._wake
        )
        self.show_task = ShowTask(store=store_)
        self.save_unsaved = SaveUnsaved(clock=self.clock, store=store_, spool=self.spool)
        self.watch = Watch(
            clock=self.clock,
            record=record,
            store=store_,
            entitlements=self.entitlements,
            engines=engines(),
            access=lambda: self.access,
        )
        self.approve = ApproveGrant(clock=self.clock, record=record, store=store_, watch=self.watch)
        self.deny = DenyGrant(clock=self.clock, record=record, store=store_, watch=self.watch)
        self.collect = CollectGrant(
            clock=self.clock,
            record=record,
            engines=engines(),
            store=store_,
            watch=self.watch,
            situate=situate,
            policy=self.policy,
            issue=self.issue,
            issuing_within=ISSUING_WITHIN,
            settling=SETTLING,
            skew=lambda: self.ahead,
            gate=self.epochs.gate,
        )
        self.review = ReviewGrant(clock=self.clock, record=record, store=store_)
        self.freeze = FreezeSelection(clock=self.clock, ids=self.ids, record=record, store=store_)
        self.thaw = ThawFreeze(clock=self.clock, record=record, store=store_)
        self.freezes = ListFreezes(clock=self.clock, store=store_)
        self.preview = PreviewSelection(
            clock=self.clock,
            record=record,
            store=store_,
            entitlements=self.entitlements,
            engines=engines(),
            rosters={"orders": self.vault.target},
        )
        self.cut = OrderCut(clock=self.clock, ids=self.ids, record=record, store=store_, wake=self._wake)
        self.cuts = ShowCuts(store=store_)
        self.report = ReportIncident(
            clock=self.clock,
            record=record,
            store=store_,
            entitlements=self.entitlements,
            signer=_RECEIPT_KEY,
            audit_key=AUDIT_KEY,
        )
        rosters = {"orders": self.vault.target}
        self.prove = ProveGone(
            clock=self.clock,
            record=record,
            store=store_,
            begin=lambda: AskAgain(
                clock=self.clock,
                logins=logins,
                leases=leases,
                probers=self.probers,
                engines=engines(),
                servers=rosters,
            ),
            find_strays=FindStrays(
                clock=self.clock,
                store=store_,
                logins=logins,
                leases=leases,
                census=lambda: self.vault.census,
                rosters=rosters,
                named={"orders": self.vault.target.named},
            ),
            rosters=rosters,
        )
        self.whois = WhoIs(clock=self.clock, store=store_, logins=logins, layout=LAYOUT)
        ask = AskToEnd(store=store_, leases=leases, hands=lambda: 2)
        self.carry_out = CarryOutCuts(clock=self.clock, record=record, store=store_, ask=ask)
        self.read_audit = ReadAudit(record=record, store=store_)
        self.revoke = RevokeGrant(
            clock=self.clock,
            record=record,
            store=store_,
            logins=logins,
            leases=leases,
            probers=self.probers,
            signer=_RECEIPT_KEY,
            pause=lambda span: _none(self.clock.advance(span)),
            engines=engines(),
            roles=roles,
        )
        self.reap = ReapGrant(
            clock=self.clock,
            record=record,
            store=store_,
            logins=logins,
            spool=self.spool,
            revoke=self.revoke,
            undo=UndoRenewal(clock=self.clock, record=record, store=store_, leases=leases),
        )
        self.reconcile = Reconcile(
            clock=self.clock,
            record=record,
            store=store_,
            logins=logins,
            leases=leases,
            census=self.vault.census,
            epochs=self.epochs,
            probers=self.probers,
            rosters={"orders": self.vault.target},
            rostered=lambda path: path.startswith("database/creds/"),
            every=timedelta(seconds=10),
            hold=timedelta(minutes=2),
            sweep=SweepRoles(record=record, store=store_, leases=leases, roles=roles),
        )
        self.restore = Restore(
            clock=self.clock,
            record=record,
            store=store_,
            census=self.vault.census,
            epochs=self.epochs,
            settling=SETTLING,
        )
        self.worker = Worker(
            store=self.store,
            clock=self.clock,
            reap=self.metrics.reaping(self.reap),
            tick=timedelta(milliseconds=20),
            threads=2,
            hold=timedelta(seconds=60),
            carry_out=self.carry_out,
        )
        self.outbox = Outbox((), tick=timedelta(milliseconds=20))

    def agent(self, subject: str = AGENT, **claims: Any) -> VerifiedClaims:
        """A workload, as our issuer vouches for it with a token of its own."""
        own: dict[str, Any] = {"jti": f"token-{next(self._tokens)}", **claims}
        return self.identify(self.issuer.mint(subject, **own))

    def ask(
        self,
        who: VerifiedClaims | None = None,
        *,
        key: str | None = None,
        address: Address | None = None,
        entitlement: str = "orders-read",
        **asked: Any,
    ) -> Delivered:
        """What the workload gets for a request."""
        wish: dict[str, Any] = {"task": TaskId("T-1"), "intent": "answer-question", **asked}
        wanted = GrantRequest(entitlement=entitlement, **wish)
        return self.request(who or self.agent(), wanted, key=key, address=address)

    def change(self, compiled: Compiled) -> None:
        """Let an entitlement read like this from now on, here and in Vault."""
        self.entitlements.by_name[compiled.entitlement.name] = compiled
        for item in compiled.objects:
            self.vault.roles.write(item)

    def end(self, id: GrantId, why: Why = Why.COMPLETED) -> Grant:
        """Finish a grant and let the worker do what is due now."""
        self.finish(self.agent(), id, why)
        self.work()
        return self.grant(id)

    def work(self) -> None:
        """What the worker does at this instant, in this thread."""
        with suppress(StoreUnavailableError):
            self.save_unsaved()
            self.carry_out()
        now, hold = self.clock.now(), timedelta(seconds=60)
        first = self.store.claim_due(now, limit=_MANY, hold=hold)
        again = self.store.claim_due(now, limit=_MANY, hold=hold, again=True)
        for grant in (*first, *again):
            try:
                self.metrics.reaping(self.reap)(grant)
            finally:
                self.store.release(grant.id)

    def wait(self, span: timedelta) -> None:
        """Let time pass, with the worker at work whenever something is due."""
        until = self.clock.now() + span
        while True:
            self.work()
            due = [grant.due_at for grant in self.store.grants(limit=_MANY) if grant.due_at is not None]
            coming = [at for at in due if at <= until]
            if not coming:
                break
            self.clock.advance(max(min(coming) - self.clock.now(), timedelta(milliseconds=1)))
        self.clock.advance(max(until - self.clock.now(), timedelta(0)))

    def grant(self, id: GrantId) -> Grant:
        """The grant as the store has it."""
        found = self.store.grant(id)
        assert found is not None, f"there is no grant {id}"  # noqa: S101 # for tests
        return found

    def newest(self) -> Grant:
        """The grant that was asked for last."""
        return self.store.grants(limit=1)[0]

    def events(self, kind: Kind | None = None, grant: GrantId | None = None) -> Sequence[Event]:
        """What the audit log says, of one kind and of one grant if they are named."""
        return [event for event in self.store.events() if kind in {None, event.kind} and grant in {None, event.grant}]

    def alive(self) -> Sequence[str]:
        """Every task token, lease and user at the target that there is.

        Not counted: wrapping tokens, which run out by themselves, and zombies, which can do nothing.
        """
        grants, logins = self.store.grants(limit=_MANY), self.vault.logins
        tokens = [logins.facts(token) for grant in grants for token in logins.accessors_of(grant.id)]
        paths = sorted({path for grant in grants for path in grant.paths})
        return [
            *(token.accessor for token in tokens if token is not None and token.num_uses >= 0),
            *(lease for path in paths for lease in self.vault.leases.under(path)),
            *sorted(self.vault.target.users),
        ]

    def missing(self) -> Mapping[str, str]:
        """What stands in the way of a grant, and why."""
        return self.unready

    def close(self) -> None:
        """Nothing to close."""

    def _wake(self) -> None:
        self.woken += 1
        self.worker.wake()


@dataclass(frozen=True, slots=True)
class _Entitlements:
    by_name: dict[str, Compiled]

    def get(self, name: str) -> Compiled | None:
        return self.by_name.get(name)

    def all(self) -> Sequence[Compiled]:
        return tuple(self.by_name.values())


@dataclass(frozen=True, slots=True)
class _Signer:
    plane: FakePlane

    def sign(self, claims: JsonObject) -> Secret:
        with self.plane.journal.step("signer.sign"):
            self.plane.assertions.append(signed := _KEY.sign(claims))
            return signed


class _Watched:
    """Stands in for a port; every call of it is a step of the journal."""

    def __init__(self, name: str, port: object, plane: FakePlane) -> None:
        self._name, self._port, self._plane = name, port, plane

    def __getattr__(self, method: str) -> Callable[..., Any]:
        call = getattr(self._port, method)

        def step(*args: Any, **options: Any) -> object:
            with self._plane.journal.step(f"{self._name}.{method}"):
                return call(*args, **options)

        return step


class _WatchedStore:
    """The store; a commit is a step that is named after its events."""

    def __init__(self, store: FakeStore, journal: Journal) -> None:
        self._store, self._journal = store, journal

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return getattr(self._store, method)

    @contextmanager
    def transaction(self) -> Generator[Transaction]:
        with self._store.transaction() as changes:
            yield changes
            events = changes.finished()
            if not events:
                return  # it only looked
            name = " ".join(["commit", *(event.kind for event in events)])
            self._journal.before.pop(name, _nothing)()
        self._journal.steps.append(name)
        self._journal.after.pop(name, _nothing)()


def _nothing() -> None:
    """No hook."""


def _none(value: object) -> None:
    del value
