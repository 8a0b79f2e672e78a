"""Reviews over HTTP: who may see and close which, and what each refusal is (C19, A08)."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from controlplane.model.grant import GrantId
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane

Http = Callable[..., httpx.Response]
WISH = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}
NOBODY_S = "gr_" + "z" * 24
NOTE = {"note": "needed, and narrow"}


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement(break_glass=True))


def bearer(plane: FakePlane, subject: str, role: str | None = None) -> dict[str, str]:
    return {"Authorization": f"Bearer {plane.issuer.mint(subject, role=role).reveal()}"}


def broken(plane: FakePlane) -> GrantId:
    return plane.ask(reason="the shop is down").grant.id


def code(answer: httpx.Response) -> tuple[int, str]:
    body: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, body["code"]


def test_a_second_break_glass_is_403_with_the_open_review_and_one_without_reason_too(
    plane: FakePlane, http: Http
) -> None:
    answer = http(plane, "POST", "/v1/grants", json=WISH, headers=bearer(plane, AGENT))
    assert (answer.status_code, [why["code"] for why in answer.json()["reasons"]]) == (403, ["reason-needed"])
    id = broken(plane)
    answer = http(plane, "POST", "/v1/grants", json={**WISH, "reason": "again"}, headers=bearer(plane, AGENT))
    (reason,) = answer.json()["reasons"]
    assert (answer.status_code, reason["decision"], reason["code"]) == (403, "approval", "review-open")
    assert id in reason["detail"]


@pytest.mark.parametrize("role", ["approver", "responder", "auditor"])
def test_open_reviews_are_listed_with_their_grants_and_nothing_that_opens_anything(
    plane: FakePlane, http: Http, role: str
) -> None:
    grant = plane.grant(broken(plane))
    answer = http(plane, "GET", "/v1/reviews", headers=bearer(plane, "bob", role))
    (review,) = answer.json()["reviews"]
    assert (review["subject"], review["closed"], review["grant"]["id"]) == (AGENT, None, grant.id)
    assert review["grant"]["reason"] == "the shop is down"
    assert str(grant.accessor) not in answer.text
    page = http(plane, "GET", f"/v1/reviews?after={grant.id}&limit=1", headers=bearer(plane, "bob", role))
    assert page.json() == {"reviews": []}


@pytest.mark.parametrize("role", [None, "platform"])
def test_whoever_has_no_such_role_sees_and_closes_nothing(plane: FakePlane, http: Http, role: str | None) -> None:
    id = broken(plane)
    who = bearer(plane, "bob", role)
    assert code(http(plane, "GET", "/v1/reviews", headers=who)) == (403, "not-allowed")
    for each in (id, NOBODY_S):
        answer = http(plane, "POST", f"/v1/grants/{each}/review", json=NOTE, headers=who)
        assert code(answer) == (403, "not-allowed")
    assert code(http(plane, "GET", "/v1/reviews")) == (401, "not-authenticated")
    assert code(http(plane, "POST", f"/v1/grants/{id}/review", json=NOTE)) == (401, "not-authenticated")


def test_an_auditor_looks_and_closes_nothing(plane: FakePlane, http: Http) -> None:
    answer = http(plane, "POST", f"/v1/grants/{broken(plane)}/review", json=NOTE, headers=bearer(plane, "b", "auditor"))
    assert code(answer) == (403, "not-allowed")


def test_a_review_is_closed_once_after_the_end_by_somebody_else(plane: FakePlane, http: Http) -> None:
    id = broken(plane)

    def close(subject: str, note: dict[str, Any] | None = None, grant: str = id) -> httpx.Response:
        path = f"/v1/grants/{grant}/review"
        return http(plane, "POST", path, json=note or NOTE, headers=bearer(plane, subject, "approver"))

    assert code(close("bob", grant=NOBODY_S)) == (404, "not-found")
    assert code(close("bob")) == (409, "not-ended")
    plane.end(id)
    assert code(close(AGENT)) == (409, "own-review")
    for wrong in (
        {"note": ""},
        {"note": " "},
        {"note": "a\nb"},
        {"note": "x" * 301},
        {"note": "x", "by": "eve"},
        {"n": 1},
    ):
        assert close("bob", wrong).status_code == 422
    answer = close("bob")
    assert answer.status_code == 200
    closed = answer.json()["review"]
    assert closed["grant"] == id
    assert (closed["closed"]["subject"], closed["closed"]["note"]) == ("bob", "needed, and narrow")
    assert code(close("eve")) == (409, "already-reviewed")
    assert http(plane, "GET", "/v1/reviews", headers=bearer(plane, "bob", "auditor")).json() == {"reviews": []}


def test_a_caller_sees_which_of_his_entitlements_break_the_glass(plane: FakePlane, http: Http) -> None:
    answer = http(plane, "GET", "/v1/entitlements", headers=bearer(plane, AGENT))
    assert [each["break_glass"] for each in answer.json()["entitlements"]] == [True]
