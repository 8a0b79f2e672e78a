"""Reviews of broken glass over HTTP: which are open, and closing one with a note."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, WithJsonSchema

from controlplane.http.answers import GRANT_ID, Answer, Grant
from controlplane.http.caller import Caller, Plane, Stands
from controlplane.http.description import answers
from controlplane.http.grants import Id, grant_json
from controlplane.model.canonical import JsonValue
from controlplane.model.entitlement import Text
from controlplane.model.errors import NotAllowedError, NotEndedError, NotFoundError, OwnReviewError, ReviewedError
from controlplane.model.grant import GrantId
from controlplane.model.review import Review

router = APIRouter(prefix="/v1", tags=["reviews"])


class Note(BaseModel):
    """What a reviewer found."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"examples": [{"note": "one refund, as INC-7 asked for"}]}
    )

    note: Annotated[Text, WithJsonSchema({**TypeAdapter(Text).json_schema(), "allOf": [{"pattern": r"\S"}]})]
    """Of blanks only it says nothing: that is the verb's to refuse."""


class Closed(Answer):
    """Who looked at what was done, when, and what he found."""

    at: datetime
    issuer: str
    subject: str
    person: str | None
    note: str


class _Reviewed(Answer):
    issuer: str
    subject: str
    person: str | None
    opened_at: datetime
    closed: Closed | None


class OpenReview(_Reviewed):
    """A review that is owed, with the grant that it is of."""

    grant: Grant


class ClosedReview(_Reviewed):
    """A review, with the id of the grant that it is of."""

    grant: str = Field(pattern=GRANT_ID)


class Reviews(Answer):
    """A page of open reviews, oldest first."""

    reviews: list[OpenReview]


class OneReview(Answer):
    """A review as it was closed."""

    review: ClosedReview


@router.get("/reviews", responses=answers({200: Reviews}, NotAllowedError), response_model=None)
def list_reviews(
    plane: Plane, stands: Stands, after: Id | None = None, limit: Annotated[int, Query(ge=1, le=200)] = 100
) -> dict[str, JsonValue]:
    """Open reviews, oldest first, each with its grant: for approvers, responders and auditors."""
    page = plane.review.page(stands, after=GrantId(after) if after else None, limit=limit)
    return {"reviews": [{**_review(review), "grant": grant_json(grant)} for review, grant in page]}


_CLOSED = answers({200: OneReview}, NotAllowedError, NotFoundError, OwnReviewError, NotEndedError, ReviewedError)


@router.post("/grants/{id}/review", responses=_CLOSED, response_model=None)
def review_grant(id: Id, note: Note, plane: Plane, who: Caller, stands: Stands) -> dict[str, JsonValue]:
    """Close the review of a grant that has ended: an approver or responder who is not the one who broke the glass."""
    return {"review": {**_review(plane.review(who, stands, GrantId(id), note.note)), "grant": id}}


def _review(review: Review) -> dict[str, JsonValue]:
    closing = review.closing
    return {
        "issuer": review.issuer,
        "subject": review.subject,
        "person": review.person,
        "opened_at": review.opened_at.isoformat(),
        "closed": None
        if closing is None
        else {
            "at": closing.at.isoformat(),
            "issuer": closing.issuer,
            "subject": closing.subject,
            "person": closing.person,
            "note": closing.note,
        },
    }
