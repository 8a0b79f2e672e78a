"""Database logins: one PostgreSQL user per credential, member of a group role that carries the privileges."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, cast

from pydantic import Field, field_validator

from controlplane.engines.dialects import postgresql
from controlplane.engines.dialects.privilege import Privilege, PrivilegeText, parse
from controlplane.model.canonical import JsonObject
from controlplane.model.entitlement import Revocability, Scope
from controlplane.model.lease import Ask, Credential, Response, Target
from controlplane.model.plan import Naming, ObjectKind, Places, VaultObject
from controlplane.model.secret import Secret

EXAMPLE = """\
name: orders
engine: database
connection: orders
privileges:
  - select on table billing.invoices
  - update (status) on table billing.invoices
"""

_USERNAME = re.compile(r"[A-Za-z0-9_-]{1,63}", re.ASCII)


class DatabaseScope(Scope):
    """Rows of named tables in the database behind one connection of Vault's database mount."""

    connection: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
    privileges: tuple[PrivilegeText, ...] = Field(min_length=1, max_length=64)
    sessions: int = Field(default=5, ge=1, le=100, strict=True, description="How many may be open at once.")

    @field_validator("privileges")
    @classmethod
    def _distinct(cls, privileges: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(privileges)) < len(privileges):
            raise ValueError("a privilege is named twice")
        return privileges

    @property
    def parsed(self) -> tuple[Privilege, ...]:
        """The privileges as values, in one order whatever the order of the lines was."""
        return tuple(parse(text) for text in sorted(self.privileges))


@dataclass(frozen=True, slots=True)
class DatabaseEngine:
    """Source: OpenBao docs, api/secret/databases and api/secret/databases/postgresql."""

    word: str = "database"
    scope_model: type[Scope] = DatabaseScope
    revocability: Revocability = Revocability.PROVABLE
    example: str = EXAMPLE
    unasked: str = ""
    mounting: JsonObject = field(default_factory=lambda: {"type": "database"})

    def places(self, mount: str) -> Places:
        """Roles at `roles`, leases at `creds`."""
        return Places(roles=f"{mount}/roles", leases=f"{mount}/creds", holds=f"{mount}/creds")

    def roles(self, scope: Scope, naming: Naming, *, default: timedelta, maximum: timedelta) -> Sequence[VaultObject]:
        """One dynamic role."""
        wanted = _own(scope)
        group = postgresql.Group(
            prefix=naming.layout.prefix,
            entitlement=naming.entitlement,
            revision=naming.revision,
            scope=scope.name,
        )
        return (
            VaultObject(
                kind=ObjectKind.SECRET_ROLE,
                path=f"{self._mount(naming)}/roles/{naming.scope(scope.name)}",
                entitlement=naming.entitlement,
                data={
                    "db_name": wanted.connection,
                    "creation_statements": [postgresql.creation(group, wanted.parsed, sessions=wanted.sessions)],
                    "renew_statements": [postgresql.RENEWAL],
                    "revocation_statements": [postgresql.REVOCATION],
                    "rollback_statements": [],
                    "default_ttl": int(default.total_seconds()),
                    "max_ttl": int(maximum.total_seconds()),
                    "credential_type": "password",
                },
            ),
        )

    def capabilities(self, scope: Scope, naming: Naming) -> Mapping[str, JsonObject]:
        """Reading makes a login."""
        return {self._path(scope, naming): {"capabilities": ["read"]}}

    def ask(self, scope: Scope, naming: Naming, *, ttl: timedelta) -> Ask:
        """A plain read: the lease gets the role's default, whatever `ttl` is; renewing it can shorten it."""
        del ttl  # the endpoint takes none
        return Ask(path=self._path(scope, naming), body=None)

    def receive(self, scope: Scope, response: Response) -> Credential:
        """User name and password; the principal is the user name."""
        del scope  # the answer looks the same for every scope
        username, password = response.data.get("username"), response.data.get("password")
        if not isinstance(username, Secret) or not isinstance(password, Secret):
            raise ValueError("the database answered without a user name or a password")  # noqa: TRY004 # the port's word for a bad answer
        if not _USERNAME.fullmatch(username.reveal()):
            raise ValueError("the connection's username_template makes names with other characters than [A-Za-z0-9_-]")
        return Credential(
            lease=response.lease,
            lease_ttl=response.lease_ttl,
            principal=username.reveal(),
            fields={"username": username, "password": password},
        )

    def target(self, scope: Scope) -> Target:
        """The database itself can be asked."""
        return Target(kind="postgresql", name=_own(scope).connection)

    def reach(self, scope: Scope) -> Sequence[str]:
        """A sentence for each privilege."""
        wanted = _own(scope)
        return [_sentence(privilege, wanted.connection) for privilege in wanted.parsed]

    def _mount(self, naming: Naming) -> str:
        return naming.layout.mounts[self.word]

    def _path(self, scope: Scope, naming: Naming) -> str:
        return f"{self._mount(naming)}/creds/{naming.scope(scope.name)}"


def _own(scope: Scope) -> DatabaseScope:
    return cast("DatabaseScope", scope)


_VERBS = {
    "select": "read",
    "insert": "add rows to",
    "update": "change",
    "delete": "delete rows of",
    "usage": "draw numbers from",
}


def _sentence(privilege: Privilege, connection: str) -> str:
    columns = f"({', '.join(privilege.columns)}) of " if privilege.columns else ""
    return f"may {_VERBS[privilege.verb]} {columns}{privilege.schema}.{privilege.name} in {connection}"


ENGINE = DatabaseEngine()
