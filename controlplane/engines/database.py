"""Database logins: one user per credential, with the privileges that its scope lists, in the words of its dialect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast

from controlplane.engines.dialects import USUAL, DatabaseScope, Dialect, dialects
from controlplane.engines.dialects.terms.group import Group
from controlplane.model.canonical import JsonObject
from controlplane.model.entitlement import Revocability, Scope
from controlplane.model.lease import Ask, Credential, Response, Target
from controlplane.model.plan import Naming, ObjectKind, Places, VaultObject
from controlplane.model.secret import Secret


@dataclass(frozen=True, slots=True)
class DatabaseEngine:
    """Source: OpenBao docs, api/secret/databases."""

    word: str = "database"
    scope_model: type[Scope] = DatabaseScope
    revocability: Revocability = Revocability.PROVABLE
    unasked: str = ""
    mounting: JsonObject = field(default_factory=lambda: {"type": "database"})

    @property
    def example(self) -> str:
        """That of the usual dialect."""
        return dialects()[USUAL].example

    def places(self, mount: str) -> Places:
        """Roles at `roles`, leases at `creds`."""
        return Places(roles=f"{mount}/roles", leases=f"{mount}/creds", holds=f"{mount}/creds", own=True)

    def roles(self, scope: Scope, naming: Naming, *, default: timedelta, maximum: timedelta) -> Sequence[VaultObject]:
        """One dynamic role."""
        wanted = _own(scope)
        group = Group(
            prefix=naming.layout.prefix,
            entitlement=naming.entitlement,
            revision=naming.revision,
            scope=scope.name,
        )
        said = _dialect(wanted).statements(wanted, group, maximum=maximum)
        return (
            VaultObject(
                kind=ObjectKind.SECRET_ROLE,
                path=f"{self._mount(naming)}/roles/{naming.scope(scope.name)}",
                entitlement=naming.entitlement,
                data={
                    "db_name": wanted.connection,
                    "creation_statements": [*said.creation],
                    "renew_statements": [*said.renewal],
                    "revocation_statements": [*said.revocation],
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
        username, password = response.data.get("username"), response.data.get("password")
        if not isinstance(username, Secret) or not isinstance(password, Secret):
            raise ValueError("the database answered without a user name or a password")  # noqa: TRY004 # the port's word for a bad answer
        allowed = _dialect(_own(scope)).usernames
        if not allowed.fullmatch(username.reveal()):
            raise ValueError(f"the connection's username_template makes other names than {allowed.pattern}")
        return Credential(
            lease=response.lease,
            lease_ttl=response.lease_ttl,
            principal=username.reveal(),
            fields={"username": username, "password": password},
        )

    def target(self, scope: Scope) -> Target:
        """The database itself can be asked."""
        wanted = _own(scope)
        return Target(kind=wanted.dialect, name=wanted.connection)

    def reach(self, scope: Scope) -> Sequence[str]:
        """A sentence for each privilege."""
        wanted = _own(scope)
        return _dialect(wanted).reach(wanted)

    def _mount(self, naming: Naming) -> str:
        return naming.layout.mounts[self.word]

    def _path(self, scope: Scope, naming: Naming) -> str:
        return f"{self._mount(naming)}/creds/{naming.scope(scope.name)}"


def _own(scope: Scope) -> DatabaseScope:
    return cast("DatabaseScope", scope)


def _dialect(scope: DatabaseScope) -> Dialect:
    return dialects()[scope.dialect]


ENGINE = DatabaseEngine()
