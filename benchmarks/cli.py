"""`python -m benchmarks.cli`: what it costs to start a command, against a bare click program. Ends with 1 above 1.5."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.figures import percentile
from benchmarks.machine import machine

AIM: Final = 1.5
_BARE: Final = """\
import sys
import click

@click.command()
@click.version_option("1.0", prog_name="bare")
def bare():
    "A program that does nothing."

if __name__ == "__main__":
    sys.exit(bare())
"""


def spent(command: list[str]) -> float:
    """Milliseconds of processor time that one run takes: other programs on the machine disturb it least."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"{' '.join(command)} failed")
    return (used.ru_utime + used.ru_stime) * 1000


def measured(rounds: int) -> dict[str, dict[str, float]]:
    """Each way's figures; the ways alternate, so that a machine that drifts hits all of them alike."""
    with tempfile.TemporaryDirectory() as place:
        bare = Path(place) / "bare.py"
        bare.write_text(_BARE, encoding="utf-8")
        shorthold = str(Path(sys.executable).parent / "shorthold")
        ways = {
            "bare click program": [sys.executable, str(bare), "--version"],
            "shorthold --version": [shorthold, "--version"],
            "shorthold --help": [shorthold, "--help"],
            "shorthold exec --help": [shorthold, "exec", "--help"],
            "import controlplane.sdk": [sys.executable, "-c", "import controlplane.sdk"],
            "python alone": [sys.executable, "-c", ""],
        }
        laps: dict[str, list[float]] = {name: [] for name in ways}
        for lap in range(rounds + 1):
            for name, command in ways.items():
                took = spent(command)
                if lap:  # the first one fills the caches
                    laps[name].append(took)
    bare_p50 = percentile(laps["bare click program"], 0.5)
    return {
        name: {
            "p10": percentile(took, 0.1),
            "p50": percentile(took, 0.5),
            "ratio": percentile(took, 0.5) / bare_p50,
        }
        for name, took in laps.items()
    }


@click.command()
@click.option("--rounds", type=click.IntRange(1, 1000), default=40, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def main(rounds: int, *, as_json: bool) -> None:
    """Measure, and say whether `shorthold --version` is within the aim."""
    figures = measured(rounds)
    if as_json:
        click.echo(json.dumps({"machine": machine(), "figures": figures}, indent=2))
    else:
        table = Table("CPU ms", "p10", "p50", "against bare", box=SIMPLE_HEAD)
        for name, told in figures.items():
            table.add_row(name, f"{told['p10']:.0f}", f"{told['p50']:.0f}", f"{told['ratio']:.2f}")
        Console().print(table)
    sys.exit(figures["shorthold --version"]["ratio"] > AIM)


if __name__ == "__main__":
    main()
