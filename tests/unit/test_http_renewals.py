"""Renew and heartbeat over HTTP: what the answers say, and what the refusals are called (C8, C11)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from controlplane.model.grant import State
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane

Http = Callable[..., httpx.Response]
MINUTE = timedelta(minutes=1)


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement(heartbeat="60s"))


def post(http: Http, plane: FakePlane, what: str, body: dict[str, Any] | None = None) -> httpx.Response:
    id = plane.newest().id
    who = {"Authorization": f"Bearer {plane.issuer.mint(AGENT).reveal()}"}
    sent = {} if body is None else {"json": body}
    return http(plane, "POST", f"/v1/grants/{id}/{what}", headers=who, **sent)


def test_a_renewal_answers_with_the_new_end_and_why(http: Http, plane: FakePlane) -> None:
    plane.ask()
    plane.clock.advance(MINUTE / 2)
    for body in (None, {}, {"ttl": "6m"}):
        answer = post(http, plane, "renew", body)
        assert answer.status_code == 200
    told, grant = answer.json(), plane.newest()
    assert told["expires_at"] == told["grant"]["expires_at"] == grant.expires_at.isoformat()
    assert grant.expires_at == plane.clock.now() + 6 * MINUTE
    assert {lease["expires_at"] for lease in told["leases"]} == {told["expires_at"]}
    assert "eligible" in [why["code"] for why in told["reasons"]]
    assert told["heartbeat_due_at"] == (plane.clock.now() + MINUTE).isoformat()


def test_a_beat_answers_with_the_end_and_the_next_beat(http: Http, plane: FakePlane) -> None:
    plane.ask()
    plane.clock.advance(MINUTE / 2)
    told = post(http, plane, "heartbeat").json()
    grant = plane.newest()
    assert told["heartbeat_due_at"] == told["grant"]["heartbeat_due_at"] == (plane.clock.now() + MINUTE).isoformat()
    assert told["expires_at"] == grant.expires_at.isoformat()
    assert str(grant.accessor) not in str(told)


def test_one_token_may_beat_as_often_as_it_likes_although_it_asks_for_one_grant_only(
    http: Http, plane: FakePlane
) -> None:
    bearer = plane.issuer.mint(AGENT).reveal()
    who = {"Authorization": f"Bearer {bearer}"}
    wish = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}
    assert http(plane, "POST", "/v1/grants", headers=who, json=wish).status_code == 201
    for _ in range(3):
        for what in ("heartbeat", "renew"):
            answer = http(plane, "POST", f"/v1/grants/{plane.newest().id}/{what}", headers=who)
            assert answer.status_code == 200
    assert http(plane, "POST", "/v1/grants", headers=who, json=wish).json()["code"] == "token-replayed"


@pytest.mark.parametrize("what", ["renew", "heartbeat"])
def test_c11_what_changed_is_a_problem_with_reasons_and_the_next_one_says_that_it_has_ended(
    http: Http, plane: FakePlane, what: str
) -> None:
    plane.ask()
    plane.entitlements.by_name.clear()
    first, then = post(http, plane, what), post(http, plane, what)
    assert (first.status_code, first.json()["code"]) == (403, "context-changed")
    assert [why["code"] for why in first.json()["reasons"]] == ["not-eligible"]
    assert (then.status_code, then.json()["code"]) == (409, "ended")
    assert "context-changed" in then.json()["detail"]
    assert plane.newest().state is State.REVOKING


def test_vault_down_leaves_the_end_as_it_was(http: Http, plane: FakePlane) -> None:
    before = plane.ask().grant
    plane.clock.advance(MINUTE / 2)
    plane.vault.faults.sealed = True
    answer = post(http, plane, "renew")
    assert (answer.status_code, answer.json()["code"]) == (503, "vault-unavailable")
    assert plane.newest().expires_at == before.expires_at
    assert post(http, plane, "heartbeat").status_code == 200


@pytest.mark.parametrize("body", [{"ttl": "0s"}, {"ttl": 300}, {"ttl": "5m", "until": "tomorrow"}, {"ttl": "-5m"}])
def test_a_wish_that_cannot_be_read_changes_nothing(http: Http, plane: FakePlane, body: dict[str, Any]) -> None:
    before = plane.ask().grant
    plane.clock.advance(MINUTE / 2)
    assert post(http, plane, "renew", body).status_code == 422
    assert plane.newest() == before
