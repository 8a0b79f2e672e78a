"""The role from which the broker reads its own login to a database: it may see who is there, and nothing else."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from controlplane.engines.dialects import dialects
from controlplane.model.canonical import JsonObject
from controlplane.model.plan import Layout
from controlplane.vault.client import VaultClient, part

POSTGRESQL: Final = "postgresql-database-plugin"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One database connection as its owner configured it; `allowed` are the role names it serves."""

    name: str
    dialect: str
    allowed: tuple[str, ...]

    def allows(self, role: str) -> bool:
        """Whether it serves `role`. Source: OpenBao docs, api/secret/databases, `allowed_roles`."""
        return any(role == name or (name.endswith("*") and role.startswith(name[:-1])) for name in self.allowed)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProberRole:
    """A role of the database engine, as it is written."""

    name: str
    body: JsonObject


def connections(client: VaultClient, mount: str) -> Iterator[Connection]:
    """The connections at `mount` whose plugin speaks a dialect of ours, if their names could stand in a path."""
    spoken = {plugin: word for word, dialect in dialects().items() for plugin in dialect.plugins}
    for name in sorted(client.list(f"{mount}/config")):
        if not _NAME.fullmatch(name):
            continue
        config = part(client.read(f"{mount}/config/{name}"), "data")
        if (dialect := spoken.get(str(config.get("plugin_name")))) is not None:
            roles = config.get("allowed_roles")
            allowed = tuple(str(role) for role in roles) if isinstance(roles, list) else ()
            yield Connection(name=name, dialect=dialect, allowed=allowed)


def prober_role(layout: Layout, connection: Connection) -> ProberRole:
    """The prober's role for one connection: an hour's login, at most a shift's."""
    said = dialects()[connection.dialect].prober()
    return ProberRole(
        name=prober_name(layout, connection.name),
        body={
            "db_name": connection.name,
            "creation_statements": [*said.creation],
            "renew_statements": [*said.renewal],
            "revocation_statements": [*said.revocation],
            "rollback_statements": [],
            "default_ttl": 3600,
            "max_ttl": 8 * 3600,
        },
    )


def prober_name(layout: Layout, connection: str) -> str:
    """The name of the prober's role for the connection of this name."""
    return f"{layout.prefix}-prober-{connection}"
