"""All of ours that a Vault token can see, when nothing but that token is left: task tokens, and leases of our roles."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from controlplane.engines import engines, places
from controlplane.incident.direct import Held, Looked, together
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import TokenRefusedError, VaultRefusedError
from controlplane.model.lease import Accessor, LeaseFacts, LeaseId, TokenFacts
from controlplane.model.plan import Layout, ObjectKind, Places, of_grant
from controlplane.ports import Meanwhile
from controlplane.sync.ours import origin
from controlplane.vault.client import VaultClient, part
from controlplane.vault.leases import VaultLeases
from controlplane.vault.logins import BEING_MADE, VaultLogins

_NEEDED: Final = {
    "auth/token/accessors": "list",
    "auth/token/lookup-accessor": "update",
    "auth/token/revoke-accessor": "update",
    "sys/leases/lookup": "update",
    "sys/leases/revoke": "update",
}
"""What nothing can be cut without."""


class VaultSight:
    """Fits `incident.direct.Sight`. With `every` it also looks where an engine without a mount of its own might be.

    It remembers, in memory, which tokens are somebody else's.
    """

    def __init__(
        self,
        layout: Layout,
        client: VaultClient,
        meanwhile: Meanwhile,
        *,
        every: bool,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        mounts = {**{word: word for word in engines()}, **layout.mounts} if every else layout.mounts
        self._layout = Layout(prefix=layout.prefix, auth_mount=layout.auth_mount, mounts=mounts)
        self._client, self._meanwhile, self._every, self._pause = client, meanwhile, every, pause
        self._leases, self._logins = VaultLeases(client), VaultLogins(layout, client)
        self._others: frozenset[Accessor] = frozenset()

    def places(self) -> Sequence[Places]:
        """Where leases of ours can hang, as far as this token may look.

        Raises: TokenRefusedError: it is no token, or no responder's. VaultUnavailableError.
        """
        found = [where for where in places(self._layout) if where.leases is not None]
        ours = {where: f"sys/leases/lookup/{where.leases}/{self._layout.prefix}-x" for where in found}
        may = self._may([*_NEEDED, *ours.values()])
        if missing := [path for path, word in _NEEDED.items() if not may[path] & {word, "root"}]:
            raise TokenRefusedError(f"this token may not use {', '.join(missing)}; a responder's may")
        return [where for where, path in ours.items() if not self._every or may[path] & {"list", "root"}]

    def look(self) -> Looked:
        """The leases first; then every token, once none of them is being made any more."""
        leases: list[Held] = []
        unseen: dict[str, str] = {}
        for where in self.places():
            try:
                leases += self._held(where)
            except VaultRefusedError as error:
                unseen[f"sys/leases/lookup/{where.leases}"] = error.detail
        return Looked(tokens=self._tokens(), leases=leases, unseen=unseen)

    def _held(self, where: Places) -> Sequence[Held]:
        found: list[Held] = []
        for key in self._client.list(f"sys/leases/lookup/{where.leases}"):
            role = key.removesuffix("/")
            shared, grant = of_grant(role) or (role, None)
            if (ours := origin(self._layout, ObjectKind.SECRET_ROLE, f"{where.roles}/{shared}")) is None:
                continue
            login = f"{self._layout.prefix}-{ours.entitlement}-{ours.revision}"
            listed = self._leases.under(f"{where.leases}/{role}")
            found += [
                Held(facts=facts, login=login, entitlement=ours.entitlement, revision=ours.revision, grant=grant)
                for facts in together(self._meanwhile, self._facts, listed)
                if facts is not None
            ]
        return found

    def _facts(self, lease: LeaseId) -> LeaseFacts | None:
        return self._leases.facts(lease)

    def _tokens(self) -> Sequence[TokenFacts]:
        listed = frozenset(Accessor(accessor) for accessor in self._client.list("auth/token/accessors"))
        # Looking at a token whose login has not come to its end makes Vault delete it, whoever's it is.
        self._pause(BEING_MADE.total_seconds())
        self._others &= listed
        asked = sorted(listed - self._others)
        seen = together(self._meanwhile, self._logins.looked_up, asked)
        self._others |= {accessor for accessor, (there, token) in zip(asked, seen, strict=True) if there and not token}
        return [token for _, token in seen if token is not None and token.num_uses >= 0]

    def _may(self, paths: Sequence[str]) -> Mapping[str, frozenset[str]]:
        asked: list[JsonValue] = [*paths]
        try:
            data = part(self._client.write("sys/capabilities-self", {"paths": asked}), "data")
        except VaultRefusedError as error:
            raise TokenRefusedError(error.detail) from None
        return {path: frozenset(map(str, words)) for path in paths if isinstance(words := data.get(path), list)}
