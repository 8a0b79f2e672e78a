"""Freeze: from now on no new grant of what is selected, on every replica, before the answer returns."""

from dataclasses import dataclass
from datetime import timedelta

from controlplane.model.access import Role, Standing
from controlplane.model.errors import InvalidSelectionError, StoreUnavailableError
from controlplane.model.event import Kind
from controlplane.model.freeze import Freeze, FreezeId
from controlplane.model.identity import VerifiedClaims
from controlplane.model.selection import Selection
from controlplane.ports import Clock, Ids, Recorder, Store
from controlplane.selectors import selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """The freeze. `settled`: whatever was decided without it has ended; else something may still be on its way."""

    freeze: Freeze
    settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeSelection:
    """No new grants. What was granted before goes on; end it with a cut, or let its owner finish it."""

    clock: Clock
    ids: Ids
    record: Recorder
    store: Store

    def __call__(
        self,
        who: VerifiedClaims,
        standing: Standing,
        text: str,
        *,
        message: str,
        reason: str,
        expires_in: timedelta | None = None,
    ) -> Frozen:
        """Freeze what `text` selects; `message` is told to whom it refuses, `reason` stays in the audit log.

        Raises:
            NotAllowedError: the caller is no responder.
            InvalidSelectionError: `text` is no selection; nothing is frozen.
        """
        standing.must_be(Role.RESPONDER)
        now = self.clock.now()
        freeze = Freeze(
            id=FreezeId(self.ids.new("fz")),
            selection=str(freezable(text)),
            message=message,
            reason=reason,
            issuer=who.issuer,
            subject=who.subject,
            created_at=now,
            expires_at=None if expires_in is None else now + expires_in,
        )
        with self.store.transaction() as tx:
            tx.freeze(freeze, self.record(Kind.SELECTION_FROZEN, **freeze.told()))
        return Frozen(freeze=freeze, settled=settled(self.store))


def settled(store: Store) -> bool:
    """Whether every replica obeys the freezes that are on disk; False where one hangs amid a transaction."""
    # On disk first, then waited for: whoever hangs must not keep a freeze from being.
    try:
        store.settle_freezes()
    except StoreUnavailableError:
        return False
    return True


def freezable(text: str) -> Selection:
    """The selection that `text` writes. Raises: InvalidSelectionError: it is none, or no request can be told by it."""
    wanted = selection(text)
    if unknown := wanted.beyond_requests:
        raise InvalidSelectionError(
            f"nothing can be frozen by {' or '.join(unknown)}: of a request nobody knows it; freeze by subject, "
            "entitlement, task or whatever else a request says"
        )
    return wanted
