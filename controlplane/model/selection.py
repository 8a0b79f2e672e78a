"""A selection: `key=value,…`, which says what is meant; one grammar wherever something is selected.

The grammar is that of Kubernetes' label selectors: `key=value`, `key!=value`, `key in (a, b)`, `key notin (a, b)`,
`key` (it is there), `!key` (it is not), and for times `key<value`, `<=`, `>`, `>=`; all of them joined by commas, which
mean *and*. What a key looks at is a selector's matter, one file each in `selectors/`. Everything is selected by the
word `all` alone, never by leaving something out. There are no patterns: `*` would not cross ':' or '/', and so select
less than it seems to.
"""

import difflib
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from controlplane.model.canonical import JsonValue, instant
from controlplane.model.duration import format_duration, parse_duration
from controlplane.model.entitlement import Entitlement
from controlplane.model.errors import InvalidSelectionError
from controlplane.model.identity import IssuerName
from controlplane.model.network import Address

EVERYTHING: Final = "all"
MAX_LENGTH: Final = 4_000
MAX_VALUES: Final = 200
"""Characters of one selection, and values in one `in (…)`. Reading takes one pass over them."""

KEY: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/:-")
"""What a key may be written with."""
_NOT_BARE: Final = frozenset(",()=!\"'*?\\")
"""What a value without quotes does not have, besides blanks."""

Note = Mapping[str, tuple[str, ...]]
"""What is written down of a grant when it is asked for, to select it by later: the values of each key."""
NOTHING: Final[Note] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What is known when something is asked for; `document` is the entitlement, None where nobody may look at it.

    `above` are the tasks that its task is a part of, `mounts` and `targets` where its credentials would open doors.
    """

    issuer: IssuerName
    subject: str
    entitlement: str
    task: str
    intent: str
    above: tuple[str, ...] = ()
    claims: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    address: Address | None = None
    document: Entitlement | None = None
    mounts: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Selectable:
    """What can be selected, a grant or the request for one: all values that there are of each key, and its times."""

    known: Mapping[str, frozenset[str]]
    issued: datetime | None = None
    age: timedelta | None = None


class Kept(StrEnum):
    """Where the store has what a selector looks at."""

    GRANT = "grant"  # in the grant, under the selector's own word
    TASK = "task"  # its task, and those which that is a part of
    LEASE = "lease"  # in its leases, under the selector's own word
    APPROVAL = "approval"  # who agreed to it
    NOTE = "note"  # written down when it was asked for
    ISSUED = "issued"  # since when it is: since it was asked for, where it has not been issued
    AGE = "age"  # how long ago it was asked for


Noted = Callable[[Asking], Mapping[str, Iterable[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """One key. `kept` says where the store has it; one that is noted brings `note`, what to write down by name.

    `named` keys are followed by a dot and a name (`label.team`). `of_caller` says that it looks at nothing but who
    asks: only of such may somebody learn who is not eligible (promise P12). `of_request` says that it can be told of
    a request, so that it can be frozen. `choices` are all values that there can be, empty where anything can.
    """

    word: str
    about: str
    example: str
    kept: Kept = Kept.GRANT
    note: Noted | None = None
    named: bool = False
    of_caller: bool = False
    of_request: bool = True
    choices: frozenset[str] = frozenset()

    @property
    def ordered(self) -> bool:
        """Whether it is a time: then it has a range, and no values."""
        return self.kept in {Kept.ISSUED, Kept.AGE}


class Operator(StrEnum):
    """How what is there is held against what is asked for. Like Kubernetes', a no also holds of what is not there."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    MISSING = "missing"
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="


RANGES: Final[Mapping[Operator, Callable[[datetime, datetime], bool]]] = {
    Operator.AT_MOST: operator.le,
    Operator.AT_LEAST: operator.ge,
    Operator.LESS: operator.lt,
    Operator.MORE: operator.gt,
}
"""How times are compared; the longer signs first, as they are read."""
_EPOCH: Final = datetime(2000, 1, 1)  # noqa: DTZ001 # any: a span is compared as an instant so long after it


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One condition; `name` is what follows the dot, empty where nothing does; `bound` is the end of a range."""

    selector: Selector
    name: str
    operator: Operator
    values: frozenset[str] = frozenset()
    bound: datetime | timedelta | None = None

    @property
    def key(self) -> str:
        """The key as it is written."""
        return f"{self.selector.word}.{self.name}" if self.name else self.selector.word

    @property
    def narrows(self) -> bool:
        """Whether it says what is meant, and not only what is not."""
        return self.operator is Operator.IN or self.operator in RANGES

    def holds(self, one: Selectable) -> bool:
        """Whether it is true of `one`."""
        if self.bound is not None:
            return self._in_range(one, self.bound)
        there = one.known.get(self.key, frozenset[str]())
        if self.selector.ordered:
            there = frozenset({self.key}) if getattr(one, self.selector.kept) is not None else there
        match self.operator:
            case Operator.IN:
                return not there.isdisjoint(self.values)
            case Operator.NOT_IN:
                return there.isdisjoint(self.values)
            case Operator.MISSING:
                return not there
            case _:
                return bool(there)

    def _in_range(self, one: Selectable, bound: datetime | timedelta) -> bool:
        compare = RANGES[self.operator]
        if isinstance(bound, timedelta):
            return one.age is not None and compare(_EPOCH + one.age, _EPOCH + bound)
        return one.issued is not None and compare(one.issued, bound)

    def __str__(self) -> str:
        values = [_written(value) for value in sorted(self.values)]
        match self.operator:
            case Operator.IN | Operator.NOT_IN if len(values) == 1:
                return f"{self.key}{'=' if self.operator is Operator.IN else '!='}{values[0]}"
            case Operator.IN | Operator.NOT_IN:
                return f"{self.key} {self.operator} ({', '.join(values)})"
            case Operator.EXISTS:
                return self.key
            case Operator.MISSING:
                return f"!{self.key}"
            case _:
                end = instant(self.bound) if isinstance(self.bound, datetime) else format_duration(self.bound or _NONE)
                return f"{self.key}{self.operator}{end}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Terms that must all hold; without any it selects everything, and only `parse_selection` makes it so."""

    terms: tuple[Term, ...]

    @property
    def everything(self) -> bool:
        """Whether it is the word `all`."""
        return not self.terms

    @property
    def of_caller(self) -> bool:
        """Whether it looks at nothing but who asks."""
        return all(term.selector.of_caller for term in self.terms)

    @property
    def narrows(self) -> bool:
        """Whether some term of it says what is meant; without one it may select everything that there is."""
        return any(term.narrows for term in self.terms)

    @property
    def beyond_requests(self) -> tuple[str, ...]:
        """The keys that nothing is known of when somebody asks: nothing can be frozen by them."""
        return tuple(dict.fromkeys(term.key for term in self.terms if not term.selector.of_request))

    def selects(self, one: Selectable) -> bool:
        """Whether all of it holds of `one`."""
        return all(term.holds(one) for term in self.terms)

    def named(self, word: str) -> frozenset[str]:
        """The values that it asks for by the key `word`: of `subject in (a, b)` a and b."""
        wanted = [term.values for term in self.terms if term.key == word and term.operator is Operator.IN]
        return frozenset[str]().union(*wanted)

    def __str__(self) -> str:
        return ",".join(map(str, self.terms)) or EVERYTHING


def parse_selection(text: str, selectors: Mapping[str, Selector]) -> Selection:
    """The selection that `text` writes, with the keys of `selectors`.

    Raises: InvalidSelectionError: what is wrong, and at which character, counted from 1.
    """
    reader = _Reader(text)
    if len(text) > MAX_LENGTH:
        raise reader.error(f"it is longer than {MAX_LENGTH} characters", MAX_LENGTH)
    reader.blanks()
    if reader.done:
        raise reader.error(f"it is empty; write {EVERYTHING} for everything")
    terms: list[Term] = []
    while True:
        start = reader.at
        term = _term(reader, selectors)
        if term is None:
            if terms or not reader.done:
                raise reader.error(f"{EVERYTHING} stands alone", start)
            return Selection(terms=())
        if term.operator is Operator.IN and any(
            each.key == term.key and each.operator is Operator.IN for each in terms
        ):
            # `subject=a,subject=b` holds of nobody, and whoever writes it means either.
            raise reader.error(f"{term.key} is asked for twice: write {term.key} in (…, …) for either", start)
        terms.append(term)
        if reader.done:
            return Selection(terms=tuple(terms))
        reader.expect(",", "a comma between two conditions")


class _Reader:
    """The text, and how far it has been read."""

    def __init__(self, text: str) -> None:
        self._text, self.at = text, 0

    @property
    def done(self) -> bool:
        return self.at >= len(self._text)

    def error(self, what: str, at: int | None = None) -> InvalidSelectionError:
        return InvalidSelectionError(f"selection, character {(self.at if at is None else at) + 1}: {what}")

    def blanks(self) -> None:
        while not self.done and self._text[self.at] in " \t":
            self.at += 1

    def takes(self, mark: str) -> bool:
        if not self._text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        self.blanks()
        return True

    def expect(self, mark: str, what: str) -> None:
        if not self.takes(mark):
            raise self.error(f"here should be {what}")

    def key(self) -> str:
        start = self.at
        while not self.done and self._text[self.at] in KEY:
            self.at += 1
        found = self._text[start : self.at]
        if not found:
            raise self.error("here should be a key")
        self.blanks()
        return found

    def value(self) -> str:
        start = self.at
        if self.done or self._text[start] != '"':
            return self._bare(start)
        self.at += 1
        found: list[str] = []
        while not self.done and self._text[self.at] != '"':
            if self._text[self.at] == "\\":
                self.at += 1
            if not self.done:
                found.append(self._text[self.at])
            self.at += 1
        if self.done:
            raise self.error("this quotation mark is never closed", start)
        self.at += 1
        return self._checked("".join(found), start)

    def _bare(self, start: int) -> str:
        while not self.done and self._text[self.at] not in _NOT_BARE and not self._text[self.at].isspace():
            self.at += 1
        if not self.done and self._text[self.at] in "*?":
            raise self.error(f'there are no patterns; "{self._text[self.at]}" in quotation marks means itself')
        if not self.done and self._text[self.at] in "=!'\\":
            raise self.error('a value with such a character stands in "quotation marks"')
        return self._checked(self._text[start : self.at], start)

    def _checked(self, found: str, start: int) -> str:
        if not found:
            raise self.error("here should be a value", start)
        if not found.isprintable():
            raise self.error("a value has printable characters only", start)
        self.blanks()
        return found


def _term(reader: _Reader, selectors: Mapping[str, Selector]) -> Term | None:
    """One condition; None for the word `all`."""
    missing = reader.takes("!")
    start = reader.at
    key = reader.key()
    if key == EVERYTHING and not missing:
        return None
    word, _, name = key.partition(".")
    selector = selectors.get(word)
    if selector is None:
        near = difflib.get_close_matches(word, selectors, n=1)
        meant = f": did you mean {near[0]}?" if near else ";"
        raise reader.error(f"there is no key {word}{meant} there are {', '.join(sorted(selectors))}", start)
    if selector.named != bool(name):
        how = f"is followed by a dot and a name: {selector.example}" if selector.named else "has no name after it"
        raise reader.error(f"{word} {how}", start)
    if missing:
        return Term(selector=selector, name=name, operator=Operator.MISSING)
    if selector.ordered:
        how, bound = _range(reader, selector)
        return Term(selector=selector, name=name, operator=how, bound=bound)
    how, values = _asked(reader, selector)
    return Term(selector=selector, name=name, operator=how, values=values)


def _range(reader: _Reader, selector: Selector) -> tuple[Operator, datetime | timedelta | None]:
    """One side of a range of times."""
    for how in RANGES:
        if reader.takes(how):
            return how, _bound(reader, selector)
    if reader.takes("!=") or reader.takes("="):
        raise reader.error(f"{selector.word} is a time: write {selector.example}, or the other way round")
    return Operator.EXISTS, None


def _bound(reader: _Reader, selector: Selector) -> datetime | timedelta:
    start = reader.at
    text = reader.value()
    try:
        if selector.kept is Kept.AGE:
            return parse_duration(text)
        at = datetime.fromisoformat(text)
        return datetime.fromisoformat(instant(at))  # refuses one without a zone
    except (ValueError, OverflowError):
        form = "a length of time, such as 90s, 15m or 8h" if selector.kept is Kept.AGE else "an instant with its zone"
        raise reader.error(f"here should be {form}: {selector.example}", start) from None


def _asked(reader: _Reader, selector: Selector) -> tuple[Operator, frozenset[str]]:
    if reader.takes("!="):
        return Operator.NOT_IN, frozenset({_value(reader, selector)})
    if reader.takes("==") or reader.takes("="):
        return Operator.IN, frozenset({_value(reader, selector)})
    for how in (Operator.NOT_IN, Operator.IN):
        if reader.takes(how):
            return how, _several(reader, selector)
    if any(reader.takes(sign) for sign in RANGES):
        raise reader.error(f"{selector.word} is no time, so it has no range")
    return Operator.EXISTS, frozenset()


def _several(reader: _Reader, selector: Selector) -> frozenset[str]:
    reader.expect("(", "( and values with commas between them")
    values = {_value(reader, selector)}
    while reader.takes(","):
        values.add(_value(reader, selector))
        if len(values) > MAX_VALUES:
            raise reader.error(f"there are more than {MAX_VALUES} values")
    reader.expect(")", "a comma or )")
    return frozenset(values)


def _value(reader: _Reader, selector: Selector) -> str:
    start = reader.at
    value = reader.value()
    if selector.choices and value not in selector.choices:
        raise reader.error(f"{selector.word} is one of {', '.join(sorted(selector.choices))}", start)
    return value


def _written(value: str) -> str:
    """A value so that it is read back as itself."""
    if not any(char in _NOT_BARE or char.isspace() for char in value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_NONE: Final = timedelta(0)
