"""The Python and the YAML of docs/agents.md: every program runs as it stands, on the real servers."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from controlplane.dev.stack import Stack
from controlplane.dev.story import AGENT
from controlplane.sdk.identity import AUDIENCE, PROJECTED
from controlplane.settings import environment_with

PAGE: Final = (Path(__file__).parents[2] / "docs" / "agents.md").read_text(encoding="utf-8")
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
