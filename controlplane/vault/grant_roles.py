"""Roles that are made for one grant each, written by the identity `param`, which may write no others.

Their names carry the grant's id, so that nothing has to be remembered to find them: the grant is on disk before its
role is made, and whatever is found in Vault says whose it is.
"""

from collections.abc import Mapping, Sequence

from controlplane.engines import places
from controlplane.model.errors import ConfigurationError, NotSyncedError
from controlplane.model.grant import GrantId
from controlplane.model.plan import Layout, VaultObject
from controlplane.sync.diff import drift
from controlplane.sync.ours import role_of_grant
from controlplane.vault.client import VaultClient, part


class VaultGrantRoles:
    """Fits `ports.GrantRoles`. `param` is a client of that identity."""

    def __init__(self, layout: Layout, param: VaultClient) -> None:
        self._layout, self._param = layout, param
        self._folders = {where.roles: where.holds for where in places(layout) if where.own and where.roles is not None}

    def write(self, roles: Sequence[VaultObject]) -> None:
        """Write the roles of one grant, and see that they stand as they were compiled.

        Raises: ConfigurationError: a role is not one of a single grant: nothing of it was written.
        """
        for role in roles:
            folder, _, name = role.path.rpartition("/")
            if folder not in self._folders or role_of_grant(self._layout, name) is None:
                raise ConfigurationError(f"{role.path} is no role of a single grant")
            self._param.write(role.path, role.data)
            found = self._param.read(role.path)
            wrong = ("everything",) if found is None else drift(role, part(found, "data"))
            if wrong:
                raise NotSyncedError(f"{role.path} differs from what was written, in {', '.join(wrong)}")

    def remove(self, grant: GrantId) -> None:
        """Delete every role of a grant; none left is fine."""
        for folder in self._folders:
            for name in self._param.list(folder):
                if role_of_grant(self._layout, name) == grant:
                    self._param.delete(f"{folder}/{name}")

    def present(self) -> Mapping[GrantId, Sequence[str]]:
        """The grants of which there are roles, each with the paths at which leases of theirs would hang."""
        found: dict[GrantId, list[str]] = {}
        for folder, holds in self._folders.items():
            for name in self._param.list(folder):
                if (grant := role_of_grant(self._layout, name)) is not None:
                    found.setdefault(grant, []).extend([] if holds is None else [f"{holds}/{name}"])
        return found
