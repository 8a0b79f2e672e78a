"""The audit log over HTTP: pages of the chain, for auditors."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from controlplane.audit.export import as_data
from controlplane.http.answers import Answer
from controlplane.http.caller import Caller, Plane, Stands
from controlplane.http.description import answers
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import NotAllowedError

router = APIRouter(prefix="/v1/audit", tags=["audit"])


class Event(Answer):
    """One event of the audit log, as `audit export` writes it."""

    seq: int
    at: datetime
    kind: str
    grant: str | None
    id: str
    body: dict[str, Any]
    mac: str


class UnreadableEvent(Answer):
    """One that cannot be read any more; it keeps its number."""

    seq: int
    unreadable: str


class Events(Answer):
    """A page of the audit log, oldest first. `next` is the `after` of the page that follows."""

    events: list[Event | UnreadableEvent]
    next: int


@router.get("/events", responses=answers({200: Events}, NotAllowedError), response_model=None)
def list_events(
    plane: Plane,
    who: Caller,
    standing: Stands,
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, JsonValue]:
    """Events with a `seq` greater than `after`, oldest first, as `audit export` writes them. Reading is an event, too.

    `next` is the `after` of the page that follows; the same as `after` where nothing did.
    """
    links = plane.read_audit(who, standing, after=after, limit=limit)
    return {"events": [dict(as_data(link)) for link in links], "next": links[-1].seq if links else after}
