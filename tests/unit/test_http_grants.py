"""Grants over HTTP: each answer has its status, its problem and nothing that it should not hold (P5, P12; A02, A03)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from controlplane.model.errors import StoreUnavailableError
from controlplane.model.event import Kind
from controlplane.model.grant import GrantId, State, Why
from controlplane.testing.entitlements import LAYOUT, compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane

Http = Callable[..., httpx.Response]
WISH = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}
NOBODY_S = "gr_" + "z" * 24
STRANGER = "repo:mallory/fork:ref:refs/heads/main"


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement())


def bearer(plane: FakePlane, subject: str = AGENT) -> dict[str, str]:
    return {"Authorization": f"Bearer {plane.issuer.mint(subject).reveal()}"}


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of a problem, once it is seen to be one. Source: RFC 9457 3."""
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code), body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert set(body) >= {"type", "title", "detail"}
    return body


def test_a_grant_is_answered_with_a_wrapping_token_and_no_credential(plane: FakePlane, http: Http) -> None:
    answer = http(plane, "POST", "/v1/grants", json={**WISH, "reason": "who ordered?"}, headers=bearer(plane))
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert set(body) == {"grant", "leases", "expires_at", "reasons", "wrapping_token"}
    grant = plane.newest()
    assert answer.headers["location"] == f"/v1/grants/{grant.id}"
    assert body["grant"]["state"] == "active"
    assert body["grant"]["reason"] == "who ordered?"
    assert body["expires_at"] == grant.expires_at.isoformat()
    assert [lease["scope"] for lease in body["leases"]] == ["orders"]
    assert [why["decision"] for why in body["reasons"]] == ["eligibility", "context", "scope", "policy", "approval"]
    for handle in (grant.accessor, grant.wrap_accessor):  # they end things: nobody's but ours
        assert str(handle) not in answer.text


def test_what_would_be_decided_is_answered_200_and_neither_makes_nor_spends_anything(
    plane: FakePlane, http: Http
) -> None:
    who = bearer(plane)
    for _ in range(2):
        answer = http(plane, "POST", "/v1/grants?dry_run=1", json=WISH, headers=who)
        assert (answer.status_code, answer.json()["decision"], answer.json()["status"]) == (200, "allow", 201)
        assert answer.headers["cache-control"] == "no-store"
        assert "location" not in answer.headers
    assert plane.store.grants() == []
    assert http(plane, "POST", "/v1/grants", json=WISH, headers=who).status_code == 201


def test_a_token_that_asks_for_a_second_grant_is_401_and_told_so(plane: FakePlane, http: Http) -> None:
    who = bearer(plane)
    assert http(plane, "POST", "/v1/grants", json=WISH, headers=who).status_code == 201
    answer = http(plane, "POST", "/v1/grants", json={**WISH, "task": "T-2"}, headers=who)
    problem(answer, 401, "token-replayed")
    assert answer.headers["www-authenticate"] == 'Bearer realm="shorthold", error="invalid_token"'
    assert len(plane.store.grants()) == 1


def test_a_rate_that_is_used_up_is_429_with_the_time_to_come_back(http: Http) -> None:
    plane = FakePlane(compiled_entitlement(context={"max_requests": {"per_subject": "1/h"}}))
    plane.ask()
    answer = http(plane, "POST", "/v1/grants", json=WISH, headers=bearer(plane))
    problem(answer, 429, "over-budget")
    assert answer.headers["retry-after"] == "3600"


def test_inline_delivery_answers_with_the_credentials_themselves(http: Http) -> None:
    plane = FakePlane(compiled_entitlement(delivery="inline"))
    body = http(plane, "POST", "/v1/grants", json=WISH, headers=bearer(plane)).json()
    assert "wrapping_token" not in body
    assert body["credentials"]["orders"]["username"] in plane.vault.target.users


def test_what_people_have_to_agree_to_is_answered_202_and_where_to_look(http: Http) -> None:
    plane = FakePlane(compiled_entitlement(risk="high", approval={"quorum": 1, "from": ["group:oncall"]}))
    answer = http(plane, "POST", "/v1/grants", json=WISH, headers=bearer(plane))
    assert (answer.status_code, answer.json()["grant"]["state"]) == (202, "pending")
    assert answer.headers["location"] == f"/v1/grants/{plane.newest().id}"


def test_a_denial_is_403_with_every_reason(plane: FakePlane, http: Http) -> None:
    asked = {**WISH, "intent": "drop-tables", "ttl": "8h"}
    body = problem(http(plane, "POST", "/v1/grants", json=asked, headers=bearer(plane)), 403, "denied")
    assert [(why["decision"], why["code"]) for why in body["reasons"]] == [
        ("scope", "unknown-intent"),
        ("scope", "ttl-above-maximum"),
    ]
    assert all(why["detail"] for why in body["reasons"])


@pytest.mark.parametrize(
    "ttl",
    [
        *("", "0", "0s", "-5m", "+5m", "5", "1.5m", "1e18", "5m5m", "\u0665m", "five", "Infinity", "NaN", " 5m"),
        *(0, -300, 300, 300.0, 1e18, 10**30, True, False, [], {}, ["5m"]),
    ],
)
def test_a04_a_ttl_that_is_no_span_is_422_and_grants_nothing(plane: FakePlane, http: Http, ttl: object) -> None:
    problem(http(plane, "POST", "/v1/grants", json={**WISH, "ttl": ttl}, headers=bearer(plane)), 422, "invalid-request")
    assert plane.store.grants() == []


@pytest.mark.parametrize("ttl", ["901s", "16m", "8h", "1000000h", "9" * 9 + "h"])
def test_a04_a_ttl_above_the_ceiling_is_denied_and_never_cut_to_it(plane: FakePlane, http: Http, ttl: str) -> None:
    answer = http(plane, "POST", "/v1/grants", json={**WISH, "ttl": ttl}, headers=bearer(plane))
    assert answer.status_code in {403, 422}, answer.text
    assert plane.store.grants() == []


def test_a_stranger_is_told_the_same_of_what_exists_and_what_does_not(plane: FakePlane, http: Http) -> None:  # P07
    bodies = [
        http(plane, "POST", "/v1/grants", json={**WISH, "entitlement": name}, headers=bearer(plane, STRANGER)).text
        for name in ("orders-read", "orders-none")
    ]
    assert bodies[0].replace("orders-read", "orders-none") == bodies[1]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/grants"),
        ("GET", "/v1/grants"),
        ("GET", f"/v1/grants/{NOBODY_S}"),
        ("POST", f"/v1/grants/{NOBODY_S}/finish"),
        ("GET", "/v1/entitlements"),
    ],
)
def test_without_exactly_one_good_bearer_token_nothing_is_answered(
    plane: FakePlane, http: Http, method: str, path: str
) -> None:
    body = {"json": WISH} if path == "/v1/grants" and method == "POST" else {}
    good = bearer(plane)["Authorization"]
    bad: list[list[tuple[str, str]]] = [
        [],
        [("Authorization", good), ("Authorization", good)],  # A22
        [("Authorization", good.removeprefix("Bearer "))],
        [("Authorization", f"Basic {good}")],
        [("Authorization", "Bearer ")],
        [("Authorization", "Bearer not-a-token")],
        [("Authorization", good[:-4] + "AAAA")],
        [("Authorization", f"Bearer {plane.issuer.mint(AGENT, iss='https://elsewhere.example').reveal()}")],
        [("X-Authorization", good), ("Cookie", f"token={good}")],
    ]
    for headers in bad:
        answer = http(plane, method, path, headers=headers, **body)
        problem(answer, 401, "not-authenticated")
        told = ', error="invalid_token"' if "Authorization" in dict(headers) else ""  # RFC 6750 3.1
        assert answer.headers["www-authenticate"] == f'Bearer realm="shorthold"{told}'
    assert plane.store.grants() == []


def test_whatever_is_wrong_with_a_token_the_caller_is_told_the_same(plane: FakePlane, http: Http) -> None:  # J47
    now = int(plane.clock.now().timestamp())
    tokens = [
        plane.issuer.mint(AGENT, iss="https://elsewhere.example"),
        plane.issuer.mint(AGENT, exp=now - 3600),
        plane.issuer.mint(AGENT, aud="somebody-else"),
        plane.issuer.mint(AGENT, without=["sub"]),
        plane.issuer.forge({}, plane.issuer.claims(AGENT), signature=b"\0" * 64),
    ]
    answers = [
        http(plane, "GET", "/v1/grants", headers={"Authorization": f"Bearer {token.reveal()}"}) for token in tokens
    ]
    assert len({(answer.text, answer.headers["www-authenticate"]) for answer in answers}) == 1
    reasons = [str(event.body["reason"]) for event in plane.events(Kind.TOKEN_REJECTED)]
    assert len(set(reasons)) == len(tokens)  # the audit log knows which check failed


@pytest.mark.parametrize("name", ["Host", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Original-URL", "Forwarded"])
def test_j38_no_header_moves_the_audience_or_the_issuer(plane: FakePlane, http: Http, name: str) -> None:
    said, url = {name: "elsewhere.example"}, "https://elsewhere.example"
    foreign: tuple[dict[str, Any], ...] = ({"aud": "elsewhere.example"}, {"aud": url}, {"iss": url})
    for others in foreign:
        token = plane.issuer.mint(AGENT, **others).reveal()
        answer = http(plane, "POST", "/v1/grants", json=WISH, headers={**said, "Authorization": f"Bearer {token}"})
        problem(answer, 401, "not-authenticated")
    assert http(plane, "POST", "/v1/grants", json=WISH, headers={**said, **bearer(plane)}).status_code == 201


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/grants/{}"), ("POST", "/v1/grants/{}/finish"), ("GET", "/v1/grants?before={}")]
)
def test_somebody_else_s_grant_and_one_that_never_was_are_answered_with_the_same_bytes(
    http: Http, method: str, path: str
) -> None:  # A02
    plane = FakePlane(compiled_entitlement(eligibility=[{"issuer": "dev", "subject": {"glob": "agent-*"}}]))
    mine = plane.ask(plane.agent("agent-1")).grant.id
    foreign, unknown = (
        http(plane, method, path.format(id), headers=bearer(plane, "agent-2")) for id in (mine, NOBODY_S)
    )
    assert (foreign.status_code, foreign.text.replace(mine, NOBODY_S)) == (unknown.status_code, unknown.text)
    assert foreign.status_code == (200 if "before" in path else 404)
    assert plane.grant(mine).state is State.ACTIVE


def test_a_list_holds_one_s_own_grants_only_newest_first_in_pages(http: Http) -> None:
    plane = FakePlane(compiled_entitlement(eligibility=[{"issuer": "dev", "subject": {"glob": "agent-*"}}]))
    mine: list[str] = []
    for number in range(3):
        plane.clock.advance(timedelta(seconds=1))
        mine.insert(0, plane.ask(plane.agent("agent-1"), task=f"T-{number}").grant.id)
        plane.ask(plane.agent("agent-2"), task=f"T-{number}")

    def page(query: str) -> list[str]:
        answer = http(plane, "GET", f"/v1/grants{query}", headers=bearer(plane, "agent-1"))
        assert answer.status_code == 200
        return [grant["id"] for grant in answer.json()["grants"]]

    assert page("") == mine
    assert page("?limit=2") == mine[:2]
    assert page(f"?limit=2&before={mine[1]}") == mine[2:]


TTLS: list[object] = ["0s", "-5m", "5", 300, 1e18, "1:30", "999999999h", [], "PT", True]
MISUNDERSTOOD: list[tuple[object, str]] = [
    ({**WISH, "state": "active"}, "state"),  # A03
    ({**WISH, "accessor": "x"}, "accessor"),
    ({**WISH, "policies": ["root"]}, "policies"),  # A14
    ({"task": "T-1", "intent": "answer-question"}, "entitlement"),
    ({**WISH, "entitlement": "../../sys"}, "entitlement"),
    ({**WISH, "entitlement": "a" * 65}, "entitlement"),
    ({**WISH, "task": ""}, "task"),
    ({**WISH, "task": "a b"}, "task"),
    ({**WISH, "task": 7}, "task"),
    ({**WISH, "reason": "one\ntwo"}, "reason"),
    ({**WISH, "reason": "x" * 301}, "reason"),
    *(({**WISH, "ttl": ttl}, "ttl") for ttl in TTLS),  # T08
    ([WISH], "body"),
    ("orders-read", "body"),
]


@pytest.mark.parametrize(("asked", "named"), MISUNDERSTOOD)
def test_what_cannot_be_understood_is_422_with_the_name_of_the_field_and_not_its_value(
    plane: FakePlane, http: Http, asked: object, named: str
) -> None:
    body = problem(http(plane, "POST", "/v1/grants", json=asked, headers=bearer(plane)), 422, "invalid-request")
    assert str(body["detail"]).startswith(f"{named}: ")
    assert not any(words in str(body["detail"]) for words in ("^", "Value error", "Input should", "Extra inputs"))
    assert plane.journal.steps == []


@pytest.mark.parametrize(
    "sent",
    [
        {"json": {**WISH, "ttl": "canary-7f3a"}},
        {"json": {**WISH, "reason": ["canary-7f3a"]}},
        {"json": {**WISH, "<script>canary-7f3a": 1}},
        {"json": {**WISH, "x" * 41 + "canary-7f3a": 1}},
        {"content": b'{"entitlement": canary-7f3a', "headers": {"Content-Type": "application/json"}},
        {"content": b'{"canary-7f3a": 1, "canary-7f3a": 2}', "headers": {"Content-Type": "application/json"}},
        {"json": WISH, "headers": {"Idempotency-Key": "canary-7f3a with a blank"}},
    ],
)
def test_a_refused_request_is_not_echoed(plane: FakePlane, http: Http, sent: dict[str, Any]) -> None:  # C08
    headers = {**bearer(plane), **sent.pop("headers", {})}
    answer = http(plane, "POST", "/v1/grants", headers=headers, **sent)
    problem(answer, 422, "invalid-request")
    assert "canary" not in answer.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/grants/canary"),
        ("GET", "/v1/grants/gr_canary%00"),
        ("GET", f"/v1/grants/{NOBODY_S}canary"),
        ("POST", "/v1/grants/canary/finish"),
        ("POST", f"/v1/grants/{NOBODY_S}/finish?wait=canary"),
        ("GET", "/v1/grants?before=canary"),
        ("GET", "/v1/grants?limit=canary"),
        ("GET", "/v1/grants?limit=0"),
        ("GET", "/v1/grants?limit=1001"),
    ],
)
def test_an_id_or_a_query_that_is_none_is_422_and_not_echoed(
    plane: FakePlane, http: Http, method: str, path: str
) -> None:
    answer = http(plane, method, path, headers=bearer(plane))
    problem(answer, 422, "invalid-request")
    assert "canary" not in answer.text


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_64_kib_is_refused_while_it_arrives(plane: FakePlane, http: Http, chunked: bool) -> None:  # A20
    taken = 0

    async def drip() -> Any:  # noqa: ANN401 # an async generator of bytes
        nonlocal taken
        for _ in range(1000):
            taken += 1024
            yield b" " * 1024

    headers = {**bearer(plane), "Content-Type": "application/json"}
    content = drip() if chunked else b" " * 70_000
    problem(http(plane, "POST", "/v1/grants", content=content, headers=headers), 413, "too-large")
    if chunked:
        assert taken <= 66 * 1024


def test_a_body_of_a_hair_under_64_kib_is_read(plane: FakePlane, http: Http) -> None:
    headers = {**bearer(plane), "Content-Type": "application/json"}
    body = b'{"entitlement":"orders-read","task":"T-1","intent":"answer-question"' + b" " * 65_000 + b"}"
    assert http(plane, "POST", "/v1/grants", content=body, headers=headers).status_code == 201


def test_one_idempotency_key_makes_one_grant_and_another_request_with_it_is_refused(
    plane: FakePlane, http: Http
) -> None:  # A15
    headers = {**bearer(plane), "Idempotency-Key": "k-1"}
    first = http(plane, "POST", "/v1/grants", json=WISH, headers=headers)
    again = http(plane, "POST", "/v1/grants", json=WISH, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["grant"]["id"] == again.json()["grant"]["id"]
    assert "wrapping_token" not in again.json()
    other = http(plane, "POST", "/v1/grants", json={**WISH, "task": "T-2"}, headers=headers)
    problem(other, 409, "idempotency-conflict")
    assert len(plane.store.grants()) == 1


def test_finishing_answers_202_revoking_and_later_shows_the_receipt(plane: FakePlane, http: Http) -> None:
    id = plane.ask().grant.id
    answer = http(plane, "POST", f"/v1/grants/{id}/finish", json={"outcome": "failed"}, headers=bearer(plane))
    assert (answer.status_code, answer.json()["grant"]["state"]) == (202, "revoking")
    assert plane.grant(id).why is Why.FAILED
    plane.work()
    shown = http(plane, "GET", f"/v1/grants/{id}", headers=bearer(plane)).json()["grant"]
    assert (shown["state"], shown["why"], shown["failing"]) == ("revoked", "failed", None)
    assert shown["receipt"]["verified"] is True
    assert [end["verified"] for end in shown["receipt"]["ended"]] == [True]


def test_finishing_needs_no_body_and_then_means_completed(plane: FakePlane, http: Http) -> None:
    id = plane.ask().grant.id
    assert http(plane, "POST", f"/v1/grants/{id}/finish", headers=bearer(plane)).status_code == 202
    assert plane.grant(id).why is Why.COMPLETED


def test_finishing_with_wait_answers_when_it_is_proved(plane: FakePlane, http: Http) -> None:
    id = plane.ask().grant.id
    plane.worker.start()
    try:
        answer = http(plane, "POST", f"/v1/grants/{id}/finish?wait=20s", headers=bearer(plane))
    finally:
        plane.worker.stop()
    assert answer.status_code == 202
    assert (answer.json()["grant"]["state"], answer.json()["grant"]["receipt"]["verified"]) == ("revoked", True)


def test_finishing_waits_no_longer_than_it_was_asked_to(plane: FakePlane, http: Http) -> None:
    id = plane.ask().grant.id
    answer = http(plane, "POST", f"/v1/grants/{id}/finish?wait=1s", headers=bearer(plane))  # no worker: nothing moves
    assert (answer.status_code, answer.json()["grant"]["state"]) == (202, "revoking")


@pytest.mark.parametrize("outcome", ["cancelled", "", None, 1, "COMPLETED"])
def test_an_outcome_that_is_none_ends_nothing(plane: FakePlane, http: Http, outcome: object) -> None:
    id = plane.ask().grant.id
    answer = http(plane, "POST", f"/v1/grants/{id}/finish", json={"outcome": outcome}, headers=bearer(plane))
    problem(answer, 422, "invalid-request")
    assert plane.grant(id).state is State.ACTIVE


def test_a_vault_that_is_sealed_is_503_and_what_may_have_been_made_is_ended(plane: FakePlane, http: Http) -> None:
    plane.vault.faults.sealed = True
    body = problem(http(plane, "POST", "/v1/grants", json=WISH, headers=bearer(plane)), 503, "vault-unavailable")
    assert body["hint"].startswith("Nothing is lost")
    plane.vault.faults.sealed = False
    plane.wait(timedelta(minutes=5))
    assert (plane.newest().state, plane.alive()) == (State.REVOKED, [])


def test_an_entitlement_that_is_not_synced_is_503_and_says_what_to_run(plane: FakePlane, http: Http) -> None:
    for item in plane.vault.roles.read(LAYOUT).values():
        plane.vault.roles.delete(item)
    body = problem(http(plane, "POST", "/v1/grants", json=WISH, headers=bearer(plane)), 503, "not-synced")
    assert "sync plan" in body["hint"]
    assert "sync apply" in body["hint"]


def test_without_a_store_every_route_is_503(plane: FakePlane, http: Http) -> None:
    id = plane.ask().grant.id
    headers = bearer(plane)
    plane.store.down = "the disk is full"
    for method, path in (("POST", "/v1/grants"), ("GET", f"/v1/grants/{id}"), ("POST", f"/v1/grants/{id}/finish")):
        options = {"json": WISH} if path == "/v1/grants" else {}
        problem(http(plane, method, path, headers=headers, **options), 503, StoreUnavailableError.code)


def test_a_grant_that_is_finished_while_it_is_issued_is_409_for_who_asked(plane: FakePlane, http: Http) -> None:  # A06
    who = plane.agent()
    plane.journal.after["logins.login"] = lambda: plane.finish(who, GrantId(plane.newest().id), Why.COMPLETED)
    problem(http(plane, "POST", "/v1/grants", json=WISH, headers=bearer(plane)), 409, "lost-race")
