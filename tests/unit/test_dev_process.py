"""A process of ours: found by number and birth, stopped for certain, never mistaken for another."""

import json
import os
import subprocess
import sys
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.dev import launch
from controlplane.dev.process import Process, until
from controlplane.model.errors import LocalServerError

SLEEP = ["/bin/sleep", "60"]
SOON = timedelta(seconds=60)


@pytest.fixture
def process(tmp_path: Path) -> Generator[Process]:
    process = Process(name="sleeper", directory=tmp_path)
    yield process
    process.stop(patience=timedelta(seconds=0.2))


def test_it_runs_in_a_session_of_its_own_and_sees_only_the_environment_it_was_given(
    process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "made-up")
    show = "import os, json; open('seen', 'w').write(json.dumps([dict(os.environ), os.getsid(0) == os.getpid()]))"
    process.start([sys.executable, "-I", "-S", "-c", show], cwd=tmp_path, environment={"GIVEN": "1"})
    assert until((tmp_path / "seen").exists, SOON)
    assert until(lambda: process.pid is None, SOON)
    environment, leads = json.loads((tmp_path / "seen").read_text())
    assert leads
    assert environment["GIVEN"] == "1"
    assert "VAULT_TOKEN" not in environment
    assert process.log.stat().st_mode & 0o777 == 0o600


def test_asking_again_while_it_runs_starts_no_second_one(process: Process, tmp_path: Path) -> None:
    process.start(SLEEP, cwd=tmp_path, environment={})
    first = process.pid
    process.start(SLEEP, cwd=tmp_path, environment={})
    assert first is not None
    assert process.pid == first


def test_a_number_that_went_to_somebody_else_is_neither_ours_nor_stopped(process: Process, tmp_path: Path) -> None:
    with subprocess.Popen(SLEEP) as stranger:
        born_before = {"pid": stranger.pid, "birth": "another boot:1"}
        (tmp_path / "process.json").write_text(json.dumps(born_before))
        assert process.pid is None
        assert not process.stop()
        assert stranger.poll() is None
        stranger.kill()


def test_a_zombie_has_ended() -> None:
    with subprocess.Popen(["/bin/true"]) as child:
        assert until(lambda: launch.birth(child.pid) is None, SOON)


def test_one_whose_last_thread_still_runs_has_not_ended() -> None:
    """It may hold a port that whoever takes its place wants."""
    lingers = (
        "import ctypes, sys, threading; threading.Thread(target=sys.stdin.read).start(); "
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    with subprocess.Popen([sys.executable, "-c", lingers], stdin=subprocess.PIPE) as process:
        stat = Path(f"/proc/{process.pid}/stat")
        assert until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z", SOON)
        assert launch.birth(process.pid) is not None
        assert process.stdin is not None
        process.stdin.close()
        assert until(lambda: launch.birth(process.pid) is None, SOON)


def test_one_that_will_not_end_is_killed_with_all_it_started(process: Process, tmp_path: Path) -> None:
    process.start(["/bin/sh", "-c", "trap '' TERM; sleep 600 & wait; wait"], cwd=tmp_path, environment={})
    leader = process.pid
    assert leader is not None
    assert until(lambda: len(_session(leader)) == 2, SOON)
    assert process.stop(patience=timedelta(seconds=0.5))
    assert process.pid is None
    assert until(lambda: _session(leader) == [], SOON)
    assert not process.stop()


def test_what_cannot_be_started_is_said_and_leaves_no_record(process: Process, tmp_path: Path) -> None:
    with pytest.raises(LocalServerError, match="No such file"):
        process.start(["/nonexistent"], cwd=tmp_path, environment={})
    assert process.pid is None
    assert not (tmp_path / "process.json").exists()


def test_one_that_ends_at_once_is_said_with_the_end_of_its_log_and_nothing_that_moves_a_terminal(
    process: Process, tmp_path: Path
) -> None:
    process.start(["/bin/sh", "-c", "printf 'first\\n\\033[31mlast\\n' >&2; exit 3"], cwd=tmp_path, environment={})
    with pytest.raises(LocalServerError, match="last") as refused:
        process.wait(lambda: False, SOON)
    assert "ended at once" in refused.value.detail
    assert "\033" not in refused.value.detail


def test_one_that_is_never_ready_is_said_when_patience_runs_out(process: Process, tmp_path: Path) -> None:
    process.start(SLEEP, cwd=tmp_path, environment={})
    with pytest.raises(LocalServerError, match="not ready"):
        process.wait(lambda: False, timedelta(seconds=0.1))
    assert process.pid is not None


def _session(leader: int) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(entry.name)) == leader and launch.birth(int(entry.name)):
                found.append(int(entry.name))
        except OSError:
            continue
    return found
