"""Which objects in Vault are ours: exactly those whose name tells an entitlement and a revision under our prefix."""

import re
from dataclasses import dataclass

from controlplane.engines import places
from controlplane.model.plan import Layout, ObjectKind

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


def reserved(name: str) -> bool:
    """Whether no entitlement may be called `name`; all that begins with `prober-` belongs to our probers."""
    return name in RESERVED or name.startswith("prober-")
