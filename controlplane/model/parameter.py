"""A parameter: what a request fills into a scope, so that one grant reaches one row, name, account or path.

Its pattern is a row of letters, digits, `_`, `-` and classes of them, each `{n}` or `{m,n}` times, and means the whole
value. There is nothing else in it (no alternative, group, dot or star), so that matching takes one pass whatever the
value is, and no value has a character that means something in a path, a host name, a policy or a statement.
"""

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Final, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from controlplane.model.canonical import JsonValue

LONGEST: Final = 63
"""Characters that a value has at most: as many as a label of a host name, or a name in PostgreSQL."""

VALUE: Final = rf"^[A-Za-z0-9_-]{{1,{LONGEST}}}$"
"""What every value is, whatever its own pattern says."""

_ALPHABETS: Final = (string.ascii_lowercase, string.ascii_uppercase, string.digits)
_ATOM: Final = re.compile(
    r"(?:\[(?P<items>(?:[A-Za-z0-9_]-[A-Za-z0-9_]|[A-Za-z0-9_])*-?)\]|(?P<one>[A-Za-z0-9_-]))"
    r"(?:\{(?P<least>[0-9]{1,2})(?:,(?P<most>[0-9]{1,2}))?\})?",
    re.ASCII,
)
_ITEM: Final = re.compile(r"(?P<first>[A-Za-z0-9_])-(?P<last>[A-Za-z0-9_])|(?P<one>[A-Za-z0-9_-])", re.ASCII)
_PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_]{0,31})\}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One character of a value: one of `chars`; an `optional` one may be missing."""

    chars: str
    optional: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A parsed pattern: a step for each character that a value can have, and so at most `LONGEST`."""

    steps: tuple[_Step, ...]

    def matches(self, value: str) -> bool:
        """Whether all of `value` is as the pattern says. Takes no longer than steps times characters."""
        reached = self._onwards({0})
        for character in value[: LONGEST + 1]:
            reached = self._onwards(
                {at + 1 for at in reached if at < len(self.steps) and character in self.steps[at].chars}
            )
        return len(self.steps) in reached

    def meets(self, other: "Pattern") -> bool:
        """Whether some value is as both say. Takes no longer than the steps of one times those of the other."""
        reached, pending = {(0, 0)}, [(0, 0)]
        while pending:
            at, by = pending.pop()
            if (at, by) == (len(self.steps), len(other.steps)):
                return True
            for further, along in _together(self.steps[at : at + 1], other.steps[by : by + 1]):
                if (step := (at + further, by + along)) not in reached:
                    reached.add(step)
                    pending.append(step)
        return False

    @property
    def shortest(self) -> str:
        """A value with nothing in it that may be missing."""
        return "".join(step.chars[0] for step in self.steps if not step.optional)

    @property
    def longest(self) -> str:
        """A value with everything in it, of the last character of each class."""
        return "".join(step.chars[-1] for step in self.steps)

    def _onwards(self, reached: set[int]) -> set[int]:
        """`reached`, and where one gets to from there by leaving out what may be missing."""
        found = set(reached)
        for at in range(len(self.steps)):
            if at in found and self.steps[at].optional:
                found.add(at + 1)
        return found


def _together(mine: Sequence[_Step], theirs: Sequence[_Step]) -> Iterator[tuple[int, int]]:
    """How many steps each can go on, at a step of each; nothing of one is its end."""
    if any(step.optional for step in mine):
        yield 1, 0
    if any(step.optional for step in theirs):
        yield 0, 1
    if any(not set(one.chars).isdisjoint(other.chars) for one in mine for other in theirs):
        yield 1, 1


@cache
def parse(text: str) -> Pattern:
    """The pattern that `text` says. Raises: ValueError: with what may stand in one."""
    steps: list[_Step] = []
    at = 0
    while at < len(text):
        found = _ATOM.match(text, at)
        if found is None or (chars := found["one"] or _class(found["items"])) == "":
            raise ValueError(
                f"at character {at + 1}: a pattern is letters, digits, _ and -, or classes of them like [a-z0-9-], "
                "each {n} or {m,n} times: no . * + ? | ( ) \\ in it"
            )
        least = 1 if found["least"] is None else int(found["least"])
        most = least if found["most"] is None else int(found["most"])
        if most < max(least, 1):
            raise ValueError(f"at character {at + 1}: {{{least},{most}}} is no number of times")
        steps += [_Step(chars=chars, optional=place >= least) for place in range(most)]
        at = found.end()
    if len(steps) > LONGEST:
        raise ValueError(f"values could be {len(steps)} characters long: {LONGEST} is the most")
    if all(step.optional for step in steps):
        raise ValueError("an empty value would match: something in a pattern must be there")
    return Pattern(steps=tuple(steps))


def _class(items: str) -> str:
    """The characters of a class. Raises: ValueError: a range that goes backwards or across kinds."""
    found: list[str] = []
    for item in _ITEM.finditer(items):
        if item["one"] is not None:
            found.append(item["one"])
            continue
        alphabet = next((kind for kind in _ALPHABETS if item["first"] in kind), "")
        first, last = alphabet.find(item["first"]), alphabet.find(item["last"])
        if not 0 <= first <= last:
            raise ValueError(f"{item[0]} is no range: write one like a-z, A-Z or 0-9")
        found.append(alphabet[first : last + 1])
    return "".join(found)


def _sound(text: str) -> str:
    parse(text)
    return text


class Parameter(BaseModel):
    """One parameter of an entitlement; every request must give it a value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_sound)] = Field(
        description="What all of a value must match: letters, digits, _ and -, classes of them, {n} and {m,n}."
    )

    def admits(self, value: str) -> bool:
        """Whether `value` is one that a request may give."""
        return parse(self.pattern).matches(value)


def placeholders(value: object) -> frozenset[str]:
    """The names of the parameters that stand, as `{name}`, in the texts of `value`: JSON, or the field of a scope."""
    return frozenset(name for text in _texts(value) for name in _PLACEHOLDER.findall(text))


def filled(value: JsonValue, values: Mapping[str, str]) -> JsonValue:
    """`value` with every `{name}` in its texts that `values` knows replaced, once."""
    match value:
        case str():
            return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), value)
        case list():
            return [filled(item, values) for item in value]
        case dict():
            return {key: filled(item, values) for key, item in value.items()}
        case _:
            return value


def made_of(text: str, parameters: Mapping[str, Parameter]) -> Pattern:
    """What `text` can be once its parameters have values; it is long, and its own only value where it has none."""
    steps: list[_Step] = []
    for place, piece in enumerate(_PLACEHOLDER.split(text)):  # every other piece is a name
        if place % 2:
            steps += parse(parameters[piece].pattern).steps
        else:
            steps += [_Step(chars=character, optional=False) for character in piece]
    return Pattern(steps=tuple(steps))


def opened(text: str) -> str | None:
    """`text` as Vault's pattern for every value: `*` for its parameters; None where no pattern can say it.

    Vault takes `*` at one end for anything, and alone, or in the middle, for a star.
    """
    parts = _PLACEHOLDER.split(text)
    before, after = parts[0], parts[-1]
    return f"{before}*{after}" if bool(before) != bool(after) else None


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list() | tuple():
            for item in cast("Sequence[object]", value):
                yield from _texts(item)
        case dict():
            for item in cast("Mapping[str, object]", value).values():
                yield from _texts(item)
        case _:
            return
