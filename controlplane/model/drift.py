"""Drift: what stands in Vault and at targets otherwise than entitlements and bootstrap say, and what that means."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from controlplane.model.canonical import JsonObject
from controlplane.model.plan import VaultObject


class Code(StrEnum):
    """What can be found; stable."""

    ROLE_CHANGED = "role-changed"
    POLICY_CHANGED = "policy-changed"
    LOGIN_CHANGED = "login-changed"
    OBJECT_MISSING = "object-missing"
    NOT_APPLIED = "not-applied"
    LOGIN_LEFT = "login-left"
    OBJECT_LEFT = "object-left"
    LOGIN_FOREIGN = "login-foreign"
    ROLE_FOREIGN = "role-foreign"
    POLICY_GRANTS = "policy-grants"
    POLICY_UNREAD = "policy-unread"
    IDENTITY_CHANGED = "identity-changed"
    TRUST_CHANGED = "trust-changed"
    CONNECTION_MISSING = "connection-missing"
    CONNECTION_MOVED = "connection-moved"
    CONNECTION_POWER = "connection-power"
    GROUP_RIGHTS = "group-rights"
    AUDIT_OFF = "audit-off"
    NOT_SEEN = "not-seen"


MEANING: Mapping[Code, str] = {
    Code.ROLE_CHANGED: "credentials are made, and those that are out are revoked, as the edit says: "
    "Vault may call one gone that still works",
    Code.POLICY_CHANGED: "tasks of it may do at Vault what nobody reviewed, or get nothing",
    Code.LOGIN_CHANGED: "others may log in for it, for longer or with more, or nobody may",
    Code.OBJECT_MISSING: "no credential of it can be issued; those that are out end as they should",
    Code.NOT_APPLIED: "the files say what Vault does not have: nothing of it can be issued",
    Code.LOGIN_LEFT: "a revision that no file wants can still be issued, to whom it named",
    Code.OBJECT_LEFT: "nobody can log in for it; it waits to be taken away",
    Code.LOGIN_FOREIGN: "the task key opens more than the entitlements: whatever this role gives",
    Code.ROLE_FOREIGN: "its credentials look like ours and hang from no entitlement",
    Code.POLICY_GRANTS: "whoever holds this policy needs no grant, and no decision, approval or receipt",
    Code.POLICY_UNREAD: "it may allow anything: nobody here can tell",
    Code.IDENTITY_CHANGED: "one of our own identities has other power than it should, or none",
    Code.TRUST_CHANGED: "whoever holds the other key logs in as any task, or as that identity, without us",
    Code.CONNECTION_MISSING: "nothing can be issued over it, and what is out cannot be revoked",
    Code.CONNECTION_MOVED: "logins are made and dropped at another server; those at the old one live on",
    Code.CONNECTION_POWER: "whoever takes over Vault, or an edited role, can do that at the target",
    Code.GROUP_RIGHTS: "every login of this revision may do that, and no review, plan or receipt knows of it",
    Code.AUDIT_OFF: "what is done at Vault leaves no trace there",
    Code.NOT_SEEN: "nobody has looked here, so nothing is known of it",
}
"""What a finding means for credentials."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """One thing: where, what of it, and the command or deed that repairs it."""

    code: Code
    path: str
    detail: str
    repair: str

    @property
    def meaning(self) -> str:
        """What it means for credentials."""
        return MEANING[self.code]


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A connection of a secrets engine, as Vault shows it: never a password. What it does not show is None."""

    path: str
    name: str
    user: str | None
    host: str | None
    port: int | None
    database: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Everything that drift is looked for in, at one moment; `unseen` says of each place why it was not seen."""

    objects: Mapping[str, VaultObject]
    leases: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many hang from each secret role of ours that is listed here; a missing one has none."""
    strange_logins: tuple[str, ...] = ()
    """Roles at our JWT mount whose names are not ours."""
    strange_roles: tuple[str, ...] = ()
    """Roles of secrets engines that begin with our prefix and are not ours."""
    policies: Mapping[str, str] = field(default_factory=dict[str, str])
    """Everybody's ACL policies, by name."""
    identities: tuple[str, ...] = ()
    """Policies and roles of our identities that are not as bootstrap writes them."""
    trust: Mapping[str, JsonObject] = field(default_factory=dict[str, JsonObject])
    """The configuration of each of our JWT mounts."""
    connections: tuple[Connection, ...] | None = None
    excess: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """What the user of each connection may do that issuing does not need."""
    given: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict[str, Mapping[str, frozenset[str]]])
    """What the group roles of ours may do at the target of each connection."""
    audit_devices: int | None = None
    unseen: Mapping[str, str] = field(default_factory=dict[str, str])
