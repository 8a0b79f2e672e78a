"""Review a broken glass: somebody else looks at all that was done with the grant, and says what he found."""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.model.access import Role, Standing
from controlplane.model.errors import (
    InvalidRequestError,
    LostRaceError,
    NotAllowedError,
    NotEndedError,
    NotFoundError,
    OwnReviewError,
    ReviewedError,
)
from controlplane.model.event import Kind
from controlplane.model.grant import TERMINAL, Grant, GrantId
from controlplane.model.identity import VerifiedClaims
from controlplane.model.review import Review
from controlplane.ports import Clock, Recorder, Store

CLOSERS = frozenset({Role.APPROVER, Role.RESPONDER})
"""Who may close a review."""
LOOKERS = CLOSERS | {Role.AUDITOR}
"""Who may see which are open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewGrant:
    """From an open review to a closed one; until then whoever broke the glass breaks no other."""

    clock: Clock
    record: Recorder
    store: Store

    def __call__(self, who: VerifiedClaims, stands: Standing, id: GrantId, note: str) -> Review:
        """The review of grant `id` as it was closed.

        Raises:
            NotAllowedError: the caller has none of the roles.
            InvalidRequestError: the note says nothing.
            NotFoundError: there is no such review.
            OwnReviewError: the caller shares a name with whoever broke the glass.
            NotEndedError: the grant has not ended: a review covers all of it, or it is worth nothing.
            ReviewedError: it was closed before.
        """
        _must_be(stands, CLOSERS)
        if not note.strip():
            raise InvalidRequestError("note: say what was done with the grant, and whether it was right")
        review, grant = self._found(id)
        if review.names & who.names:
            raise OwnReviewError(f"{who.subject} is, or may be, the one who broke the glass for {id}")
        if review.closing is not None:
            raise ReviewedError(f"the review of {id} was closed before")
        if grant.state not in TERMINAL:
            raise NotEndedError(f"{id} is {grant.state}: its credentials are not proved gone")
        closed = review.closed(who, note, at=self.clock.now())
        told = {"issuer": who.issuer, "subject": who.subject, "person": who.person, "note": note}
        try:
            with self.store.transaction() as tx:
                tx.close_review(closed, self.record(Kind.GLASS_REVIEWED, id, **told))
        except LostRaceError:
            raise ReviewedError(f"the review of {id} was closed before") from None
        return closed

    def page(self, stands: Standing, *, after: GrantId | None, limit: int) -> Sequence[tuple[Review, Grant]]:
        """Open reviews with their grants, oldest first. Raises: NotAllowedError: the caller has none of the roles."""
        _must_be(stands, LOOKERS)
        found = ((review, self.store.grant(review.grant)) for review in self.store.reviews(after=after, limit=limit))
        return [(review, grant) for review, grant in found if grant is not None]

    def _found(self, id: GrantId) -> tuple[Review, Grant]:
        review, grant = self.store.review(id), self.store.grant(id)
        if review is None or grant is None:
            raise NotFoundError(f"no glass was broken for a grant {id}")
        return review, grant


def _must_be(stands: Standing, roles: frozenset[Role]) -> None:
    if not stands.roles & roles:
        raise NotAllowedError(f"this needs one of the roles {', '.join(sorted(roles))}")
