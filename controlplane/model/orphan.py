"""The orphan: what is ours in Vault or at a target and belongs to no open grant."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from controlplane.model.grant import GrantId, State


class OrphanKind(StrEnum):
    """What can be left behind."""

    TOKEN = "token"  # a task token, by its accessor
    LEASE = "lease"  # a lease under one of our roles, by its id
    LOGIN = "login"  # a user at a target without a lease, as `target/user`


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """One thing that nobody answers for; `kind` and `name` together name it.

    `place` is the Vault path that it was made at, or the target where it is; `grant` is what it says it belongs to.
    `detail` says, without secrets, why it counts as an orphan.
    """

    kind: OrphanKind
    name: str
    place: str
    grant: GrantId | None
    detail: str
    found_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user at a target who is a member of one of our group roles; `sessions` are open now."""

    name: str
    group: str
    valid_until: datetime | None
    sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """How far the store was when it was last noted in Vault: a place in its audit chain."""

    seq: int
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many grants are in an open state, with leases of one engine; since when the oldest of them ends.

    `engine` is None where a grant has no lease, or where engines were not asked for.
    """

    state: State
    engine: str | None
    count: int
    oldest: datetime | None
