"""Needs over HTTP: what is needed, answered with the least that the caller can ask for."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from controlplane.grants.cover import MOST
from controlplane.http.answers import Answer
from controlplane.http.caller import Caller, Plane
from controlplane.http.description import answers
from controlplane.http.entitlements import WhoCould
from controlplane.model.canonical import JsonValue
from controlplane.model.entitlement import Text
from controlplane.model.errors import InvalidRequestError

router = APIRouter(prefix="/v1/needs", tags=["entitlements"])


class AskFor(Answer):
    """What a request for it names."""

    entitlement: str
    intent: str


class Found(Answer):
    """An entitlement that covers some of the needs, and what it costs."""

    covers: list[str]
    ask: AskFor
    access: WhoCould


class FoundAccess(Answer):
    """The narrowest set that covers whatever can be covered; `missing` nothing covers that the caller may ask for."""

    needs: list[str]
    missing: list[str]
    found: list[Found]


class Find(BaseModel):
    """What is needed: as it would be done, or in the words of a refusal."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"needs": ["update billing.invoices"]}, {"needs": ["payments/gateway"]}]},
    )

    needs: list[Annotated[Text, Field(max_length=200)]] = Field(min_length=1, max_length=MOST)
    intent: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z][a-z0-9-]*$")] | None = None


@router.post("", responses=answers({200: FoundAccess}, InvalidRequestError), response_model=None)
def find_access(find: Find, plane: Plane, who: Caller) -> dict[str, JsonValue]:
    """The least that the caller can ask for and have what it needs, each with its cost and how to ask."""
    return plane.find(who, find.needs, intent=find.intent)
