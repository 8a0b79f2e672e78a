"""Everything in Vault under our names, whoever made it, and the epoch that is noted there.

The epoch stands in the metadata of an identity entity that nobody can be: it has no alias and no policy, and the
broker may write nothing of it but its metadata (docs/adr/0017-epoch-in-an-entity.md).
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from controlplane.engines import places
from controlplane.model.errors import VaultUnavailableError
from controlplane.model.lease import Accessor, TokenFacts
from controlplane.model.orphan import Epoch
from controlplane.model.plan import Layout, ObjectKind
from controlplane.sync.ours import origin, role_of_grant
from controlplane.vault.client import VaultClient, part
from controlplane.vault.logins import BEING_MADE, VaultLogins

LOOKS: Final = 1_000
"""Tokens that one survey looks at: about a second's work for Vault."""
ABSENT_LOOKS: Final = 12
"""Rounds after which an accessor without a token is left alone."""

_DIGITS: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_MAC: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def epoch_path(layout: Layout) -> str:
    """The entity that holds the epoch."""
    return f"identity/entity/name/{layout.auth_mount}-epoch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """Fits `ports.Survey`."""

    listed: frozenset[Accessor]
    tokens: Sequence[TokenFacts] = field(default=())


class VaultCensus:
    """Fits `ports.Census`. It remembers, in memory, which accessors it need not look at again."""

    def __init__(
        self,
        layout: Layout,
        broker: VaultClient,
        logins: VaultLogins,
        *,
        looks: int = LOOKS,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._layout, self._broker, self._logins, self._looks, self._pause = layout, broker, logins, looks, pause
        self._others: frozenset[Accessor] = frozenset()
        self._absent: Counter[Accessor] = Counter()
        self._last = Accessor("")

    def survey(self, known: Callable[[Sequence[Accessor]], frozenset[Accessor]]) -> Surveyed:
        """List every accessor, wait until none of their tokens is being made any more, and look at the unknown."""
        listed = frozenset(Accessor(accessor) for accessor in self._broker.list("auth/token/accessors"))
        others = self._others & listed
        unknown = listed - others
        if not unknown:
            self._others = others
            return Surveyed(listed=listed)
        # Looking at a token whose login has not come to its end makes Vault delete it, whoever's it is.
        self._pause(BEING_MADE.total_seconds())
        unknown -= known([*unknown])
        found: list[TokenFacts] = []
        for accessor in self._turn(unknown):
            there, token = self._logins.looked_up(accessor)
            if token is not None and token.num_uses >= 0:
                found.append(token)
            elif there or self._stays_absent(accessor):
                others |= {accessor}  # somebody else's, or a zombie, or gone: it stays what it is
        self._others = others
        self._absent = Counter({accessor: looks for accessor, looks in self._absent.items() if accessor in listed})
        return Surveyed(listed=listed, tokens=found)

    def _stays_absent(self, accessor: Accessor) -> bool:
        """Whether no token was behind it so often that its login broke off; until then it may still come to its end.

        Vault lists an accessor before its token is on disk: a server that is stopped or slow there may take its time.
        """
        self._absent[accessor] += 1
        return self._absent[accessor] >= ABSENT_LOOKS

    def places(self) -> Sequence[str]:
        """Every path of ours under which a lease hangs; the prober's own are none of an entitlement's."""
        found: list[str] = []
        for where in places(self._layout):
            if where.leases is None:
                continue
            for key in self._broker.list(f"sys/leases/lookup/{where.leases}"):
                role = key.removesuffix("/")
                path = f"{where.roles}/{role}"
                if origin(self._layout, ObjectKind.SECRET_ROLE, path) or role_of_grant(self._layout, role):
                    found.append(f"{where.leases}/{role}")
        return found

    def epoch(self) -> Epoch | None:
        """What was noted last. Raises: VaultUnavailableError, also where something else stands there."""
        answer = self._broker.read(epoch_path(self._layout))
        metadata = None if answer is None else part(answer, "data").get("metadata")
        if not metadata:
            return None
        match metadata:
            case {"seq": str(seq), "mac": str(mac)} if _DIGITS.fullmatch(seq) and _MAC.fullmatch(mac):
                return Epoch(seq=int(seq), mac=mac)
            case _:
                raise VaultUnavailableError(f"{epoch_path(self._layout)} holds something else than an epoch")

    def note(self, epoch: Epoch) -> None:
        """Note how far the store is."""
        self._broker.write(epoch_path(self._layout), {"metadata": {"seq": str(epoch.seq), "mac": epoch.mac}})

    def _turn(self, unknown: frozenset[Accessor]) -> Sequence[Accessor]:
        """As many as one survey may look at, going on where the last one stopped."""
        ordered = sorted(unknown)
        later = [accessor for accessor in ordered if accessor > self._last]
        turn = [*later, *ordered[: len(ordered) - len(later)]][: self._looks]
        if len(turn) < len(ordered):
            self._last = turn[-1]
        return turn
