"""Ask Vault to end the leases of many grants, before anybody proves each: what is wished for first is gone first.

An answer is a wish (docs/vault-facts.md). Each of these grants is `REVOKING` on disk and due, so whatever fails here is
done, and all of it is proved, by `revoke.py`, which ends their task tokens too: nobody but us ever held those.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import repeat
from typing import Final

from controlplane.grants.belonging import strange_lease
from controlplane.model.errors import VaultRefusedError, VaultUnavailableError
from controlplane.model.grant import Grant, GrantId, State
from controlplane.model.lease import is_leased
from controlplane.ports import Leases, Store

_MANY: Final = 32
"""Grants that end at a time: fewer are proved gone before another call would have made a difference."""
_MOST: Final = 1_000
"""Grants that are looked at: as these end, the others come into view."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskToEnd:
    """So many at a time as `hands` says now: fewer while Vault is overloaded."""

    store: Store
    leases: Leases
    hands: Callable[[], int]

    def __call__(self, grants: Sequence[Grant]) -> bool:
        """Ask for each lease once. Whatever Vault answers is fine; without an answer (False) nothing more is asked.

        Raises: StoreUnavailableError.
        """
        away = threading.Event()
        with ThreadPoolExecutor(self.hands(), thread_name_prefix="shorthold-ask") as pool:
            list(pool.map(self._ask, grants, repeat(away)))
        return not away.is_set()

    def _ask(self, grant: Grant, away: threading.Event) -> None:
        if away.is_set():
            return
        for lease in self.store.leases(grant.id):
            if is_leased(lease.id) and strange_lease(grant, lease) is None:
                try:
                    with suppress(VaultRefusedError):
                        self.leases.ask_to_revoke(lease.id)
                except VaultUnavailableError:
                    away.set()
                    return


@dataclass(frozen=True, slots=True, kw_only=True)
class AskAhead:
    """What ends at once without a cut, because many finish or Vault was away: nobody's end waits for another's proof.

    Each grant is asked for once in a process, the newest first: the worker comes to them last.
    """

    store: Store
    ask: AskToEnd
    _asked: set[GrantId] = field(default_factory=set[GrantId])

    def __call__(self) -> int:
        """For how many it asked; 0 where few are ending, or a cut asks already. Raises: StoreUnavailableError."""
        if self.store.cuts(running=True, limit=1):
            return 0
        ending = self.store.grants(states=[State.REVOKING], limit=_MOST)
        self._asked.intersection_update(grant.id for grant in ending)
        if len(ending) < _MANY:
            return 0
        asked = [grant for grant in ending if grant.id not in self._asked]
        if self.ask(asked):
            self._asked.update(grant.id for grant in asked)
        return len(asked)
