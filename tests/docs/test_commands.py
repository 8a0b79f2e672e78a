"""Every command in README and docs is executed, in its order, by a shell, on a stack of its own."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from controlplane.dev.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
MAKE = re.compile(r"make [a-z]+")


def commands(page: Path) -> list[str]:
    blocks: list[str] = re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def with_commands() -> list[Path]:
    return [page for page in PAGES if any(not MAKE.fullmatch(command) for command in commands(page))]


@pytest.fixture
def project(tmp_path: Path) -> Generator[Path]:
    """What a clone has: the environment, the entitlements, and no servers yet."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "roles").symlink_to(ROOT / "roles")
    yield tmp_path
    Stack(project=tmp_path, say=lambda _: None).destroy()


@pytest.mark.parametrize("page", with_commands(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_the_page_works(page: Path, project: Path) -> None:
    lines = [command for command in commands(page) if not MAKE.fullmatch(command)]
    script = "\n".join(f"echo {shlex.quote('$ ' + line)} >&2\n{line}" for line in lines)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BAO_", "VAULT_", "SHORTHOLD_"))}
    environment = {**clean, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr


def test_the_make_commands_of_the_readme_are_the_ones_that_ci_and_the_demo_run() -> None:
    named = {command for command in commands(ROOT / "README.md") if MAKE.fullmatch(command)}
    assert named == {"make demo", "make test"}
    # `make test` is what runs this file: .ci/run calls exactly that, after the gates.
    steps = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert steps[-2:] == ["make check", "make test"]
    # `make demo` is `shorthold demo`, which tests/e2e/test_demo.py runs.
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^demo:.*\n\t@\$\(BIN\)/shorthold demo$", recipe, re.MULTILINE)
