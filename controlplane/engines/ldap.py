"""LDAP accounts: one entry per credential, member of named groups. Vault has this engine; OpenBao 2.7 does not."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, cast

from pydantic import AfterValidator, Field, field_validator

from controlplane.model.canonical import JsonObject
from controlplane.model.entitlement import Revocability, Scope
from controlplane.model.lease import Ask, Credential, Response, Target
from controlplane.model.plan import Naming, ObjectKind, Places, VaultObject
from controlplane.model.secret import Secret

EXAMPLE = """\
name: directory
engine: ldap
base: ou=agents,dc=acme,dc=example
groups:
  - cn=address-readers,ou=groups,dc=acme,dc=example
"""

_PART = r"[a-z][a-z0-9-]{0,31}=[A-Za-z0-9](?:[A-Za-z0-9 _.-]{0,62}[A-Za-z0-9_.-])?"
_NAME = re.compile(rf"{_PART}(?:,{_PART}){{1,15}}", re.ASCII)
_ACCOUNT = re.compile(r"[A-Za-z0-9_-]{1,63}", re.ASCII)


def distinguished(text: str) -> str:
    """A distinguished name in one spelling. Characters that would have to be escaped, in it or in LDIF, are refused.

    Raises: ValueError: with what to write instead.
    """
    name = re.sub(r" *, *", ",", text.strip(" "))
    name = re.sub(r"(^|,)([A-Za-z0-9-]+) *= *", lambda found: f"{found[1]}{found[2].lower()}=", name)
    if not _NAME.fullmatch(name):
        raise ValueError(
            "write a distinguished name of letters, digits, blanks and ._- , as in ou=agents,dc=acme,dc=example"
        )
    return name


Distinguished = Annotated[str, Field(max_length=500), AfterValidator(distinguished)]


class LdapScope(Scope):
    """An entry below `base`, and its membership in groups, which is all that it may."""

    base: Distinguished = Field(description="Below which entry the account is made.")
    groups: tuple[Distinguished, ...] = Field(min_length=1, max_length=16, description="What it is a member of.")

    @field_validator("groups")
    @classmethod
    def _distinct(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        if len({group.casefold() for group in groups}) < len(groups):
            raise ValueError("a group is named twice")
        return groups


@dataclass(frozen=True, slots=True)
class LdapEngine:
    """Source: Vault docs, api-docs/secret/ldap, "Dynamic Roles"; RFC 2849 (LDIF), RFC 4514 (distinguished names)."""

    word: str = "ldap"
    scope_model: type[Scope] = LdapScope
    revocability: Revocability = Revocability.RECALLABLE
    example: str = EXAMPLE
    unasked: str = (
        "no prober of ours may look into the directory, and a session that is bound stays open until it closes"
    )
    mounting: JsonObject = field(default_factory=lambda: {"type": "ldap"})

    def places(self, mount: str) -> Places:
        """Dynamic roles at `role`, leases at `creds`."""
        return Places(roles=f"{mount}/role", leases=f"{mount}/creds", holds=f"{mount}/creds")

    def roles(self, scope: Scope, naming: Naming, *, default: timedelta, maximum: timedelta) -> Sequence[VaultObject]:
        """One dynamic role."""
        wanted = _own(scope)
        return (
            VaultObject(
                kind=ObjectKind.SECRET_ROLE,
                path=f"{naming.layout.mounts[self.word]}/role/{naming.scope(scope.name)}",
                entitlement=naming.entitlement,
                data={
                    "creation_ldif": creation(wanted),
                    "deletion_ldif": deletion(wanted),
                    "rollback_ldif": deletion(wanted),
                    # Nothing of a token's display name: a subject chosen by others must not become part of an entry.
                    "username_template": '{{ printf "%s-%s" (.RoleName | truncate 40) (random 20) }}',
                    "default_ttl": int(default.total_seconds()),
                    "max_ttl": int(maximum.total_seconds()),
                },
            ),
        )

    def capabilities(self, scope: Scope, naming: Naming) -> Mapping[str, JsonObject]:
        """Reading makes an entry."""
        return {self._path(scope, naming): {"capabilities": ["read"]}}

    def ask(self, scope: Scope, naming: Naming, *, ttl: timedelta) -> Ask:
        """A plain read: the lease gets the role's default, whatever `ttl` is; renewing it can shorten it."""
        del ttl
        return Ask(path=self._path(scope, naming), body=None)

    def receive(self, scope: Scope, response: Response) -> Credential:
        """User name, distinguished name and password; the principal is the distinguished name."""
        username, password = response.data.get("username"), response.data.get("password")
        if not isinstance(username, Secret) or not isinstance(password, Secret):
            raise ValueError("the directory's engine answered without a user name or a password")  # noqa: TRY004 # the port's word for a bad answer
        if not _ACCOUNT.fullmatch(username.reveal()):
            raise ValueError("the directory's engine made a name with other characters than [A-Za-z0-9_-]")
        name = _entry(_own(scope), username.reveal())
        return Credential(
            lease=response.lease,
            lease_ttl=response.lease_ttl,
            principal=name,
            fields={"username": username, "password": password, "dn": Secret(name)},
        )

    def target(self, scope: Scope) -> Target:
        """The directory behind the mount."""
        del scope  # all scopes share one mount
        return Target(kind="ldap", name=self.word)

    def reach(self, scope: Scope) -> Sequence[str]:
        """A sentence for each group."""
        return [f"may do in the directory what members of {group} may" for group in sorted(_own(scope).groups)]

    def _path(self, scope: Scope, naming: Naming) -> str:
        return f"{naming.layout.mounts[self.word]}/creds/{naming.scope(scope.name)}"


_ENTRY = """\
dn: {entry}
changetype: add
objectClass: top
objectClass: person
objectClass: organizationalPerson
objectClass: inetOrgPerson
uid: {{{{.Username}}}}
cn: {{{{.Username}}}}
sn: Shorthold
userPassword: {{{{.Password}}}}
"""
_MEMBERSHIP = """
dn: {group}
changetype: modify
{verb}: member
member: {entry}
-
"""


def creation(scope: LdapScope) -> str:
    """LDIF with Vault's `{{.Username}}` and `{{.Password}}` in it: the entry, then its memberships."""
    entry = _entry(scope, "{{.Username}}")
    joined = (_MEMBERSHIP.format(group=group, verb="add", entry=entry) for group in sorted(scope.groups))
    return _ENTRY.format(entry=entry) + "".join(joined)


def deletion(scope: LdapScope) -> str:
    """The entry goes first: Vault goes on after an error, and without the entry no membership is worth anything."""
    entry = _entry(scope, "{{.Username}}")
    left = (_MEMBERSHIP.format(group=group, verb="delete", entry=entry) for group in sorted(scope.groups))
    return f"dn: {entry}\nchangetype: delete\n" + "".join(left)


def _entry(scope: LdapScope, username: str) -> str:
    return f"uid={username},{scope.base}"


def _own(scope: Scope) -> LdapScope:
    return cast("LdapScope", scope)


ENGINE = LdapEngine()
