"""List freezes: those that refuse now, or all that ever were."""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.model.access import Role, Standing
from controlplane.model.freeze import Freeze, FreezeId
from controlplane.ports import Clock, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class ListFreezes:
    """What a responder, an auditor and the platform team may see; agents learn of a freeze when it refuses them."""

    clock: Clock
    store: Store

    def __call__(
        self, standing: Standing, *, ended: bool = False, before: FreezeId | None = None, limit: int = 100
    ) -> Sequence[Freeze]:
        """A page of freezes, newest first; with `ended` also those that refuse no more.

        Raises: NotAllowedError: the caller has none of these roles.
        """
        standing.must_be(Role.RESPONDER, Role.AUDITOR, Role.PLATFORM)
        return self.store.freezes(active_at=None if ended else self.clock.now(), before=before, limit=limit)
