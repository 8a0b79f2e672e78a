"""The use of a key that nobody gets: a token of Vault that may do named operations with it, and nothing else.

The token is a child of the task token, so it ends with it, at once, and Vault can be asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Literal, cast

from pydantic import Field, field_validator
from typing_extensions import override

from controlplane.model.canonical import JsonObject, canonical
from controlplane.model.entitlement import Revocability, Scope, distinct
from controlplane.model.lease import Ask, Credential, Response, Target
from controlplane.model.plan import Naming, ObjectKind, Places, VaultObject
from controlplane.model.secret import Secret
from controlplane.model.wording import explained

EXAMPLE = """\
name: cards
engine: transit
key: card-numbers
operations: [decrypt]
"""

_KEY = explained(r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,62}$", "letters, digits, _ and - only, no - first, at most 63")


Operation = Literal["encrypt", "decrypt", "rewrap", "sign", "verify", "hmac"]

_SENTENCES: Mapping[Operation, str] = {
    "encrypt": "encrypt with",
    "decrypt": "decrypt what was encrypted with",
    "rewrap": "renew the version of what was encrypted with",
    "sign": "sign with",
    "verify": "check signatures of",
    "hmac": "make authentication codes with",
}
_ROLES = "auth/token/roles"
_CREATE = "auth/token/create"


class TransitScope(Scope):
    """Operations with one key of Vault's transit mount. The key is its owner's: it is never made here."""

    key: Annotated[str, Field(pattern=_KEY, description="A key of the mount.")]
    operations: tuple[Operation, ...] = Field(min_length=1, description="What may be done with it.")

    @field_validator("operations")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return distinct(names, "an operation is named twice")

    @property
    @override
    def own_clock(self) -> bool:
        """The target is Vault, and the token its own."""
        return True


@dataclass(frozen=True, slots=True)
class TransitEngine:
    """Source: OpenBao docs, api/secret/transit and api/auth/token, "Create/update token role"."""

    word: str = "transit"
    scope_model: type[Scope] = TransitScope
    revocability: Revocability = Revocability.PROVABLE
    example: str = EXAMPLE
    unasked: str = ""
    mounting: JsonObject = field(default_factory=lambda: {"type": "transit"})

    def places(self, mount: str) -> Places:
        """A role for tokens. What hangs from it are tokens and not leases of ours: they end with their parent."""
        del mount
        return Places(roles=_ROLES, leases=None, holds=_CREATE)

    def roles(self, scope: Scope, naming: Naming, *, default: timedelta, maximum: timedelta) -> Sequence[VaultObject]:
        """A policy for the key, and the role by which a task token makes a child with that policy only."""
        del default  # the role knows a ceiling only; a request says how long
        wanted, name = _own(scope), naming.scope(scope.name)
        mount = naming.layout.mounts[self.word]
        rules: JsonObject = {
            f"{mount}/{operation}/{wanted.key}": {"capabilities": ["update"]} for operation in sorted(wanted.operations)
        }
        return (
            VaultObject(
                kind=ObjectKind.SECRET_ROLE,
                path=f"{_ROLES}/{name}",
                entitlement=naming.entitlement,
                data={
                    **_CLOSED,
                    "name": name,
                    "allowed_policies": [name],
                    "token_explicit_max_ttl": int(maximum.total_seconds()),
                },
            ),
            VaultObject(
                kind=ObjectKind.POLICY,
                path=f"sys/policies/acl/{name}",
                entitlement=naming.entitlement,
                data={"policy": canonical({"path": dict(rules)}).decode()},
            ),
        )

    def capabilities(self, scope: Scope, naming: Naming) -> Mapping[str, JsonObject]:
        """Making such a child, once or more: each has this policy and ends with the task token."""
        return {self._path(scope, naming): {"capabilities": ["update"], "allowed_parameters": {"ttl": []}}}

    def ask(self, scope: Scope, naming: Naming, *, ttl: timedelta) -> Ask:
        """A child token that ends `ttl` from now, and sooner if its parent does."""
        return Ask(path=self._path(scope, naming), body={"ttl": f"{int(ttl.total_seconds())}s"})

    def receive(self, scope: Scope, response: Response) -> Credential:
        """The token, and the key's name to use it with; the principal is the token's accessor."""
        token, accessor = response.data.get("client_token"), response.data.get("accessor")
        if not isinstance(token, Secret) or not isinstance(accessor, Secret):
            raise ValueError("Vault answered without a token or its accessor")  # noqa: TRY004 # the port's word for a bad answer
        policies = response.data.get("policies")
        if response.data.get("orphan") is not False or not isinstance(policies, list) or len(policies) != 1:
            raise ValueError("Vault made the token without its parent, or with more than one policy")
        return Credential(
            lease=response.lease,
            lease_ttl=response.lease_ttl,
            principal=accessor.reveal(),
            fields={"token": token, "key": Secret(_own(scope).key)},
        )

    def target(self, scope: Scope) -> Target:
        """Vault itself."""
        del scope  # there is one
        return Target(kind="token", name="vault")

    def reach(self, scope: Scope) -> Sequence[str]:
        """A sentence for each operation."""
        wanted = _own(scope)
        return [f"may {_SENTENCES[operation]} the key {wanted.key}" for operation in sorted(wanted.operations)]

    def _path(self, scope: Scope, naming: Naming) -> str:
        return f"{_CREATE}/{naming.scope(scope.name)}"


_CLOSED: JsonObject = {
    "allowed_policies_glob": [],
    "disallowed_policies": [],
    "disallowed_policies_glob": [],
    "allowed_entity_aliases": [],
    "orphan": False,
    "renewable": False,
    "path_suffix": "",
    "token_type": "service",
    "token_no_default_policy": True,
    "token_period": 0,
    "token_num_uses": 0,
    "token_bound_cidrs": [],
}


def _own(scope: Scope) -> TransitScope:
    return cast("TransitScope", scope)


ENGINE = TransitEngine()
