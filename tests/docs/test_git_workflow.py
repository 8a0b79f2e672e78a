"""docs/git-workflow.md: forges read the workflows, which run commands that work; the hooks do, too."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs" / "git-workflow.md").read_text(encoding="utf-8")
HOOKS: Final[list[dict[str, Any]]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))


def block(words: str) -> str:
    (found,) = re.findall(rf"^```{words}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return found


@pytest.mark.parametrize("forge", ["github-workflow", "gitlab-ci"])
def test_a_forge_reads_the_workflow(tmp_path: Path, forge: str) -> None:
    """Against the schemas that check-jsonschema carries."""
    schema = {"github-workflow": "vendor.github-workflows", "gitlab-ci": "vendor.gitlab-ci"}[forge]
    file = tmp_path / "workflow.yaml"
    file.write_text(block(f"yaml {forge}"), encoding="utf-8")
    program = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    extra = ["--data-transform", "gitlab-ci"] if forge == "gitlab-ci" else []
    run = subprocess.run([*program, *extra, str(file)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("forge", ["github-workflow", "gitlab-ci"])
def test_every_command_of_a_workflow_is_one_that_the_page_shows_at_work(forge: str) -> None:
    """Those of the console block are executed by test_commands.py; a workflow uses no word that they do not."""
    shown = [set(shlex.split(line[2:], comments=True)) for line in block("console").splitlines()]
    used = re.findall(r"shorthold [a-z][^|&\n]*", block(f"yaml {forge}"))
    commands = [line for line in used if "install" not in line]
    assert len(commands) >= 4
    for line in commands:
        words = {word for word in shlex.split(line.split(">")[0].rstrip(")\"' ")) if not word.endswith(".plan")}
        assert any(words - {"sarif"} <= known for known in shown), line


def test_no_workflow_gives_a_stranger_an_identity() -> None:
    jobs: dict[str, Any] = yaml.safe_load(block("yaml github-workflow"))["jobs"]
    assert "pull_request_target" not in PAGE
    for name, job in jobs.items():
        if "id-token" in job["permissions"]:
            assert (
                "head.repo.full_name == github.repository" in job["if"] or job["if"] == "github.event_name == 'push'"
            ), name


def test_the_page_names_the_hooks_that_there_are() -> None:
    named: dict[str, Any] = yaml.safe_load(block("yaml pre-commit"))
    assert {hook["id"] for hook in named["repos"][0]["hooks"]} == {hook["id"] for hook in HOOKS}


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: str(hook["id"]))
def test_a_hook_passes_the_shipped_directory_and_stops_a_broken_one(tmp_path: Path, hook: dict[str, Any]) -> None:
    roles = Path(shutil.copytree(ROOT / "roles", tmp_path / "roles"))
    assert hook["pass_filenames"] is False
    assert all(re.search(hook["files"], f"roles/{name}") for name in ("orders-read.yaml", "policies/guardrails.cedar"))

    def status() -> int:
        program, *arguments = hook["entry"].split()
        assert program == "shorthold"
        command = [sys.executable, "-m", "controlplane", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode

    assert status() == 0
    (roles / "policies" / "guardrails.cedar").write_text("forbid (principal, action, resource);")
    assert status() == 1
