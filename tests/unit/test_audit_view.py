"""An event as a sentence: short, whole, and never a failure."""

from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.cli.audit_view import row, sentence
from controlplane.model.canonical import JsonObject
from controlplane.model.event import Event, Kind, Link
from controlplane.model.grant import TaskId
from controlplane.model.request import GrantRequest
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane


def event(kind: Kind, **body: Any) -> Event:
    return Event(id="ev_1", at=datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=UTC), kind=kind, grant=None, body=body)


def test_every_event_of_a_grant_s_life_is_a_sentence_and_no_json() -> None:
    plane = FakePlane(compiled_entitlement())
    grant = plane.ask().grant
    plane.explain(plane.agent(), GrantRequest(entitlement="orders-read", task=TaskId("T-1"), intent="answer-question"))
    plane.end(grant.id)
    plane.work()
    told = {each.kind: sentence(each) for each in plane.events()}
    assert told[Kind.GRANT_ALLOWED] == f"orders-read for T-1 (answer-question), by dev {AGENT}"
    assert told[Kind.GRANT_EXPLAINED] == f"{told[Kind.GRANT_ALLOWED]}: allow"
    assert told[Kind.GRANT_ENDED] == "completed"
    assert told[Kind.LEASE_REVOKED].endswith("verified gone, task token revoked")
    assert told[Kind.GRANT_REVOKED] == "verified gone"
    assert not any("{" in text for text in told.values())


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("body", [{}, {"x": 1}, {"reasons": "?"}, {"reasons": [1], "entitlement": 1}])
def test_a_body_that_is_not_as_ours_are_is_shown_as_it_is(kind: Kind, body: JsonObject) -> None:
    assert isinstance(sentence(event(kind, **body)), str)
    if body == {"x": 1}:
        assert sentence(event(kind, **body)) == '{"x":1}'


def test_an_instant_is_told_to_the_second() -> None:
    assert row(Link(seq=1, event=event(Kind.GRANT_HEALED), mac=""))["at"] == "2026-07-01T12:00:00Z"
