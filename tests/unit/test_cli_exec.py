"""`shorthold exec` as a program of its own: what CMD gets, what its end does, what nobody sees (C5, C9, C26, L12)."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from pytest_socket import enable_socket

from controlplane.cli.handing import KNOWN, Handing
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import InvalidRequestError
from controlplane.testing.canned import Canned, canned

ID = "gr_" + "a" * 24
FINISH = f"/v1/grants/{ID}/finish"
PASSWORD = r'canary:pass\w"ord'
ASK = ("orders-read", "--task", "T-1", "--intent", "answer-question")
WITHIN = 90.0
KEY = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"
TELLS = """
import json, os, stat, sys
found = {}
for name in ("PGPASSFILE", "SECRET_FILE"):
    if path := os.environ.get(name):
        found[name] = [open(path).read(), oct(stat.S_IMODE(os.stat(path).st_mode)), path]
if path := os.environ.get("SECRET_FD"):
    found["SECRET_FD"] = [open(path).read()]
found["env"] = dict(os.environ)
found["argv"] = sys.argv[1:]
found["files"] = [open(word.rpartition("=")[2]).read() for word in sys.argv[1:] if "/shorthold-" in word]
print(json.dumps(found))
"""


def told(state: str, **more: JsonValue) -> dict[str, JsonValue]:
    return {
        "id": ID,
        "state": state,
        "entitlement": "orders-read",
        "task": "T-1",
        "issued_at": "2026-07-01T12:00:00+00:00",
        "expires_at": "2026-07-01T12:05:00+00:00",
        **more,
    }


@pytest.fixture
def server(tmp_path: Path) -> Generator[Canned]:
    enable_socket()
    (tmp_path / "run").mkdir()
    with canned() as other:
        other.answers["POST /v1/grants"] = (201, {"grant": told("active"), "leases": [], "wrapping_token": "w"})
        give(other, {"orders": {"username": "u_1", "password": PASSWORD}})
        other.answers[f"POST {FINISH}"] = (202, {"grant": told("revoking")})
        yield other


def give(server: Canned, fields: JsonValue) -> None:
    server.answers["POST /v1/sys/wrapping/unwrap"] = (200, {"data": fields})


def started(server: Canned, tmp_path: Path, *words: str, ask: tuple[str, ...] = ASK) -> "subprocess.Popen[str]":
    environment = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "SHORTHOLD_ADDR": server.addr,
        "BAO_ADDR": server.addr,
        "SHORTHOLD_TOKEN": "tok",
        "PGPASSWORD": "stale",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "controlplane", "exec", *ask, *words],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(server: Canned, tmp_path: Path, *words: str) -> tuple[int, str, str]:
    process = started(server, tmp_path, *words)
    out, err = process.communicate(timeout=WITHIN)
    return process.returncode, out, err


def known(tmp_path: Path, name: str) -> str:
    """A program called `name` that tells what it was given."""
    program = tmp_path / name
    program.write_text(f"#!{sys.executable}\n{TELLS}")
    program.chmod(0o755)
    return name


def finished(server: Canned) -> JsonValue:
    assert server.asked[-1].path == FINISH
    return server.asked[-1].body


def test_c26_two_calls_to_the_api_at_most_and_one_to_vault_come_before_the_program(
    server: Canned, tmp_path: Path
) -> None:
    status, out, err = run(server, tmp_path, "--", known(tmp_path, "psql"), "-c", "SELECT 1")
    assert (status, err) == (0, "")
    assert [asked.path for asked in server.asked] == ["/v1/grants", "/v1/sys/wrapping/unwrap", FINISH]
    assert finished(server) == {"outcome": "completed"}
    found = json.loads(out)
    text, mode, path = found["PGPASSFILE"]
    assert (text, mode) == ('*:*:*:u_1:canary\\:pass\\\\w"ord\n', "0o600")
    assert path.startswith(str(tmp_path / "run"))
    assert not list((tmp_path / "run").iterdir())
    assert (found["env"]["PGUSER"], found["env"]["PGPASSWORD"]) == ("u_1", "")
    assert found["argv"] == ["-c", "SELECT 1"]
    # Who we are is not the program's business: with that it could ask for more.
    assert "SHORTHOLD_TOKEN" not in found["env"]


def test_l12_no_secret_is_in_an_argument_or_in_what_is_printed(server: Canned, tmp_path: Path) -> None:
    words = ("--file", "SECRET_FILE=orders.password", "--fd", "SECRET_FD=password", "--env", "WHO=orders.username")
    status, out, err = run(server, tmp_path, *words, "--", known(tmp_path, "any"))
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["SECRET_FILE"][:2] == [PASSWORD, "0o600"]
    assert found["SECRET_FD"] == [PASSWORD]
    assert found["env"]["WHO"] == "u_1"
    assert PASSWORD not in json.dumps([found["env"], found["argv"]])


def test_known_programs_get_their_credential_where_they_look_for_it(server: Canned, tmp_path: Path) -> None:
    out = json.loads(run(server, tmp_path, "--", known(tmp_path, "mysql"), "-e", "x")[1])
    assert re.fullmatch(r"--defaults-extra-file=\S+/my.cnf", out["argv"][0])
    assert out["files"] == ['[client]\nuser="u_1"\npassword="canary:pass\\\\w\\"ord"\n']
    give(server, {"c": {"certificate": "CERT", "private_key": KEY, "ca_chain": "CHAIN"}})
    out = json.loads(run(server, tmp_path, "--", known(tmp_path, "curl"), "https://x")[1])
    assert (out["argv"][0], out["argv"][2], out["argv"][4]) == ("--cert", "--key", "https://x")
    assert out["files"] == ["CERT\nCHAIN\n", KEY]
    out = json.loads(run(server, tmp_path, "--", known(tmp_path, "ssh"), "host")[1])
    assert out["files"] == [KEY, "CERT\n"]
    assert out["argv"][-2:] == ["IdentityAgent=none", "host"]


def test_c11_the_exit_status_is_the_programs_and_a_failure_finishes_it_as_failed(
    server: Canned, tmp_path: Path
) -> None:
    way = ("--env", "P=password", "--")
    status, _, _ = run(server, tmp_path, *way, sys.executable, "-c", "raise SystemExit(7)")
    assert (status, finished(server)) == (7, {"outcome": "failed"})
    status, _, err = run(server, tmp_path, *way, "no-such-program")
    assert (status, finished(server)) == (127, {"outcome": "failed"})
    assert "no such program" in err
    status, _, err = run(server, tmp_path, *way, "/")
    assert (status, finished(server)) == (126, {"outcome": "failed"})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_c11_a_signal_goes_on_to_the_program_and_the_access_ends_with_it(
    server: Canned, tmp_path: Path, number: signal.Signals
) -> None:
    process = started(server, tmp_path, "--env", "P=password", "--", "sh", "-c", "echo up; exec sleep 60")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    process.communicate(timeout=WITHIN)
    assert process.returncode == 128 + number
    assert finished(server) == {"outcome": "failed"}


def test_p02_killed_with_9_it_leaves_a_file_only_until_the_next_one_runs(server: Canned, tmp_path: Path) -> None:
    process = started(server, tmp_path, "--file", "P=password", "--", "sh", "-c", "echo $$; exec sleep 60")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait(WITHIN)
    os.kill(child, signal.SIGKILL)
    with process:  # closes what it still has open
        pass
    assert server.asked[-1].path != FINISH  # its heartbeat or its time ends it
    (left,) = (tmp_path / "run").iterdir()
    assert run(server, tmp_path, "--file", "P=password", "--", "true")[0] == 0
    assert not left.exists()


def test_a_refusal_is_told_with_its_reasons_and_the_program_never_runs(server: Canned, tmp_path: Path) -> None:
    reasons: JsonValue = [{"decision": "eligibility", "code": "not-eligible", "detail": "not you"}]
    server.answers["POST /v1/grants"] = (403, {"code": "denied", "detail": "denied", "reasons": reasons})
    status, out, err = run(server, tmp_path, "--", known(tmp_path, "psql"))
    assert (status, out) == (3, "")
    assert "eligibility: not you [not-eligible]" in err
    server.answers["POST /v1/grants"] = (202, {"grant": told("pending")})
    status, _, err = run(server, tmp_path, "--", "psql")
    assert (status, ID in err) == (4, True)
    server.answers[f"GET /v1/grants/{ID}"] = (200, {"grant": told("approved")})
    server.answers[f"POST /v1/grants/{ID}/collect"] = (201, {"grant": told("active"), "wrapping_token": "w"})
    status, out, err = run(server, tmp_path, "--wait", "--", "psql")
    assert (status, json.loads(out)["env"]["PGUSER"]) == (0, "u_1")


def test_c17_what_people_have_agreed_to_is_collected_by_the_program_that_uses_it(
    server: Canned, tmp_path: Path
) -> None:
    server.answers[f"GET /v1/grants/{ID}"] = (200, {"grant": told("approved")})
    server.answers[f"POST /v1/grants/{ID}/collect"] = (201, {"grant": told("active"), "wrapping_token": "w"})

    def ran(entitlement: str, *words: str) -> tuple[int, str, str]:
        process = started(server, tmp_path, "--grant", ID, *words, "--", known(tmp_path, "psql"), ask=(entitlement,))
        out, err = process.communicate(timeout=WITHIN)
        return process.returncode, out, err

    status, out, _ = ran("orders-read")
    assert (status, json.loads(out)["env"]["PGUSER"]) == (0, "u_1")
    assert finished(server) == {"outcome": "completed"}
    assert "/v1/grants" not in [asked.path for asked in server.asked]
    status, out, err = ran("orders-refund")
    assert (status, out) == (1, "")
    assert f"{ID} is of orders-read, and not of orders-refund" in err
    assert finished(server) == {"outcome": "failed"}
    status, _, err = ran("orders-read", "--task", "T-1")
    assert (status, "was said then" in err) == (1, True)


def test_a_field_that_is_not_there_ends_what_was_granted(server: Canned, tmp_path: Path) -> None:
    status, _, err = run(server, tmp_path, "--env", "P=refunds.password", "--", "true")
    assert status == 1
    assert "no scope refunds: it has orders" in err
    assert finished(server) == {"outcome": "failed"}


def test_interrupted_while_it_asks_it_takes_back_what_was_made(server: Canned, tmp_path: Path) -> None:
    server.answers["POST /v1/grants"] = (202, {"grant": told("pending")})
    server.answers[f"GET /v1/grants/{ID}"] = (200, {"grant": told("pending")})
    process = started(server, tmp_path, "--wait", "--", "psql")
    deadline = time.monotonic() + WITHIN
    while not any(asked.method == "GET" for asked in server.asked) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.terminate()
    _, err = process.communicate(timeout=WITHIN)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in err
    assert finished(server) == {"outcome": "failed"}


@pytest.mark.parametrize("way", ["P", "P=", "=x.y", "P=a.b=c", "1P=x", "P=Scope.x y"])
def test_a_way_that_cannot_be_read_is_told_before_anything_is_asked_for(way: str) -> None:
    with pytest.raises(InvalidRequestError):
        Handing.parse(["psql"], files=[way])


def test_a_program_that_nobody_knows_needs_a_way() -> None:
    with pytest.raises(InvalidRequestError, match="say how report gets its credential"):
        Handing.parse(["/usr/bin/report"])
    for name in KNOWN:
        assert Handing.parse([f"/usr/bin/{name}"]).program == name
