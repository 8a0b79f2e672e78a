"""Rotation under others' hands: a static secret that two entitlements hand out, and the grants of one of them replace.

Its path may hold parameters: then two meet where some values make theirs the same.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from controlplane.model.entitlement import Entitlement
from controlplane.model.parameter import Pattern, made_of, placeholders

Spoilt = Mapping[int, Sequence[str]]
"""Sentences by the place of the scope that they are about."""

_SHOWN = 3
_DO = "give each a secret of its own, or let one entitlement hand it out"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Handed:
    """One static secret in a scope of an entitlement."""

    entitlement: str
    place: int
    engine: str
    secret: str
    start: str
    """Of it, what stands before any parameter."""
    pattern: Pattern
    rotates: bool

    def meets(self, other: "_Handed") -> bool:
        """Within one entitlement nothing is spoilt: what is rotated is out to one grant of it at a time."""
        if self.entitlement == other.entitlement or self.engine != other.engine:
            return False
        mine, theirs = self.start, other.start  # most differ here already
        return (mine.startswith(theirs) or theirs.startswith(mine)) and (
            self.pattern == other.pattern or self.pattern.meets(other.pattern)
        )


def spoilt(entitlements: Iterable[Entitlement]) -> Mapping[str, Spoilt]:
    """By name of the entitlement, which of its secrets end for others, or because of others."""
    handed = [one for entitlement in entitlements for one in _handed(entitlement)]
    same: dict[str, list[_Handed]] = defaultdict(list)
    for one in handed:
        same[one.secret].append(one)
    loose = [one for one in handed if placeholders(one.secret)]
    ends: dict[tuple[str, int, str], set[str]] = defaultdict(set)
    ended: dict[tuple[str, int, str], set[str]] = defaultdict(set)
    for one in handed:
        near = () if not one.rotates else handed if placeholders(one.secret) else (*same[one.secret], *loose)
        for other in near:
            if one.meets(other):
                ends[one.entitlement, one.place, one.secret].add(other.entitlement)
                ended[other.entitlement, other.place, other.secret].add(one.entitlement)
    found: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for (name, place, by), secrets in _together(ends):
        sentence = f"each grant of this ends with another {secrets}, also for whoever has it by {by}: {_DO}"
        found[name][place].append(sentence)
    for (name, place, by), secrets in _together({key: names for key, names in ended.items() if key not in ends}):
        sentence = f"each grant of {by} ends with another {secrets}, also for whoever has it by this: {_DO}"
        found[name][place].append(sentence)
    return found


def _together(of: Mapping[tuple[str, int, str], Collection[str]]) -> Iterator[tuple[tuple[str, int, str], str]]:
    """One sentence for all secrets of a scope that are shared with the same others, not one for each field."""
    secrets: dict[tuple[str, int, str], list[str]] = defaultdict(list)
    for (name, place, secret), others in sorted(of.items()):
        secrets[name, place, _shown(others)].append(secret)
    for key, found in secrets.items():
        yield key, ", ".join(found)


def _handed(entitlement: Entitlement) -> Iterator[_Handed]:
    for place, scope in enumerate(entitlement.scopes):
        for secret in sorted(scope.secrets):
            yield _Handed(
                entitlement=entitlement.name,
                place=place,
                engine=scope.engine,
                secret=secret,
                start=secret.partition("{")[0],
                pattern=made_of(secret, entitlement.parameters),
                rotates=scope.rotation is not None,
            )


def _shown(names: Collection[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(sorted(names)[:_SHOWN]) + more
