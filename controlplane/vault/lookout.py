"""Look at everything that drift is looked for in: Vault's configuration, as an identity that may only read."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar
from urllib.parse import urlsplit

from controlplane.engines import places
from controlplane.model.canonical import JsonObject, JsonValue
from controlplane.model.drift import Connection, Seen
from controlplane.model.errors import TargetUnavailableError, VaultRefusedError, VaultUnavailableError
from controlplane.model.plan import Compiled, Layout, ObjectKind
from controlplane.sync.diff import drift
from controlplane.sync.ours import origin, reserved
from controlplane.vault.bootstrap import identities, made
from controlplane.vault.client import VaultClient, part
from controlplane.vault.policies import identity_name
from controlplane.vault.roles import VaultRoles

T = TypeVar("T")

Excess = Callable[[str, str], Sequence[str]]
"""What the user of a connection may do at its target beyond what issuing needs. Raises: TargetUnavailableError."""

Given = Callable[[str], Mapping[str, frozenset[str]]]
"""What the group roles of ours may do at the target of a connection. Raises: TargetUnavailableError."""

_POSTGRESQL: Final = ("postgres", "postgresql")


class VaultLookout:
    """Fits `sync.drift.Lookout`. What it cannot see is told as unseen, but for our own objects: without them it fails.

    `excess` and `given` are asked for connections of these names only.
    """

    def __init__(
        self, layout: Layout, client: VaultClient, excess: Mapping[str, Excess], given: Mapping[str, Given]
    ) -> None:
        self._layout, self._client, self._excess, self._given = layout, client, excess, given
        self._roles = VaultRoles(layout, client)

    def __call__(self, wanted: Sequence[Compiled]) -> Seen:
        """Everything, one thing after the other: what changes meanwhile is seen before or after."""
        unseen: dict[str, str] = {}

        def unless_unseen(path: str, look: Callable[[], T], nothing: T) -> T:
            try:
                return look()
            except (VaultRefusedError, VaultUnavailableError, TargetUnavailableError) as error:
                unseen[path] = error.detail
                return nothing

        objects = self._roles.read(self._layout)
        kept = {item.path: item for compiled in wanted for item in compiled.objects}
        leases = {
            path: self._roles.leases_under(item)
            for path, item in objects.items()
            if item.kind is ObjectKind.SECRET_ROLE and (path not in kept or drift(kept[path], item.data))
        }
        connections = unless_unseen("database connections", self._connections, None)
        excess = {
            each.name: unless_unseen(each.path, lambda each=each: tuple(self._power(each)), ())
            for each in connections or ()
        }
        given = {
            name: unless_unseen(f"group roles at {name}", lambda name=name: self._given[name](name), {})
            for name in sorted({each.name for each in connections or ()} & self._given.keys())
        }
        trust: dict[str, JsonObject] = {}
        names = unless_unseen("our identities", lambda: made(self._client, self._layout), ())
        for mount in (self._layout.auth_mount, *(identity_name(self._layout, name) for name in names)):
            path = f"auth/{mount}/config"
            if (config := unless_unseen(path, lambda path=path: self._data(path), None)) is not None:
                trust[mount] = config
        return Seen(
            objects=objects,
            leases=leases,
            strange_logins=self._strange_logins(),
            strange_roles=self._strange_roles(),
            policies=unless_unseen("sys/policies/acl/*", self._policies, {}),
            identities=unless_unseen("our identities' policies and roles", self._identities, ()),
            trust=trust,
            connections=connections,
            excess=excess,
            given=given,
            audit_devices=unless_unseen("sys/audit", self._audit_devices, None),
            unseen=unseen,
        )

    def _strange_logins(self) -> tuple[str, ...]:
        folder = f"auth/{self._layout.auth_mount}/role"
        paths = [f"{folder}/{name}" for name in self._client.list(folder)]
        return tuple(path for path in paths if origin(self._layout, ObjectKind.JWT_ROLE, path) is None)

    def _strange_roles(self) -> tuple[str, ...]:
        beginning = f"{self._layout.prefix}-"
        return tuple(
            f"{folder}/{name}"
            for folder in sorted({where.roles for where in places(self._layout) if where.roles is not None})
            for name in self._client.list(folder)
            if name.startswith(beginning) and not reserved(name.removeprefix(beginning))
            if origin(self._layout, ObjectKind.SECRET_ROLE, f"{folder}/{name}") is None
        )

    def _policies(self) -> Mapping[str, str]:
        """Everybody's but ours, which are read already, and `root`, which has no text."""
        found: dict[str, str] = {}
        for name in self._client.list("sys/policies/acl"):
            path = f"sys/policies/acl/{name}"
            if name == "root" or origin(self._layout, ObjectKind.POLICY, path) is not None:
                continue
            if (data := self._data(path)) is not None:
                found[name] = str(data.get("policy"))
        return found

    def _identities(self) -> tuple[str, ...]:
        return tuple(item.path for item in identities(self._client, self._layout) if item.action != "none")

    def _connections(self) -> tuple[Connection, ...] | None:
        mount = self._layout.mounts.get("database")
        if mount is None:
            return None
        folder = f"{mount}/config"
        paths = [(f"{folder}/{name}", name) for name in sorted(self._client.list(folder))]
        return tuple(_connection(path, name, data) for path, name in paths if (data := self._data(path)) is not None)

    def _power(self, connection: Connection) -> Sequence[str]:
        ask = self._excess.get(connection.name)
        return [] if ask is None or connection.user is None else ask(connection.name, connection.user)

    def _audit_devices(self) -> int:
        return len(part(self._client.read("sys/audit"), "data"))

    def _data(self, path: str) -> JsonObject | None:
        answer = self._client.read(path)
        return None if answer is None else part(answer, "data")


def _connection(path: str, name: str, data: JsonObject) -> Connection:
    details = data.get("connection_details")
    shown: Mapping[str, JsonValue] = details if isinstance(details, dict) else {}
    user, url = shown.get("username"), shown.get("connection_url")
    host, port, database = _address(url) if isinstance(url, str) else (None, None, None)
    return Connection(
        path=path,
        name=name,
        user=user if isinstance(user, str) else None,
        host=host,
        port=port,
        database=database,
    )


def _address(url: str) -> tuple[str | None, int | None, str | None]:
    """Host, port and database of a URL for PostgreSQL; None of each where it is written in another way."""
    try:
        found = urlsplit(url.replace("{{", "").replace("}}", ""))
        if found.scheme in _POSTGRESQL:
            return found.hostname, found.port or 5432, found.path.removeprefix("/") or None
    except ValueError:
        pass
    return None, None, None
