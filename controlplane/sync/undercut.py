"""Ways around a tier: what one entitlement guards, and a lower one, or two that one workload may both have, give away.

What an entitlement gives is what its engines tell reviewers (`Engine.reach`), column by column; where it has
parameters, whatever some values of them make of that.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

from controlplane.model.entitlement import Eligibility, Entitlement, Glob, Match, Risk, matches
from controlplane.model.matching import overlap
from controlplane.model.parameter import made_of, placeholders
from controlplane.ports import Engine

_COLUMNS: Final = re.compile(r"(?P<lead>may .+? )\((?P<columns>[^()]+)\) of (?P<rest>.+)")
_TIERS: Final = list(Risk)
_MOST: Final = 50
"""Entitlements that are tried two by two for one that they might get around; there are hardly ever more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    entitlement: Entitlement
    gives: frozenset[str]
    tier: int
    loose: bool
    """Whether something of it has parameters."""

    def giving(self, guarded: "_Known") -> "_Known":
        """The same, with what of `guarded` it gives for some values of either's parameters."""
        if not (self.loose or guarded.loose):
            return self
        for_some = {atom for atom in guarded.gives if any(self._can_be(own, guarded, atom) for own in self.gives)}
        return replace(self, gives=self.gives | for_some)

    def _can_be(self, own: str, guarded: "_Known", atom: str) -> bool:
        mine, theirs = own.partition("{")[0], atom.partition("{")[0]  # most differ here already
        if not (mine.startswith(theirs) or theirs.startswith(mine)) or (mine, theirs) == (own, atom):
            return False
        return made_of(own, self.entitlement.parameters).meets(made_of(atom, guarded.entitlement.parameters))


def undercuts(entitlements: Iterable[Entitlement], engines: Mapping[str, Engine]) -> Mapping[str, tuple[str, ...]]:
    """By name of the lower entitlement, what it gets around and how, in sentences."""
    known = [_known(each, engines) for each in entitlements]
    loose = [one for one in known if one.loose]
    giving: dict[str, list[_Known]] = defaultdict(list)
    for one in known:
        for atom in one.gives:
            giving[atom].append(one)
    found: dict[str, list[str]] = defaultdict(list)
    lowest = min((one.tier for one in known), default=0)
    for guarded in known:
        if guarded.tier == lowest:
            continue  # most are, and nothing is below
        kept = guarded.gives | {_whole(atom) for atom in guarded.gives}
        near = {one.entitlement.name: one for atom in kept for one in giving.get(atom, ())}
        near |= {one.entitlement.name: one for one in (known if guarded.loose else loose)}
        lower = {
            name: gives
            for name, one in near.items()
            if one.tier < guarded.tier and _guard(one.entitlement) < max(_guard(guarded.entitlement), 1)
            if not kept.isdisjoint((gives := one.giving(guarded)).gives)
        }
        for name, sentence in _around(guarded, [lower[name] for name in sorted(lower)]):
            found[name].append(sentence)
    return {name: tuple(sentences) for name, sentences in found.items()}


def _around(guarded: _Known, lower: list[_Known]) -> Iterator[tuple[str, str]]:
    keeps = f"all that {guarded.entitlement.name} keeps for tier {guarded.entitlement.risk}"
    keeps += " and some values of its parameters" if guarded.loose else ""
    alone = [one for one in lower if _covers(one.gives, guarded.gives)]
    for one in alone:
        yield one.entitlement.name, f"this gives {keeps}: raise its tier, or narrow it"
    rest = [one for one in lower if one not in alone][:_MOST]
    for pair in combinations(rest, 2):
        if _covers(pair[0].gives | pair[1].gives, guarded.gives) and _shared(*(one.entitlement for one in pair)):
            for one, other in (pair, pair[::-1]):
                too = f"with {other.entitlement.name}, which one workload may have as well, this gives {keeps}"
                yield one.entitlement.name, f"{too}: raise a tier, or part the workloads"


def _known(entitlement: Entitlement, engines: Mapping[str, Engine]) -> _Known:
    gives = _gives(entitlement, engines)
    return _Known(
        entitlement=entitlement,
        gives=gives,
        tier=_TIERS.index(entitlement.risk),
        loose=bool(placeholders(tuple(gives))),
    )


def _gives(entitlement: Entitlement, engines: Mapping[str, Engine]) -> frozenset[str]:
    lines = (line for scope in entitlement.scopes for line in engines[scope.engine].reach(scope))
    return frozenset(atom for line in lines for atom in _atoms(line))


def _atoms(line: str) -> Iterator[str]:
    by_column = _COLUMNS.fullmatch(line)
    if by_column is None:
        yield line
        return
    for column in by_column["columns"].split(", "):
        yield f"{by_column['lead']}({column}) of {by_column['rest']}"


def _whole(atom: str) -> str:
    return _COLUMNS.sub(r"\g<lead>\g<rest>", atom)


def _covers(gives: Collection[str], guarded: Iterable[str]) -> bool:
    return all(atom in gives or _whole(atom) in gives for atom in guarded)


def _guard(entitlement: Entitlement) -> int:
    """How many people look at it, before or after."""
    return entitlement.approval.quorum if entitlement.approval is not None else int(entitlement.break_glass)


def _shared(one: Entitlement, other: Entitlement) -> bool:
    """Whether some workload is eligible for both."""
    return any(_meet(mine, theirs) for mine in one.eligibility for theirs in other.eligibility)


def _meet(one: Eligibility, other: Eligibility) -> bool:
    both = one.claims.keys() & other.claims.keys()
    return (
        one.issuer == other.issuer
        and _overlap(one.subject, other.subject)
        and all(_overlap(one.claims[path], other.claims[path]) for path in both)
    )


def _overlap(one: Match, other: Match) -> bool:
    if isinstance(one, Glob):
        return overlap(one.glob, other.glob) if isinstance(other, Glob) else matches(one, other)
    return matches(other, one)
