"""Evidence over HTTP: the signed report of an incident."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from controlplane.http.answers import Answer
from controlplane.http.caller import Caller, Plane, Stands
from controlplane.http.description import answers
from controlplane.http.incidents import IncidentName
from controlplane.http.threads import in_thread
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import InvalidRequestError, NotAllowedError, NotFoundError

router = APIRouter(prefix="/v1", tags=["incidents"])


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class About(_Body):
    """Which incident: its name, or the id of one cut."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"incident": "INC-7"}]})

    incident: IncidentName


class Report(Answer):
    """A report. `bundle` is the file, byte for byte: save it in UTF-8 as it is."""

    incident: str
    grants: int
    records: int = Field(description="Records of the audit log that are in it in full.")
    bundle: str


_REPORTED = answers({200: Report}, NotAllowedError, NotFoundError, InvalidRequestError)


@router.post("/incidents/report", responses=_REPORTED, response_model=None)
async def report_incident(
    about: About, request: Request, plane: Plane, who: Caller, standing: Stands
) -> dict[str, JsonValue]:
    """Everything that is known of an incident, in one signed file that verifies offline. Making it is an event."""
    made = await in_thread(request, plane.report, who, standing, about.incident)
    return {"incident": made.incident, "grants": made.grants, "records": made.records, "bundle": made.bundle}
