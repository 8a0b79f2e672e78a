"""Renew a grant: decide everything anew, and let its token, its leases and their users live longer, all or none.

The intent is on disk before Vault is asked, and the new end only after Vault has given all of it. Until then the end
of before holds: the worker ends the grant by it, whatever Vault has given meanwhile. At Vault the task token moves
last, because all the rest ends with it: what breaks off before that has given nothing.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from controlplane.grants.anew import Anew, DecideAnew, Known
from controlplane.grants.belonging import strange_lease
from controlplane.grants.frozen import frozen
from controlplane.grants.heartbeat import next_beat
from controlplane.grants.known import ids
from controlplane.grants.request import in_step, told
from controlplane.model.decision import Decides, Reason
from controlplane.model.duration import format_duration
from controlplane.model.entitlement import Entitlement
from controlplane.model.errors import ControlPlaneError, DeniedError, FrozenError, LostRaceError, VaultRefusedError
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State
from controlplane.model.identity import VerifiedClaims
from controlplane.model.lease import Lease
from controlplane.model.network import Address
from controlplane.ports import Clock, Leases, Recorder, Skew, Store, Wake

_TRIES = 5
_SAME = timedelta(seconds=1)
"""An end that would move by less stays: Vault counts in whole seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """A grant with its end of now, and why it was given one."""

    grant: Grant
    leases: tuple[Lease, ...]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewGrant:
    """A later end for what is in use, within what the entitlement, or whoever agreed, allows from its beginning.

    `within` is how long Vault may take before the worker undoes what it may have done; `gate` is that of a request.
    """

    clock: Clock
    record: Recorder
    store: Store
    leases: Leases
    anew: DecideAnew
    wake: Wake
    within: timedelta
    skew: Skew
    gate: Callable[[], None]

    def __call__(
        self, who: VerifiedClaims, id: GrantId, *, ttl: timedelta | None = None, address: Address | None = None
    ) -> Renewed:
        """The grant ends `ttl` from now; without it, the entitlement's default from now, as far as it may.

        It never ends sooner than before. A later end counts as a beat. Repeating it asks for an end that is later by
        the time between, so it needs no key.

        Raises:
            NotFoundError: no such grant of this workload. IllegalTransitionError: it is not in use yet.
            EndedError: it has ended. ContextChangedError: decided anew, it would not be granted: it has just ended.
            FrozenError, OverBudgetError, DeniedError: its end stays: frozen, a budget, later than it may, by policy, or
                because a credential of it cannot live longer.
            LostRaceError: another renewal is under way.
            ClockOffError, StoreBehindError: nothing was decided.
            VaultUnavailableError, VaultRefusedError: its end stays; what Vault has given is taken back.
        """
        self.gate()
        in_step(self.skew)
        for left in reversed(range(_TRIES)):
            try:
                grant, found = self._decide(who, id, ttl, address)
                break
            except LostRaceError:
                if not left:
                    raise
        else:
            raise AssertionError("unreachable: the last try breaks or raises")
        if grant.renewing_to is None:
            return self._renewed(grant, found)  # it ends late enough already
        try:
            self._at_vault(grant, grant.renewing_to)
            return self._confirm(grant, found, who)
        except Exception:
            self._give_up(grant)
            raise

    def _decide(
        self, who: VerifiedClaims, id: GrantId, ttl: timedelta | None, address: Address | None
    ) -> tuple[Grant, Anew]:
        """Decide, and save what is intended in the same transaction."""
        grant = self.anew.own(who, id)
        if grant.renewing_to is not None:
            raise LostRaceError(f"another renewal of {id} is under way, or being undone")
        known = self.anew.known(grant)
        with self.store.transaction() as tx:
            found = self.anew(tx, known, who, address=address)
            refused, to = found.refused, None
            if found.entitlement is not None and not found.changed and refused is None:
                to, noes = self._later(known, found.entitlement, found, who, ttl)
                refused = DeniedError(f"a later end of {id} was not granted", reasons=noes) if noes else None
            if to is not None:
                grant = grant.watched(renewing_to=to, renewing_by=self.clock.now() + self.within)
                facts = told(found.asked, who, found.decision.reasons)
                tx.save(grant, self.record(Kind.RENEWAL_ALLOWED, id, **facts, until=_text(to)))
            if refused is not None:
                tx.append(self.record(Kind.RENEWAL_REFUSED, id, **told(found.asked, who, refused.reasons)))
        if found.changed:
            raise self.anew.end(found, grant, who)
        if refused is not None:
            raise refused
        return grant, found

    def _later(
        self, known: Known, entitlement: Entitlement, found: Anew, who: VerifiedClaims, ttl: timedelta | None
    ) -> tuple[datetime | None, tuple[Reason, ...]]:
        """The end that it may have, None where it has that already; or why it may have no such end."""
        grant, now = known.grant, found.situation.at
        # Whoever agreed, agreed to this long and no longer.
        longest = entitlement.ttl.max if entitlement.approval is None else min(grant.ttl, entitlement.ttl.max)
        latest, why = grant.began_at + longest, f": {format_duration(longest)} from its beginning"
        if entitlement.approval is not None:
            why = ": people have agreed to no more"
        if (cover := found.situation.line and found.situation.line.cover) is not None and cover.expires_at < latest:
            latest, why = cover.expires_at, ", as the grant that it hangs from"
        wanted = now + (ttl or min(entitlement.ttl.default, latest - now))
        if wanted > latest or latest < grant.expires_at + _SAME:
            detail = f"it may live until {_text(latest)} at most{why}"
            return None, (Reason(decision=Decides.SCOPE, code="ttl-above-maximum", detail=detail),)
        if wanted < grant.expires_at + _SAME:
            return None, ()
        longer = replace(found.asked, ttl=wanted - grant.began_at)
        ruling = known.rule(entitlement, who, longer, replace(found.situation, renewing=True))
        return (wanted, ()) if ruling.permitted else (None, ruling.reasons)

    def _at_vault(self, begun: Grant, to: datetime) -> None:
        assert begun.accessor is not None  # noqa: S101 # the store lets no grant be active without
        leases = self.store.leases(begun.id)
        if strange := [why for lease in leases if (why := strange_lease(begun, lease))]:
            raise VaultRefusedError(f"{strange[0]}: nothing was asked")
        fixed = [lease.scope for lease in leases if not self._can_live_longer(lease)]
        if fixed:
            detail = f"the credential of {', '.join(fixed)} ends as it was issued: Vault cannot move its end; ask anew"
            reason = Reason(decision=Decides.SCOPE, code="not-renewable", detail=detail)
            raise DeniedError(f"a later end of {begun.id} was not granted", reasons=(reason,))
        left = to - self.clock.now()
        # Up to the next second: by the end that we tell, nothing has ended that we said was alive.
        span = timedelta(seconds=math.ceil(left.total_seconds()))
        self.leases.extend(begun.accessor, [lease.id for lease in leases], span)

    def _can_live_longer(self, lease: Lease) -> bool:
        facts = self.leases.facts(lease.id)
        return facts is not None and facts.renewable

    def _confirm(self, begun: Grant, found: Anew, who: VerifiedClaims) -> Renewed:
        """Save the new end, unless somebody ended or undid it, or a freeze came meanwhile (P8)."""
        for left in reversed(range(_TRIES)):
            try:
                return self._save(begun, found, who)
            except LostRaceError:
                if not left:
                    raise
        raise AssertionError("unreachable: the last try returns or raises")

    def _save(self, begun: Grant, found: Anew, who: VerifiedClaims) -> Renewed:
        grant = self.store.grant(begun.id)
        if grant is None or not _is_under_way(begun, grant):
            self.anew.own(who, begun.id)  # says how it ended, if it did
            raise LostRaceError(f"the renewal of {begun.id} took too long and was undone")
        end = begun.renewing_to or grant.expires_at
        with self.store.transaction() as tx:
            freezes = tx.freezes(self.clock.now())
            above = ids(tx.lineage(grant.workload, grant.task)) if freezes else ()
            if stopped := frozen(freezes, who, found.asked, found.entitlement, above=above):
                raise FrozenError(f"{grant.entitlement} was frozen while it was being renewed", reasons=stopped)
            renewed = grant.watched(
                expires_at=end,
                ttl=end - grant.began_at,
                heartbeat_due_at=next_beat(found, self.clock),
                renewing_to=None,
                renewing_by=None,
            )
            tx.save(renewed, self.record(Kind.GRANT_RENEWED, grant.id, until=_text(end)))
            tx.move_leases(grant.id, end)
        return self._renewed(renewed, found)

    def _give_up(self, begun: Grant) -> None:
        """Let the worker undo it now; where not even that can be saved, it does so by its deadline."""
        with contextlib.suppress(ControlPlaneError):
            grant = self.store.grant(begun.id)
            if grant is not None and _is_under_way(begun, grant):
                back = grant.watched(renewing_to=grant.expires_at, renewing_by=self.clock.now())
                with self.store.transaction() as tx:
                    tx.save(back)
        self.wake()

    def _renewed(self, grant: Grant, found: Anew) -> Renewed:
        leases = tuple(self.store.leases(grant.id))
        return Renewed(grant=grant, leases=leases, reasons=found.decision.reasons)


def _is_under_way(begun: Grant, grant: Grant) -> bool:
    """Whether nobody ended or undid it; a beat may have moved the grant meanwhile."""
    return grant.state is State.ACTIVE and grant.renewing_to == begun.renewing_to


def _text(at: datetime | None) -> str:
    return "" if at is None else at.isoformat(timespec="seconds")
