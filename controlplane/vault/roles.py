"""Vault's configuration as sync sees it: policies, JWT roles and secret roles with names of ours, nothing else."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from controlplane.engines import places
from controlplane.model.canonical import JsonObject, JsonValue, canonical
from controlplane.model.plan import Layout, ObjectKind, VaultObject
from controlplane.sync.ours import origin
from controlplane.vault.client import VaultClient, part

_AT_ONCE: Final = 8
"""Objects that are read at the same time: what one Vault answers at once, and no more."""


class VaultRoles:
    """Fits `ports.Roles`. What it reads back is what Vault shows, with policies in canonical JSON."""

    def __init__(self, layout: Layout, client: VaultClient) -> None:
        self._client = client
        # Leases hang from the path at which an engine makes credentials, not from its role's.
        self._holds = {where.roles: where.holds for where in places(layout)}

    def read(self, layout: Layout) -> Mapping[str, VaultObject]:
        """All objects of ours by path. One that goes while we look is not among them."""
        named = [
            (kind, f"{folder}/{name}")
            for kind, folder in _folders(layout)
            for name in self._client.list(folder)
            if origin(layout, kind, f"{folder}/{name}") is not None
        ]
        # A policy's text could be listed for all at once, everybody's with it: that is not for this identity to see.
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="shorthold-read") as pool:
            asked = [pool.submit(self._read, layout, kind, path) for kind, path in named]
            found = [future.result() for future in asked]
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
        folder, _, name = item.path.rpartition("/")
        holds = self._holds[folder]
        return 0 if holds is None else len(self._client.list(f"sys/leases/lookup/{holds}/{name}"))

    def _read(self, layout: Layout, kind: ObjectKind, path: str) -> VaultObject | None:
        ours = origin(layout, kind, path)
        if ours is None or (answer := self._client.read(path)) is None:
            return None
        data: JsonObject = part(answer, "data")
        if kind is ObjectKind.POLICY:
            data = {"policy": _canonical(data.get("policy"))}
        return VaultObject(kind=kind, path=path, entitlement=ours.entitlement, data=data)


def _folders(layout: Layout) -> Iterator[tuple[ObjectKind, str]]:
    for folder in sorted({where.roles for where in places(layout) if where.roles is not None}):
        yield ObjectKind.SECRET_ROLE, folder
    yield ObjectKind.POLICY, "sys/policies/acl"
    yield ObjectKind.JWT_ROLE, f"auth/{layout.auth_mount}/role"


def _canonical(policy: JsonValue) -> JsonValue:
    """The policy in the form in which `compile` writes it; one that is not JSON stays as somebody wrote it."""
    try:
        return canonical(json.loads(str(policy))).decode()
    except ValueError:
        return policy
