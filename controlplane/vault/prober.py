"""The role from which the broker reads its own login to a database: it may see who is there, and nothing else."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from controlplane.model.canonical import JsonObject
from controlplane.model.plan import Layout
from controlplane.vault.client import VaultClient, part

POSTGRESQL: Final = "postgresql-database-plugin"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)

_CREATE: Final = (
    "CREATE ROLE \"{{name}}\" LOGIN CONNECTION LIMIT 10 PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'",
    'GRANT pg_read_all_stats TO "{{name}}"',
)
_RENEW: Final = ("ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}'",)
_TERMINATE: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}'"
_IF_THERE: Final = "DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{{name}}') THEN %s; END IF; END $$"
_REVOKE: Final = (
    _TERMINATE,
    _IF_THERE % 'ALTER ROLE "{{name}}" NOLOGIN',
    _TERMINATE,
    _IF_THERE % 'DROP OWNED BY "{{name}}"',
    'DROP ROLE IF EXISTS "{{name}}"',
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
            "creation_statements": list(_CREATE),
            "renew_statements": list(_RENEW),
            "revocation_statements": list(_REVOKE),
            "rollback_statements": [],
            "default_ttl": 3600,
            "max_ttl": 8 * 3600,
        },
    )
