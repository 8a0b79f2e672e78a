"""The keys of a selection. A file in this folder with a `SELECTOR` is one; nothing else lists them."""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache, lru_cache
from types import MappingProxyType

from controlplane.model.approval import GivenApproval
from controlplane.model.grant import Grant, TaskId
from controlplane.model.lease import Lease
from controlplane.model.selection import (
    KEY,
    Asking,
    Kept,
    Note,
    Selectable,
    Selection,
    Selector,
    parse_selection,
)

_UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"


@cache
def selectors() -> Mapping[str, Selector]:
    """Every selector by its word, which is its file's name.

    Raises: LookupError: a file without `SELECTOR`, or whose word is not its name: a fault in the code.
    """
    found: dict[str, Selector] = {}
    for module in pkgutil.iter_modules(__path__):
        selector: Selector | None = getattr(importlib.import_module(f"{__name__}.{module.name}"), "SELECTOR", None)
        if selector is None or selector.word != module.name:
            raise LookupError(f"selectors/{module.name}.py must have a SELECTOR whose word is {module.name!r}")
        found[selector.word] = selector
    return MappingProxyType(found)


@lru_cache(maxsize=256)
def selection(text: str) -> Selection:
    """The selection that `text` writes. Raises: InvalidSelectionError: it writes none."""
    return parse_selection(text, selectors())


def noted(asking: Asking) -> Note:
    """What to write down of a request, so that its grant can be selected later by what is known only now.

    A name that no selection can write is left out; a value that none can is there, and is none that one asks for.
    """
    note: dict[str, tuple[str, ...]] = {}
    for selector in selectors().values():
        if selector.note is None:
            continue
        for name, values in selector.note(asking).items():
            told = sorted({value if value.isprintable() else _UNPRINTABLE for value in values})
            if told and KEY.issuperset(name) and bool(name) == selector.named:
                note[f"{selector.word}.{name}" if name else selector.word] = tuple(told)
    return note


def asked_for(asking: Asking) -> Selectable:
    """A request as it can be selected."""
    known = {key: frozenset(values) for key, values in noted(asking).items()}
    for word, selector in selectors().items():
        match selector.kept:
            case Kept.GRANT if selector.of_request:
                known[word] = frozenset({getattr(asking, word)})
            case Kept.TASK:
                known[word] = frozenset({asking.task, *asking.above})
            case _:
                pass
    return Selectable(known=known)


def granted(
    grant: Grant,
    note: Note,
    *,
    line: Iterable[TaskId],
    leases: Iterable[Lease],
    approvals: Iterable[GivenApproval],
    at: datetime,
) -> Selectable:
    """A grant as it can be selected at `at`; `line` are its task and those which that is a part of."""
    known = {key: frozenset(values) for key, values in note.items()}
    for word, selector in selectors().items():
        match selector.kept:
            case Kept.GRANT:
                known[word] = frozenset({str(getattr(grant, word))})
            case Kept.TASK:
                known[word] = frozenset({grant.task, *line})
            case Kept.LEASE:
                known[word] = frozenset(str(getattr(lease, word)) for lease in leases)
            case Kept.APPROVAL:
                known[word] = frozenset(given.by.subject for given in approvals)
            case Kept.NOTE | Kept.ISSUED | Kept.AGE:
                pass
    return Selectable(known=known, issued=grant.issued_at or grant.requested_at, age=at - grant.requested_at)


__all__ = ["asked_for", "granted", "noted", "selection", "selectors"]
