"""What comes in by the HTTP door is one whole, small, plain request, or a fast 4xx (A20, A21, A22, A24, A25)."""

import asyncio
import json
import time
import tracemalloc
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import httpx
import pytest
from starlette.types import Message
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from controlplane.http.app import create_app
from controlplane.http.intake import LARGEST_BODY, Intake
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane
from controlplane.wiring.plane import ControlPlane

Http = Callable[..., httpx.Response]
WISH = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}
PLAIN = json.dumps(WISH).encode()
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement())


def bearer(plane: FakePlane) -> dict[str, str]:
    return {"Authorization": f"Bearer {plane.issuer.mint(AGENT).reveal()}"}


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code), body
    assert answer.headers["content-type"] == "application/problem+json"
    return body


def with_key(key: str) -> bytes:
    return PLAIN.replace(b"}", f", {key}}}".encode())


HOSTILE = {
    "a key twice": with_key('"task": "T-2"'),
    "a key twice, once escaped": with_key('"t\\u0061sk": "T-2"'),
    "a key twice, deeper": with_key('"x": [{"a": 1, "a": 2}]'),
    "NaN": with_key('"ttl": NaN'),
    "Infinity": with_key('"ttl": -Infinity'),
    "a number beyond all": with_key('"ttl": 1e400'),
    "5 000 digits": with_key(f'"ttl": {"9" * 5000}'),
    "60 000 digits": b'{"ttl":' + b"7" * 60_000 + b"}",
    "1 000 levels": b'{"a":' * 1000 + b"1" + b"}" * 1000,
    "30 000 levels": b"[" * 30_000 + b"]" * 30_000,
    "levels without an end": b'{"a":' * 12_000,
    "10 000 keys": json.dumps({f"k{number}": 1 for number in range(5_000)}).encode(),
    "a BOM": b"\xef\xbb\xbf" + PLAIN,
    "UTF-16": PLAIN.decode().encode("utf-16"),
    "no UTF-8": PLAIN.replace(b"T-1", b"T-\xff"),
    "an overlong slash": PLAIN.replace(b"T-1", b"T-\xc0\xaf"),
    "half a character": PLAIN.replace(b"T-1", b"T-\\ud800"),
    "NUL": PLAIN.replace(b"T-1", b"T-\\u0000"),
    "no object": b'["orders-read"]',
    "null": b"null",
    "more than one": PLAIN + PLAIN,
    "half of one": PLAIN[:-1],
    "a comment": PLAIN + b"/**/",
    "no JSON": b"entitlement=orders-read",
    "blanks only": b" \n\t",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_body_that_could_be_read_in_two_ways_or_in_none_is_422_and_fast(
    plane: FakePlane, http: Http, body: bytes
) -> None:  # A20, J27 of the API
    began = time.process_time()  # of this process alone, however busy the machine is
    answer = http(plane, "POST", "/v1/grants", content=body, headers={**JSON, **bearer(plane)})
    assert time.process_time() - began < 1
    told = refused(answer, 422, "invalid-request")
    assert len(answer.content) < 4096
    assert told["detail"]
    assert plane.store.grants() == []


TYPES: list[dict[str, str]] = [
    {},
    {"Content-Type": "text/plain"},
    {"Content-Type": "application/x-www-form-urlencoded"},
    {"Content-Type": "multipart/form-data; boundary=x"},
    {"Content-Type": "application/problem+json"},
    {"Content-Type": "application/jsonx"},
    {"Content-Type": "application/json; charset=utf-16"},
    {"Content-Type": "application/json, text/plain"},
    {**JSON, "Content-Encoding": "gzip"},
    {**JSON, "Content-Encoding": "identity, gzip"},
]


@pytest.mark.parametrize("headers", TYPES)
def test_a_body_that_is_not_plain_json_is_415_and_unread(
    plane: FakePlane, http: Http, headers: dict[str, str]
) -> None:  # A20
    async def body() -> AsyncGenerator[bytes]:
        raise AssertionError("it was read")
        yield b""

    sent = {**headers, **bearer(plane)}
    answer = http(plane, "POST", "/v1/grants", content=body(), headers=sent)
    refused(answer, 415, "unsupported-media-type")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
def test_json_may_say_that_it_is_utf_8(plane: FakePlane, http: Http, kind: str) -> None:
    headers = {"Content-Type": kind, "Content-Encoding": "identity", **bearer(plane)}
    assert http(plane, "POST", "/v1/grants", content=PLAIN, headers=headers).status_code == 201


def test_a_body_that_is_announced_too_large_is_413_and_unread(plane: FakePlane, http: Http) -> None:  # A20
    async def body() -> AsyncGenerator[bytes]:
        raise AssertionError("it was read")
        yield b""

    for length in (str(LARGEST_BODY + 1), str(32 * 1024**2), "9" * 40):
        headers = {**JSON, "Content-Length": length, **bearer(plane)}
        refused(http(plane, "POST", "/v1/grants", content=body(), headers=headers), 413, "too-large")


def test_a_body_without_end_costs_no_more_memory_than_the_largest(plane: FakePlane, http: Http) -> None:  # A20
    async def body() -> AsyncGenerator[bytes]:
        for _ in range(20_000):
            yield b" " * 4096

    headers = {**JSON, **bearer(plane)}
    tracemalloc.start()
    try:
        answer = http(plane, "POST", "/v1/grants", content=body(), headers=headers)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    refused(answer, 413, "too-large")
    assert peak < 16 * 1024**2


async def _never(*_: object) -> None:
    raise AssertionError("half a request reached the application")


async def _deaf(_: Message) -> None:
    raise AssertionError("nobody is there to be told")


def test_a_body_that_drips_is_408_after_its_time() -> None:  # A21
    told: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: Message) -> None:
        told.append(message)

    headers = [(b"host", b"door"), (b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")]
    scope = {"type": "http", "http_version": "1.1", "path": "/v1/grants", "query_string": b"", "headers": headers}
    asyncio.run(Intake(_never, body_within=0.05)(scope, receive, send))
    assert told[0]["status"] == 408
    assert (b"connection", b"close") in told[0]["headers"]
    assert json.loads(told[1]["body"])["code"] == "too-slow"


def test_who_goes_away_in_the_middle_of_a_body_has_asked_for_nothing() -> None:  # A21
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    headers = [(b"host", b"door"), (b"content-type", b"application/json"), (b"content-length", b"10")]
    scope = {"type": "http", "http_version": "1.1", "path": "/v1/grants", "query_string": b"", "headers": headers}
    asyncio.run(Intake(_never)(scope, receive, _deaf))


@pytest.mark.parametrize("name", ["Host", "Content-Type", "Content-Encoding", "Idempotency-Key"])
def test_a_header_that_decides_something_is_sent_once_or_refused(
    plane: FakePlane, http: Http, name: str
) -> None:  # A22
    headers = [*JSON.items(), *bearer(plane).items(), (name, "application/json"), (name, "other")]
    refused(http(plane, "POST", "/v1/grants", content=PLAIN, headers=headers), 400, "malformed-request")
    assert plane.store.grants() == []


@pytest.mark.parametrize("host", ["", "a b", "a@b", "a/b", "a,b", "a:port", "[::1", "a:80:90", "<script>", "ü"])
def test_a_host_that_is_none_is_400_and_not_echoed(plane: FakePlane, http: Http, host: str) -> None:  # A22
    sent = [("Host", host.encode("latin-1")), *((name, value.encode()) for name, value in bearer(plane).items())]
    answer = http(plane, "GET", "/v1/grants", headers=sent)
    refused(answer, 400, "malformed-request")
    assert not host or host not in answer.text


@pytest.mark.parametrize("host", ["door", "door.acme.example:8700", "127.0.0.1:80", "[::1]:8700", "a_b"])
def test_any_host_will_do(plane: FakePlane, http: Http, host: str) -> None:
    assert http(plane, "GET", "/v1/grants", headers={"Host": host, **bearer(plane)}).status_code == 200


def test_a_path_or_query_that_is_too_long_is_414(plane: FakePlane, http: Http) -> None:
    for path in (f"/v1/grants/{'a' * 9000}", f"/v1/grants?before={'a' * 9000}"):
        refused(http(plane, "GET", path, headers=bearer(plane)), 414, "uri-too-long")


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1",
        "limit=0",
        "limit=1001",
        "limit=1e3",
        "limit=99999999999999999999999999",
        "limit=1%3BDROP",
        "limit=1&limit=1000000",
        "before=' OR 1=1--",
        "before=gr_' OR '1'='1",
        "before=gr_aaaaaaaaaaaaaaaaaaaaaaaa%00",
        "before=gr_aaaaaaaaaaaaaaaaaaaaaaaa%0a",
        "before=GR_AAAAAAAAAAAAAAAAAAAAAAAA",
    ],
)
def test_a_page_that_cannot_be_is_422(plane: FakePlane, http: Http, query: str) -> None:  # A24
    answer = http(plane, "GET", f"/v1/grants?{query}", headers=bearer(plane))
    refused(answer, 422, "invalid-request")
    assert "OR" not in answer.text


def test_a_cursor_that_was_made_up_gives_an_empty_page_and_what_sorts_or_filters_is_not_listened_to(
    plane: FakePlane, http: Http
) -> None:  # A24
    plane.ask()
    for query in ("before=gr_2222222222222222222222aa", "before=gr_zzzzzzzzzzzzzzzzzzzzzzzz"):
        assert http(plane, "GET", f"/v1/grants?{query}", headers=bearer(plane)).json() == {"grants": []}
    plain = http(plane, "GET", "/v1/grants", headers=bearer(plane))
    sorted_ = http(plane, "GET", "/v1/grants?sort=id;drop%20table&filter[subject]=*&workload=x", headers=bearer(plane))
    assert sorted_.text == plain.text


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/grants", {"GET", "HEAD", "POST"}),
        ("/v1/grants/gr_aaaaaaaaaaaaaaaaaaaaaaaa", {"GET", "HEAD"}),
        ("/v1/grants/gr_aaaaaaaaaaaaaaaaaaaaaaaa/finish", {"POST"}),
        ("/healthz", {"GET", "HEAD"}),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_another_method_is_405_and_told_which_there_are(
    plane: FakePlane, http: Http, path: str, allowed: set[str], method: str
) -> None:
    answer = http(plane, method, path, headers=bearer(plane))
    refused(answer, 405, "method-not-allowed")
    assert set(answer.headers["allow"].split(", ")) == allowed


def test_head_is_answered_as_get_is_but_for_the_body(plane: FakePlane, http: Http) -> None:
    got = http(plane, "GET", "/v1/entitlements", headers=bearer(plane))
    head = http(plane, "HEAD", "/v1/entitlements", headers=bearer(plane))
    assert (head.status_code, head.content) == (200, b"")
    same = ("content-length", "content-type", "cache-control")
    assert [head.headers[name] for name in same] == [got.headers[name] for name in same]
    assert http(plane, "HEAD", "/v1/entitlements").status_code == 401


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/grants/", "/v1/grants/x/y/z", "/.git/config", "/v1/..%2f..%2fetc/passwd"]
)
def test_where_there_is_nothing_it_is_404_for_everybody(plane: FakePlane, http: Http, path: str) -> None:
    for headers in ({}, bearer(plane)):
        refused(http(plane, "GET", path, headers=headers), 404, "not-found")


def test_every_answer_is_marked_and_named_anew(plane: FakePlane, http: Http) -> None:  # A25
    told: set[str] = set()
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/healthz", {}),
        ("GET", "/v1/grants", {}),
        ("GET", "/none", {}),
        ("PUT", "/v1/grants", {}),
        ("POST", "/v1/grants", {"content": b"x"}),
        ("GET", "/openapi.json", {"headers": {"X-Request-Id": "mine"}}),
    ]
    for method, path, options in asked:
        headers = http(plane, method, path, **options).headers
        told.add(headers["x-request-id"])
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in headers
    assert len(told) == len(asked)
    assert all(id.startswith("rq_") for id in told)


def test_a_log_line_names_the_request_that_it_is_of(plane: FakePlane, http: Http) -> None:
    seen: list[str] = []

    def broken(*_: object) -> None:
        seen.append(str(get_contextvars().get("request_id")))
        raise RuntimeError("SELECT canary FROM /srv/secret.py eyJhbGciOi")

    cast("Any", plane).show = broken
    with capture_logs() as logged:
        answer = http(plane, "GET", "/v1/grants/gr_" + "a" * 24, headers=bearer(plane))
    refused(answer, 500, "internal")
    assert seen == [answer.headers["x-request-id"]]
    assert [line["event"] for line in logged] == ["request_failed"]
    for word in ("canary", "SELECT", "/srv", "eyJ", "Traceback", "RuntimeError"):
        assert word not in answer.text


def test_two_requests_at_once_keep_their_names_apart(plane: FakePlane) -> None:
    app = create_app(cast("ControlPlane", plane), worker=False)

    async def ask() -> list[str]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://door") as client:
            answers = await asyncio.gather(*(client.get("/readyz") for _ in range(8)))
            return [answer.headers["x-request-id"] for answer in answers]

    assert len(set(asyncio.run(ask()))) == 8
