"""The agent's client: what it sends, what it makes of answers, and what it never says."""

import re
import traceback
from collections.abc import Callable, Generator

import pytest
from pytest_socket import enable_socket

from controlplane.model.canonical import JsonValue
from controlplane.model.errors import ConfigurationError, ControlPlaneError
from controlplane.model.secret import Secret
from controlplane.sdk.client import AnsweredError, ForeignAnswerError, Shorthold, UnreachableError
from controlplane.testing.canned import Canned, canned

ID = "gr_" + "a" * 24


@pytest.fixture
def server() -> Generator[Canned]:
    enable_socket()
    with canned() as told:
        yield told


def client(addr: str, token: str = "tok") -> Shorthold:  # noqa: S107 # it opens nothing
    return Shorthold(addr, lambda: Secret(token), timeout=30)


def refused(call: Callable[[], object]) -> ControlPlaneError:
    with pytest.raises(ControlPlaneError) as caught:
        call()
    return caught.value


def test_a_call_carries_the_token_and_the_answer_comes_back_as_it_is(server: Canned) -> None:
    server.answers["POST /v1/grants"] = (201, {"grant": {"id": ID}})
    with client(server.addr, " tok\n") as agent:
        assert agent.request({"task": "T-1", "ttl": None}, key="k") == {"grant": {"id": ID}}
    (asked,) = server.asked
    assert asked.body == {"task": "T-1"}
    assert (asked.headers["Authorization"], asked.headers["Idempotency-Key"]) == ("Bearer tok", "k")


def test_c14_a_request_without_a_key_is_given_one_of_its_own(server: Canned) -> None:
    server.answers["POST /v1/grants"] = (201, {"grant": {"id": ID}})
    with client(server.addr, "tok") as agent:
        agent.request({"task": "T-1"})
        agent.request({"task": "T-1"})
    keys = [asked.headers["Idempotency-Key"] for asked in server.asked]
    assert len(set(keys)) == 2
    assert all(re.fullmatch(r"auto-[0-9a-f]{32}", key) for key in keys)


@pytest.mark.parametrize("token", ["canary\nx", "canary x", "canary\u00e9", "canary\x00", " \n", ""])
def test_a_token_that_cannot_be_sent_is_not_sent_and_never_shown(server: Canned, token: str) -> None:  # P5
    with client(server.addr, token) as agent:
        error = refused(agent.list)
    assert isinstance(error, ConfigurationError)
    assert "canary" not in "".join(traceback.format_exception(error))
    assert server.asked == []


def test_no_other_header_is_quoted_either(server: Canned) -> None:
    with client(server.addr) as agent:
        error = refused(lambda: agent.request({}, key=f"{'canary'[::-1]}\n"))
    assert "yranac" not in "".join(traceback.format_exception(error))


def test_what_is_asked_for_cannot_add_to_the_query(server: Canned) -> None:
    server.answers[f"POST /v1/grants/{ID}/finish"] = (202, {"grant": {}})
    with client(server.addr) as agent:
        agent.finish(ID, wait="1s&outcome=failed")
    assert server.asked[0].path.endswith("/finish?wait=1s%26outcome%3Dfailed")


@pytest.mark.parametrize(
    ("status", "exits"), [(400, 1), (422, 1), (401, 3), (403, 3), (423, 3), (404, 2), (409, 2), (500, 2), (503, 2)]
)
def test_a_problem_is_told_with_its_code_and_its_kind_is_the_exit_status(
    server: Canned, status: int, exits: int
) -> None:
    server.answers["GET /v1/grants"] = (status, {"code": "some-code", "detail": "because"})
    with client(server.addr) as agent:
        error = refused(agent.list)
    assert isinstance(error, AnsweredError)
    assert (error.told_code, error.detail, error.told_exit_status) == ("some-code", "because", exits)


@pytest.mark.parametrize(
    ("status", "body"),
    [(403, {"errors": ["permission denied"]}), (404, None), (500, "<html>"), (200, {}), (200, "<html>"), (307, None)],
)
def test_whoever_answers_otherwise_is_no_shorthold_and_decided_nothing(
    server: Canned, status: int, body: JsonValue
) -> None:
    server.answers["GET /v1/grants"] = (status, body)
    with client(server.addr) as agent:
        error = refused(agent.list)
    assert isinstance(error, ForeignAnswerError)
    assert error.exit_status == 2
    assert server.addr in error.detail


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_that_reaches_nobody_is_nobody_there_and_whoever_tries_again_does(server: Canned, status: int) -> None:
    server.answers["GET /v1/grants"] = (status, "<html>")
    with client(server.addr) as agent:
        error = refused(agent.list)
    assert isinstance(error, UnreachableError)
    assert f"HTTP status {status}" in error.detail


def test_nobody_there_is_said_in_words() -> None:
    enable_socket()
    with client("http://127.0.0.1:9") as agent:
        error = refused(agent.list)
    assert isinstance(error, UnreachableError)
    assert error.detail == "http://127.0.0.1:9/v1/grants was not reached: nobody listens there"


@pytest.mark.parametrize("addr", ["nonsense", "", "ftp://x", "http://", "127.0.0.1:80", "http://h:x", "http://[::1"])
def test_an_address_that_is_none_is_refused_before_anything_is_sent(addr: str) -> None:
    assert isinstance(refused(lambda: client(addr)), ConfigurationError)
    with client("http://127.0.0.1:9") as agent:
        assert isinstance(refused(lambda: agent.unwrap(addr, Secret("w"))), ConfigurationError)


def test_unwrapping_goes_to_vault_with_its_namespace_and_gives_secrets(server: Canned) -> None:
    server.answers["POST /v1/sys/wrapping/unwrap"] = (200, {"data": {"orders": {"password": "canary"}}})
    with client("http://127.0.0.1:9") as agent:
        opened = agent.unwrap(server.addr, Secret("w"), namespace="team")
    assert opened["orders"]["password"].reveal() == "canary"
    assert "canary" not in repr(opened)
    assert (server.asked[0].headers["X-Vault-Token"], server.asked[0].headers["X-Vault-Namespace"]) == ("w", "team")
    assert "Authorization" not in server.asked[0].headers


def test_a_wrapping_token_that_opens_nothing_says_what_vault_says(server: Canned) -> None:
    server.answers["POST /v1/sys/wrapping/unwrap"] = (400, {"errors": ["wrapping token is not valid"]})
    with client("http://127.0.0.1:9") as agent:
        error = refused(lambda: agent.unwrap(server.addr, Secret("w")))
    assert isinstance(error, AnsweredError)
    assert error.detail == "wrapping token is not valid"
