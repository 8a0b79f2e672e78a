"""The role from which the broker reads its own login to a database: it may see who is there, and nothing else."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from controlplane.engines.dialects import postgresql
from controlplane.model.canonical import JsonObject
from controlplane.model.plan import Layout
from controlplane.vault.client import VaultClient, part

POSTGRESQL: Final = "postgresql-database-plugin"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)

# The same settings, for the same reasons, as for every login that the database engine compiles.
_CREATION: Final = (
    "SET LOCAL createrole_self_grant = 'set, inherit'",
    "SET LOCAL scram_iterations = 1",
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' CONNECTION LIMIT 10",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One database connection as its owner configured it; `allowed` are the role names it serves."""

    name: str
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
    """The PostgreSQL connections at `mount`. One whose name could not stand in a path of ours is passed over."""
    for name in sorted(client.list(f"{mount}/config")):
        if not _NAME.fullmatch(name):
            continue
        config = part(client.read(f"{mount}/config/{name}"), "data")
        if config.get("plugin_name") == POSTGRESQL:
            roles = config.get("allowed_roles")
            allowed = tuple(str(role) for role in roles) if isinstance(roles, list) else ()
            yield Connection(name=name, allowed=allowed)


def prober_role(layout: Layout, connection: str) -> ProberRole:
    """The prober's role for one connection: an hour's login, at most a shift's."""
    return ProberRole(
        name=f"{layout.prefix}-prober-{connection}",
        body={
            "db_name": connection,
            "creation_statements": list(_CREATION),
            "renew_statements": [postgresql.RENEWAL],
            "revocation_statements": [postgresql.REVOCATION],
            "rollback_statements": [],
            "default_ttl": 3600,
            "max_ttl": 8 * 3600,
        },
    )
