"""What an incident is about: the cuts that were ordered under its name, and their grants."""

from collections.abc import Iterator, Sequence

from controlplane.model.cut import Cut, CutId, Outcome
from controlplane.model.errors import NotFoundError
from controlplane.model.grant import Grant
from controlplane.ports import Store

_PAGE = 1_000


def cuts_of(store: Store, incident: str) -> Sequence[Cut]:
    """The cuts of the incident of this name, or the one of this id, oldest first.

    Raises: NotFoundError: nothing was cut under this name.
    """
    one = store.cut(CutId(incident))
    found = [one] if one is not None else [cut for cut in _every(store) if cut.incident == incident]
    if not found:
        raise NotFoundError(f"nothing was cut under the name {incident}")
    return found[::-1]


def grants_of(store: Store, cuts: Sequence[Cut]) -> Sequence[Grant]:
    """Every grant of the cuts, oldest first."""
    found = {
        grant.id: grant
        for cut in cuts
        if (total := store.progress(cut.id).total)
        for grant in store.of_cut(cut.id, Outcome, limit=total)
    }
    return sorted(found.values(), key=lambda grant: (grant.requested_at, grant.id))


def _every(store: Store) -> Iterator[Cut]:
    before: CutId | None = None
    while page := store.cuts(before=before, limit=_PAGE):
        yield from page
        before = page[-1].id
