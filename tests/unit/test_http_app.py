"""The HTTP door as a whole: its health, its description, its faults, and no input makes it a 500 (A20, A25)."""

import asyncio
import json
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, cast
from urllib.parse import quote, urlencode

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from controlplane.http.app import create_app
from controlplane.model.grant import State, Why
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane
from controlplane.wiring.plane import ControlPlane

Http = Callable[..., httpx.Response]


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement())


def app_of(plane: FakePlane, *, worker: bool = False) -> FastAPI:
    return create_app(cast("ControlPlane", plane), worker=worker)


def test_it_lives_as_long_as_it_answers_and_is_ready_only_when_nothing_is_missing(plane: FakePlane, http: Http) -> None:
    plane.unready = {"vault": "it is sealed at https://bao.internal"}
    plane.store.down = "the disk is full"
    assert http(plane, "GET", "/healthz").status_code == 200
    answer = http(plane, "GET", "/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "not ready", "missing": ["vault"]})
    plane.unready = {}
    assert http(plane, "GET", "/readyz").json() == {"status": "ok", "missing": []}


def test_the_public_halves_of_the_keys_are_published_and_only_those(plane: FakePlane, http: Http) -> None:
    keys = http(plane, "GET", "/.well-known/jwks.json").json()["keys"]
    assert keys == [plane.task_key, *plane.receipt_keys]
    assert all(set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"} for key in keys)


def test_a_workload_sees_the_entitlements_it_is_eligible_for_and_no_others(http: Http) -> None:  # P12
    plane = FakePlane(
        compiled_entitlement(),
        compiled_entitlement(entitlement="payroll", eligibility=[{"issuer": "dev", "subject": "somebody-else"}]),
    )
    answer = http(plane, "GET", "/v1/entitlements", headers=_bearer(plane))
    (seen,) = answer.json()["entitlements"]
    assert (seen["entitlement"], seen["intents"], seen["ttl"]) == (
        "orders-read",
        ["answer-question"],
        {"default": "5m", "max": "15m"},
    )
    assert "payroll" not in answer.text


def test_the_description_is_openapi_3_1_and_says_what_each_route_does(plane: FakePlane, http: Http) -> None:
    told = http(plane, "GET", "/openapi.json").json()
    assert told["openapi"].startswith("3.1")
    operations = {(method.upper(), path) for path, item in told["paths"].items() for method in item}
    assert operations >= {
        ("POST", "/v1/grants"),
        ("GET", "/v1/grants"),
        ("GET", "/v1/grants/{id}"),
        ("POST", "/v1/grants/{id}/finish"),
        ("GET", "/v1/entitlements"),
    }
    for item in told["paths"].values():
        for operation in item.values():
            assert operation["description"]
    assert told["components"]["schemas"]["Ask"]["additionalProperties"] is False


def test_no_page_that_loads_scripts_from_elsewhere_is_served(plane: FakePlane, http: Http) -> None:
    for path in ("/docs", "/redoc"):
        assert http(plane, "GET", path).status_code == 404


def test_nobody_is_ever_sent_elsewhere(plane: FakePlane, http: Http) -> None:
    for path in ("/v1/grants/", "//v1/grants", "/v1/entitlements/"):
        answer = http(plane, "GET", path, headers={**_bearer(plane), "Host": "evil.example"})
        assert answer.status_code in {404, 422}
        assert "evil.example" not in str(answer.headers) + answer.text


def test_a_fault_of_our_own_is_a_500_that_tells_the_log_and_not_the_caller(plane: FakePlane) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("canary-9c1e in /srv/secret.py")

    cast("Any", plane).show = broken
    transport = httpx.ASGITransport(app_of(plane), raise_app_exceptions=False)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
            return await client.get("/v1/grants/gr_" + "a" * 24, headers=_bearer(plane))

    with capture_logs() as logged:
        answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "canary" not in answer.text
    assert "Traceback" not in answer.text
    assert [(line["event"], str(line["exc_info"])) for line in logged] == [
        ("request_failed", "canary-9c1e in /srv/secret.py")
    ]


@pytest.mark.parametrize("worker", [True, False])
def test_the_worker_lives_exactly_as_long_as_the_application(plane: FakePlane, worker: bool) -> None:
    app = app_of(plane, worker=worker)

    async def live() -> bool:
        async with app.router.lifespan_context(app):
            return any(thread.name.startswith("shorthold-") for thread in threading.enumerate())

    assert asyncio.run(live()) is worker
    assert not any(thread.name.startswith("shorthold-") for thread in threading.enumerate())


def test_a_grant_that_is_due_ends_without_anybody_asking_for_it(plane: FakePlane) -> None:
    grant = plane.ask().grant
    plane.finish(plane.agent(), grant.id, Why.COMPLETED)
    app = app_of(plane, worker=True)

    async def live() -> None:
        async with app.router.lifespan_context(app), asyncio.timeout(60):
            while plane.grant(grant.id).state is not State.REVOKED:  # noqa: ASYNC110 # a thread moves it
                await asyncio.sleep(0.005)

    asyncio.run(live())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
TEXTS = st.text() | st.sampled_from(
    [
        "orders-read",
        "T-1",
        "answer-question",
        "5m",
        "PT5M",
        "999999h",
        "\ud800",
        "\x00",
        "\u202e",
        "a\u2028b",
        "x" * 5000,
    ]
)
WISHES = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("entitlement", "task", "intent", "reason", "ttl", "parameters", "grant"), TEXTS | JSON),
)
SEGMENTS = st.text(st.characters(codec="utf-8", exclude_characters="?#\\"), max_size=40) | st.sampled_from(
    ["gr_" + "a" * 24, "..", "%00", "%ff", "finish", "gr_" + "a" * 23 + "%0a"]
)
BODIES = (
    WISHES.map(lambda wish: json.dumps(wish).encode())
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=300)
    | st.sampled_from(
        [b"[" * 60_000, b'{"a":' * 9_000, b"1" * 60_000, b'{"ttl":1e999}', b'{"a":1,"a":2}', b"\xff\xfe{\x00}\x00", b""]
    )
)
TYPES = st.sampled_from(
    ["application/json", "text/plain", "application/x+json", "multipart/form-data", "", "a/b; c=\xff"]
)
HEADER = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\x00"), max_size=30)


@settings(max_examples=250, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW"]),
    route=st.sampled_from(["/v1/grants", "/v1/grants/{}", "/v1/grants/{}/finish", "/v1/entitlements", "/{}", "/v1/{}"]),
    segment=SEGMENTS,
    query=st.dictionaries(st.sampled_from(["wait", "before", "limit", "x"]), TEXTS, max_size=3),
    body=BODIES,
    kind=TYPES,
    key=HEADER,
    known=st.booleans(),
    token=HEADER,
)
def test_no_request_is_answered_with_500_or_with_anything_but_our_own_words(
    http: Http,
    *,
    method: str,
    route: str,
    segment: str,
    query: dict[str, str],
    body: bytes,
    kind: str,
    key: str,
    known: bool,
    token: str,
) -> None:
    plane = _fuzzed()
    bearer = _bearer(plane)["Authorization"] if known else f"Bearer {token}"
    headers = [
        (name, value.encode("latin-1"))
        for name, value in (("Authorization", bearer), ("Content-Type", kind), ("Idempotency-Key", key))
        if value
    ]
    path = quote(route.format(segment), safe="/%.:@~") + "?" + urlencode(query, errors="surrogatepass")
    answer = http(plane, method, path, content=body, headers=headers)
    assert answer.status_code < 500
    assert "Traceback" not in answer.text
    if answer.status_code >= 400 and method != "HEAD":
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
    if not known and answer.status_code < 400:
        assert not answer.request.url.path.startswith("/v1")


@cache
def _fuzzed() -> FakePlane:
    """One for all requests: what one of them does to it, the next one meets."""
    return FakePlane(compiled_entitlement())


def _bearer(plane: FakePlane) -> dict[str, str]:
    return {"Authorization": f"Bearer {plane.issuer.mint(AGENT).reveal()}"}
