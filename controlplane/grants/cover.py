"""What an agent needs, against what entitlements open: the narrowest set of them that covers it. Pure and exact.

Nothing guesses here. A need is covered by a scope whose document names the same thing, and the set is found by dynamic
programming over what is covered so far: the same question has the same answer, and no smaller one exists.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controlplane.model.canonical import JsonValue
from controlplane.model.entitlement import Entitlement, Risk, Scope
from controlplane.model.errors import InvalidRequestError
from controlplane.ports import Engine

MOST: Final = 12
"""Of single things in one question: 4 096 combinations of them are looked through."""

_REFUSAL: Final = re.compile(
    r".*permission denied for (?:table|view|sequence|relation) (?P<thing>\S+?)[.\"']?", re.ASCII
)
_NEED: Final = re.compile(
    r"(?:(?P<verb>[a-z]+)\s+)?(?:\((?P<columns>[^()]+)\)\s*)?(?:on\s+)?(?:(?:table|sequence|keys)\s+)?(?P<thing>\S+)",
    re.ASCII | re.IGNORECASE,
)
_PRIVILEGE: Final = re.compile(r"(?P<verb>[a-z]+)(?: \((?P<columns>[^()]+)\))? on [a-z]+ (?P<thing>.+)", re.ASCII)
_NO_THINGS: Final = frozenset({"name", "engine", "dialect", "connection"})
_WEIGHT: Final = {Risk.LOW: 0, Risk.MEDIUM: 1, Risk.HIGH: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One thing that an agent was refused or is about to do. No verb is any of them, no columns are some of them."""

    thing: str
    verb: str | None = None
    columns: frozenset[str] = frozenset()

    def __str__(self) -> str:
        columns = f" ({', '.join(sorted(self.columns))})" if self.columns else ""
        return f"{self.verb or 'use'}{columns} {self.thing}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An entitlement, which of the needs it covers (a bit each), and what it costs."""

    entitlement: Entitlement
    covers: int
    width: int
    """How many sentences its reach has: what is narrower has fewer."""

    @property
    def cost(self) -> tuple[int, int, int, int]:
        """Width first, then how many people have to agree, then risk, then one more grant. Costs add up."""
        quorum = 0 if self.entitlement.approval is None else self.entitlement.approval.quorum
        return (self.width, quorum, _WEIGHT[self.entitlement.risk], 1)


def parse_needs(texts: Sequence[str]) -> tuple[Need, ...]:
    """What the texts name: `update (status) billing.invoices`, a path, a host, or a refusal's words.

    A text in no such form is a thing that nothing has. Raises: InvalidRequestError: there is none, or more than MOST.
    """
    needs = tuple(dict.fromkeys(map(_need, texts)))
    if not 0 < len(needs) <= MOST:
        raise InvalidRequestError(f"name 1 to {MOST} things, not {len(needs)}")
    return needs


def candidate(entitlement: Entitlement, needs: Sequence[Need], engines: Mapping[str, Engine]) -> Candidate:
    """What `entitlement` covers of `needs`, all of its scopes together."""
    opened = [touch for scope in entitlement.scopes for touch in _touches(scope)]
    covers = sum(1 << place for place, need in enumerate(needs) if _covered(need, opened))
    width = sum(len(engines[scope.engine].reach(scope)) for scope in entitlement.scopes)
    return Candidate(entitlement=entitlement, covers=covers, width=width)


def narrowest(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """The cheapest set that covers whatever any of them covers, by name; of equal ones that whose names come first."""
    useful = sorted((one for one in candidates if one.covers), key=lambda one: one.entitlement.name)
    best: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {0: ((0, 0, 0, 0), ())}  # cost, and places in useful
    everything = 0
    for one in useful:
        everything |= one.covers
    for covered in range(everything + 1):  # whatever covers more has a greater number, so each is final when it comes
        if covered not in best:
            continue
        cost, chosen = best[covered]
        for place, one in enumerate(useful):
            more = covered | one.covers
            if more == covered:
                continue
            reached = (tuple(map(sum, zip(cost, one.cost, strict=True))), tuple(sorted((*chosen, place))))
            if more not in best or reached < best[more]:
                best[more] = reached
    return tuple(useful[place] for place in best[everything][1])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Touch:
    """A thing that a scope opens; no verb is all that can be done with it, no columns are all of them."""

    thing: str
    verb: str | None = None
    columns: frozenset[str] = frozenset()


def _covered(need: Need, opened: Sequence[_Touch]) -> bool:
    """Whether one credential does all of it: columns of several entitlements add up to no statement."""
    fitting = [touch for touch in opened if _named(need, touch) and (not need.verb or touch.verb in {None, need.verb})]
    whole = any(not touch.columns for touch in fitting)
    return bool(fitting) and (whole or need.columns <= frozenset[str]().union(*(touch.columns for touch in fitting)))


def _named(need: Need, touch: _Touch) -> bool:
    return touch.thing == need.thing or ("." not in need.thing and touch.thing.rpartition(".")[2] == need.thing)


def _touches(scope: Scope) -> Iterator[_Touch]:
    """Every text in the scope's document: a privilege names its thing within, anything else is one itself."""
    for name, value in scope.model_dump(mode="json").items():
        if name in _NO_THINGS:
            continue
        for text in _texts(value):
            if found := _PRIVILEGE.fullmatch(text):
                yield _Touch(thing=_plain(found["thing"]), verb=found["verb"], columns=_columns(found["columns"]))
            else:
                yield _Touch(thing=_plain(text))


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _need(text: str) -> Need:
    written = " ".join(text.split())
    if refused := _REFUSAL.fullmatch(written):
        return Need(thing=_plain(refused["thing"]))
    found = _NEED.fullmatch(written)
    if found is None:
        return Need(thing=_plain(written))
    verb = found["verb"].lower() if found["verb"] else None
    return Need(thing=_plain(found["thing"]), verb=verb, columns=_columns(found["columns"]))


def _columns(text: str | None) -> frozenset[str]:
    return frozenset(filter(None, (_plain(column.strip()) for column in (text or "").split(","))))


def _plain(name: str) -> str:
    return name.replace('"', "").lower()
