"""The Python and the YAML of docs/agents.md and docs/mcp.md: every program runs as it stands, on the real servers."""

import asyncio
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult

from controlplane.dev.stack import Stack
from controlplane.dev.story import AGENT
from controlplane.mcp.tools import Tools
from controlplane.sdk.calls import Call, Json
from controlplane.sdk.identity import AUDIENCE, PROJECTED
from controlplane.settings import McpSettings, environment_with

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE, TOOLS = ((DOCS / name).read_text(encoding="utf-8") for name in ("agents.md", "mcp.md"))
PROGRAMS: Final = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SAID: Final = ("(", "[(<Decides.ELIGIBILITY: 'eligibility'>, 'not-eligible')]", "['")


@pytest.mark.servers
def test_every_program_of_the_page_runs_as_it_stands(stack: Stack) -> None:
    assert len(PROGRAMS) == len(SAID)
    token = f"{shlex.quote(sys.executable)} -m controlplane dev token --subject {AGENT}"
    environment = environment_with(**stack.environment(), SHORTHOLD_TOKEN_COMMAND=token)
    for program, said in zip(PROGRAMS, SAID, strict=True):
        run = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            cwd=stack.project,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout.startswith(said)


@pytest.mark.servers
def test_the_tool_server_of_the_page_serves_a_model_and_tells_it_why_not(stack: Stack) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", TOOLS, re.DOTALL)

    async def asked(subject: str) -> tuple[CallToolResult, Any]:
        token = f"{shlex.quote(sys.executable)} -m controlplane dev token --subject {subject}"
        environment = environment_with(**stack.environment(), SHORTHOLD_TOKEN_COMMAND=token)
        server = StdioServerParameters(command=sys.executable, args=["-c", program], env=environment, cwd=stack.project)
        async with Client(server) as client:
            (tool,) = (await client.list_tools()).tools
            return await client.call_tool("latest_orders", {"limit": 2}), tool.input_schema

    result, schema = asyncio.run(asked(AGENT))
    assert list(schema["properties"]) == ["limit"]
    assert not result.is_error
    assert result.structured_content is not None
    assert len(result.structured_content["result"]) == 2
    result, _ = asyncio.run(asked("repo:acme/somebody-else"))
    assert result.is_error
    (said,) = result.content
    assert "[denied]" in said.model_dump_json()
    assert "not-eligible" in said.model_dump_json()


def test_the_settings_and_the_tools_of_the_page_are_those_that_there_are() -> None:
    (told,) = re.findall(r"```toml\n(.*?)```", TOOLS, re.DOTALL)
    assert McpSettings.model_validate(tomllib.loads(told)["mcp"]).resource
    assert set(tomllib.loads(told)["mcp"]) == set(McpSettings.model_fields)
    (client,) = re.findall(r"```json\n(.*?)```", TOOLS, re.DOTALL)
    assert json.loads(client)["mcpServers"]["shorthold"]["args"] == ["mcp"]
    names = {tool.name for tool in asyncio.run(Tools(asks=lambda _: no_answer).serve().list_tools())}
    assert names == set(re.findall(r"^\| `([a-z_]+)` \|", TOOLS, re.MULTILINE))


async def no_answer(call: Call) -> Json:
    raise AssertionError(call)


def test_the_workflow_and_the_pod_of_the_page_say_what_the_sdk_looks_for(tmp_path: Path) -> None:
    workflow, pod = (block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    file = tmp_path / "report.yaml"
    file.write_text(workflow, encoding="utf-8")
    checker = str(Path(sys.executable).parent / "check-jsonschema")
    check = [checker, "--builtin-schema", "vendor.github-workflows", str(file)]
    run = subprocess.run(check, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    assert yaml.safe_load(workflow)["permissions"] == {"id-token": "write"}
    spec: dict[str, Any] = yaml.safe_load(pod)["spec"]
    (mount,) = spec["containers"][0]["volumeMounts"]
    (source,) = spec["volumes"][0]["projected"]["sources"]
    token = source["serviceAccountToken"]
    assert f"{mount['mountPath']}/{token['path']}" == PROJECTED
    assert token["audience"] == AUDIENCE
