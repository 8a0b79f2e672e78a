"""Reviews of broken glass over HTTP: which are open, and closing one with a note."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from controlplane.http.caller import Caller, Plane, Stands
from controlplane.http.grants import Id, grant_json
from controlplane.model.canonical import JsonValue
from controlplane.model.entitlement import Text
from controlplane.model.grant import GrantId
from controlplane.model.review import Review

router = APIRouter(prefix="/v1", tags=["reviews"])


class Note(BaseModel):
    """What a reviewer found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    note: Text


@router.get("/reviews")
def list_reviews(
    plane: Plane, stands: Stands, after: Id | None = None, limit: Annotated[int, Query(ge=1, le=200)] = 100
) -> dict[str, JsonValue]:
    """Open reviews, oldest first, each with its grant: for approvers, responders and auditors."""
    page = plane.review.page(stands, after=GrantId(after) if after else None, limit=limit)
    return {"reviews": [{**_review(review), "grant": grant_json(grant)} for review, grant in page]}


@router.post("/grants/{id}/review")
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
