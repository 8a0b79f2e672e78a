"""Whoever follows a cut is known, may look at it, and is told no more when his token has ended (A26)."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from controlplane.http import incidents
from controlplane.incident.cuts import Seen
from controlplane.model.access import Role, Standing
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane

Http = Callable[..., httpx.Response]


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> FakePlane:
    monkeypatch.setattr(incidents, "_BETWEEN", 0.001)
    return FakePlane(compiled_entitlement())


@pytest.fixture
def path(plane: FakePlane) -> str:
    """Where a cut is followed that nobody works on."""
    plane.ask()
    ann, standing = plane.agent("ann"), Standing(roles=frozenset({Role.RESPONDER}))
    digest = plane.preview(ann, standing, "task=T-1").digest
    assert digest is not None
    cut = plane.cut(ann, standing, digest, incident="INC-1", reason="a test")
    return f"/v1/incidents/{cut.cut.id}/events"


def bearer(plane: FakePlane, subject: str = "ann", **claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {plane.issuer.mint(subject, **claims).reveal()}"}


def test_a26_an_agent_follows_no_cut_not_even_of_its_own_grants(plane: FakePlane, http: Http, path: str) -> None:
    assert http(plane, "GET", path).status_code == 401
    for subject in (AGENT, "somebody-else"):
        answer = http(plane, "GET", path, headers=bearer(plane, subject))
        assert answer.status_code == 403
        assert "INC-1" not in answer.text


def test_a26_a_stream_ends_with_the_token_that_asked_for_it(
    plane: FakePlane, http: Http, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, look = 0, plane.cuts

    def slow(*given: Any, **more: Any) -> Seen:
        nonlocal told
        told += 1
        plane.clock.advance(timedelta(minutes=1))
        return look(*given, **more)

    monkeypatch.setattr(plane, "cuts", slow)
    answer = http(plane, "GET", path, headers=bearer(plane, ttl=timedelta(minutes=5), role="responder"))
    assert answer.status_code == 200
    assert told == 5
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert [event["cut"]["ended_at"] for event in events] == [None]
