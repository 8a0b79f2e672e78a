"""A model's tools on real servers: the SDK's own client over stdio and over HTTP, from need to proof (C17, C9, P10)."""

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from controlplane.dev import loopback
from controlplane.dev.configuration import configuration_file
from controlplane.dev.issuer import mint
from controlplane.dev.process import until
from controlplane.dev.stack import Stack
from controlplane.dev.story import AGENT
from controlplane.model.secret import Secret
from controlplane.sdk.client import AnsweredError, Shorthold
from controlplane.settings import environment_with
from controlplane.world import RandomIds, SystemClock

pytestmark = [pytest.mark.servers, pytest.mark.timeout(170)]

REFUND = "repo:acme/refund-agent:ref:refs/heads/main"
READY = timedelta(seconds=60)


@dataclass(frozen=True)
class Site:
    stack: Stack
    resource: str
    results: list[Any]

    def token(self, subject: str, audience: str, **claims: Any) -> Secret:
        issuer, now = self.stack.issuer, SystemClock().now()
        return mint(issuer.key, issuer.url, subject, now=now, ids=RandomIds(), audience=audience, claims=claims)

    def client(self, subject: str, **claims: Any) -> Shorthold:
        return Shorthold(self.stack.api, lambda: self.token(subject, "shorthold", **claims))

    def environment(self, subject: str) -> dict[str, str]:
        token = f"{shlex.quote(sys.executable)} -m controlplane dev token --subject {subject}"
        return environment_with(**self.stack.environment(), SHORTHOLD_TOKEN_COMMAND=token)

    def use(self, words: Sequence[str], subject: str, fields: Path) -> str:
        """Run what a tool said, with a program that keeps the password: what a model must never see."""
        given = ["--file", "SECRET=password", "--", "sh", "-c", f'cat "$SECRET" > {shlex.quote(str(fields))}']
        command = [sys.executable, "-m", "controlplane", *words[1:-1], *given]
        environment = self.environment(subject)
        run = subprocess.run(
            command, cwd=self.stack.project, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert run.returncode == 0, run.stderr
        return fields.read_text(encoding="utf-8").strip()

    async def call(self, client: Client, tool: str, **arguments: Any) -> Any:  # noqa: ANN401 # JSON of any shape
        result = await client.call_tool(tool, arguments)
        self.results.append(result.model_dump(mode="json"))
        assert not result.is_error, result.content
        return result.structured_content


@pytest.fixture(scope="module")
def site(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    """The shared stack, and `shorthold mcp --http` beside it as another process of its control plane."""
    port = loopback.free_port(but=set())
    resource = f"http://{loopback.HOST}:{port}/mcp"
    own = tmp_path_factory.mktemp("mcp")
    log = own / "mcp.log"
    environment = {
        "PATH": os.defpath,
        "HOME": str(own),
        "LANG": "C.UTF-8",
        "SHORTHOLD_CONFIG": str(configuration_file(stack.home)),
        "SHORTHOLD_WORKER__RECONCILE": "off",
        "SHORTHOLD_MCP__RESOURCE": resource,
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "controlplane", "mcp", "--http", "--port", str(port)],
            cwd=stack.home.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        assert until(lambda: b"listen on" in log.read_bytes() or process.poll() is not None, READY), log.read_text()
        assert process.poll() is None, log.read_text()
        yield Site(stack=stack, resource=resource, results=[])
    finally:
        process.terminate()
        process.wait(60)
    assert "Traceback" not in log.read_text()


def test_p10_from_need_to_proof_over_stdio_and_http_and_no_result_has_what_was_issued(
    site: Site, tmp_path: Path
) -> None:
    task = f"T-mcp/{tmp_path.name}"

    async def reader() -> str:
        command = StdioServerParameters(
            command=sys.executable,
            args=["-m", "controlplane", "mcp"],
            env=site.environment(AGENT),
            cwd=site.stack.project,
        )
        async with Client(command) as client:
            found = await site.call(client, "find_access", needs=["permission denied for table orders"])
            (orders,) = (one for one in found["found"] if one["entitlement"] == "orders-read")
            wish = {"entitlement": "orders-read", "task": task, "intent": orders["intent"]}
            asked = await site.call(client, "request_access", **wish)
            assert asked["state"] == "allowed"
            password = await asyncio.to_thread(site.use, asked["use"], AGENT, tmp_path / "read")
            (held,) = (await site.call(client, "list_grants", task=task))["grants"]
            assert held["entitlement"] == "orders-read"
            ended = await site.call(client, "finish_task", task=task)
            assert (ended["task"], ended["why"]) == (task, "completed")
        return password

    async def refunder() -> str:
        async with AsyncExitStack() as open:
            token = site.token(REFUND, site.resource).reveal()
            http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=90)
            transport = streamable_http_client(site.resource, http_client=await open.enter_async_context(http))
            client = await open.enter_async_context(Client(transport))
            wish = {"entitlement": "orders-refund", "task": task, "intent": "issue-refund", "reason": "paid twice"}
            asked = await site.call(client, "request_access", **wish)
            id = asked["grant"]
            assert asked["state"] == "pending"
            assert f"shorthold grant approve {id}" in asked["says"]
            with site.client("ann", role="approver", groups=["billing-oncall"]) as ann:
                ann.approve(id, ann.show(id)["asked"]["digest"])
            (held,) = (await site.call(client, "list_grants", task=task))["grants"]
            assert held["state"] == "approved"
            password = await asyncio.to_thread(site.use, asked["use"], REFUND, tmp_path / "refund")
            await site.call(client, "finish_task", task=task)
        return password

    passwords = {asyncio.run(reader()), asyncio.run(refunder())}
    assert all(len(password) > 10 for password in passwords)
    assert not any(password in json.dumps(site.results) for password in passwords)
    assert re.search(r"hv[sbr]\.|\b[sb]\.[A-Za-z0-9]{20}", json.dumps(site.results)) is None  # nor a token of Vault's
    for subject in (AGENT, REFUND):
        with site.client(subject) as client:
            (id,) = (grant["id"] for grant in client.list()["grants"] if grant["task"] == task)
            receipt = client.finish(id, wait="60s")["grant"]["receipt"]
            assert receipt["verified"] is True


def test_killed_with_9_the_tools_take_no_access_with_them_and_the_next_ones_end_it(site: Site, tmp_path: Path) -> None:
    task, pid = f"T-killed/{tmp_path.name}", tmp_path / "pid"
    script = f"echo $$ > {shlex.quote(str(pid))}; exec {shlex.quote(sys.executable)} -m controlplane mcp"
    wish = {"entitlement": "orders-read", "task": task, "intent": "answer-question"}
    token = site.token(AGENT, "shorthold").reveal()
    environment = environment_with(**site.stack.environment(), SHORTHOLD_TOKEN=token)
    with site.client(AGENT) as program:
        id = program.request(wish)["grant"]["id"]

    async def served(*, killed: bool) -> tuple[str, str | None]:
        command = StdioServerParameters(command="sh", args=["-c", script], env=environment, cwd=site.stack.project)
        async with Client(command) as client:
            told = await asyncio.gather(  # two at once, in one session
                site.call(client, "list_grants", task=task), site.call(client, "find_access", needs=["sales.orders"])
            )
            (held,) = told[0]["grants"]
            if killed:
                os.kill(int(pid.read_text()), signal.SIGKILL)
                with pytest.raises(MCPError):
                    await client.call_tool("list_grants", {})
                return held["state"], None
            ended = await site.call(client, "finish_task", task=task)
        return held["state"], ended["why"]

    assert asyncio.run(served(killed=True)) == ("active", None)
    assert asyncio.run(served(killed=False)) == ("active", "completed")
    with site.client(AGENT) as program:
        assert program.finish(id, wait="60s")["grant"]["receipt"]["verified"] is True


def test_a_token_for_the_tools_is_none_for_the_api_nor_the_other_way_round(site: Site) -> None:
    with Shorthold(site.stack.api, lambda: site.token(AGENT, site.resource)) as client:
        with pytest.raises(AnsweredError) as refused:
            client.list()
        assert refused.value.told_code == "not-authenticated"
    for audience, status in (("shorthold", 401), (f"{site.resource}/", 401)):
        bearer = {"Authorization": f"Bearer {site.token(AGENT, audience).reveal()}"}
        assert httpx2.post(site.resource, json={}, headers=bearer, timeout=60).status_code == status
