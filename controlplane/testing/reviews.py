"""Reviews of broken glass in memory: they refuse what SQL refuses; the contract suite proves it."""

from collections.abc import Container, Mapping, Sequence

from controlplane.model.errors import IllegalTransitionError, LostRaceError
from controlplane.model.grant import GrantId
from controlplane.model.review import Review

Reviews = dict[GrantId, Review]


def under(reviews: Mapping[GrantId, Review], names: frozenset[str]) -> Sequence[GrantId]:
    """Grants with an open review that shares one of these names, oldest first."""
    return [review.grant for review in _open(reviews) if review.names & names]


def add(reviews: Reviews, review: Review, grants: Container[GrantId]) -> None:
    """Save a new review. Raises: LostRaceError."""
    if review.grant not in grants or review.grant in reviews or under(reviews, review.names):
        raise LostRaceError("an id or an idempotency key was used before")
    reviews[review.grant] = review


def close(reviews: Reviews, review: Review) -> None:
    """Save how a review was closed. Raises: LostRaceError; IllegalTransitionError: by whoever broke the glass."""
    old = reviews.get(review.grant)
    if old is None or old.closing is not None:
        raise LostRaceError(f"the review of {review.grant} is not open any more")
    if review.closing is not None and review.closing.subject == old.subject:
        raise IllegalTransitionError("the store refuses: a review is closed by somebody else")
    reviews[review.grant] = review


def page(reviews: Mapping[GrantId, Review], after: GrantId | None, limit: int) -> Sequence[Review]:
    """A page of open reviews, oldest first."""
    last = None if after is None else reviews.get(after)
    if after is not None and last is None:
        return []
    return [review for review in _open(reviews) if last is None or _age(review) > _age(last)][:limit]


def _open(reviews: Mapping[GrantId, Review]) -> Sequence[Review]:
    return sorted((review for review in reviews.values() if review.closing is None), key=_age)


def _age(review: Review) -> tuple[object, ...]:
    return review.opened_at, review.grant
