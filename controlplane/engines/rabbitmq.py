"""RabbitMQ logins: one user per credential, with permissions on named queues and exchanges of one virtual host."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, cast

from pydantic import AfterValidator, Field, WithJsonSchema, field_validator

from controlplane.model.canonical import JsonObject
from controlplane.model.entitlement import Revocability, Scope, distinct
from controlplane.model.excess import excess
from controlplane.model.lease import Ask, Credential, Response, Target
from controlplane.model.plan import Naming, ObjectKind, Places, VaultObject
from controlplane.model.secret import Secret
from controlplane.model.wording import explained

EXAMPLE = """\
name: invoices
engine: rabbitmq
vhost: billing
permissions:
  - read on queue invoices
  - write on exchange receipts
"""

_VHOST = explained(r"^(/|[A-Za-z0-9_][A-Za-z0-9_.-]{0,62})$", "/ alone, or letters, digits and _ . - only, at most 63")


_USERNAME = re.compile(r"[A-Za-z0-9_.-]{1,200}", re.ASCII)
_VERBS = ("configure", "read", "write")
_SHAPE = re.compile(r"(?P<verb>[a-z]+) on (?P<kind>queue|exchange) (?P<name>[A-Za-z0-9_.:-]{1,127})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Permission:
    """One verb on one name. RabbitMQ holds a name against queues and exchanges alike; `kind` is for the reader."""

    verb: str
    kind: str
    name: str

    def __str__(self) -> str:
        """The one spelling of it."""
        return f"{self.verb} on {self.kind} {self.name}"


def parse(text: str) -> Permission:
    """The permission that `text` says.

    Raises: ValueError: with what to write instead.
    """
    shape = _SHAPE.fullmatch(re.sub(r" +", " ", text.strip(" ")))
    if shape is None:
        if re.search(r"[*^$|()\[\]\\#]", text):
            raise excess("wildcard", "a permission names no pattern: name each queue and exchange")
        raise ValueError("write it as `read on queue name` or `write on exchange name`")
    if shape["verb"] not in _VERBS:
        raise ValueError(f"there is no {shape['verb']} in RabbitMQ, but {', '.join(_VERBS)}")
    if shape["name"].startswith("amq."):
        raise excess("system", "names with amq. are RabbitMQ's own: through amq.default one can write to every queue")
    return Permission(verb=shape["verb"], kind=shape["kind"], name=shape["name"])


PermissionText = Annotated[
    str,
    AfterValidator(lambda text: str(parse(text))),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": explained(
                r"^ *(configure|read|write) +on +(queue|exchange) +[A-Za-z0-9_.:-]{1,127} *$",
                "as in `read on queue orders`",
            ),
            "examples": ["read on queue invoices", "write on exchange receipts"],
        }
    ),
]


class RabbitmqScope(Scope):
    """Named queues and exchanges in one virtual host."""

    vhost: Annotated[str, Field(pattern=_VHOST, description="The virtual host.")] = "/"
    permissions: tuple[PermissionText, ...] = Field(
        min_length=1, max_length=64, description="What the login may do with which queue or exchange, one a line."
    )

    @field_validator("permissions")
    @classmethod
    def _distinct(cls, permissions: tuple[str, ...]) -> tuple[str, ...]:
        return distinct(permissions, "a permission is named twice")

    @property
    def parsed(self) -> tuple[Permission, ...]:
        """The permissions as values, in one order whatever the order of the lines was."""
        return tuple(sorted(parse(text) for text in self.permissions))


@dataclass(frozen=True, slots=True)
class RabbitmqEngine:
    """Source: OpenBao docs, api/secret/rabbitmq; RabbitMQ docs, "Access Control"."""

    word: str = "rabbitmq"
    scope_model: type[Scope] = RabbitmqScope
    revocability: Revocability = Revocability.RECALLABLE
    example: str = EXAMPLE
    unasked: str = "RabbitMQ says only to an administrator who may log in, and no prober of ours is one"
    mounting: JsonObject = field(default_factory=lambda: {"type": "rabbitmq"})

    def places(self, mount: str) -> Places:
        """Roles at `roles`, leases at `creds`."""
        return Places(roles=f"{mount}/roles", leases=f"{mount}/creds", holds=f"{mount}/creds")

    def roles(self, scope: Scope, naming: Naming, *, default: timedelta, maximum: timedelta) -> Sequence[VaultObject]:
        """One role. It has no TTL in Vault's API: a user lives as long as its task token, whatever the mount says."""
        del default, maximum
        wanted = _own(scope)
        permissions = {verb: _pattern(wanted.parsed, verb) for verb in _VERBS}
        return (
            VaultObject(
                kind=ObjectKind.SECRET_ROLE,
                path=f"{naming.layout.mounts[self.word]}/roles/{naming.scope(scope.name)}",
                entitlement=naming.entitlement,
                data={
                    "tags": "",
                    # JSON text when written, an object when read.
                    "vhosts": json.dumps({wanted.vhost: permissions}, sort_keys=True),
                    "vhost_topics": "",
                },
            ),
        )

    def capabilities(self, scope: Scope, naming: Naming) -> Mapping[str, JsonObject]:
        """Reading makes a user."""
        return {self._path(scope, naming): {"capabilities": ["read"]}}

    def ask(self, scope: Scope, naming: Naming, *, ttl: timedelta) -> Ask:
        """A plain read."""
        del ttl  # the endpoint takes none
        return Ask(path=self._path(scope, naming), body=None)

    def receive(self, scope: Scope, response: Response) -> Credential:
        """User name and password; the principal is the user name."""
        username, password = response.data.get("username"), response.data.get("password")
        if not isinstance(username, Secret) or not isinstance(password, Secret):
            raise ValueError("RabbitMQ's engine answered without a user name or a password")  # noqa: TRY004 # the port's word for a bad answer
        if not _USERNAME.fullmatch(username.reveal()):
            raise ValueError("RabbitMQ's engine made a name with other characters than [A-Za-z0-9_.-]")
        return Credential(
            lease=response.lease,
            lease_ttl=None,
            principal=username.reveal(),
            fields={"username": username, "password": password, "vhost": Secret(_own(scope).vhost)},
        )

    def target(self, scope: Scope) -> Target:
        """The broker behind the mount."""
        del scope  # all scopes share one mount
        return Target(kind="rabbitmq", name=self.word)

    def reach(self, scope: Scope) -> Sequence[str]:
        """A sentence for each permission."""
        wanted = _own(scope)
        return [
            f"may {_SENTENCES[permission.verb]} {permission.kind} {permission.name} in {wanted.vhost}"
            for permission in wanted.parsed
        ]

    def _path(self, scope: Scope, naming: Naming) -> str:
        return f"{naming.layout.mounts[self.word]}/creds/{naming.scope(scope.name)}"


_SENTENCES = {"configure": "declare and delete", "read": "take messages from", "write": "send messages to"}


def _own(scope: Scope) -> RabbitmqScope:
    return cast("RabbitmqScope", scope)


def _pattern(permissions: Sequence[Permission], verb: str) -> str:
    """A regular expression of RabbitMQ for exactly these names; `^$` is no name at all."""
    names = sorted({permission.name for permission in permissions if permission.verb == verb})
    # Of the characters that a name may have, only the dot means something else in a pattern.
    return f"^({'|'.join(name.replace('.', '[.]') for name in names)})$" if names else "^$"


ENGINE = RabbitmqEngine()
