"""`with` and `async with` over a real socket: threads, signals, identities, tools (C5, C9, C13, P09, P10)."""

import asyncio
import inspect
import json
import re
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from pytest_socket import enable_socket

import controlplane.sdk as shorthold
from controlplane.model.canonical import JsonValue
from controlplane.model.secret import Secret
from controlplane.sdk.surroundings import own
from controlplane.testing.canned import Canned, canned

ID = "gr_" + "a" * 24
PASSWORD = "canary-pass-word"
OPENED: JsonValue = {"data": {"orders": {"username": "v-1-user", "password": PASSWORD}}}
NAMES = (
    *("SHORTHOLD_TOKEN_FILE", "SHORTHOLD_TOKEN_COMMAND", "SHORTHOLD_CONFIG", "SPIFFE_ENDPOINT_SOCKET"),
    *("ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
    *(f"{whose}_{what}" for whose in ("BAO", "VAULT") for what in ("NAMESPACE", "CACERT", "CLIENT_CERT")),
)


def told(state: str = "active", **more: JsonValue) -> dict[str, JsonValue]:
    return {
        "id": ID,
        "state": state,
        "entitlement": "orders-read",
        "task": "T-1",
        "issued_at": "2026-07-01T12:00:00+00:00",
        "expires_at": "2026-07-01T12:05:00+00:00",
        "heartbeat_due_at": None,
        **more,
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[Canned]:
    enable_socket()
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    with canned() as other:
        monkeypatch.setenv("SHORTHOLD_ADDR", other.addr)
        monkeypatch.setenv("BAO_ADDR", other.addr)
        monkeypatch.setenv("SHORTHOLD_TOKEN", "tok")
        other.answers["POST /v1/grants"] = (201, {"grant": told(), "leases": [], "wrapping_token": "w"})
        other.answers["POST /v1/sys/wrapping/unwrap"] = (200, OPENED)
        other.answers[f"POST /v1/grants/{ID}/finish"] = (202, {"grant": told("revoking")})
        other.answers["POST /v1/tasks/T-1/finish"] = (202, {"task": {}})
        yield other


def asks(**more: Any) -> shorthold.Lending:
    return shorthold.grant("orders-read", intent="answer-question", task="T-1", **more)


def last(server: Canned) -> tuple[str, JsonValue]:
    return server.asked[-1].path, server.asked[-1].body


def test_c9_leaving_finishes_it_as_completed_and_the_credential_refuses(server: Canned) -> None:
    with asks(ttl=timedelta(seconds=90), reason="why", prove="10s", parameters={"ticket": "42"}) as access:
        orders = access["orders"]
        assert (orders.username, orders.password) == ("v-1-user", PASSWORD)
    assert last(server) == (f"/v1/grants/{ID}/finish?wait=10s", {"outcome": "completed"})
    assert server.asked[0].body == {
        "entitlement": "orders-read",
        "task": "T-1",
        "intent": "answer-question",
        "reason": "why",
        "ttl": "90s",
        "parameters": {"ticket": "42"},
    }
    assert access.ended is not None
    with pytest.raises(shorthold.OverError):
        _ = orders.password


def test_c11_an_exception_finishes_it_as_failed_and_goes_on_its_way(server: Canned) -> None:
    with pytest.raises(ZeroDivisionError), asks():
        _ = 1 / 0
    assert last(server) == (f"/v1/grants/{ID}/finish", {"outcome": "failed"})


def test_async_with_is_the_same_conversation(server: Canned) -> None:
    async def work() -> None:
        async with shorthold.task("T-1"):
            async with shorthold.grant("orders-read", intent="answer-question") as access:
                assert access.only.password == PASSWORD
                with pytest.raises(RuntimeError, match="in use"):
                    await again.__aenter__()
            with pytest.raises(shorthold.OverError):
                access.check()

    again = asks()
    asyncio.run(_entered(again, work))
    paths = [asked.path for asked in server.asked if asked.path != "/v1/sys/wrapping/unwrap"]
    assert paths == ["/v1/grants", "/v1/grants", *[f"/v1/grants/{ID}/finish"], "/v1/tasks/T-1/finish", paths[2]]
    assert {asked.headers.get("Authorization") for asked in server.asked} == {"Bearer tok", None}


async def _entered(lending: shorthold.Lending, work: Callable[[], Any]) -> None:
    async with lending:
        await work()


def test_a_cancelled_task_finishes_what_it_had(server: Canned) -> None:
    async def work() -> None:
        entered = asyncio.Event()

        async def agent() -> None:
            async with asks():
                entered.set()
                await asyncio.Event().wait()

        running = asyncio.create_task(agent())
        await entered.wait()
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(work())
    assert last(server) == (f"/v1/grants/{ID}/finish", {"outcome": "failed"})


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_c8_a_beat_that_is_refused_for_good_takes_the_credential_away_at_once(server: Canned, colour: str) -> None:
    beaten = told(heartbeat_due_at="2026-07-01T12:00:00.030+00:00")
    server.answers["POST /v1/grants"] = (201, {"grant": beaten, "leases": [], "wrapping_token": "w"})
    problem: JsonValue = {"code": "context-changed", "detail": "the window has closed", "reasons": []}
    server.answers[f"POST /v1/grants/{ID}/heartbeat"] = (403, problem)

    async def free() -> None:
        async with asks() as access:
            async with asyncio.timeout(60):
                while True:
                    access.check()
                    await asyncio.sleep(0.01)

    def plain() -> None:
        with asks() as access:
            ended = threading.Event()
            while not ended.wait(0.01):
                access.check()

    with pytest.raises(shorthold.OverError, match="the window has closed"):
        plain() if colour == "sync" else asyncio.run(free())
    assert "shorthold" not in {thread.name.split()[0] for thread in threading.enumerate()}


def test_an_end_that_nobody_heard_is_told_but_never_hides_what_went_wrong(
    server: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.sdk.exchanges._AGAIN", ())
    del server.answers[f"POST /v1/grants/{ID}/finish"]
    with pytest.raises(shorthold.ForeignAnswerError) as unheard, asks():
        pass
    assert "it lives until" in unheard.value.__notes__[0]
    with pytest.raises(ZeroDivisionError) as wrong, asks():
        _ = 1 / 0
    assert "it lives until" in wrong.value.__notes__[0]


def test_what_was_over_already_is_left_without_a_word(server: Canned) -> None:
    server.answers[f"POST /v1/grants/{ID}/finish"] = (409, {"code": "ended", "detail": "it has expired"})
    with asks():
        pass


@pytest.mark.parametrize("delivery", ["wrapped", "inline"])
def test_both_ways_of_delivery_look_the_same_to_the_agent(server: Canned, delivery: str) -> None:
    if delivery == "inline":
        credentials: JsonValue = {"orders": {"username": "v-1-user", "password": PASSWORD}}
        server.answers["POST /v1/grants"] = (201, {"grant": told(), "leases": [], "credentials": credentials})
        del server.answers["POST /v1/sys/wrapping/unwrap"]
    with asks() as access:
        assert access["orders"].password == PASSWORD
        assert list(access) == ["orders"]
        assert list(access["orders"]) == ["username", "password"]


def test_a_grant_without_a_task_is_refused_before_anything_is_sent(server: Canned) -> None:
    with pytest.raises(shorthold.ConfigurationError, match="name the task"):
        shorthold.grant("orders-read", intent="answer-question")
    assert server.asked == []


def test_c13_each_call_of_a_tool_has_a_grant_of_its_own_that_the_model_never_sees(server: Canned) -> None:
    @shorthold.tool("orders-read", intent="answer-question", task="T-1")
    def latest(limit: int, *, access: shorthold.Access) -> list[str]:
        """The latest orders."""
        return [f"{access['orders'].username}:{access['orders'].password}"] * limit

    @shorthold.tool("orders-read", intent="answer-question", task="T-1")
    async def freely(*, access: shorthold.Access) -> str:
        return access.only.password

    assert str(inspect.signature(latest)) == "(limit: int) -> list[str]"
    assert "access" not in latest.__annotations__
    assert latest.__doc__ == "The latest orders."
    assert latest(2) == ["v-1-user:[redacted]"] * 2  # a user name is no secret, and audit logs are searched by it
    assert asyncio.run(freely()) == "[redacted]"
    assert [asked.path for asked in server.asked].count("/v1/grants") == 2
    assert [asked.path for asked in server.asked].count(f"/v1/grants/{ID}/finish") == 2


def test_p10_a_tool_that_fails_with_a_secret_in_its_words_tells_it_without(server: Canned) -> None:
    @shorthold.tool("orders-read", intent="answer-question", task="T-1")
    def careless(*, access: shorthold.Access) -> None:
        raise ValueError(f"cannot log in with {access.only.password}")

    @shorthold.tool("orders-read", intent="answer-question", task="T-1")
    def careful(*, access: shorthold.Access) -> None:  # noqa: ARG001 # every tool takes it
        raise ValueError("no such order")

    with pytest.raises(shorthold.ToolFailedError, match=r"cannot log in with \[redacted\]") as failed:
        careless()
    assert PASSWORD not in "".join(traceback.format_exception(failed.value))
    assert failed.value.__context__ is None
    with pytest.raises(ValueError, match="no such order"):
        careful()
    assert last(server)[1] == {"outcome": "failed"}


def test_c1_each_call_is_a_task_of_its_own_unless_one_is_named(server: Canned) -> None:
    @shorthold.tool("orders-read", intent="answer-question")
    def latest(*, access: shorthold.Access) -> str:
        return access.task

    latest()
    latest()
    with shorthold.task("T-1"):
        latest()
    asked = [cast("dict[str, str]", one.body)["task"] for one in server.asked if one.path == "/v1/grants"]
    assert asked[2] == "T-1"
    assert all(re.fullmatch("latest-[0-9a-f]{12}", task) for task in asked[:2])
    assert len(set(asked)) == 3


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_framework_s_own_kind_of_error_says_code_reasons_and_what_to_do(server: Canned, colour: str) -> None:
    class ShownError(Exception):
        pass

    @shorthold.tool("orders-read", intent="answer-question", raises=ShownError)
    def plain(*, access: shorthold.Access) -> None:
        raise ValueError(f"cannot log in with {access.only.password}")

    @shorthold.tool("orders-read", intent="answer-question", raises=ShownError)
    async def free(*, access: shorthold.Access) -> None:
        raise ValueError(f"cannot log in with {access.only.password}")

    def call() -> None:
        plain() if colour == "sync" else asyncio.run(free())

    with pytest.raises(ShownError, match=r"^\[tool-failed\] ValueError: cannot log in with \[redacted\]") as shown:
        call()
    seen: BaseException | None = shown.value
    while seen is not None:  # nor does anything that it came of have it
        assert PASSWORD not in str(seen)
        seen = seen.__cause__ or seen.__context__
    reason: JsonValue = {"decision": "eligibility", "code": "not-eligible", "detail": "nobody knows you"}
    denial: JsonValue = {"code": "denied", "detail": "no", "reasons": [reason], "hint": "ask for less"}
    server.answers["POST /v1/grants"] = (403, denial)
    with pytest.raises(ShownError) as shown:
        call()
    said = "[denied] no\neligibility: nobody knows you [not-eligible]\nWhat to do: ask for less"
    assert str(shown.value) == said


def test_a_function_that_takes_no_access_is_no_tool() -> None:
    with pytest.raises(TypeError, match="takes no parameter access"):
        shorthold.tool("orders-read", intent="answer-question")(len)


def test_leaving_a_task_finishes_it_and_one_without_grants_is_no_error(server: Canned) -> None:
    with shorthold.task("T-1") as name:
        assert name == "T-1"
    assert last(server) == ("/v1/tasks/T-1/finish", {"outcome": "completed"})
    server.answers["POST /v1/tasks/T-1/finish"] = (404, {"code": "not-found", "detail": "no such task"})
    with pytest.raises(ZeroDivisionError), shorthold.task("T-1"):
        _ = 1 / 0
    assert last(server)[1] == {"outcome": "failed"}


def test_c3_a_token_file_is_read_at_every_call(server: Canned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "token"
    monkeypatch.setenv("SHORTHOLD_TOKEN_FILE", str(file))
    file.write_text("first\n")
    with asks():
        file.write_text("second\n")
    sent = [asked.headers.get("Authorization") for asked in server.asked]
    assert sent == ["Bearer first", None, "Bearer second"]
    file.unlink()
    with pytest.raises(shorthold.ConfigurationError, match="cannot be read"):
        asks().__enter__()


def test_c3_a_command_gives_a_token_and_nothing_else_is_shown_of_it() -> None:
    assert shorthold.from_command(sys.executable, "-c", "print('tok')")().reveal() == "tok"
    for program, said in (("import sys; sys.exit('canary')", "exit status 1"), ("print()", "is empty")):
        with pytest.raises(shorthold.ConfigurationError, match=said) as error:
            shorthold.from_command(sys.executable, "-c", program)()
        assert "canary" not in str(error.value)
    with pytest.raises(shorthold.ConfigurationError, match="cannot be run"):
        shorthold.from_command("/no/such/program")()


def test_c3_github_actions_gives_a_token_for_our_audience(server: Canned) -> None:
    server.answers["GET /token"] = (200, {"value": "jwt"})
    github = own(
        {"ACTIONS_ID_TOKEN_REQUEST_URL": f"{server.addr}/token?v=2", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "canary"}
    )
    assert github().reveal() == "jwt"
    assert server.asked[0].path == "/token?v=2&audience=shorthold"
    assert server.asked[0].headers["Authorization"] == "Bearer canary"
    answers: list[tuple[int, JsonValue]] = [(200, {}), (200, "<html>"), (403, {"message": "no"}), (200, [])]
    for answer in answers:
        server.answers["GET /token"] = answer
        with pytest.raises(shorthold.ConfigurationError) as error:
            github()
        assert "canary" not in str(error.value)


def test_c3_the_first_source_that_is_there_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spiffe", None)  # as where the extra is not installed
    file = tmp_path / "token"
    file.write_text("from-file")
    everything = {"SHORTHOLD_TOKEN_FILE": str(file), "SHORTHOLD_TOKEN": "given", "SHORTHOLD_TOKEN_COMMAND": "echo run"}
    for name, token in (("SHORTHOLD_TOKEN_FILE", "from-file"), ("SHORTHOLD_TOKEN", "given"), ("", "run")):
        assert own(everything)().reveal() == token
        everything.pop(name, None)
    with pytest.raises(shorthold.ConfigurationError, match="nothing says who you are"):
        own({})
    with pytest.raises(shorthold.ConfigurationError, match=r"shorthold\[spiffe\]"):
        own({"SPIFFE_ENDPOINT_SOCKET": "unix:/nowhere"})()
    assert "given" not in repr(shorthold.from_text("given"))
    assert shorthold.from_text(Secret("given"))().reveal() == "given"


def test_vault_is_where_the_environment_says_and_else_where_the_file_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Canned
) -> None:
    (tmp_path / "shorthold.toml").write_text('[vault]\naddr = "https://vault.example"\nnamespace = "team"\n')
    assert shorthold.surroundings().vault.addr == server.addr
    monkeypatch.delenv("BAO_ADDR")
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    assert shorthold.surroundings().vault == shorthold.VaultAt(addr="https://vault.example", namespace="team")
    monkeypatch.setenv("SHORTHOLD_VAULT__ADDR", "http://127.0.0.1:1")
    assert shorthold.surroundings().vault == shorthold.VaultAt(addr="http://127.0.0.1:1")
    (tmp_path / "shorthold.toml").write_text("[vault\n")
    monkeypatch.delenv("SHORTHOLD_VAULT__ADDR")
    with pytest.raises(shorthold.ConfigurationError, match="cannot be read"):
        shorthold.surroundings()


def test_importing_it_brings_neither_pydantic_nor_a_framework_nor_asyncio() -> None:
    heavy = ("pydantic", "fastapi", "sqlalchemy", "asyncio", "click", "rich", "hvac", "cryptography", "h11", "psycopg")
    code = f"import controlplane.sdk, sys, json; print(json.dumps([n for n in {heavy!r} if n in sys.modules]))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == []
