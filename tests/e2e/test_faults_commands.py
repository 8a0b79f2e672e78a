"""What a person meets at the command line when something is wrong: one clear error, its exit status, no traceback."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from controlplane.dev.loopback import HOST
from controlplane.dev.process import until
from controlplane.dev.shipped import shipped
from controlplane.dev.stack import Stack
from controlplane.dev.story import AGENT, STRANGER
from controlplane.model.secret import Secret
from controlplane.testing.fault_proxy import When, fault_proxy
from controlplane.testing.served import ServedPlane, Witness

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

ASK = ("grant", "request", "orders-read", "--task", "T-1", "--intent", "answer-question")
REFUND = ("grant", "request", "orders-refund", "--task", "T-1", "--intent", "issue-refund")
REFUNDER = "repo:acme/refund-agent:ref:refs/heads/main"
NOBODY_S = "gr_" + "a" * 24
QUICK = {"VAULT__TIMEOUT": "3s", "VAULT__ISSUING_WITHIN": "3s", "VAULT__MAX_REQUEST_DURATION": "1s"}


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped entitlements, where a test may change one."""
    return shutil.copytree(shipped("roles"), tmp_path_factory.mktemp("changed") / "roles")


@pytest.fixture(scope="module")
def plane(stack: Stack, roles: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[ServedPlane]:
    served = ServedPlane(stack, tmp_path_factory.mktemp("commands"), {**QUICK, "ROLES": str(roles)})
    served.start()
    yield served
    served.kill()


def shorthold(plane: ServedPlane, *arguments: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Run the command; a name that is None in `environment` is taken away. It never shows a traceback."""
    token = {"SHORTHOLD_TOKEN": plane.token(AGENT).reveal()}
    wanted = {**plane.environment, **token, **environment}
    done = subprocess.run(
        plane.command(*arguments),
        env={name: value for name, value in wanted.items() if value is not None},
        cwd=plane.directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def failed(done: subprocess.CompletedProcess[str], status: int, *told: str) -> None:
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    for text in told:
        assert text in done.stderr


def test_a_token_that_proves_nobody_is_exit_3_and_says_nothing_more(plane: ServedPlane) -> None:
    failed(shorthold(plane, *ASK, SHORTHOLD_TOKEN="not.a.token"), 3, "Error [not-authenticated]", "What to do: ")
    failed(shorthold(plane, *ASK, SHORTHOLD_TOKEN=None), 3, "Error [not-authenticated]")
    failed(shorthold(plane, "grant", "show", NOBODY_S, SHORTHOLD_TOKEN="a.b.c"), 3, "Error [not-authenticated]")


def test_a_denial_is_exit_3_with_its_reasons(plane: ServedPlane) -> None:
    stranger = plane.token(STRANGER).reveal()
    failed(shorthold(plane, *ASK, SHORTHOLD_TOKEN=stranger), 3, "Error [denied]", "eligibility: ", "[not-eligible]")
    failed(shorthold(plane, *ASK[:-1], "drop-tables"), 3, "scope: ", "[unknown-intent]")
    failed(shorthold(plane, *ASK, "--ttl", "8h"), 3, "[ttl-above-maximum]")


def test_what_waits_for_people_is_exit_4(plane: ServedPlane) -> None:
    refunder = plane.token(REFUNDER).reveal()
    waits = shorthold(plane, *REFUND, "-o", "json", SHORTHOLD_TOKEN=refunder)
    assert waits.returncode == 4
    granted = json.loads(waits.stdout)["grant"]
    assert granted["state"] == "pending"
    assert "waits for approval" in waits.stderr
    assert shorthold(plane, "grant", "finish", granted["id"], SHORTHOLD_TOKEN=refunder).returncode == 0


def test_a_grant_that_is_not_there_is_exit_2(plane: ServedPlane) -> None:
    failed(shorthold(plane, "grant", "show", NOBODY_S), 2, "Error [not-found]")
    failed(shorthold(plane, "grant", "finish", NOBODY_S), 2, "Error [not-found]")


def test_what_cannot_be_understood_is_named(plane: ServedPlane) -> None:
    failed(shorthold(plane, *ASK, "--ttl", "five minutes"), 1, "Error", "ttl", "15m")
    failed(shorthold(plane, *ASK, "--reason", "one\ntwo"), 1, "Error", "reason")


@pytest.mark.parametrize(
    "arguments",
    [
        ("grant", "request", "orders-read"),
        ("grant", "show", "not-an-id"),
        ("grant", "finish", NOBODY_S, "--outcome", "maybe"),
        ("grant", "no-such-command"),
        ("no-such-command",),
        ("serve", "--port", "99999"),
    ],
)
def test_wrong_use_is_exit_1_before_anything_is_sent(plane: ServedPlane, arguments: tuple[str, ...]) -> None:
    failed(shorthold(plane, *arguments, SHORTHOLD_ADDR="http://127.0.0.1:1"), 1, "Error: ")


def test_a_control_plane_that_does_not_answer_is_exit_2_and_says_where_it_was_looked_for(plane: ServedPlane) -> None:
    failed(
        shorthold(plane, *ASK, SHORTHOLD_ADDR="http://127.0.0.1:1"),
        2,
        "Error [unreachable]",
        "http://127.0.0.1:1/v1/grants",
        "SHORTHOLD_ADDR",
    )


def test_a_token_file_that_cannot_be_read_is_exit_1(plane: ServedPlane, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    failed(shorthold(plane, *ASK, SHORTHOLD_TOKEN_FILE=missing), 1, "Error [configuration]", missing)


def test_an_entitlement_that_was_changed_and_not_synced_is_exit_2_and_says_what_to_run(
    plane: ServedPlane, roles: Path, seer: Witness
) -> None:
    others = {grant["id"] for grant in plane.grants()}
    file = roles / "orders-read.yaml"
    before = file.read_text(encoding="utf-8")
    file.write_text(before.replace("default: 5m", "default: 4m"), encoding="utf-8")
    try:
        assert until(lambda: _default_ttl(plane) == "4m", timedelta(seconds=60))
        refused = shorthold(plane, *ASK)
    finally:
        file.write_text(before, encoding="utf-8")
    failed(refused, 2, "Error [not-synced]", "sync plan", "sync apply")
    assert until(
        lambda: all(grant["state"] in {"revoked", "lapsed"} for grant in plane.grants() if grant["id"] not in others),
        timedelta(seconds=90),
    )
    assert seer.users() == []
    assert until(lambda: _default_ttl(plane) == "5m", timedelta(seconds=60))
    _ask_and_finish(plane)


def _default_ttl(plane: ServedPlane) -> str:
    with plane.agent(AGENT) as agent:
        found = {item["entitlement"]: item for item in agent.entitlements()["entitlements"]}
    return str(found["orders-read"]["ttl"]["default"])


def _ask_and_finish(plane: ServedPlane) -> None:
    asked = shorthold(plane, *ASK, "-o", "json")
    assert asked.returncode == 0, asked.stderr
    id = json.loads(asked.stdout)["grant"]["id"]
    ended = shorthold(plane, "grant", "finish", id, "--wait", "30s")
    assert ended.returncode == 0, ended.stderr


def test_a_wrapping_token_is_the_only_secret_on_stdout_and_nothing_is_on_stderr(plane: ServedPlane) -> None:
    asked = shorthold(plane, *ASK, "-o", "json")
    answer = json.loads(asked.stdout)
    assert Secret(answer.pop("wrapping_token")).reveal() not in asked.stderr
    assert "password" not in json.dumps(answer)
    assert shorthold(plane, "grant", "finish", answer["grant"]["id"], "--wait", "30s").returncode == 0


def test_a_taken_port_is_exit_1_and_named(plane: ServedPlane) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = str(taken.getsockname()[1])
        failed(shorthold(plane, "serve", SHORTHOLD_API__PORT=port), 1, f"127.0.0.1:{port}", "the port is taken")


@pytest.mark.parametrize(
    ("environment", "status", "told"),
    [
        ({"SHORTHOLD_CONFIG": "/nowhere/shorthold.toml"}, 1, "/nowhere/shorthold.toml"),
        ({"SHORTHOLD_VAULT__TIMEOUT": "soon"}, 1, "vault.timeout"),
        ({"SHORTHOLD_VAULT__ADDR": "ftp://127.0.0.1"}, 1, "vault.addr"),
        ({"SHORTHOLD_STORE__URL": "mysql://nowhere"}, 1, "store.url"),
        ({"SHORTHOLD_STORE__URL": "sqlite:////dev/null/shorthold.db"}, 2, "/dev/null/shorthold.db"),
        ({"SHORTHOLD_STORE__URL": "postgresql://127.0.0.1:1/nothing"}, 2, "127.0.0.1:1"),
        ({"SHORTHOLD_KEYS__DIRECTORY": "/dev/null/keys"}, 1, "/dev/null/keys"),
        ({"SHORTHOLD_WORKER__THREADS": "0"}, 1, "worker.threads"),
    ],
)
def test_serve_says_which_setting_is_wrong_and_starts_nothing(
    plane: ServedPlane, environment: dict[str, str], status: int, told: str
) -> None:
    failed(shorthold(plane, "serve", SHORTHOLD_API__PORT="0", **environment), status, "Error [", told)


def test_a_file_that_is_no_database_is_told_and_left_as_it_is(plane: ServedPlane, tmp_path: Path) -> None:
    pictures = tmp_path / "shorthold.db"
    pictures.write_bytes(b"somebody's holiday pictures " * 100)
    before = pictures.read_bytes()
    url = f"sqlite:///{pictures}"
    failed(shorthold(plane, "serve", SHORTHOLD_API__PORT="0", SHORTHOLD_STORE__URL=url), 2, str(pictures))
    assert pictures.read_bytes() == before


@pytest.mark.parametrize(
    ("told", "twice"), [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGTERM, True)]
)
def test_serve_that_is_told_to_stop_finishes_what_is_at_hand_and_leaves_no_process(
    stack: Stack, seer: Witness, tmp_path: Path, told: signal.Signals, twice: bool
) -> None:  # G20
    with fault_proxy(stack.vault_addr) as proxy:
        plane = ServedPlane(stack, tmp_path, {**QUICK, "VAULT__ADDR": proxy.addr})
        plane.start()
        assert plane.process is not None
        pid = plane.process.pid
        held = proxy.hold("/v1/auth/shorthold/login", When.AFTER)
        answers: list[subprocess.CompletedProcess[str]] = []
        asking = threading.Thread(target=lambda: answers.append(shorthold(plane, *ASK, "-o", "json")))
        asking.start()
        held.wait()
        if twice:
            os.kill(pid, told)
        released = threading.Timer(0.5, held.release)
        released.start()
        status = plane.end(told)
        asking.join(30)
        released.join()
        assert status in {0, 128 + told, -told}
        assert not psutil.pid_exists(pid)
        log = plane.log.read_text(encoding="utf-8")
        assert "Traceback" not in log
        (answer,) = answers
        assert answer.returncode == 0, answer.stderr
        id = json.loads(answer.stdout)["grant"]["id"]
        plane.start()  # and it goes on where it stopped
        try:
            assert shorthold(plane, "grant", "finish", id, "--wait", "30s").returncode == 0
        finally:
            plane.kill()
        assert seer.users() == []


def test_dev_commands_in_an_empty_directory_say_what_to_run(plane: ServedPlane, tmp_path: Path) -> None:
    for arguments in (("dev", "status"), ("dev", "env"), ("dev", "token", "--subject", "x")):
        done = subprocess.run(
            plane.command(*arguments),
            cwd=tmp_path,
            env={"PATH": os.defpath, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert "shorthold dev up" in done.stderr
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
