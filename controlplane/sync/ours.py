"""Which objects in Vault are ours: exactly those whose name tells an entitlement and a revision under our prefix."""

import re
from dataclasses import dataclass

from controlplane.engines import places
from controlplane.model.grant import GrantId
from controlplane.model.plan import OF_GRANT, Layout, ObjectKind, of_grant

RESERVED = frozenset({"prober", "root", "default", "response-wrapping", "control-group"})
"""Names that no entitlement may have: our own probers' roles, and what Vault keeps for itself."""

_BASE = r"(?P<entitlement>[a-z][a-z0-9-]{2,47})-(?P<revision>[0-9a-f]{8})"
_SCOPE = r"-(?P<scope>[a-z][a-z0-9-]{0,15})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What an object's name says of it."""

    entitlement: str
    revision: str


def origin(layout: Layout, kind: ObjectKind, path: str) -> Origin | None:
    """Where the object at `path` came from; None where it is not ours, and so never to be touched."""
    folder, _, name = path.rpartition("/")
    folders = {
        ObjectKind.SECRET_ROLE: {where.roles for where in places(layout)},
        ObjectKind.POLICY: {"sys/policies/acl"},
        ObjectKind.JWT_ROLE: {f"auth/{layout.auth_mount}/role"},
    }
    if folder not in folders[kind]:
        return None
    # An engine may need a policy for each scope besides the one of the revision.
    scope = {ObjectKind.SECRET_ROLE: _SCOPE, ObjectKind.POLICY: f"({_SCOPE})?", ObjectKind.JWT_ROLE: ""}[kind]
    found = re.fullmatch(rf"{re.escape(layout.prefix)}-{_BASE}{scope}", name, re.ASCII)
    if found is None or reserved(found["entitlement"]):
        return None
    return Origin(entitlement=found["entitlement"], revision=found["revision"])


def role_of_grant(layout: Layout, name: str) -> GrantId | None:
    """The grant that a role of this name was made for; None where it is not ours, or for more than one."""
    found = of_grant(name)
    if found is None or re.fullmatch(rf"{re.escape(layout.prefix)}-{_BASE}{_SCOPE}", found[0], re.ASCII) is None:
        return None
    return found[1]


def reserved(name: str) -> bool:
    """Whether no entitlement may be called `name`.

    All that begins with `prober-` belongs to our probers, with `p-` to roles of one grant each.
    """
    return name in RESERVED or name.startswith(("prober-", OF_GRANT))
