"""The tools of a model: what they say, what they never say, and who may call them over HTTP (C17, P07, P10, P12)."""

import asyncio
import importlib.util
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from click.testing import CliRunner
from mcp import Client
from mcp.client.session import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, ElicitRequestParams, ElicitRequestURLParams, ElicitResult
from pydantic import ValidationError

from controlplane.cli.mcp import mcp
from controlplane.dev.process import until
from controlplane.http.app import create_app
from controlplane.mcp.resource import resource_app
from controlplane.mcp.tools import Tools
from controlplane.model.errors import ConfigurationError
from controlplane.model.grant import GrantId, State
from controlplane.model.network import parse_address
from controlplane.sdk import calls
from controlplane.sdk.calls import Call, Json
from controlplane.sdk.refusals import UnreachableError
from controlplane.settings import McpSettings, load
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane
from controlplane.wiring.plane import ControlPlane

RESOURCE = "http://door.example/mcp"
CANARY = "canary-2f7a"
WISH = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}
NEEDS_PEOPLE: dict[str, Any] = {"risk": "high", "approval": {"quorum": 1, "from": ["group:oncall"]}}
ID = "gr_" + "a" * 24
GRANT: Json = {
    "id": ID,
    "state": "pending",
    "entitlement": "orders-read",
    "task": "T-1",
    "intent": "answer-question",
    "expires_at": "2026-07-01T12:30:00+00:00",
    "why": None,
}

WITHIN = timedelta(seconds=60)

Talk = Callable[[Client], Awaitable[None]]
Work = Callable[[httpx2.AsyncClient], Awaitable[None]]


def served(plane: FakePlane, work: Work, *, page: str | None = None, peer: str = "127.0.0.1") -> None:
    """`work` over HTTP against the tools of `plane`, without a socket."""

    async def run() -> None:
        door = cast("ControlPlane", plane)
        api = create_app(door, worker=False)
        app = resource_app(door, api, resource=RESOURCE, authorization_servers=["https://issuer.example"], page=page)
        transport = httpx2.ASGITransport(app, client=(peer, 4711))
        async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport) as client:
            await work(client)

    asyncio.run(run())


def over_http(plane: FakePlane, talk: Talk, **more: Any) -> None:
    async def work(http: httpx2.AsyncClient) -> None:
        http.headers["Authorization"] = f"Bearer {plane.issuer.mint(AGENT, jti='token-mcp').reveal()}"
        async with Client(streamable_http_client(RESOURCE, http_client=http)) as client:
            await talk(client)

    served(plane, work, **more)


def told(result: CallToolResult) -> Json:
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


def refused(result: CallToolResult) -> str:
    assert result.is_error
    return str(cast("Any", result.content[0]).text)


def test_p12_a_model_finds_asks_and_is_told_why_not_and_nothing_is_made_before_a_program_uses_it() -> None:
    elsewhere = [{"issuer": "dev", "subject": "somebody-else"}]
    plane = FakePlane(compiled_entitlement(), compiled_entitlement(entitlement="payroll", eligibility=elsewhere))

    async def talk(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"find_access", "request_access", "explain_denial", "finish_task", "list_grants"}
        assert all(tool.annotations is not None for tool in tools.values())
        found = told(await client.call_tool("find_access", {"needs": ["select sales.orders", "payroll"]}))
        assert [one["entitlement"] for one in found["found"]] == ["orders-read"]
        assert found["missing"]
        asked = told(await client.call_tool("request_access", {**WISH, "ttl": "2m", "reason": "who ordered?"}))
        assert asked["state"] == "allowed"
        assert " ".join(asked["use"]) == (
            "shorthold exec orders-read --task T-1 --intent answer-question --reason who ordered? --ttl 2m --"
        )
        assert plane.store.grants(limit=1) == []
        denied = refused(await client.call_tool("request_access", {**WISH, "entitlement": "payroll"}))
        assert "[denied]" in denied
        assert "[not-eligible]" in denied
        assert "What to do:" in denied
        same = refused(await client.call_tool("request_access", {**WISH, "entitlement": "no-such-thing"}))
        assert same.replace("no-such-thing", "payroll") == denied
        why = told(await client.call_tool("explain_denial", {"entitlement": "payroll", "intent": "answer-question"}))
        assert (why["decision"], why["reasons"][0]["code"]) == ("deny", "not-eligible")
        wrong = refused(await client.call_tool("request_access", {**WISH, "task": "no task"}))
        assert "[invalid-request]" in wrong
        nothing = refused(await client.call_tool("finish_task", {"task": "T-other"}))
        assert "[not-found]" in nothing

    over_http(plane, talk)


def test_c9_a_model_ends_its_task_and_sees_what_is_gone_but_never_what_was_issued() -> None:
    plane = FakePlane(compiled_entitlement(delivery="inline"))
    delivered = plane.ask()
    results: list[CallToolResult] = []

    async def talk(client: Client) -> None:
        results.append(await client.call_tool("list_grants", {"task": "T-1"}))
        ending = asyncio.create_task(client.call_tool("finish_task", {"task": "T-1"}))
        begun = await asyncio.to_thread(until, lambda: plane.grant(delivered.grant.id).state is State.REVOKING, WITHIN)
        assert begun
        await asyncio.to_thread(plane.work)
        results.append(await ending)
        results.append(await client.call_tool("list_grants", {"state": "revoked"}))

    over_http(plane, talk)
    first, ended, last = (told(result) for result in results)
    assert [one["state"] for one in first["grants"]] == ["active"]
    assert (ended["task"], ended["why"]) == ("T-1", "completed")
    assert [(one["id"], one["verified_gone"]) for one in last["grants"]] == [(delivered.grant.id, True)]
    issued = {secret.reveal() for fields in (delivered.credentials or {}).values() for secret in fields.values()}
    assert issued
    assert not any(secret in result.model_dump_json() for secret in issued for result in results)


@pytest.mark.parametrize(("answer", "looks"), [("accept", "25s"), ("decline", None)])
def test_c17_a_person_is_shown_the_page_and_his_click_agrees_to_nothing(answer: Any, looks: str | None) -> None:  # noqa: ANN401 # a literal
    plane = FakePlane(compiled_entitlement(**NEEDS_PEOPLE))
    asked = Asked({"POST /v1/grants?dry_run=1": {"decision": "needs-approval"}, "POST /v1/grants": {"grant": GRANT}})
    looked = f"GET /v1/grants/{ID}{f'?wait={looks}' if looks else ''}"
    asked.answers[looked] = {"grant": GRANT}
    shown: list[ElicitRequestURLParams] = []

    async def seen(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        del context
        assert isinstance(params, ElicitRequestURLParams)
        shown.append(params)
        return ElicitResult(action=answer)

    async def talk(client: Client) -> None:
        pending = told(await client.call_tool("request_access", WISH))
        assert (pending["state"], pending["page"]) == ("pending", f"https://agree.example/{ID}")
        asked.answers[looked] = {"grant": {**GRANT, "state": "approved"}}
        agreed = told(await client.call_tool("request_access", WISH))
        assert (agreed["state"], agreed["use"][-2]) == ("approved", ID)
        asked.answers[looked] = {"grant": {**GRANT, "state": "denied"}}
        refused = told(await client.call_tool("request_access", WISH))
        assert (refused["state"], refused["use"]) == ("denied", None)

    page = "https://agree.example/{id}"
    for mode in ("auto", "legacy"):  # asked by a result and called again; asked in between
        asked.answers[looked] = {"grant": GRANT}
        asked.talk(talk, page=page, mode=mode, elicitation_callback=seen)
    assert {params.url for params in shown} == {f"https://agree.example/{ID}"}
    assert len(shown) == 6
    assert asked.said.count("POST /v1/grants") == 6  # the second round asks for nothing
    assert plane.store.grants(limit=1) == []


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_that_opens_no_pages_is_told_in_words(mode: str) -> None:
    asked = Asked({"POST /v1/grants?dry_run=1": {"decision": "needs-approval"}, "POST /v1/grants": {"grant": GRANT}})

    async def talk(client: Client) -> None:
        pending = told(await client.call_tool("request_access", WISH))
        assert pending["state"] == "pending"
        assert "somebody else has to agree" in pending["says"]
        assert f"shorthold exec orders-read --grant {ID} --" in pending["says"]

    for page, words in ((None, f"`shorthold grant approve {ID}`"), ("https://agree.example/{id}", "https://agree")):
        asked.talk(talk, page=page, mode=mode)
        assert words in json.dumps(asked.results[-1])


def test_p10_whatever_an_answer_holds_only_named_fields_reach_the_model() -> None:
    secrets = {"wrapping_token": CANARY, "credentials": {"orders": {"password": CANARY}}, "accessor": CANARY}
    held = {**GRANT, **secrets, "state": "active", "receipt": {"verified": False, "evidence": CANARY}}
    asked = Asked(
        {
            "POST /v1/grants?dry_run=1": {"decision": "needs-approval", "reasons": [], "retry_after": None, **secrets},
            "POST /v1/grants": {"grant": held, **secrets},
            f"POST /v1/grants/{ID}/finish": {"grant": held, **secrets},
            "GET /v1/grants": {"grants": [held], **secrets},
            "POST /v1/tasks/T-1/finish?wait=10s": {"task": {"task": "T-1", "why": None}, "grants": [held], **secrets},
            "POST /v1/needs": {"found": [], "missing": [], **secrets},
        }
    )

    async def talk(client: Client) -> None:
        assert told(await client.call_tool("request_access", WISH))["state"] == "allowed"
        told(await client.call_tool("explain_denial", {"entitlement": "orders-read", "intent": "answer-question"}))
        told(await client.call_tool("finish_task", {"task": "T-1"}))
        told(await client.call_tool("list_grants"))
        told(await client.call_tool("find_access", {"needs": ["orders"]}))

    asked.talk(talk)
    # What was made although people should have agreed first is taken back at once: nobody here may have it.
    assert f"POST /v1/grants/{ID}/finish" in asked.said
    assert CANARY not in json.dumps(asked.results)


def test_a_client_that_goes_away_amid_a_request_leaves_nothing_that_nobody_ends() -> None:
    active: Json = {**GRANT, "state": "active"}
    asked = Asked(
        {
            "POST /v1/grants?dry_run=1": {"decision": "needs-approval"},
            "POST /v1/grants": {"grant": active},
            f"POST /v1/grants/{ID}/finish": {"grant": active},
            "GET /v1/grants": {"grants": []},
        }
    )

    async def talk(client: Client) -> None:
        begun, on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        answer = asked.line

        async def slow(call: Call) -> Json:
            if (call.method, call.path) == ("POST", "/v1/grants"):
                begun.set()
                await on.wait()
            heard = await answer(call)
            if call.path.endswith("/finish"):
                ended.set()
            return heard

        asked.line = slow
        call = asyncio.create_task(client.call_tool("request_access", WISH))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        told(await client.call_tool("list_grants"))  # answered beside the other, and after what said that it is over
        assert asked.said == ["POST /v1/grants?dry_run=1", "GET /v1/grants"]
        on.set()
        await asyncio.wait_for(ended.wait(), WITHIN.total_seconds())

    asked.talk(talk, mode="legacy")  # over streams, as with stdio; the other is a call within one process
    assert asked.said[2:] == ["POST /v1/grants", f"POST /v1/grants/{ID}/finish"]


def test_what_nobody_answers_and_what_nobody_expected_are_no_tracebacks() -> None:
    async def silent(call: Call) -> Json:
        del call
        raise UnreachableError("nobody listens there")

    async def broken(call: Call) -> Json:
        del call
        raise RuntimeError(CANARY)

    async def talk(client: Client) -> None:
        said = refused(await client.call_tool("list_grants"))
        assert CANARY not in said
        seen.append(said)

    seen: list[str] = []
    for line in (silent, broken):
        asked = Asked({})
        asked.line = line
        asked.talk(talk)
    assert "[unreachable] nobody listens there" in seen[0]
    assert seen[1] == "Error executing tool list_grants"


def test_a_client_without_a_token_for_this_resource_is_told_where_to_get_one() -> None:
    plane = FakePlane(compiled_entitlement())

    async def work(http: httpx2.AsyncClient) -> None:
        asked = await http.post(RESOURCE, json={})
        assert asked.status_code == 401
        challenge = asked.headers["WWW-Authenticate"]
        where = "http://door.example/.well-known/oauth-protected-resource/mcp"
        assert challenge.startswith("Bearer ")
        assert f'resource_metadata="{where}"' in challenge
        told = (await http.get(where)).json()
        assert (told["resource"], told["authorization_servers"]) == (RESOURCE, ["https://issuer.example"])
        for other in ("https://other.example", ["shorthold", "https://other.example"]):  # for others, or for others too
            token = plane.issuer.mint(AGENT, aud=other).reveal()
            answer = await http.post(RESOURCE, json={}, headers={"Authorization": f"Bearer {token}"})
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, challenge)
        good = {"Authorization": f"Bearer {plane.issuer.mint(AGENT).reveal()}"}
        rebound = await http.post(RESOURCE, json={}, headers={**good, "Host": "evil.example"})
        assert rebound.status_code == 421
        browser = await http.post(RESOURCE, json={}, headers={**good, "Origin": "https://evil.example"})
        assert browser.status_code == 403
        large = await http.post(RESOURCE, content=b" " * 70_000, headers={**good, "Content-Type": "application/json"})
        assert large.status_code == 413

    served(plane, work)


@pytest.mark.parametrize(("peer", "decision"), [("10.1.2.3", "allow"), ("192.0.2.1", "deny")])
def test_the_address_that_is_decided_on_is_the_caller_s(peer: str, decision: str) -> None:
    plane = FakePlane(compiled_entitlement(context={"networks": ["10.0.0.0/8"]}))
    assert parse_address(peer) is not None

    async def talk(client: Client) -> None:
        why = told(
            await client.call_tool("explain_denial", {"entitlement": "orders-read", "intent": "answer-question"})
        )
        assert why["decision"] == decision

    over_http(plane, talk, peer=peer)


def test_tokens_for_the_tools_are_for_nothing_else_and_the_resource_is_named_safely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    issuer = [{"name": "dev", "kind": "oidc", "url": "https://issuer.example", "audiences": ["shorthold"]}]
    monkeypatch.setenv("SHORTHOLD_ISSUERS", json.dumps(issuer))
    with pytest.raises(ConfigurationError, match=r"mcp\.resource"):
        load().for_mcp()
    monkeypatch.setenv("SHORTHOLD_MCP__RESOURCE", "https://shorthold.acme.example/mcp")
    changed = load().for_mcp()
    assert [each.audiences for each in changed.issuers] == [("https://shorthold.acme.example/mcp",)]
    assert [each.audiences for each in load().issuers] == [("shorthold",)]
    for wrong in ("http://shorthold.acme.example/mcp", "https://a.example/mcp#x", "ftp://a.example", "mcp"):
        with pytest.raises(ValidationError):
            McpSettings(resource=wrong)


def test_the_command_says_what_is_missing_before_anybody_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SHORTHOLD_TOKEN", "SHORTHOLD_TOKEN_FILE", "SHORTHOLD_TOKEN_COMMAND", "SHORTHOLD_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    assert "--host and --port are for --http" in CliRunner().invoke(mcp, ["--port", "1"]).output
    with pytest.raises(ConfigurationError, match="nothing says who you are"):
        CliRunner().invoke(mcp, [], catch_exceptions=False)
    with pytest.raises(ConfigurationError, match=r"mcp\.resource"):
        CliRunner().invoke(mcp, ["--http"], catch_exceptions=False)
    monkeypatch.setattr(importlib.util, "find_spec", not_installed)
    with pytest.raises(ConfigurationError, match=r"shorthold\[mcp\]"):
        CliRunner().invoke(mcp, [], catch_exceptions=False)


def test_a_grant_that_waits_in_the_store_is_shown_by_its_state() -> None:
    plane = FakePlane(compiled_entitlement(**NEEDS_PEOPLE))
    ids: list[str] = []

    async def talk(client: Client) -> None:
        ids.append(told(await client.call_tool("request_access", WISH))["grant"])
        spent = refused(await client.call_tool("request_access", {**WISH, "task": "T-2"}))
        assert "[token-replayed]" in spent  # one token asks for one grant

    over_http(plane, talk)
    assert plane.grant(GrantId(ids[0])).state is State.PENDING


def not_installed(name: str) -> None:
    assert name == "mcp"


class Asked:
    """A control plane of canned answers by `METHOD /path`, that remembers what it was asked and what was told."""

    def __init__(self, answers: dict[str, Json]) -> None:
        self.answers = answers
        self.said: list[str] = []
        self.results: list[Json] = []
        self.line: Callable[[Call], Awaitable[Json]] = self._answer

    async def _answer(self, call: Call) -> Json:
        self.said.append(f"{call.method} {call.path}")
        return calls.heard(call, "here", 200, json.dumps(self.answers[self.said[-1]]).encode())

    def talk(self, talk: Talk, *, page: str | None = None, **more: Any) -> None:
        class Recording(Client):
            results: Sequence[Json] = ()

            async def call_tool(self, *args: Any, **named: Any) -> CallToolResult:  # pyright: ignore[reportIncompatibleMethodOverride] # as it is, and kept
                result = await super().call_tool(*args, **named)
                asked.results.append(result.model_dump(mode="json"))
                return result

        asked = self

        async def run() -> None:
            async with Recording(Tools(asks=lambda _: self.line, page=page).serve(), **more) as client:
                await talk(client)

        asyncio.run(run())
