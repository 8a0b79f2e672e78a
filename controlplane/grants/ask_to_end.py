"""Ask Vault to end the leases of many grants, before anybody proves one: what is wished for first is gone first.

An answer is a wish (docs/vault-facts.md). Each of these grants is `REVOKING` on disk and due, so whatever fails here is
done, and all of it is proved, by `revoke.py`, which ends their task tokens too: nobody but us ever held those.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat

from controlplane.grants.belonging import strange_lease
from controlplane.model.errors import VaultRefusedError, VaultUnavailableError
from controlplane.model.grant import Grant
from controlplane.model.lease import is_leased
from controlplane.ports import Leases, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class AskToEnd:
    """So many at a time as `hands` says now: fewer while Vault is overloaded."""

    store: Store
    leases: Leases
    hands: Callable[[], int]

    def __call__(self, grants: Sequence[Grant]) -> None:
        """Ask for each lease once. Whatever Vault answers is fine; without an answer nothing more is asked.

        Raises: StoreUnavailableError.
        """
        away = threading.Event()
        with ThreadPoolExecutor(self.hands(), thread_name_prefix="shorthold-ask") as pool:
            list(pool.map(self._ask, grants, repeat(away)))

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
