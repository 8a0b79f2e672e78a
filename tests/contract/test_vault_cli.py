"""`shorthold vault bootstrap` as an operator runs it, against a real server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.dev.openbao import OpenBao
from controlplane.vault.client import VaultClient, part

pytestmark = pytest.mark.servers


class Operator:
    """A shell with the operator's environment in an empty directory."""

    def __init__(self, directory: Path, addr: str, token: str | None) -> None:
        self.directory = directory
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "NO_COLOR": "1",
            "BAO_ADDR": addr,
            "SHORTHOLD_VAULT__PREFIX": "vc",
            "SHORTHOLD_VAULT__AUTH_MOUNT": "shorthold-vc",
        } | ({"BAO_TOKEN": token} if token else {})

    def run(self, *arguments: str, typed: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "controlplane", "vault", "bootstrap", *arguments],
            cwd=self.directory,
            env=self.environment | environment,
            input=typed,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def operator(tmp_path: Path, openbao: OpenBao, vault_root: VaultClient) -> Operator:
    assert vault_root.token is not None
    return Operator(tmp_path, openbao.addr, vault_root.token().reveal())


def test_it_says_what_it_would_do_and_does_it_only_when_told(operator: Operator, vault_root: VaultClient) -> None:
    declined = operator.run(typed="n\n")
    assert declined.returncode == 1
    assert "sys/auth/shorthold-vc " in declined.stdout
    assert "nothing was changed" in declined.stderr
    silent = operator.run("-o", "json")
    assert silent.returncode == 1
    assert "--yes" in silent.stderr
    said = json.loads(silent.stdout)
    assert ("create", "auth/shorthold-vc-broker/role/broker") in {(item["action"], item["path"]) for item in said}
    assert "shorthold-vc/" not in part(vault_root.read("sys/auth"), "data")

    done = operator.run("--yes", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == said
    assert "Done" in done.stderr
    assert "shorthold-vc/" in part(vault_root.read("sys/auth"), "data")

    again = operator.run()
    assert again.returncode == 0
    assert "Nothing to do" in again.stderr
    for run in (declined, silent, done, again):
        assert operator.environment["BAO_TOKEN"] not in run.stdout + run.stderr
    assert {file.stat().st_mode & 0o777 for file in (operator.directory / "keys").iterdir()} == {0o600}


def test_without_a_token_it_says_which_variable_to_set(operator: Operator) -> None:
    del operator.environment["BAO_TOKEN"]
    run = operator.run("--yes")
    assert run.returncode == 1
    assert "BAO_TOKEN" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_token_that_may_not_is_told_so(operator: Operator) -> None:
    run = operator.run("--yes", BAO_TOKEN="s.nobody")
    assert run.returncode == 2
    assert "403" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_server_that_is_down_is_said_to_be_down(operator: Operator) -> None:
    run = operator.run("--yes", BAO_ADDR="http://127.0.0.1:9")
    assert run.returncode == 2
    assert "down" in run.stderr
    assert "Traceback" not in run.stderr


def test_names_that_would_let_sync_rule_the_identities_are_refused(operator: Operator) -> None:
    run = operator.run("--yes", SHORTHOLD_VAULT__PREFIX="tasks", SHORTHOLD_VAULT__AUTH_MOUNT="tasks")
    assert run.returncode == 1
    assert "vault.prefix" in run.stderr
