"""One control plane: every verb with the adapters that it needs."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network

from controlplane.audit.outbox import TellSink
from controlplane.audit.read import ReadAudit
from controlplane.audit.record import Record
from controlplane.engines import engines, places
from controlplane.grants.anew import DecideAnew
from controlplane.grants.approve import ApproveGrant
from controlplane.grants.ask_to_end import AskAhead, AskToEnd
from controlplane.grants.canary import TryRevision
from controlplane.grants.collect import CollectGrant
from controlplane.grants.deny import DenyGrant
from controlplane.grants.epoch import Epochs
from controlplane.grants.explain import ExplainGrant
from controlplane.grants.find import FindAccess
from controlplane.grants.finish import FinishGrant
from controlplane.grants.finish_task import FinishTask
from controlplane.grants.heartbeat import TakeHeartbeat
from controlplane.grants.identify import Identify
from controlplane.grants.issue import IssueGrant
from controlplane.grants.reap import ReapGrant
from controlplane.grants.reconcile import Reconcile
from controlplane.grants.renew import RenewGrant
from controlplane.grants.request import RequestGrant, in_step
from controlplane.grants.restore import Restore
from controlplane.grants.review import ReviewGrant
from controlplane.grants.revoke import RevokeGrant
from controlplane.grants.show import ShowGrant
from controlplane.grants.show_task import ShowTask
from controlplane.grants.situate import Situate
from controlplane.grants.sweep import SweepRoles
from controlplane.grants.undo import UndoRenewal
from controlplane.grants.unsaved import EndUnclaimed, SaveUnsaved
from controlplane.grants.unvouched import EndUnvouched
from controlplane.grants.waiting import Watch
from controlplane.grants.who import WhoCould
from controlplane.incident.ask import AskAgain
from controlplane.incident.carry_out import CarryOutCuts
from controlplane.incident.cut import OrderCut
from controlplane.incident.cuts import ShowCuts
from controlplane.incident.drain import DrainRevision
from controlplane.incident.freeze import FreezeSelection
from controlplane.incident.freezes import ListFreezes
from controlplane.incident.preview import PreviewSelection
from controlplane.incident.prove import ProveGone
from controlplane.incident.report import ReportIncident
from controlplane.incident.signals import HearSignal, HeedSignal
from controlplane.incident.strays import FindStrays
from controlplane.incident.thaw import ThawFreeze
from controlplane.incident.whois import WhoIs
from controlplane.issuers import kinds
from controlplane.issuers.trust.issuer import issuer_of
from controlplane.issuers.trust.known import known
from controlplane.issuers.trust.trusted import TrustedIssuers
from controlplane.keys import audit as audit_key
from controlplane.keys import private_file
from controlplane.keys.files import load_or_create
from controlplane.keys.receipts import receipt_keys
from controlplane.metrics import Metrics
from controlplane.model.access import AccessRule
from controlplane.model.errors import (
    ConfigurationError,
    ControlPlaneError,
    VaultUnavailableError,
)
from controlplane.model.secret import Secret
from controlplane.policies.cedar import CedarPolicy
from controlplane.ports import Clock, Entitlements, Skew
from controlplane.probers import Names, TargetProber
from controlplane.settings import Settings
from controlplane.sinks import kinds as sink_kinds
from controlplane.stores.clock import StoreClock
from controlplane.stores.made import is_made
from controlplane.stores.spool import FileSpool
from controlplane.stores.sql import SqlStore, open_store
from controlplane.sync.catalog import Catalog
from controlplane.sync.strict import FreezeDrifted
from controlplane.sync.watch import WatchDrift
from controlplane.vault.census import VaultCensus
from controlplane.vault.client import VaultClient
from controlplane.vault.grant_roles import VaultGrantRoles
from controlplane.vault.leases import VaultLeases
from controlplane.vault.logins import VaultLogins
from controlplane.vault.rotator import VaultRotator
from controlplane.vault.session import JwtSession
from controlplane.vault.skew import VaultSkew
from controlplane.wiring.errands import drift_reader, finder_of, softness_of
from controlplane.wiring.identities import TASK_KEY, Hand, hand_of, server_of, session_of
from controlplane.wiring.targets import probers_of, targets_of
from controlplane.worker.outbox import Outbox
from controlplane.worker.pace import Pace
from controlplane.worker.pool import Worker
from controlplane.world import RandomIds, SystemClock, Threads

_MEANWHILE = 48
"""As many threads as the HTTP door has: no request that issues waits for another."""
_LOOK = timedelta(seconds=2)
_ASKING = 3
"""Wishes that are on their way to Vault at once: Vault ends one login of a database after the other, and what
it is told sooner than it can begin with takes from it the processor for ending."""
_ROUND = timedelta(seconds=30)
"""How long a round of the reconciler may take before another replica begins one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """Every verb, ready to be called, and what the doors show."""

    identify: Identify
    request: RequestGrant
    explain: ExplainGrant
    show: ShowGrant
    who_could: WhoCould
    find: FindAccess
    renew: RenewGrant
    heartbeat: TakeHeartbeat
    finish: FinishGrant
    finish_task: FinishTask
    show_task: ShowTask
    watch: Watch
    approve: ApproveGrant
    deny: DenyGrant
    collect: CollectGrant
    review: ReviewGrant
    freeze: FreezeSelection
    hear: HearSignal
    heed: HeedSignal
    thaw: ThawFreeze
    freezes: ListFreezes
    preview: PreviewSelection
    cut: OrderCut
    cuts: ShowCuts
    report: ReportIncident
    prove: ProveGone
    whois: WhoIs
    read_audit: ReadAudit
    entitlements: Entitlements
    canary: TryRevision
    drain: DrainRevision
    policy: CedarPolicy
    worker: Worker
    outbox: Outbox
    task_key: Mapping[str, str]
    receipt_keys: Sequence[Mapping[str, str]]
    trusted_proxies: Sequence[IPv4Network | IPv6Network]
    monitoring: Sequence[IPv4Network | IPv6Network]
    metrics: Metrics
    access: Sequence[AccessRule]
    store: SqlStore
    spool: FileSpool
    vault: VaultClient
    session: JwtSession
    param: "Hand | None"
    """Who makes roles for single grants."""
    rotate: "Hand | None"
    """Who replaces static secrets."""
    clock: StoreClock
    skew: Skew
    """Of `clock`, from Vault's."""
    targets: Mapping[str, TargetProber]
    """By kind."""
    threads: Threads
    epochs: Epochs
    restore: Restore

    def missing(self) -> Mapping[str, str]:
        """What stands in the way of a grant now, and why; empty when nothing does."""
        found: dict[str, str] = {}
        checks = (("vault", self._ask_vault), ("store", self.store.head), ("clock", lambda: in_step(self.request.skew)))
        for what, check in checks:
            try:
                check()
            except ControlPlaneError as error:
                found[what] = error.detail
        if (broken := self.policy.broken) is not None:
            found["policies"] = broken
        return found

    def _ask_vault(self) -> None:
        # Really asked: a session that is logged in says nothing about a server that has died since.
        status = self.vault.patient(_LOOK).request("GET", "sys/seal-status") or {}
        if status.get("sealed") is not False:
            raise VaultUnavailableError("Vault is sealed")

    def close(self) -> None:
        """Close every connection; the worker has stopped before."""
        self.threads.close()
        for prober in self.targets.values():
            prober.close()
        self.vault.close()
        self.session.close()
        for hand in (self.param, self.rotate):
            if hand is not None:
                hand.close()
        self.store.close()


def wire(settings: Settings, *, machine: Clock | None = None) -> ControlPlane:
    """Build it. Nothing is asked of Vault yet: a control plane starts, and can be asked, while Vault is down.

    `machine` is this machine's clock, where a test gives it another one.

    Raises: ConfigurationError: a key, the store or a setting is wrong; StoreUnavailableError.
    """
    ids, threads = RandomIds(), Threads(_MEANWHILE)
    clock = StoreClock(machine or SystemClock(), threads)
    record = Record(clock=clock, ids=ids)
    layout = settings.vault.layout
    session = session_of(settings.vault, settings.vault.broker, "vault.broker", clock)
    broker = VaultClient(server_of(settings.vault), session)
    folders = [where.leases for where in places(layout) if where.leases is not None]
    logins, leases = VaultLogins(layout, broker), VaultLeases(broker, folders=folders)
    param, rotate = hand_of(settings, "param", clock), hand_of(settings, "rotate", clock)
    own_roles = None if param is None else VaultGrantRoles(layout, param.client)
    trusted = [issuer_of(kinds()[options.kind], options) for options in settings.issuers]
    issuers = TrustedIssuers(trusted, clock)
    sinks = {each.name: sink_kinds()[each.kind].make(each, clock, private_file.read) for each in settings.sinks}
    access = _access(settings)
    # Only now, when nothing that was given is wrong, is anything made that is not there yet.
    chain_key = _audit_key(settings)
    store = open_store(settings.store.url, audit_key=chain_key)
    if store.instant is not None:
        clock.follow(store.instant)
    spool = FileSpool(settings.spool, chain_key)
    signer = load_or_create(settings.keys.directory / TASK_KEY)
    receipts = receipt_keys(settings.keys.directory)
    targets = targets_of(settings, broker, clock)
    probers = probers_of(broker, layout, clock, logins, targets)
    revoke = RevokeGrant(
        clock=clock,
        record=record,
        store=store,
        logins=logins,
        leases=leases,
        probers=probers,
        signer=receipts.signer,
        pause=lambda span: time.sleep(span.total_seconds()),
        engines=engines(),
        roles=own_roles,
        rotator=None if rotate is None else VaultRotator(rotate.client),
    )
    metrics = Metrics(clock=clock, store=store, cursors=store.cursors, sinks=[*sinks], ahead=clock.ahead)
    pace = Pace(clock)
    broker.transport.observe = _telling(metrics, pace)
    census = VaultCensus(layout, broker, logins)
    epochs = Epochs(clock=clock, record=record, store=store, census=census)
    compare = None if settings.worker.reconcile == "off" else settings.worker.reconcile
    rosters = {name: targets[target.kind] for name, target in settings.targets.items()}
    reconcile = Reconcile(
        clock=clock,
        record=record,
        store=store,
        logins=logins,
        leases=leases,
        census=census,
        epochs=epochs,
        probers=probers,
        rosters=rosters,
        rostered=lambda path: path.startswith(f"{layout.mounts.get('database')}/creds/"),
        every=compare or timedelta(0),
        hold=_ROUND,
        sweep=_nothing if own_roles is None else SweepRoles(record=record, store=store, leases=leases, roles=own_roles),
    )
    reap = ReapGrant(
        clock=clock,
        record=record,
        store=store,
        logins=logins,
        spool=spool,
        revoke=revoke,
        undo=UndoRenewal(clock=clock, record=record, store=store, leases=leases),
    )
    ask = AskToEnd(store=store, leases=leases, hands=lambda: pace.of(_ASKING))
    entitlements = Catalog(settings.roles, layout, clock, issuers=known(settings.issuers), access=access)
    watching = None if settings.drift.every == "off" else settings.drift.every
    worker = Worker(
        store=store,
        clock=clock,
        reap=metrics.reaping(reap),
        tick=settings.worker.tick,
        threads=settings.worker.threads,
        hold=settings.worker.hold,
        reconcile=reconcile if compare else None,
        every=compare or timedelta(0),
        save_unsaved=SaveUnsaved(clock=clock, store=store, spool=spool),
        end_unclaimed=EndUnclaimed(clock=clock, store=store, leases=leases),
        begin=EndUnvouched(
            clock=clock,
            record=record,
            store=store,
            leases=leases,
            spool=spool,
            wake=lambda: None,  # the next tick finds them
            issuers=frozenset(issuer.name for issuer in known(settings.issuers).values()),
        ),
        carry_out=CarryOutCuts(
            clock=clock,
            record=record,
            store=store,
            ask=ask,
        ),
        ask_ahead=AskAhead(store=store, ask=ask),
        pace=pace,
        watch=None
        if watching is None
        else WatchDrift(
            clock=clock,
            record=record,
            store=store,
            entitlements=entitlements,
            find=finder_of(settings, drift_reader(settings.vault, clock), targets),
            every=watching,
            count=metrics.drift,
            strict=FreezeDrifted(clock=clock, ids=ids, record=record, store=store) if settings.drift.strict else None,
        ),
        watch_every=watching or timedelta(0),
    )
    issue = IssueGrant(
        clock=clock,
        record=record,
        store=store,
        signer=signer,
        logins=logins,
        leases=leases,
        engines=engines(),
        layout=layout,
        wake=worker.wake,
        meanwhile=threads,
        roles=own_roles,
        rotates=rotate is not None,
    )
    tells = [
        TellSink(
            name=each.name,
            sink=sinks[each.name],
            kinds=frozenset(each.events) or None,
            everything=each.since == "beginning",
            clock=clock,
            store=store,
            cursors=store.cursors,
        )
        for each in settings.sinks
    ]
    situate = Situate(clock=clock, environment=settings.environment)
    policy = CedarPolicy(settings.policies_directory)
    from_vault = VaultSkew(broker.transport, clock)
    skew = _furthest(from_vault, clock.ahead)
    request = RequestGrant(
        clock=clock,
        ids=ids,
        record=record,
        entitlements=entitlements,
        engines=engines(),
        store=store,
        situate=situate,
        policy=policy,
        issue=issue,
        issuing_within=settings.vault.issuing_within,
        skew=skew,
        settling=settings.vault.issuing_within + settings.vault.timeout + settings.vault.max_request_duration,
        gate=epochs.gate if compare else _open,
    )
    anew = DecideAnew(
        clock=clock,
        record=record,
        store=store,
        entitlements=entitlements,
        situate=situate,
        policy=policy,
        access=lambda: access,
        leases=leases,
        spool=spool,
        wake=worker.wake,
    )
    watch = Watch(
        clock=clock,
        record=record,
        store=store,
        entitlements=entitlements,
        engines=engines(),
        access=lambda: access,
    )
    preview = PreviewSelection(
        clock=clock,
        record=record,
        store=store,
        entitlements=entitlements,
        engines=engines(),
        rosters=rosters,
        softness=softness_of(settings, clock),
    )
    order = OrderCut(clock=clock, ids=ids, record=record, store=store, wake=worker.begin_cut)
    cuts = ShowCuts(store=store)
    return ControlPlane(
        identify=Identify(clock=clock, issuers=issuers, store=store, record=record),
        request=request,
        explain=ExplainGrant(record=record, entitlements=entitlements, store=store, situate=situate, policy=policy),
        show=ShowGrant(store=store),
        who_could=WhoCould(clock=clock, entitlements=entitlements, engines=engines(), issuers=known(settings.issuers)),
        find=FindAccess(clock=clock, entitlements=entitlements, engines=engines()),
        renew=RenewGrant(
            clock=clock,
            record=record,
            store=store,
            leases=leases,
            anew=anew,
            wake=worker.wake,
            within=request.issuing_within,
            skew=skew,
            gate=request.gate,
        ),
        heartbeat=TakeHeartbeat(clock=clock, store=store, anew=anew),
        finish=FinishGrant(clock=clock, record=record, store=store, leases=leases, spool=spool, wake=worker.wake),
        finish_task=FinishTask(clock=clock, record=record, store=store, leases=leases, spool=spool, wake=worker.wake),
        show_task=ShowTask(store=store),
        watch=watch,
        approve=ApproveGrant(clock=clock, record=record, store=store, watch=watch),
        deny=DenyGrant(clock=clock, record=record, store=store, watch=watch),
        collect=CollectGrant(
            clock=clock,
            record=record,
            engines=engines(),
            store=store,
            watch=watch,
            situate=situate,
            policy=policy,
            issue=issue,
            issuing_within=request.issuing_within,
            settling=request.settling,
            skew=skew,
            gate=request.gate,
        ),
        review=ReviewGrant(clock=clock, record=record, store=store),
        freeze=FreezeSelection(clock=clock, ids=ids, record=record, store=store),
        hear=HearSignal(clock=clock, issuers=issuers, record=record, store=store),
        heed=HeedSignal(clock=clock, record=record, store=store),
        thaw=ThawFreeze(clock=clock, record=record, store=store),
        freezes=ListFreezes(clock=clock, store=store),
        preview=preview,
        cut=order,
        cuts=cuts,
        report=ReportIncident(
            clock=clock,
            record=record,
            store=store,
            entitlements=entitlements,
            signer=receipts.signer,
            audit_key=chain_key,
        ),
        prove=ProveGone(
            clock=clock,
            record=record,
            store=store,
            begin=lambda: AskAgain(
                clock=clock, logins=logins, leases=leases, probers=probers, engines=engines(), servers=rosters
            ),
            find_strays=FindStrays(
                clock=clock,
                store=store,
                logins=logins,
                leases=leases,
                census=lambda: VaultCensus(layout, broker, logins, looks=sys.maxsize),
                rosters=rosters,
                named={name: prober.named for name, prober in rosters.items() if isinstance(prober, Names)},
            ),
            rosters=rosters,
        ),
        whois=WhoIs(clock=clock, store=store, logins=logins, layout=layout),
        read_audit=ReadAudit(record=record, store=store),
        entitlements=entitlements,
        canary=TryRevision(
            clock=clock,
            ids=ids,
            record=record,
            store=store,
            engines=engines(),
            issue=issue,
            revoke=revoke,
            pause=revoke.pause,
            issuing_within=request.issuing_within,
            settling=request.settling,
        ),
        drain=DrainRevision(
            clock=clock,
            preview=preview,
            order=order,
            cuts=cuts,
            pause=revoke.pause,
            within=request.settling + _ROUND,  # what broke off while it was issued is not called gone sooner
        ),
        policy=policy,
        worker=worker,
        outbox=Outbox(tells, tick=settings.worker.tick),
        task_key=signer.jwk,
        receipt_keys=receipts.public,
        trusted_proxies=settings.api.trusted_proxies,
        monitoring=settings.api.monitoring,
        metrics=metrics,
        access=access,
        store=store,
        spool=spool,
        vault=broker,
        session=session,
        param=param,
        rotate=rotate,
        clock=clock,
        skew=from_vault,
        targets=targets,
        threads=threads,
        epochs=epochs,
        restore=Restore(
            clock=clock, record=record, store=store, census=census, epochs=epochs, settling=request.settling
        ),
    )


def _access(settings: Settings) -> Sequence[AccessRule]:
    issuers = known(settings.issuers)
    for given in settings.access:
        if given.issuer not in issuers:
            raise ConfigurationError(f"access names the issuer {given.issuer}, which is none of issuers")
        for path in (*given.claims, *([] if given.groups is None else [given.groups])):
            if why := issuers[given.issuer].why_not(path):
                raise ConfigurationError(f"access selects by {path} of the issuer {given.issuer}: {why}")
    return [given.rule for given in settings.access]


def _audit_key(settings: Settings) -> Secret:
    # A store that has lost its key gets no other one: that would pass for a forged chain.
    path = settings.keys.directory / audit_key.FILE
    return audit_key.load(path) if is_made(settings.store.url) else audit_key.load_or_create(path)


def _telling(metrics: Metrics, pace: Pace) -> Callable[[str, int | None, float], None]:
    """What is told of every call to Vault: monitoring counts it, and the worker slows down by it."""

    def observed(path: str, status: int | None, seconds: float) -> None:
        metrics.vault_call(path, status, seconds)
        pace.saw(status)

    return observed


def _nothing() -> None:
    """No roles of single grants are made here, so none are left behind."""


def _furthest(*skews: Skew) -> Skew:
    """How far the clocks that we go by are off, by the one that is off most."""

    def furthest() -> timedelta | None:
        return max((ahead for skew in skews if (ahead := skew()) is not None), key=abs, default=None)

    return furthest


def _open() -> None:
    """No gate: somebody else guards this store."""
