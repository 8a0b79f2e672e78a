"""Whatever ends a command, it ends in a sentence and an exit status, never in a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from controlplane.cli import commands
from controlplane.cli.main import main

SHORTHOLD = [sys.executable, "-c", "from controlplane.cli.main import main; main()"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["grant", "request"], "Interrupted. What was begun is finished or revoked by the worker.\n"),
        (["dev", "up"], "`shorthold dev up` continues, `shorthold dev down` stops it.\n"),
        (["dev", "status"], "Interrupted.\n"),
        (["sync", "plan"], "Interrupted.\n"),
    ],
)
@pytest.mark.parametrize("error", [KeyboardInterrupt, click.exceptions.Abort])
def test_an_interrupted_command_says_what_goes_on_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    said: str,
    error: type[BaseException],
) -> None:
    def interrupted(**_: object) -> None:
        raise error

    monkeypatch.setattr(commands.shorthold, "main", interrupted)
    monkeypatch.setattr(sys, "argv", ["shorthold", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err.endswith(said)


def test_nothing_that_takes_long_is_imported_before_ctrl_c_is_heard() -> None:
    asked = "import sys, controlplane.cli.main; print({'click', 'pydantic'} & set(sys.modules))"
    assert _run([sys.executable, "-c", asked]).stdout == "set()\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_said_in_a_sentence() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        ended = _run([*SHORTHOLD, "sync", "schema"], stdout=full.fileno())
    assert ended.returncode == 1
    assert "No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


def test_a_closed_output_is_said_in_a_sentence() -> None:
    ended = _run(["/bin/sh", "-c", 'exec "$@" >&-', "sh", *SHORTHOLD, "sync", "schema"])
    assert ended.returncode == 1
    assert "standard output is closed" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_working_directory_that_is_gone_is_said_in_a_sentence(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    ended = _run(["/bin/sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", *SHORTHOLD, "dev", "status"], cwd=there)
    assert ended.returncode == 1
    assert "the working directory does not exist any more" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_help_says_where_settings_come_from() -> None:
    told = _run([*SHORTHOLD, "--help"]).stdout
    assert "SHORTHOLD_CONFIG" in told
    assert "docs/operating.md" in told


def _run(
    command: list[str], *, stdout: int = subprocess.PIPE, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdout=stdout,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        env={"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parents[2])},
        text=True,
        timeout=60,
        check=False,
    )
