"""Vault's configuration as sync sees it: policies, JWT roles and secret roles with names of ours, nothing else."""

import json
from collections.abc import Iterator, Mapping

from controlplane.model.canonical import JsonObject, JsonValue, canonical
from controlplane.model.plan import Layout, ObjectKind, VaultObject
from controlplane.sync.ours import origin
from controlplane.vault.client import VaultClient, part

_ISSUES_AT: Mapping[str, str] = {"pki": "issue"}
_USUALLY_AT = "creds"
"""Leases hang from the path at which an engine makes credentials, not from its role's."""


class VaultRoles:
    """Fits `ports.Roles`. What it reads back is what Vault shows, with policies in canonical JSON."""

    def __init__(self, layout: Layout, client: VaultClient) -> None:
        self._client = client
        self._engine_at = {mount: engine for engine, mount in layout.mounts.items()}

    def read(self, layout: Layout) -> Mapping[str, VaultObject]:
        """All objects of ours by path. One that goes while we look is not among them."""
        found = (
            self._read(layout, kind, f"{folder}/{name}")
            for kind, folder in _folders(layout)
            for name in self._client.list(folder)
        )
        return {item.path: item for item in found if item is not None}

    def write(self, item: VaultObject) -> None:
        """Write one object. Vault keeps fields that `item.data` does not name."""
        self._client.write(item.path, item.data)

    def delete(self, item: VaultObject) -> None:
        """Delete one object; one that is not there is fine."""
        self._client.delete(item.path)

    def leases_under(self, item: VaultObject) -> int:
        """How many leases hang from a secret role; 0 for other kinds."""
        if item.kind is not ObjectKind.SECRET_ROLE:
            return 0
        mount, _, name = item.path.partition("/roles/")
        verb = _ISSUES_AT.get(self._engine_at[mount], _USUALLY_AT)
        return len(self._client.list(f"sys/leases/lookup/{mount}/{verb}/{name}"))

    def _read(self, layout: Layout, kind: ObjectKind, path: str) -> VaultObject | None:
        ours = origin(layout, kind, path)
        if ours is None or (answer := self._client.read(path)) is None:
            return None
        data: JsonObject = part(answer, "data")
        if kind is ObjectKind.POLICY:
            data = {"policy": _canonical(data.get("policy"))}
        return VaultObject(kind=kind, path=path, entitlement=ours.entitlement, data=data)


def _folders(layout: Layout) -> Iterator[tuple[ObjectKind, str]]:
    for mount in sorted(set(layout.mounts.values())):
        yield ObjectKind.SECRET_ROLE, f"{mount}/roles"
    yield ObjectKind.POLICY, "sys/policies/acl"
    yield ObjectKind.JWT_ROLE, f"auth/{layout.auth_mount}/role"


def _canonical(policy: JsonValue) -> JsonValue:
    """The policy in the form in which `compile` writes it; one that is not JSON stays as somebody wrote it."""
    try:
        return canonical(json.loads(str(policy))).decode()
    except ValueError:
        return policy
