"""However the demo is ended, it clears what it started."""

import os
import signal
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from controlplane.cli.demo import demo
from controlplane.dev import story
from controlplane.dev.stage import Stage
from controlplane.model.errors import LocalServerError

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Callable[..., Result]]:
    """`run(tell, clear)`: the command with another story on no servers, as far as `clear` says."""
    before = {number: signal.getsignal(number) for number in ENDING}
    environment = dict(os.environ)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def call(tell: Callable[[], None], clear: Callable[[], None]) -> Result:
        def told(_: object) -> None:
            tell()

        def cleared(_: object) -> None:
            clear()

        monkeypatch.setattr(story, "tell", told)
        monkeypatch.setattr(Stage, "clear", cleared)
        return CliRunner().invoke(demo, [])

    yield call
    for number, handler in before.items():
        signal.signal(number, handler)
    os.environ.update(environment)


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_the_demo_and_further_ones_do_not_stop_the_clearing(
    run: Callable[..., Result], tmp_path: Path, number: signal.Signals
) -> None:
    cleared: list[str] = []

    def clear() -> None:
        for impatient in ENDING:
            os.kill(os.getpid(), impatient)
        cleared.append("whole")

    ended = run(lambda: os.kill(os.getpid(), number), clear)
    assert ended.exit_code == (1 if number is signal.SIGINT else 128 + number)  # 1: click's Abort, main() makes it 130
    assert cleared == ["whole"]
    assert list(tmp_path.iterdir()) == []


def test_what_could_not_be_cleared_is_named(run: Callable[..., Result], tmp_path: Path) -> None:
    def clear() -> None:
        raise LocalServerError("PostgreSQL (process 1) cannot be stopped")

    ended = run(lambda: None, clear)
    (left,) = tmp_path.iterdir()
    assert isinstance(ended.exception, LocalServerError)
    assert f"cd {left} && shorthold dev down --destroy" in ended.exception.detail


def test_no_server_of_the_environment_is_used(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BAO_ADDR", "VAULT_TOKEN", "DATABASE_URL", "SHORTHOLD_CONFIG", "SHORTHOLD_BAO_BIN"):
        monkeypatch.setenv(name, "somebody-elses")
    seen: list[str] = []
    run(lambda: seen.extend(name for name, value in os.environ.items() if value == "somebody-elses"), lambda: None)
    assert seen == ["SHORTHOLD_BAO_BIN"]
