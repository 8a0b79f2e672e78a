"""`shorthold credential` as other tools call it; git itself where it is installed (C5, C13, L12)."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pytest_socket import enable_socket

from controlplane.cli.credential import credential
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import InvalidRequestError
from controlplane.testing.canned import Canned, canned

ID = "gr_" + "a" * 24
ASK = ("forge", "--task", "T-1", "--intent", "push", "--format")
GRANT: JsonValue = {
    "id": ID,
    "state": "active",
    "entitlement": "forge",
    "task": "T-1",
    "issued_at": "2026-07-01T12:00:00+00:00",
    "expires_at": "2026-07-01T12:05:00.5+00:00",
    "heartbeat_due_at": None,
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[Canned]:
    enable_socket()
    monkeypatch.chdir(tmp_path)
    for name in ("SHORTHOLD_TOKEN_FILE", "SHORTHOLD_CONFIG", "BAO_NAMESPACE", "VAULT_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    with canned() as other:
        for name in ("SHORTHOLD_ADDR", "BAO_ADDR"):
            monkeypatch.setenv(name, other.addr)
        monkeypatch.setenv("SHORTHOLD_TOKEN", "tok")
        other.answers["POST /v1/grants"] = (201, {"grant": GRANT, "leases": [], "wrapping_token": "w"})
        other.answers[f"POST /v1/grants/{ID}/finish"] = (202, {"grant": GRANT})
        give(other, {"login": {"username": "u_1", "password": "p'w:d"}})
        yield other


def give(server: Canned, fields: JsonValue) -> None:
    server.answers["POST /v1/sys/wrapping/unwrap"] = (200, {"data": fields})


def run(form: str, *words: str, input: str = "") -> Result:
    return CliRunner().invoke(credential, [*ASK, form, *words], input=input)


def told(form: str, *words: str, input: str = "") -> Any:  # noqa: ANN401 # JSON of any shape
    result = run(form, *words, input=input)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_password_file_a_shell_and_json_have_it_in_their_own_words(server: Canned) -> None:
    assert run("pgpass", "--where", "db:5432:orders").stdout == "db:5432:orders:u_1:p'w\\:d\n"
    out = run("env").stdout
    shell = subprocess.run(
        ["sh", "-c", f'{out}printf "%s %s" "$LOGIN_USERNAME" "$LOGIN_PASSWORD"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout == "u_1 p'w:d"
    assert told("json")["credentials"] == {"login": {"username": "u_1", "password": "p'w:d"}}
    assert not any(asked.path.endswith("/finish") for asked in server.asked)  # whoever called it uses it now


def test_aws_and_kubernetes_get_the_documents_that_they_describe(server: Canned) -> None:
    give(server, {"a": {"access_key": "AK", "secret_key": "SK", "session_token": "ST"}})
    assert told("aws") == {
        "Version": 1,
        "AccessKeyId": "AK",
        "SecretAccessKey": "SK",
        "SessionToken": "ST",
        "Expiration": "2026-07-01T12:05:00.5+00:00",
    }
    give(server, {"k": {"token": "T", "namespace": "shop"}})
    document = told("kubernetes")
    assert (document["apiVersion"], document["kind"]) == ("client.authentication.k8s.io/v1", "ExecCredential")
    assert document["status"] == {"token": "T", "expirationTimestamp": "2026-07-01T12:05:00Z"}
    give(server, {"c": {"certificate": "C", "private_key": "K"}})
    assert told("kubernetes")["status"].keys() == {"clientCertificateData", "clientKeyData", "expirationTimestamp"}


def test_docker_gets_the_login_for_the_server_that_it_names_and_stores_nothing(server: Canned) -> None:
    login = told("docker", "get", input="https://registry.acme.example\n")
    assert login == {"ServerURL": "https://registry.acme.example", "Username": "u_1", "Secret": "p'w:d"}
    asked = len(server.asked)
    assert told("docker", "list") == {}
    for action in ("store", "erase"):
        assert run("docker", action, input="{}").stdout == ""
    assert len(server.asked) == asked


def test_git_itself_takes_the_login_for_the_one_host(
    server: Canned, tmp_path: Path, needed: Callable[[str, object], None]
) -> None:
    needed("git", shutil.which("git"))
    give(server, {"login": {"token": "canary-token"}})
    program = f"{sys.executable} -m controlplane credential {' '.join(ASK)} git --username x-access-token"
    environment = {**os.environ, "HOME": str(tmp_path), "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}
    filled, other = (
        subprocess.run(
            ["git", "-c", f"credential.https://git.acme.example.helper=!{program}", "credential", "fill"],
            input=f"protocol=https\nhost={host}\n\n",
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        for host in ("git.acme.example", "git.elsewhere.example")
    )
    assert filled.returncode == 0, filled.stderr
    assert {"username=x-access-token", "password=canary-token"} <= set(filled.stdout.splitlines())
    assert other.returncode != 0
    assert "canary" not in other.stdout + other.stderr


def test_what_does_not_fit_the_tool_ends_what_was_granted(server: Canned) -> None:
    error = run("aws").exception
    assert isinstance(error, InvalidRequestError)
    assert error.detail == "none of the scopes login has access_key and secret_key"
    assert server.asked[-1].body == {"outcome": "failed"}
    give(server, {"login": {"token": "t"}})
    assert "--username" in str(run("git").exception)


def test_a_denial_is_exit_status_3_with_its_reasons_and_nothing_on_stdout(server: Canned) -> None:
    reasons: JsonValue = [{"decision": "eligibility", "code": "not-eligible", "detail": "not you"}]
    server.answers["POST /v1/grants"] = (403, {"code": "denied", "detail": "denied", "reasons": reasons})
    result = run("git")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "not you" in result.stderr
