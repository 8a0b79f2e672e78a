"""A cut: everything that a selection selects ends, as it was previewed, and it is known of each whether it is gone."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NewType, Self

from controlplane.model.canonical import JsonValue, canonical, instant
from controlplane.model.freeze import FreezeId
from controlplane.model.grant import Grant, State
from controlplane.model.identity import IssuerName

CutId = NewType("CutId", str)

FRESH: Final = timedelta(minutes=10)
"""For how long a preview says what a cut would do: what is older has to be looked at again."""
RESISTS: Final = 3
"""So many tries without success are no delay any more: somebody has to look at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """How many grants of one agent, entitlement and state are selected."""

    issuer: IssuerName
    subject: str
    entitlement: str
    state: State
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseGroup:
    """How many names the leases of one engine have at one target; `names` is the SHA-256 (hex) over them in order."""

    engine: str
    target: str
    count: int
    names: str


def lease_group(engine: str, target: str, names: Iterable[str]) -> LeaseGroup:
    """The group of leases with these names, in order. However many there are, none is kept."""
    count, seen = 0, hashlib.sha256()
    for count, name in enumerate(names, 1):  # noqa: B007 # the last is how many there are
        seen.update(canonical(name))
    return LeaseGroup(engine=engine, target=target, count=count, names=seen.hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """A task that would lose what it works with now."""

    subject: str
    task: str
    grants: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """What a selection selects of what has not ended: `of` so many at all. Everything is exact."""

    groups: Sequence[Group]
    leases: Sequence[LeaseGroup]
    doing: Sequence[Doing]
    of: int

    @property
    def count(self) -> int:
        """How many grants."""
        return sum(group.count for group in self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What somebody was shown: by its `digest` a cut names it. `at` is when it was true."""

    digest: str
    selection: str
    at: datetime
    count: int
    issuer: IssuerName
    subject: str


def digest_of(selection: str, at: datetime, surveyed: Surveyed) -> str:
    """SHA-256 (hex) of what is selected, and when."""
    groups: list[JsonValue] = [
        [group.issuer, group.subject, group.entitlement, group.state, group.count] for group in surveyed.groups
    ]
    names: list[JsonValue] = [[lease.engine, lease.target, lease.count, lease.names] for lease in surveyed.leases]
    return hashlib.sha256(canonical([selection, instant(at), groups, names])).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What is different since a preview: selected now and not then; and the other way round."""

    new: int
    ended: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A cut as it was last saved. `incident` is the responders' own name for what it is about.

    `previewed_at` is the instant by which ages are reckoned, so that time alone selects nothing more. It runs, and
    takes in what is selected meanwhile, until `ended_at`: then nothing of it is open any more.
    """

    id: CutId
    incident: str
    selection: str
    digest: str
    previewed_at: datetime
    reason: str
    issuer: IssuerName
    subject: str
    freeze: FreezeId | None
    ordered_at: datetime
    ended_at: datetime | None = None

    def over(self, at: datetime) -> Self:
        """The same, ended."""
        return replace(self, ended_at=at)


class Outcome(StrEnum):
    """What has become of one grant of a cut."""

    WAITING = "waiting"  # its end is not saved yet
    ENDING = "ending"
    RESIDUAL = "residual"  # it resists: it may be alive, and is tried for ever
    VERIFIED = "verified"  # gone, and the target says so itself
    UNVERIFIABLE = "unverifiable"  # Vault let go of it, and nobody at the target can say so
    WITHDRAWN = "withdrawn"  # nothing was ever made for it


OPEN: Final = frozenset({Outcome.WAITING, Outcome.ENDING, Outcome.RESIDUAL})
PROVED: Final = frozenset({Outcome.VERIFIED, Outcome.WITHDRAWN})


def outcome(grant: Grant) -> Outcome:
    """What has become of it."""
    match grant.state:
        case State.PENDING | State.APPROVED | State.ISSUING | State.ACTIVE:
            return Outcome.WAITING
        case State.REVOKING if grant.attempts < RESISTS:
            return Outcome.ENDING
        case State.REVOKING | State.IRREVOCABLE:
            return Outcome.RESIDUAL
        case State.REVOKED:
            return Outcome.VERIFIED if grant.receipt and grant.receipt.verified else Outcome.UNVERIFIABLE
        case State.DENIED | State.LAPSED:
            return Outcome.WITHDRAWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a cut has come: so many of each outcome."""

    counts: Mapping[Outcome, int]

    @property
    def total(self) -> int:
        """Of how many grants it is."""
        return sum(self.counts.values())

    def of(self, *outcomes: Outcome) -> int:
        """How many have one of these."""
        return sum(self.counts.get(one, 0) for one in outcomes)

    @property
    def proved(self) -> bool:
        """Whether every one is verified gone, or was never there."""
        return self.of(*PROVED) == self.total
