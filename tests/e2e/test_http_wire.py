"""The served API on raw sockets: what the framework never sees is a 4xx too, and nobody who hangs shuts others out.

A20, A21, A22, A25, as `shorthold serve` really does it.
"""

import json
import select
import socket
import time
from collections.abc import Generator
from contextlib import ExitStack, closing, suppress
from datetime import timedelta

import pytest

from controlplane.dev import loopback
from controlplane.dev.process import until
from controlplane.dev.stack import Stack
from controlplane.http.wire import HEAD_WITHIN, MOST_UNHEARD, allow_many_files
from controlplane.sdk.client import Shorthold
from controlplane.testing.served import ServedPlane

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

AGENT = "repo:acme/support-agent:ref:refs/heads/main"
WISH = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}


@pytest.fixture(scope="module")
def plane(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Generator[ServedPlane]:
    served = ServedPlane(stack, tmp_path_factory.mktemp("wire"))
    served.start()
    yield served
    served.kill()


@pytest.fixture
def agent(plane: ServedPlane) -> Generator[Shorthold]:
    client = plane.agent(AGENT)
    yield client
    client.close()


def connected(plane: ServedPlane) -> socket.socket:
    return socket.create_connection((loopback.HOST, plane.port), timeout=60)


def answered(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    said = b""
    with suppress(ConnectionResetError):
        while more := connection.recv(65536):
            said += more
    return said


def sent(plane: ServedPlane, raw: bytes) -> tuple[int, dict[str, str]]:
    """Status and body of the one answer to `raw`, after which the connection is closed."""
    with closing(connected(plane)) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # it closed while we were still sending
            connection.sendall(raw)
        head, _, body = answered(connection).partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert "content-type: application/problem+json" in lines, head
    assert "connection: close" in lines
    assert "cache-control: no-store" in lines
    assert not any(line.startswith("server:") for line in lines)
    problem = json.loads(body)
    assert int(lines[0].split()[1]) == problem["status"]
    return problem["status"], problem


def request(*headers: str, line: str = "GET /v1/grants HTTP/1.1", body: bytes = b"") -> bytes:
    return "\r\n".join([line, *headers, "", ""]).encode("latin-1") + body


def get(*headers: str, path: str = "/v1/grants") -> bytes:
    return request("Host: door", "Connection: close", *headers, line=f"GET {path} HTTP/1.1")


def post(*headers: str, body: bytes = b"") -> bytes:
    return request("Host: door", *headers, line="POST /v1/grants HTTP/1.1", body=body)


JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
WEBSOCKET = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
CHUNK = b"1000\r\n" + b" " * 4096 + b"\r\n"
HOSTILE: dict[str, tuple[bytes, int]] = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "two Authorization": (get("Authorization: Bearer a", "Authorization: Bearer b"), 401),
    "no Host": (request("Connection: close"), 400),
    "two Hosts": (get("Host: other"), 400),
    "a bad Host": (request("Host: a/../b", "Connection: close"), 400),
    "TE and CL": (post("Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"), 400),
    "two lengths": (post("Content-Length: 5", "Content-Length: 6", body=b"hello"), 400),
    "a length that is none": (post("Content-Length: -1"), 400),
    "a chunk that is none": (post(JSON, CHUNKED, body=b"zz\r\n"), 400),
    "TE that is none": (post(JSON, "Transfer-Encoding: chunked, gzip"), 400),
    "a bare CR": (b"GET /v1/grants HTTP/1.1\r\nHost: door\rX: y\r\n\r\n", 400),
    "NUL in a header": (get("A: b\x00"), 400),
    "a blank before the colon": (request("Host : door"), 400),
    "CRLF in the path": (get(path="/v1/grants%0d%0aX-Evil:%20a"), 404),
    "absolute URI": (get(path="http://evil.example/v1/grants"), 400),
    "CONNECT": (request("Host: door", line="CONNECT evil.example:443 HTTP/1.1"), 400),
    "OPTIONS *": (request("Host: door", line="OPTIONS * HTTP/1.1"), 400),
    "a method that is none": (request("Host: door", line="GR@NT / HTTP/1.1"), 400),
    "no ASCII": ("GET /v1/gränts HTTP/1.1\r\nHost: door\r\n\r\n".encode(), 400),
    "a huge cookie": (get(f"Cookie: a={'b' * 40_000}"), 431),
    "a thousand headers": (get(*(f"X-{number}: {'y' * 40}" for number in range(1000))), 431),
    "a header without an end": (b"GET / HTTP/1.1\r\nHost: door\r\nX: " + b"y" * 3_000_000, 431),
    "a path without an end": (b"GET /" + b"y" * 3_000_000, 431),
    "a long path": (get(path=f"/{'y' * 10_000}"), 414),
    "a large body": (post(JSON, "Content-Length: 33554432"), 413),
    "a body without an end": (post(JSON, CHUNKED, body=CHUNK * 500), 413),
    "gzip": (post(JSON, CHUNKED, "Content-Encoding: gzip", body=b"2\r\n\x1f\x8b\r\n"), 415),
    "no JSON": (post("Content-Type: text/plain", "Content-Length: 2", body=b"{}"), 415),
    "another protocol": (request("Host: door", "Connection: Upgrade, close", *WEBSOCKET), 401),
}


@pytest.mark.parametrize(("raw", "status"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_not_one_plain_request_is_a_problem_and_the_end_of_the_connection(
    plane: ServedPlane, raw: bytes, status: int
) -> None:  # A20, A22
    began = time.monotonic()
    told, problem = sent(plane, raw)
    assert told == status, problem
    assert time.monotonic() - began < HEAD_WITHIN
    assert "evil" not in str(problem)


def test_a_second_request_hidden_in_the_first_is_a_request_of_its_own(plane: ServedPlane) -> None:  # A22
    with closing(connected(plane)) as connection:
        connection.sendall(post("Content-Length: 0") + get(path="/healthz"))
        said = answered(connection)
    assert said.count(b"HTTP/1.1 ") == 2
    assert said.startswith(b"HTTP/1.1 401")
    assert b'{"status":"ok"}' in said


def test_the_log_of_all_this_has_no_stack_trace(plane: ServedPlane) -> None:  # A25
    for raw, _ in list(HOSTILE.values())[:8]:
        sent(plane, raw)
    assert "Traceback" not in plane.log.read_text()
    assert "request_failed" not in plane.log.read_text()


def test_a_thousand_half_open_connections_and_dripping_bodies_delay_nobody_s_finish(
    plane: ServedPlane, agent: Shorthold
) -> None:  # A21
    allow_many_files()
    grants = [agent.request({**WISH, "task": f"T-{number}"})["grant"]["id"] for number in range(5)]
    body = post(JSON, CHUNKED, body=b"1\r\n \r\n")
    with ExitStack() as hanging:
        began = time.monotonic()
        slow = [hanging.enter_context(closing(connected(plane))) for _ in range(MOST_UNHEARD - 160)]
        dripping = [hanging.enter_context(closing(connected(plane))) for _ in range(150)]
        for number, connection in enumerate(slow):
            connection.sendall(b"" if number % 2 else b"GET /v1/grants HTTP/1.1\r\nHost: do")
        for connection in dripping:
            connection.sendall(body)
        took: list[float] = []
        for number in range(50):
            at = time.monotonic()
            told = agent.finish(grants[number % 5])
            took.append(time.monotonic() - at)
            assert told["grant"]["state"] in {"revoking", "revoked"}
        assert sorted(took)[-2] < HEAD_WITHIN / 2  # who waits for those who hang waits for all of it
        assert agent.request({**WISH, "task": "T-6"})["grant"]["state"] == "active"
        # Nobody hangs for longer than he may: what says a byte now and then is not spared.
        assert until(
            lambda: _ended(slow[:20] + dripping[:20]), timedelta(seconds=HEAD_WITHIN * 2 - (time.monotonic() - began))
        )
        assert answered(slow[0]).startswith(b"HTTP/1.1 408")
        assert answered(dripping[0]).startswith(b"HTTP/1.1 408")


def test_beyond_that_whoever_has_said_nothing_for_the_longest_makes_room(
    plane: ServedPlane, agent: Shorthold
) -> None:  # A21
    allow_many_files()
    with ExitStack() as hanging:
        waiting = [hanging.enter_context(closing(connected(plane))) for _ in range(MOST_UNHEARD + 100)]
        assert until(lambda: _ended(waiting[:100]), timedelta(seconds=HEAD_WITHIN / 2))
        assert not _ended(waiting[-1:])
        assert agent.list()["grants"] is not None


def _ended(connections: list[socket.socket]) -> bool:
    poll = select.poll()
    for connection in connections:
        poll.register(connection, select.POLLIN)
    return len(poll.poll(0)) == len(connections)
