"""Compare Vault and the targets with the store, and end what no open grant covers.

Whoever made it, by whatever way: a crash between login and save, a commit that a failover lost, a task JWT that
somebody sent to Vault himself (docs/orphans.md). What is being issued right now is left alone. A login without a lease
cannot be ended by us, for the prober may only look: it is reported until it is gone, and its own clock shuts it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from controlplane.engines.dialects.terms.group import group_of
from controlplane.grants.covered import CLOCK_SKEW, may_be_of, unheld
from controlplane.grants.epoch import ROUND, Epochs
from controlplane.model.errors import LostRaceError, TargetUnavailableError, VaultRefusedError
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State, Step, Why
from controlplane.model.lease import Accessor, LeaseId, Target
from controlplane.model.orphan import Login, Orphan, OrphanKind
from controlplane.ports import Census, Clock, Leases, Logins, Prober, Recorder, Roster, Store

log = structlog.stdlib.get_logger(__name__)

_AT_ONCE = 200
"""Orphans that one round begins with, and as many that it ends: a round is short, and the next one follows."""
_ACTIVE = 500
"""Active grants of which one round asks whether Vault still knows their tokens."""
_SURE_AFTER = timedelta(minutes=1)
"""A standby may be behind: a token that is younger than this is not called lost."""


@dataclass(slots=True, kw_only=True)
class _Turn:
    """Where the last round stopped. Losing it costs time only."""

    after: GrantId | None = None
    ended: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconcile:
    """One round, by one replica at a time. `every` is the pause between rounds, `hold` how long one may take."""

    clock: Clock
    record: Recorder
    store: Store
    logins: Logins
    leases: Leases
    census: Census
    epochs: Epochs
    probers: Mapping[str, Prober]
    rosters: Mapping[str, Roster]
    """By the name of the target that each can be asked about."""
    rostered: Callable[[str], bool]
    """Whether logins made at a path stand in some roster."""
    every: timedelta
    hold: timedelta
    sweep: Callable[[], object] = lambda: None
    """Removes roles of single grants that were left behind, once no lease hangs from them."""
    _turn: _Turn = field(default_factory=_Turn)

    def __call__(self) -> bool:
        """Do a round if it is time and nobody else does; whether it was done. Repeating it changes nothing.

        Raises: StoreUnavailableError, VaultUnavailableError, VaultRefusedError: the rest waits for the next round.
        """
        if self.epochs.compare().behind is not None:
            return False  # a store that forgot knows nobody's grants: everybody's tokens would look like orphans
        if not self.store.begin_round(ROUND, self.clock.now(), hold=self.hold):
            return False
        try:
            self._find_tokens()
            whole = self._find_leases()
            released, resisting = self._release()
            present = self._ask_targets()
            for orphan in released:
                self._prove(orphan, present)
            if whole:
                self._tell_logins(present, resisting)
            self.sweep()
            mark = self.epochs.note()
        except BaseException:
            self.store.end_round(ROUND, self.clock.now() + self.every)
            raise
        self.store.end_round(ROUND, self.clock.now() + self.every, mark=mark)
        return True

    def _find_tokens(self) -> None:
        running = self.store.grants(states=[State.ACTIVE], before=self._turn.after, limit=_ACTIVE)
        self._turn.after = running[-1].id if len(running) == _ACTIVE else None
        survey = self.census.survey(self.store.held_tokens)
        for token in survey.tokens:
            why = unheld(self.store, token)
            if why is not None:
                named = GrantId(token.metadata["grant"]) if "grant" in token.metadata else None
                place = token.metadata.get("role", "")
                self._found(OrphanKind.TOKEN, token.accessor, place=place, grant=named, detail=why)
        for grant in running:
            if grant.accessor not in survey.listed:
                self._lost(grant)

    def _lost(self, grant: Grant) -> None:
        """End a grant whose token Vault does not know any more; its credentials may outlive their leases."""
        now = self.clock.now()
        if grant.issued_at is None or grant.accessor is None or now < grant.issued_at + _SURE_AFTER:
            return
        if now >= grant.expires_at - CLOCK_SKEW or self.logins.facts(grant.accessor) is not None:
            return
        ending = grant.after(Step.END, why=Why.LOST, revoking_at=now, due_at=now)
        try:
            with self.store.transaction() as tx:
                tx.save(ending, self.record(Kind.GRANT_ENDED, grant.id, why=Why.LOST))
        except LostRaceError:
            return  # somebody else ended it first, which is how it lost its token

    def _find_leases(self) -> bool:
        """Whether every lease was looked at, and not only as many as fit into one round."""
        begun = 0
        for path in self.census.places():
            listed = self.leases.under(path)
            if not set(listed) - self.store.held_leases(listed):
                continue
            # In this order: whoever made one of these leases is issuing still, or has saved it by now.
            unsettled = [grant for grant in self.store.unsettled() if path in grant.paths]
            for lease in sorted(set(listed) - self.store.held_leases(listed)):
                if begun == _AT_ONCE:
                    return False
                begun += self._find_lease(lease, path, unsettled)
        return True

    def _find_lease(self, lease: LeaseId, path: str, unsettled: Sequence[Grant]) -> bool:
        known = self.store.lease(lease)
        if known is None:
            facts = self.leases.facts(lease)
            if facts is None:
                return False
            if may_be_of(unsettled, facts, self.clock.now()):
                return False
        grant_id = None if known is None else known[0]
        detail = "no grant knows it" if known is None else "its grant has ended"
        return self._found(OrphanKind.LEASE, lease, place=path, grant=grant_id, detail=detail)

    def _release(self) -> tuple[Sequence[Orphan], frozenset[str]]:
        """Let Vault end the tokens and leases that were found: those it let go of, and the groups of all others."""
        waiting = [orphan for orphan in self.store.orphans() if orphan.kind is not OrphanKind.LOGIN]
        start = self._turn.ended % max(len(waiting), 1)
        found = [*waiting[start:], *waiting[:start]][:_AT_ONCE]  # those that resist do not keep others waiting
        self._turn.ended = start + len(found)
        tokens = [orphan for orphan in found if orphan.kind is OrphanKind.TOKEN]
        leases = [orphan for orphan in found if orphan.kind is OrphanKind.LEASE]
        for token in tokens:
            self.leases.revoke_token(Accessor(token.name))
        released = [lease for lease in leases if self._gone(lease)]
        for token in tokens:
            facts = self.logins.facts(Accessor(token.name))
            if facts is None or facts.num_uses < 0:  # a zombie can do nothing; its leases are found by their path
                self._ended(token, method="token revoked", verified=True, evidence="Vault does not know it any more")
        others = (orphan for orphan in waiting if orphan.kind is OrphanKind.LEASE and orphan not in released)
        resisting = frozenset(_group(lease.place) for lease in others)
        return released, resisting

    def _gone(self, orphan: Orphan) -> bool:
        lease = LeaseId(orphan.name)
        try:
            self.leases.revoke(lease)
            return self.leases.facts(lease) is None
        except VaultRefusedError as error:
            log.error("orphan_resists", orphan=orphan.name, detail=error.detail)  # noqa: TRY400 # Vault's words say it
            return False

    def _ask_targets(self) -> "_Present":
        """Who can log in to the targets and is no open grant's, and which targets did not say."""
        there: list[tuple[str, Login]] = []
        silent = False
        for target, roster in self.rosters.items():
            try:
                there += [(target, login) for login in roster.logins(target)]
            except TargetUnavailableError as error:
                log.warning("target_not_asked", target=target, detail=error.detail)
                silent = True
        # In this order: whoever made one of these logins is issuing still, or has saved it by now.
        unsettled = {_group(path) for grant in self.store.unsettled() for path in grant.paths}
        held = self.store.held_principals()
        return _Present(
            logins=[(target, login) for target, login in there if login.name not in held],
            unsettled=frozenset(unsettled),
            silent=silent,
        )

    def _prove(self, orphan: Orphan, present: "_Present") -> None:
        """Say that a lease is gone, with the target's word where it has one."""
        method, known = "lease revoked by its id", self.store.lease(LeaseId(orphan.name))
        if known is not None and (prober := self.probers.get(known[1].target.kind)) is not None:
            try:
                evidence = prober.ask(known[1].target, known[1].principal, issued_at=known[1].issued_at)
            except TargetUnavailableError as error:
                log.warning("orphan_not_proved", orphan=orphan.name, detail=error.detail)
                return
            if evidence.gone:
                self._ended(orphan, method=method, verified=True, evidence=evidence.detail)
            return
        group = _group(orphan.place)
        if not self.rostered(orphan.place) or not self.rosters:
            unknown = "nobody learned its principal, so the target could not be asked for it"
            self._ended(orphan, method=method, verified=False, evidence=unknown)
        elif group in present.unsettled or any(login.group == group for _, login in present.logins):
            log.warning("orphan_not_proved", orphan=orphan.name, detail=f"somebody is left in {group}")
        elif not present.silent:
            evidence = f"no login is left in {group} but those of open grants"
            self._ended(orphan, method=method, verified=True, evidence=evidence)

    def _tell_logins(self, present: "_Present", resisting: frozenset[str]) -> None:
        """Report logins without a lease, and when those that were reported are gone."""
        for target, login in present.logins:
            if login.group in present.unsettled or login.group in resisting or self._just_gone(target, login):
                continue
            ends = "never" if login.valid_until is None else f"{login.valid_until:%Y-%m-%dT%H:%M:%SZ}"
            detail = f"no lease holds it; member of {login.group}, new sessions until {ends}, {login.sessions} open"
            self._found(OrphanKind.LOGIN, f"{target}/{login.name}", place=target, grant=None, detail=detail)
        there = {f"{target}/{login.name}" for target, login in present.logins}
        for orphan in self.store.orphans() if not present.silent else ():
            if orphan.kind is OrphanKind.LOGIN and orphan.name not in there:
                self._ended(orphan, method="dropped at the target", verified=True, evidence="it is there no more")

    def _just_gone(self, target: str, login: Login) -> bool:
        """Whether the login ended since the targets were asked, as that of a grant which was just revoked."""
        asked = Target(kind=self.rosters[target].kind, name=target)
        return self.probers[asked.kind].ask(asked, login.name, issued_at=self.clock.now()).gone

    def _found(self, kind: OrphanKind, name: str, *, place: str, grant: GrantId | None, detail: str) -> bool:
        """Write it down before anything is done about it; whether it is new."""
        orphan = Orphan(kind=kind, name=name, place=place, grant=grant, detail=detail, found_at=self.clock.now())
        told = {"orphan": kind.value, "name": name, "place": place, "detail": detail}
        with self.store.transaction() as tx:
            new = tx.find(orphan, self.record(Kind.ORPHAN_FOUND, grant, **told))
        if new:
            log.error("orphan_found", **told)
        return new

    def _ended(self, orphan: Orphan, *, method: str, verified: bool, evidence: str) -> None:
        ended = self.record(
            Kind.ORPHAN_ENDED,
            orphan.grant,
            orphan=orphan.kind.value,
            name=orphan.name,
            method=method,
            verified=verified,
            evidence=evidence,
        )
        with self.store.transaction() as tx:
            tx.lay(orphan.kind, orphan.name, ended)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Present:
    """Logins at the targets that no open grant holds; the groups in which somebody may be issuing right now."""

    logins: Sequence[tuple[str, Login]]
    unsettled: frozenset[str]
    silent: bool
    """Some target did not answer: then nobody is called gone."""


def _group(path: str) -> str:
    return group_of(path.rpartition("/")[2])
