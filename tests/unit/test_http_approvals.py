"""Approvals over HTTP: who may see, say and collect what, in which words (A01, A02, A03, A18, C07, P12)."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import httpx
import pytest

from controlplane.http.app import create_app
from controlplane.model.grant import GrantId, State, TaskId
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane
from controlplane.wiring.plane import ControlPlane

Http = Callable[..., httpx.Response]
WISH = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question", "reason": "order 7 is wrong"}
NOBODY_S = "gr_" + "z" * 24


@pytest.fixture
def plane() -> FakePlane:
    return made()


def made(**approval: Any) -> FakePlane:
    return FakePlane(compiled_entitlement(risk="high", approval={"quorum": 1, "from": ["group:oncall"], **approval}))


def bearer(plane: FakePlane, subject: str = AGENT, **claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {plane.issuer.mint(subject, **claims).reveal()}"}


def approver(plane: FakePlane, name: str = "ann", group: str = "oncall") -> dict[str, str]:
    return bearer(plane, name, role="approver", groups=[group])


def asked(plane: FakePlane, http: Http, **changes: str) -> dict[str, Any]:
    answer = http(plane, "POST", "/v1/grants", json={**WISH, **changes}, headers=bearer(plane))
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/grants/{answer.json()['grant']['id']}"
    found: dict[str, Any] = answer.json()["asked"]
    return found


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_c18_from_a_request_to_a_collect_in_four_calls(plane: FakePlane, http: Http) -> None:
    shown = asked(plane, http)
    id, path = shown["grant"], f"/v1/grants/{shown['grant']}"
    assert (shown["subject"], shown["reason"], shown["ttl"]) == (AGENT, "order 7 is wrong", "5m")
    assert shown["scopes"][0]["reach"]
    seen = http(plane, "GET", path, headers=approver(plane)).json()
    assert seen["asked"] == shown
    said = http(plane, "POST", f"{path}/approve", json={"digest": shown["digest"]}, headers=approver(plane))
    assert (said.status_code, said.json()["grant"]["state"]) == (200, "approved")
    assert [one["subject"] for one in said.json()["approvals"]] == ["ann"]
    collected = http(plane, "POST", f"{path}/collect", headers=bearer(plane))
    assert collected.status_code == 201
    assert collected.json()["wrapping_token"]
    assert plane.grant(id).state is State.ACTIVE
    assert code(http(plane, "POST", f"{path}/collect", headers=bearer(plane))) == (409, "illegal-transition")


def test_c17_narrowing_over_http_is_what_is_issued(plane: FakePlane, http: Http) -> None:
    shown = asked(plane, http)
    path = f"/v1/grants/{shown['grant']}"
    body = {"digest": shown["digest"], "reason": "two minutes will do", "narrow": {"ttl": "2m", "scopes": ["orders"]}}
    said = http(plane, "POST", f"{path}/approve", json=body, headers=approver(plane))
    assert said.json()["approvals"][0]["narrow"] == {"ttl": "2m", "scopes": ["orders"]}
    assert http(plane, "POST", f"{path}/collect", headers=bearer(plane)).json()["grant"]["ttl"] == "2m"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"digest": "0" * 63},
        {"digest": "0" * 64, "approved_by": "ann"},
        {"digest": "0" * 64, "narrow": {"ttl": "2m", "risk": "low"}},
        {"digest": "0" * 64, "narrow": {"scopes": []}},
        {"digest": "0" * 64, "narrow": {"ttl": 60}},
        {"digest": "0" * 64, "reason": "two\nlines"},
    ],
)
def test_a03_a_body_that_says_more_or_less_is_422_and_nothing_is_recorded(
    plane: FakePlane, http: Http, body: dict[str, Any]
) -> None:
    shown = asked(plane, http)
    answer = http(plane, "POST", f"/v1/grants/{shown['grant']}/approve", json=body, headers=approver(plane))
    assert code(answer) == (422, "invalid-request")
    assert plane.store.approvals(GrantId(shown["grant"])) == []


def test_a01_who_may_see_and_decide_on_what_waits(plane: FakePlane, http: Http) -> None:
    shown = asked(plane, http)
    path, yes = f"/v1/grants/{shown['grant']}", {"digest": shown["digest"]}
    none = f"/v1/grants/{NOBODY_S}"
    stranger, other = approver(plane, group="sales"), bearer(plane, "repo:mallory/fork:ref:refs/heads/main")
    for who, see, decide in (
        ({}, (401, "not-authenticated"), (401, "not-authenticated")),
        (other, (404, "not-found"), (403, "not-allowed")),
        (bearer(plane, "r", role="responder", groups=["oncall"]), None, (403, "not-allowed")),
        (stranger, (404, "not-found"), (404, "not-found")),
        (bearer(plane), None, (403, "not-allowed")),
        (bearer(plane, AGENT, role="approver", groups=["oncall"]), None, (403, "may-not-approve")),
    ):
        seen = http(plane, "GET", path, headers=who)
        assert (seen.status_code, None if see is None else seen.json()["code"]) == ((200, None) if see is None else see)
        assert code(http(plane, "POST", f"{path}/approve", json=yes, headers=who)) == decide
        assert code(http(plane, "POST", f"{path}/deny", json={"reason": "no"}, headers=who)) == decide
    for who in (stranger, other):  # A02: what is not his looks like what is not there
        there, nowhere = http(plane, "GET", path, headers=who), http(plane, "GET", none, headers=who)
        assert there.text.replace(shown["grant"], NOBODY_S) == nowhere.text
    assert plane.grant(GrantId(shown["grant"])).state is State.PENDING


def test_an_approver_sees_no_grant_that_does_not_wait(plane: FakePlane, http: Http) -> None:
    shown = asked(plane, http)
    path = f"/v1/grants/{shown['grant']}"
    http(plane, "POST", f"{path}/deny", json={"reason": "not at night"}, headers=approver(plane))
    assert http(plane, "GET", path, headers=approver(plane)).status_code == 404
    own = http(plane, "GET", path, headers=bearer(plane)).json()
    assert (own["grant"]["state"], own["denial"]["reason"], own["denial"]["subject"]) == (
        "denied",
        "not at night",
        "ann",
    )
    refused = http(plane, "POST", f"{path}/collect", headers=bearer(plane))
    assert code(refused) == (403, "denied")
    assert "not at night" in refused.json()["reasons"][0]["detail"]


def test_a08_each_refusal_has_its_own_code(http: Http) -> None:
    plane = made(quorum=2)
    shown = asked(plane, http)
    path = f"/v1/grants/{shown['grant']}"

    def approve(who: dict[str, str], digest: str = shown["digest"]) -> tuple[int, str]:
        return code(http(plane, "POST", f"{path}/approve", json={"digest": digest}, headers=who))

    assert approve(approver(plane), "0" * 64) == (409, "other-digest")
    http(plane, "POST", f"{path}/approve", json={"digest": shown["digest"]}, headers=approver(plane))
    assert approve(approver(plane)) == (409, "already-approved")
    assert code(http(plane, "POST", f"{path}/collect", headers=bearer(plane))) == (409, "not-approved-yet")
    plane.clock.advance(timedelta(minutes=31))
    assert approve(approver(plane, "eve")) == (409, "lapsed")


def test_c07_following_a_link_approves_nothing(plane: FakePlane, http: Http) -> None:
    shown = asked(plane, http)
    for verb in ("approve", "deny", "collect"):
        path = f"/v1/grants/{shown['grant']}/{verb}?digest={shown['digest']}"
        assert http(plane, "GET", path, headers=approver(plane)).status_code == 405
    assert plane.grant(GrantId(shown["grant"])).state is State.PENDING


def test_the_same_request_again_tells_that_it_waits_or_is_to_be_collected(plane: FakePlane, http: Http) -> None:
    def again() -> httpx.Response:
        headers = {**bearer(plane), "Idempotency-Key": "k"}
        return http(plane, "POST", "/v1/grants", json=WISH, headers=headers)

    shown = again().json()["asked"]
    assert again().json()["asked"] == shown
    body = {"digest": shown["digest"]}
    http(plane, "POST", f"/v1/grants/{shown['grant']}/approve", json=body, headers=approver(plane))
    told = again()
    assert (told.status_code, told.json()["grant"]["state"]) == (202, "approved")
    assert len(plane.store.grants()) == 1


def test_a18_the_list_is_grouped_and_paged(http: Http) -> None:
    plane = FakePlane(
        compiled_entitlement(risk="high", approval={"quorum": 1, "from": ["group:oncall"]}),
        compiled_entitlement(
            entitlement="others",
            risk="high",
            approval={"quorum": 1, "from": ["group:else"]},
            ttl={"default": "1m", "max": "2m"},
        ),
    )
    for number in range(7):
        plane.ask(task=TaskId(f"T-{number}"))
        plane.clock.advance(timedelta(seconds=1))
    plane.ask(entitlement="others")
    page = http(plane, "GET", "/v1/approvals", headers=approver(plane)).json()
    (group,) = page["groups"]
    assert (group["entitlement"], group["subject"], group["count"], page["next"]) == ("orders-read", AGENT, 7, None)
    assert [waiting["asked"]["task"] for waiting in group["waiting"]] == [f"T-{number}" for number in range(6, -1, -1)]
    seen: list[str] = []
    before = ""
    while True:
        page = http(plane, "GET", f"/v1/approvals?limit=3{before}", headers=approver(plane)).json()
        seen += [waiting["asked"]["task"] for group in page["groups"] for waiting in group["waiting"]]
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    assert seen == [f"T-{number}" for number in range(6, -1, -1)]
    assert code(http(plane, "GET", "/v1/approvals", headers=bearer(plane))) == (403, "not-allowed")
    assert code(http(plane, "GET", "/v1/approvals?limit=0", headers=approver(plane))) == (422, "invalid-request")


def test_a18_a_flood_is_429(plane: FakePlane, http: Http) -> None:
    for number in range(20):
        plane.ask(task=TaskId(f"T-{number}"))
    answer = http(plane, "POST", "/v1/grants", json=WISH, headers=bearer(plane))
    assert code(answer) == (429, "over-budget")
    assert answer.json()["reasons"][0]["code"] == "too-many-waiting"
    explained = http(plane, "POST", "/v1/grants?dry_run=1", json=WISH, headers=bearer(plane))
    assert explained.json()["status"] == 429


def test_c18_a_waiting_agent_is_answered_as_soon_as_somebody_has_decided(plane: FakePlane) -> None:
    id = plane.ask().grant.id
    headers, ann = bearer(plane), approver(plane)
    shown = plane.watch.asked(plane.grant(id))
    assert shown is not None
    digest = shown.digest

    async def story() -> tuple[httpx.Response, httpx.Response, float]:
        app = create_app(cast("ControlPlane", plane), worker=False)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://door") as client:
            early = await client.get(f"/v1/grants/{id}?wait=1s", headers=headers)
            loop = asyncio.get_running_loop()
            began = loop.time()
            waiting = asyncio.create_task(client.get(f"/v1/grants/{id}?wait=30s", headers=headers))
            await client.post(f"/v1/grants/{id}/approve", json={"digest": digest}, headers=ann)
            return early, await waiting, loop.time() - began

    early, answer, took = asyncio.run(story())
    assert early.json()["grant"]["state"] == "pending"
    assert answer.json()["grant"]["state"] == "approved"
    assert took < 10
