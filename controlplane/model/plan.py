"""What entitlements mean in Vault, and what would have to change there."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from controlplane.model.canonical import JsonObject
from controlplane.model.entitlement import Entitlement
from controlplane.model.grant import GrantId, Revision

MAX_PREFIX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where our objects live in one Vault: settings, so that several control planes can share a server.

    `mounts` maps an engine's word to the mount its roles go to; `audience` is `aud` of every task JWT.
    """

    prefix: str = "sh"
    auth_mount: str = "shorthold"
    audience: str = "shorthold-tasks"
    mounts: Mapping[str, str]
    wrap_ttl: timedelta = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where one engine keeps its things in Vault, as whole paths of folders.

    `roles` is where its roles stand, None where it needs none. `leases` is where the leases of its credentials hang,
    None where Vault keeps none. A role is removed once nothing hangs from it at `holds`. `own`: a grant can have a role
    of its own there.
    """

    roles: str | None
    leases: str | None
    holds: str | None
    own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """The content-named objects of one revision of one entitlement: `sh-<entitlement>-<revision>[-<scope>]`.

    Scopes that `narrowed` names have a role for each grant: `sh-p-<entitlement>-<revision>-<scope>-<grant>`, where
    `grant` is the random part of its id, or `*` where a policy speaks of all of them.
    """

    layout: Layout
    entitlement: str
    revision: Revision
    narrowed: frozenset[str] = frozenset()
    grant: str = "*"

    @property
    def base(self) -> str:
        """The name of its JWT role and of its ACL policy."""
        return f"{self.layout.prefix}-{self.entitlement}-{self.revision}"

    def scope(self, name: str) -> str:
        """The name of the secret-engine role of one scope."""
        if name not in self.narrowed:
            return f"{self.base}-{name}"
        return f"{self.layout.prefix}-{OF_GRANT}{self.entitlement}-{self.revision}-{name}-{self.grant}"


OF_GRANT = "p-"
"""What follows the prefix in the name of a role that was made for one grant; no entitlement's name begins with it."""
_OF_GRANT = re.compile(rf"(?P<prefix>[a-z][a-z0-9]*-){OF_GRANT}(?P<rest>.+)-(?P<grant>[a-z2-7]{{24}})", re.ASCII)


def of_grant(role: str) -> tuple[str, GrantId] | None:
    """The name that the role would have if it were not for one grant, and that grant; None where it is for all."""
    found = _OF_GRANT.fullmatch(role)
    return None if found is None else (f"{found['prefix']}{found['rest']}", GrantId(f"gr_{found['grant']}"))


class ObjectKind(StrEnum):
    """Kinds of objects that sync writes, in the order in which they must exist."""

    SECRET_ROLE = "secret-role"
    POLICY = "policy"
    JWT_ROLE = "jwt-role"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultObject:
    """One object as it should stand at `path`; `data` is in the form in which Vault reads it back."""

    kind: ObjectKind
    path: str
    entitlement: str
    data: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """One entitlement as Vault objects; `objects` are in the order in which they are written."""

    entitlement: Entitlement
    naming: Naming
    objects: tuple[VaultObject, ...]

    @property
    def revision(self) -> Revision:
        """Eight hex digits of the compiled content."""
        return self.naming.revision


class Action(StrEnum):
    """What a change does."""

    CREATE = "create"
    REPAIR = "repair"  # drift: our name, other content
    RETIRE = "retire"  # ours, no longer wanted, nothing hangs from it
    DRAIN = "drain"  # ours, no longer wanted, leases still hang from it: kept until they are gone
    BLOCK = "block"  # drift that cannot be repaired while leases hang from it: they would be revoked elsewhere


WAITING: Final = frozenset({Action.DRAIN, Action.BLOCK})
"""What an apply leaves as it is, until no lease hangs from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change. `before` is what stands there now, `after` what will; None where there is nothing."""

    action: Action
    kind: ObjectKind
    path: str
    entitlement: str
    before: JsonObject | None
    after: JsonObject | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All changes, in the order of their doing; `digest` binds an apply to what was shown."""

    changes: tuple[Change, ...]
    digest: str

    @property
    def empty(self) -> bool:
        """Whether an apply would do nothing: what drains or is blocked waits for its leases."""
        return all(change.action in WAITING for change in self.changes)

    @property
    def drains(self) -> bool:
        """Whether something waits for its leases to end, and would go if they were ended."""
        return any(change.action is Action.DRAIN for change in self.changes)

    @property
    def blocked(self) -> bool:
        """Whether something is not as it should be and cannot be repaired now."""
        return any(change.action is Action.BLOCK for change in self.changes)
