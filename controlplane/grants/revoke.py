"""Make an end true: revoke the token, see every lease gone, ask every target; only then is it `REVOKED`.

Vault answers 204 to a revocation that later fails, so its answers are wishes and what we look up are facts
(docs/vault-facts.md). What cannot be confirmed stays `REVOKING` and is tried for ever, with back-off.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from controlplane.grants.belonging import is_strange_token, strange_lease
from controlplane.grants.receipt import statement
from controlplane.model.entitlement import Revocability
from controlplane.model.errors import (
    TargetUnavailableError,
    VaultRefusedError,
    VaultUnavailableError,
)
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, State, Step
from controlplane.model.lease import Accessor, Ended, Lease, LeaseId, Receipt, is_leased
from controlplane.model.rotation import Made, Rotation
from controlplane.ports import Clock, Engine, GrantRoles, Leases, Logins, Prober, Recorder, Rotator, Signer, Store

Item = TypeVar("Item")

_BEFORE_LOOKING = timedelta(milliseconds=10)
"""What Vault takes at least to end a lease: to look sooner only keeps it from its work."""
_LOOKS = tuple(timedelta(milliseconds=ms) for ms in (5, 10, 20, 40, 80, 160, 320))
"""The pauses between looks at a lease that is being revoked: most are gone after the first few."""

_FIRST_RETRY, _LAST_RETRY = timedelta(milliseconds=500), timedelta(seconds=40)
_VAULT_RETRY = timedelta(seconds=4)
"""While Vault itself does not answer, not even the token is revoked: so it is asked often, by one cheap call."""


class NotGoneError(Exception):
    """Something of the grant is or may be alive; the text says what, without secrets."""


class AbidingError(NotGoneError):
    """What could be done is done; it counts as gone at `until`, and there is nothing to try before."""

    def __init__(self, detail: str, until: datetime) -> None:
        super().__init__(detail)
        self.until = until


class StrandedError(NotGoneError):
    """Vault has given a lease up: it retries once a day, so we go on and say it loudly."""


class SurvivedError(NotGoneError):
    """The target has what Vault says it ended: nobody but a person at the target can end it now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeGrant:
    """From `REVOKING` to `REVOKED` with a receipt, or a little later again."""

    clock: Clock
    record: Recorder
    store: Store
    logins: Logins
    leases: Leases
    probers: Mapping[str, Prober]
    signer: Signer
    pause: Callable[[timedelta], None]
    engines: Mapping[str, Engine] = field(default_factory=dict[str, Engine])
    """What they say of ends that no prober can confirm."""
    roles: GrantRoles | None = None
    """Of single grants; None where none are made."""
    rotator: Rotator | None = None
    """None where no secret is replaced."""

    def __call__(self, grant: Grant) -> Grant:
        """The grant after one honest try. Repeating it is what it is made for.

        Raises: StoreUnavailableError: the receipt could not be saved; it stays due. LostRaceError.
        """
        try:
            receipt = self._end_everything(grant)
        except AbidingError as error:
            return self._later(grant, str(error), due_at=error.until)
        except NotGoneError as error:
            return self._later(grant, str(error), loud=_LOUD.get(type(error)))
        except VaultUnavailableError as error:
            return self._later(grant, error.detail, at_most=_VAULT_RETRY)
        except (VaultRefusedError, TargetUnavailableError) as error:
            return self._later(grant, error.detail)
        return self._confirm(grant, receipt)

    def _end_everything(self, grant: Grant) -> Receipt:
        accessors = self._accessors(grant)
        for accessor in accessors:
            self.leases.revoke_token(accessor)
        leases = self.store.leases(grant.id)
        if leases:
            self.pause(_BEFORE_LOOKING)
        ended = _each(lambda lease: self._end(grant, lease, again=grant.attempts > 0), leases)
        if grant.settles_at is not None:
            ended += self._settle(grant, grant.settles_at, known=leases, read=bool(accessors))
        for accessor in accessors:
            # A zombie (num_uses -1) stays visible for ever and can do nothing; its leases were ended above.
            if (facts := self.logins.facts(accessor)) is not None and facts.num_uses >= 0:
                raise NotGoneError("the task token is still alive")
        if grant.settles_at is not None and len(self.store.leases(grant.id)) > len(leases):
            # Whoever was issuing it was slow, and not dead: no receipt before these were looked at, too.
            raise NotGoneError("a lease of it was saved while it was being ended")
        if grant.parameters and self.roles is not None:  # last: Vault revokes a lease by what its role says
            self.roles.remove(grant.id)
        return Receipt(ended=tuple(ended))

    def _settle(self, grant: Grant, settles_at: datetime, *, known: Sequence[Lease], read: bool) -> list[Ended]:
        """End what issuing made and the store never learned of, until nothing more of it can appear."""
        strays, doubtful = self._strays(grant, settles_at)
        ended = _each(self._end_stray, strays)
        if doubtful:
            raise NotGoneError(f"{doubtful[0]} may belong to a grant that is being issued right now")
        if self.clock.now() < settles_at:
            raise NotGoneError("issuing was interrupted: an unseen effect may still appear in Vault")
        # A stray proves nothing here: it may be that of another grant which was interrupted at the same path.
        seen = {lease.path for lease in known}
        # Without a token nothing can have been read at all.
        return ended + [self._never_seen(path) for path in grant.paths if read and path not in seen]

    def _is_strange(self, grant: Grant, accessor: Accessor) -> bool:
        """Whether that token is another's. Where Vault refuses to say, it is revoked rather than left alive."""
        try:
            return is_strange_token(grant, self.logins.facts(accessor))
        except VaultRefusedError:
            return False

    def _accessors(self, grant: Grant) -> Sequence[Accessor]:
        """Its tokens that may be alive; one that a look did not find is among them, for a standby may be behind."""
        if grant.accessor is not None and not self._is_strange(grant, grant.accessor):
            return [grant.accessor]
        # The login was sent and its answer never came, or it was another's: a token of this grant can only be found
        # by its metadata.
        return self.logins.accessors_of(grant.id) if grant.accessor or grant.settles_at is not None else []

    def _end(self, grant: Grant, lease: Lease, *, again: bool) -> Ended:
        if why := strange_lease(grant, lease):
            raise NotGoneError(f"{why}, {lease.id}: it was left alone")
        # What Vault keeps no lease of ends with the task token, or not at all: its engine says which.
        method = self._until_gone(lease.id, again=again) if is_leased(lease.id) else "task token revoked"
        if lease.rotation is not None:
            return self._rotated(grant, lease, lease.rotation)
        prober = self.probers.get(lease.target.kind)
        if prober is None:
            return self._unasked(lease, method)
        evidence = prober.ask(lease.target, lease.principal, issued_at=lease.issued_at)
        if not evidence.gone and again:
            raise SurvivedError(f"Vault let go of lease {lease.id}, and still {lease.target.name}: {evidence.detail}")
        if not evidence.gone:
            raise NotGoneError(f"{lease.target.name}: {evidence.detail}")
        return self._ended(lease, method, verified=True, evidence=evidence.detail)

    def _rotated(self, grant: Grant, lease: Lease, rotation: Rotation) -> Ended:
        """Replace the secret, once, and look whether it stays so until nobody goes by the old one any more."""
        if self.rotator is None:
            raise NotGoneError(f"{lease.principal} is not replaced: nobody may, as vault.rotate is not set")
        name, made = lease.target.name, rotation.made
        stands = self.rotator.version(lease.path)
        if stands is None:
            return self._ended(lease, "removed by its owner", verified=True, evidence=f"kv has no {name} any more")
        # Another's new version may hold the same value, so only ours counts; one that Vault has lost is made again.
        if made is None or stands < made.version:
            made = Made(version=self.rotator.rotate(lease.path, rotation), at=self.clock.now())
            told = self.record(Kind.SECRET_ROTATED, grant.id, principal=lease.principal, version=made.version)
            with self.store.transaction() as tx:
                tx.rotate_lease(lease.id, replace(rotation, made=made), told)
            stands = self.rotator.version(lease.path)
        if stands is None or stands < made.version:
            raise NotGoneError(f"{lease.principal} was replaced, and Vault shows version {stands}")
        seen = f"kv {name} is at version {stands}, past the one that was read"
        if self.clock.now() < made.at + rotation.reread:
            raise AbidingError(f"{seen}, and is not read anew yet by all who check it", made.at + rotation.reread)
        evidence = f"{seen}; whoever checks it has read it anew"
        return self._ended(lease, f"rotated at version {made.version}", verified=True, evidence=evidence)

    def _unasked(self, lease: Lease, method: str) -> Ended:
        """An end that no target can confirm: what has a clock of its own is over when that says so."""
        engine = self.engines.get(lease.engine)
        why = (engine.unasked if engine is not None else "") or f"a {lease.engine} target cannot be asked"
        if engine is None or engine.revocability is not Revocability.EXPIRING:
            return self._ended(lease, method, verified=False, evidence=why)
        over, at = lease.expires_at <= self.clock.now(), f"{lease.expires_at:%Y-%m-%dT%H:%M:%SZ}"
        evidence = f"it ran out at {at}, by its own clock" if over else f"{why}; it runs out at {at}"
        return self._ended(lease, method, verified=False, evidence=evidence)  # a clock is no answer of a target

    def _until_gone(self, lease: LeaseId, *, again: bool) -> str:
        """Wait until Vault's record of the lease is gone, and say what ended it.

        The first try only looks: revoking by id waits for the target, and one that hangs would keep others waiting.
        """
        for wait in _LOOKS:
            facts = self.leases.facts(lease)
            if facts is None:
                return "task token revoked"
            if facts.revoke_error:
                break
            self.pause(wait)
        if not again:
            raise NotGoneError(f"Vault is still revoking lease {lease}")
        # It resists: its token may be a zombie, or the first try failed and Vault waits before the next.
        self._revoke(lease)
        return "lease revoked by its id"

    def _revoke(self, lease: LeaseId) -> None:
        try:
            self.leases.revoke(lease)
        except (VaultRefusedError, VaultUnavailableError) as error:
            # No answer may be the target's doing: then Vault itself still says what has become of the lease.
            facts = self.leases.facts(lease)
            if facts is not None and facts.irrevocable:
                raise StrandedError(f"Vault has given lease {lease} up: {error.detail}") from None
            raise
        if (facts := self.leases.facts(lease)) is not None:
            why = f": {facts.revoke_error}" if facts.revoke_error else ""
            raise NotGoneError(f"Vault still holds lease {lease}{why}")

    def _strays(self, grant: Grant, settles_at: datetime) -> tuple[list[LeaseId], list[LeaseId]]:
        """Leases that the store never learned of: those that can be of this grant only, and those of it or a rival."""
        earliest, latest = grant.requested_at - _CLOCK_SKEW, settles_at + _CLOCK_SKEW
        strays: list[LeaseId] = []
        doubtful: list[LeaseId] = []
        for path in grant.paths:
            found = self.leases.under(path)
            # In this order: whoever made one of these leases is issuing still, or has saved it by now.
            rivals = self.store.grants(entitlement=grant.entitlement, states=[State.ISSUING], limit=_MANY)
            adopted = [other for other in self.store.unsettled() if other.state is State.ACTIVE and path in other.paths]
            for lease in sorted(set(found) - self.store.known_leases(found)):
                facts = self.leases.facts(lease)
                if facts is None or not earliest <= facts.issued_at <= latest:
                    continue
                if any(other.requested_at <= facts.issued_at + _CLOCK_SKEW for other in adopted):
                    continue  # it may be that one's, and ends with it at the latest
                rivalled = any(
                    path in rival.paths and rival.requested_at <= facts.issued_at + _CLOCK_SKEW for rival in rivals
                )
                (doubtful if rivalled else strays).append(lease)
        return strays, doubtful

    def _end_stray(self, lease: LeaseId) -> Ended:
        self._revoke(lease)
        return Ended(
            lease=lease,
            principal="",
            method="stray lease revoked by its id",
            at=self.clock.now(),
            verified=False,
            evidence="the store never learned its principal, so the target could not be asked by name",
        )

    def _never_seen(self, path: str) -> Ended:
        return Ended(
            lease=LeaseId(path),
            principal="",
            method="task token revoked",
            at=self.clock.now(),
            verified=False,
            evidence="issuing was interrupted: if Vault made a credential here and lost its lease, nobody learned of "
            "it, nobody holds it, and it ends by its own clock if it has one",
        )

    def _ended(self, lease: Lease, method: str, *, verified: bool, evidence: str) -> Ended:
        return Ended(
            lease=lease.id,
            principal=lease.principal,
            method=method,
            at=self.clock.now(),
            verified=verified,
            evidence=evidence,
        )

    def _confirm(self, grant: Grant, receipt: Receipt) -> Grant:
        revoking = grant.after(Step.HEAL) if grant.state is State.IRREVOCABLE else grant
        now = self.clock.now()
        # A clock that was set back in between does not keep what is gone from being called so.
        revoked_at = now if grant.revoking_at is None else max(now, grant.revoking_at)
        revoked = revoking.after(Step.CONFIRM_GONE, revoked_at=revoked_at, receipt=receipt, due_at=None, failing=None)
        signed = self.signer.sign(statement(revoked, receipt)).reveal()  # meant to be shown: it opens nothing
        revoked = replace(revoked, receipt=replace(receipt, signed=signed))
        gone = [
            self.record(
                Kind.LEASE_REVOKED,
                grant.id,
                lease=end.lease,
                principal=end.principal,
                method=end.method,
                verified=end.verified,
                evidence=end.evidence,
            )
            for end in receipt.ended
        ]
        with self.store.transaction() as tx:
            if revoking is not grant:
                tx.save(revoking, self.record(Kind.GRANT_HEALED, grant.id))
            tx.save(revoked, *gone, self.record(Kind.GRANT_REVOKED, grant.id, verified=receipt.verified))
        return revoked

    def _later(
        self,
        grant: Grant,
        failing: str,
        *,
        loud: Kind | None = None,
        at_most: timedelta = _LAST_RETRY,
        due_at: datetime | None = None,
    ) -> Grant:
        attempts, now = grant.attempts + 1, self.clock.now()
        due_at = due_at or now + _back_off(grant.id, attempts, at_most)
        if grant.settles_at is not None and now < grant.settles_at:
            due_at = min(due_at, grant.settles_at)
        with self.store.transaction() as tx:
            if loud is Kind.GRANT_STRANDED and grant.state is State.REVOKING:
                later = grant.after(Step.STRAND, attempts=attempts, failing=failing, due_at=due_at)
                tx.save(later, self.record(loud, grant.id, detail=failing))
            else:
                later = grant.but(attempts=attempts, failing=failing, due_at=due_at)
                new = loud is Kind.LEASE_SURVIVED and failing != grant.failing
                tx.save(later, *([self.record(Kind.LEASE_SURVIVED, grant.id, detail=failing)] if new else []))
        return later


_LOUD: Mapping[type[NotGoneError], Kind] = {
    StrandedError: Kind.GRANT_STRANDED,
    SurvivedError: Kind.LEASE_SURVIVED,
}
"""What is told in the audit log besides being tried again: it needs a person."""

_CLOCK_SKEW = timedelta(seconds=5)
"""How far Vault's clock and ours may be apart."""

_MANY = 100_000
"""More grants of one entitlement than can be issuing at once."""


def _each(end: Callable[[Item], Ended], items: Sequence[Item]) -> list[Ended]:
    """End every one, also after one that resists: what can end does not wait for what cannot."""
    ended: list[Ended] = []
    resisting: Exception | None = None
    for item in items:
        try:
            ended.append(end(item))
        except (NotGoneError, VaultUnavailableError, VaultRefusedError, TargetUnavailableError) as error:
            if resisting is None or (type(error) in _LOUD and not isinstance(resisting, StrandedError)):
                resisting = error
    if resisting is not None:
        raise resisting
    return ended


def _back_off(id: str, attempts: int, at_most: timedelta) -> timedelta:
    """Doubling from half a second, give or take a quarter that differs from grant to grant."""
    span = min(_FIRST_RETRY * 2 ** min(attempts - 1, 10), at_most)
    jitter = hashlib.sha256(f"{id}{attempts}".encode()).digest()[0] / 255
    return span * (0.75 + jitter / 2)
