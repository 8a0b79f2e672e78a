"""Every check of a control plane, in the order in which a person would look."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from controlplane.audit.chain import is_sealed
from controlplane.doctor.finding import Check, Finding, Grade, advice, broken, sound
from controlplane.doctor.power import broker_power, param_power, power, rotate_power, sync_power
from controlplane.engines import engines
from controlplane.issuers.trust.known import known
from controlplane.keys import audit as audit_key
from controlplane.model.errors import TargetUnavailableError
from controlplane.model.grant import State
from controlplane.model.plan import Compiled
from controlplane.ports import Clock, Cursors, Spool
from controlplane.settings import Settings
from controlplane.sync.plan import PlanSync
from controlplane.sync.review import review
from controlplane.vault.capabilities import look
from controlplane.vault.grant_roles import VaultGrantRoles
from controlplane.vault.rotator import VaultRotator
from controlplane.wiring.errands import sync_roles
from controlplane.wiring.identities import identity_client
from controlplane.wiring.plane import ControlPlane

_SKEW: Final = timedelta(seconds=5)
_LATE: Final = timedelta(minutes=1)
"""An end that is not confirmed by then deserves a look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doctor:
    """The checks over one control plane, which need not be running."""

    settings: Settings
    plane: ControlPlane
    clock: Clock

    @property
    def checks(self) -> Sequence[tuple[str, Check]]:
        """In order; the first that fails often explains the rest."""
        return (
            ("settings", self._settings),
            ("vault", self._vault),
            ("clock", self._clock_skew),
            ("broker", self._broker),
            ("sync", self._sync),
            ("param", self._param),
            ("rotate", self._rotate),
            ("store", self._store),
            ("restore", self._restore),
            ("entitlements", self._entitlements),
            ("targets", self._targets),
            ("revocations", self._revocations),
            ("orphans", self._orphans),
            ("sinks", self._sinks),
        )

    def _settings(self) -> Iterable[Finding]:
        given = self.settings
        if not given.issuers:
            yield broken(
                "settings",
                "no issuer is configured, so nobody can ask",
                "Name the issuers of your workloads' tokens under `issuers`.",
            )
        if given.vault.skip_verify:
            yield advice(
                "settings", "vault.skip_verify: anybody can be Vault", "Name Vault's authority in vault.cacert."
            )
        if given.worker.reconcile == "off":
            yield advice(
                "settings",
                "worker.reconcile is off: orphans stay",
                "Give it an interval, unless another control plane uses the same prefix.",
            )
        yield sound("settings", f"read, with {len(given.issuers)} issuers and {len(given.targets)} targets")

    def _vault(self) -> Iterable[Finding]:
        status = self.plane.vault.patient(timedelta(seconds=5)).request("GET", "sys/seal-status") or {}
        if status.get("sealed") is not False:
            yield broken("vault", "it is sealed", "Unseal it.")
            return
        leader = self.plane.vault.patient(timedelta(seconds=5)).request("GET", "sys/leader") or {}
        if leader.get("ha_enabled") and not leader.get("is_self"):
            yield Finding(
                check="vault",
                grade=Grade.ADVICE,
                detail="vault.addr is a standby, whose answers may be old",
                do="Point vault.addr at the active node or at a load balancer.",
            )
        else:
            yield sound("vault", f"unsealed and active, version {status.get('version', 'unknown')}")
        facts = look(self.plane.vault, self.settings.vault.layout)
        yield sound("server", str(facts))
        if not facts.unseals_itself:
            yield advice(
                "server",
                "its seal is Shamir's: after a restart nothing is granted or revoked until somebody unseals it",
                "Use a seal that opens by itself (static, transit, a cloud's KMS), or keep the people at hand.",
            )

    def _clock_skew(self) -> Iterable[Finding]:
        own = self.plane.clock.ahead()
        if abs(own) > _SKEW:
            yield advice(
                "clock",
                f"this machine's is {own.total_seconds():+.0f} s from the store's, which counts",
                "Synchronise it: more than 30 s off, this machine grants nothing.",
            )
        away = self.plane.skew()
        if away is None:
            yield advice("clock", "Vault tells no Date", "Compare the clocks.")
        elif abs(away) > _SKEW:
            ahead = "ahead of" if away > timedelta(0) else "behind"
            yield Finding(
                check="clock",
                grade=Grade.BROKEN,
                detail=f"our clock is {abs(away).total_seconds():.0f} s {ahead} Vault's: nothing is granted",
                do="Synchronise both machines' clocks.",
            )
        else:
            yield sound("clock", f"within {_SKEW.seconds} s of Vault's")

    def _broker(self) -> Iterable[Finding]:
        yield from power("broker", self.plane.vault, broker_power(self.settings.vault.layout))

    def _sync(self) -> Iterable[Finding]:
        if self.settings.vault.sync is None:
            yield sound("sync", "not configured here")
            return
        with identity_client(self.settings.vault, self.settings.vault.sync) as client:
            yield from power("sync", client, sync_power(self.settings.vault.layout))

    def _param(self) -> Iterable[Finding]:
        if self.plane.param is None:
            needed = [one.entitlement.name for one in self.plane.entitlements.all() if one.entitlement.parameters]
            if needed:
                do = "Set vault.param, and run `shorthold vault bootstrap`."
                yield broken("param", f"{', '.join(needed)}: has parameters, and nobody makes its roles", do)
            else:
                yield sound("param", "not configured here, and no entitlement has parameters")
            return
        yield from power("param", self.plane.param.client, param_power(self.settings.vault.layout))
        roles = VaultGrantRoles(self.settings.vault.layout, self.plane.param.client).present()
        found = {id: self.plane.store.grant(id) for id in roles}
        left = [id for id, grant in found.items() if grant is None or not grant.open]
        if left:
            do = "A running control plane removes them with its next comparison, once no lease hangs from them."
            yield advice("param", f"roles of {len(left)} grants that are over: {', '.join(sorted(left)[:3])}", do)
        else:
            yield sound("param", f"roles of {len(roles)} grants, all of them open")

    def _rotate(self) -> Iterable[Finding]:
        every = self.plane.entitlements.all()
        rotating = [one for one in every if any(scope.rotation for scope in one.entitlement.scopes)]
        if self.plane.rotate is None:
            if rotating:
                names = ", ".join(one.entitlement.name for one in rotating)
                do = "Set vault.rotate, and run `shorthold vault bootstrap`."
                yield broken("rotate", f"{names}: ends with another secret, and nobody may write it", do)
            else:
                yield sound("rotate", "not configured here, and no entitlement rotates a secret")
            return
        yield from power("rotate", self.plane.rotate.client, rotate_power(self.settings.vault.layout))
        secrets = VaultRotator(self.plane.rotate.client)
        for one in rotating:
            for path in _rotated(one):
                if secrets.version(path) is None:
                    do = "Write it, or take the entitlement out: until then no request for it is granted."
                    yield advice("rotate", f"{one.entitlement.name}: there is no secret at {path}", do)

    def _store(self) -> Iterable[Finding]:
        head = self.plane.store.head()
        key = audit_key.load(self.settings.keys.directory / audit_key.FILE)
        if head is None or not is_sealed(key, head):
            yield broken(
                "store",
                "its audit head is gone or not sealed by our key",
                "Run `shorthold audit verify`; keep a copy as evidence.",
            )
            return
        with self.plane.store.writer.begin():  # BEGIN IMMEDIATE on SQLite: it says no where nobody may write
            pass
        yield sound("store", f"writable, sealed up to audit record {head.seq}")
        yield from unsaved(self.plane.spool)

    def _restore(self) -> Iterable[Finding]:
        compared = self.plane.epochs.compare()
        if compared.behind is not None:
            yield broken(
                "restore", f"{compared.behind}; nothing is granted", "Look with `shorthold doctor restore`, and decide."
            )
        elif compared.vault_lost:
            yield advice(
                "restore",
                "Vault was restored from a snapshot",
                "Nothing: what came back is ended. `sync plan` shows whether roles are old.",
            )
        else:
            yield sound("restore", "store and Vault remember the same")

    def _entitlements(self) -> Iterable[Finding]:
        layout, issuers = self.settings.vault.layout, known(self.settings.issuers)
        found = review(self.settings.roles, layout, engines(), today=self.clock.now().date(), issuers=issuers or None)
        if found.errors:
            yield broken(
                "entitlements", f"{len(found.errors)} errors in the files", "`shorthold sync lint` lists them."
            )
            return
        plan = PlanSync(roles=sync_roles(self.settings.vault), layout=layout)(found.whole())
        if plan.empty:
            yield sound("entitlements", f"{len(found.compiled)} stand in Vault as compiled")
        else:
            yield advice(
                "entitlements",
                f"{len(plan.changes)} objects differ in Vault",
                "`shorthold sync plan` shows them, `sync apply` makes them so.",
            )

    def _targets(self) -> Iterable[Finding]:
        for name, target in self.settings.targets.items():
            prober = self.plane.targets[target.kind]
            try:
                logins, better = prober.logins(name), prober.advice(name)
            except TargetUnavailableError as error:
                yield broken(
                    "targets", error.detail, "See targets.* in the settings, and run `shorthold vault bootstrap` anew."
                )
                continue
            yield sound("targets", f"{name}: the prober gets in, {len(logins)} logins of ours")
            for what, do in better:
                yield advice("targets", f"{name}: {what}", do)

    def _revocations(self) -> Iterable[Finding]:
        now, late = self.clock.now(), 0
        for tally in self.plane.store.tallies(engines=True):
            age = timedelta(0) if tally.oldest is None else now - tally.oldest
            if tally.state is State.IRREVOCABLE or age > _LATE:
                late += 1
                lost = tally.state is State.IRREVOCABLE
                yield Finding(
                    check="revocations",
                    grade=Grade.BROKEN if lost else Grade.ADVICE,
                    detail=f"{tally.count} {tally.state} ({tally.engine or 'no lease'}), the oldest for {_span(age)}",
                    do="Vault gave up; we go on. See that the target works, or end the login there by hand."
                    if lost
                    else "`shorthold grant show` says why; it is tried for ever.",
                )
        if not late:
            yield sound("revocations", "none waits for longer than a minute")

    def _orphans(self) -> Iterable[Finding]:
        found = self.plane.store.orphans()
        for orphan in found[:20]:
            yield advice(
                "orphans",
                f"{orphan.kind} {orphan.name}: {orphan.detail}",
                "Drop it at the target; nobody has its password."
                if orphan.kind == "login"
                else "It is ended by itself as soon as Vault and target let it.",
            )
        if not found:
            yield sound("orphans", "none")

    def _sinks(self) -> Iterable[Finding]:
        head, names = self.plane.store.head(), [sink.name for sink in self.settings.sinks]
        late = list(behind(self.plane.store.cursors, names, 0 if head is None else head.seq, now=self.clock.now()))
        yield from late or [sound("sinks", f"{len(names)} told of every event" if names else "none configured")]


def unsaved(spool: Spool) -> Iterator[Finding]:
    """Ends that a store could not take: a running control plane saves them within a second."""
    if waiting := spool.waiting():
        yield advice(
            "store",
            f"{len(waiting)} ends of grants wait in the spool, the oldest since {waiting[0].at:%Y-%m-%dT%H:%M:%SZ}",
            "Run `shorthold serve`: it saves them. If it runs, its log says why the store takes nothing.",
        )


def behind(cursors: Cursors, sinks: Sequence[str], head: int, *, now: datetime) -> Iterator[Finding]:
    """Sinks that take nothing just now."""
    for name in sinks:
        cursor = cursors.at(name)
        if cursor is not None and cursor.attempts and cursor.seq < head:
            again = max(cursor.due_at - now, timedelta(0))
            yield advice(
                "sinks",
                f"{name}: {head - cursor.seq} events wait, after {cursor.attempts} tries; again in {_span(again)}",
                "See that it can be reached and takes what it is told; the server's log says what it answered.",
            )


def _rotated(one: Compiled) -> Iterator[str]:
    """Where the secrets are that its grants replace. One whose path has parameters is known with a request only."""
    for scope in one.entitlement.scopes:
        if scope.rotation is not None and not scope.parameters:
            yield engines()[scope.engine].ask(scope, one.naming, ttl=one.entitlement.ttl.default).path


def _span(age: timedelta) -> str:
    return f"{int(age.total_seconds())} s"
