"""Undo a renewal that did not come to its end: let Vault have the end again that the store has."""

import math
from dataclasses import dataclass
from datetime import timedelta

from controlplane.grants.belonging import strange_lease
from controlplane.model.errors import VaultRefusedError, VaultUnavailableError
from controlplane.model.event import Event, Kind
from controlplane.model.grant import Grant
from controlplane.ports import Clock, Leases, Recorder, Store

_AGAIN = timedelta(seconds=4)
_ROUNDING = timedelta(seconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoRenewal:
    """From a renewal that broke off, or was refused, to the end of before. By that end, the grant ends anyway."""

    clock: Clock
    record: Recorder
    store: Store
    leases: Leases

    def __call__(self, grant: Grant) -> Grant:
        """The grant with the end of before only, or a little later again. Repeating it is fine.

        Raises: LostRaceError: somebody else moved it. StoreUnavailableError: it stays due.
        """
        if grant.renewing_to != grant.expires_at:
            # First here: from now on whoever is still renewing it finds out that he is too late.
            grant = self._save(grant.watched(renewing_to=grant.expires_at, renewing_by=self.clock.now() + _AGAIN))
        try:
            self._take_back(grant)
        except (VaultUnavailableError, VaultRefusedError):
            return self._save(grant.watched(renewing_by=self.clock.now() + _AGAIN))
        return self._save(
            grant.watched(renewing_to=None, renewing_by=None),
            self.record(Kind.RENEWAL_UNDONE, grant.id, until=grant.expires_at.isoformat(timespec="seconds")),
        )

    def _take_back(self, grant: Grant) -> None:
        assert grant.accessor is not None  # noqa: S101 # the store lets no grant be active without
        left = timedelta(seconds=math.ceil((grant.expires_at - self.clock.now()).total_seconds()))
        later = [
            lease.id
            for lease in self.store.leases(grant.id)
            if strange_lease(grant, lease) is None
            and (facts := self.leases.facts(lease.id)) is not None
            and facts.renewable
            and facts.ttl > left + _ROUNDING
        ]
        self.leases.renew(grant.accessor, later, left)

    def _save(self, grant: Grant, *events: Event) -> Grant:
        with self.store.transaction() as tx:
            tx.save(grant, *events)
        return grant
