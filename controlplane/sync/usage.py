"""Intents that nobody names: what an entitlement offers, and no task has asked for in a while (C27)."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from controlplane.ports import Store
from controlplane.sync.load import Source
from controlplane.sync.problem import Problem, Severity

_PAGE = 1000


def unused(sources: Iterable[Source], store: Store, *, since: datetime) -> Iterator[Problem]:
    """A warning for each intent by which nothing was asked for since then.

    Raises: StoreUnavailableError: nobody can tell.
    """
    for source in sources:
        intents = source.entitlement.intents
        used = _used(store, source.entitlement.name, frozenset(intents), since)
        for place, intent in enumerate(intents):
            if intent not in used:
                told = f"nobody has asked for {intent} since {since:%Y-%m-%d}: take it out if no task needs it"
                at = source.document.place(("intents", place))
                yield Problem(source.file, at.line, at.column, "unused-intent", told, Severity.WARNING)


def _used(store: Store, entitlement: str, intents: frozenset[str], since: datetime) -> frozenset[str]:
    used: frozenset[str] = frozenset()
    before = None
    while used < intents:
        page = store.grants(entitlement=entitlement, before=before, limit=_PAGE)
        recent = [grant for grant in page if grant.requested_at >= since]
        used |= intents.intersection(grant.intent for grant in recent)
        if len(recent) < _PAGE:
            break
        before = recent[-1].id
    return used
