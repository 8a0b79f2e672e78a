"""`python -m benchmarks.cpu`: the processor time of a grant and its proved end, in the control plane's own process."""

import json
import signal
import time
from dataclasses import asdict, dataclass
from typing import Final

import click
from rich.console import Console

from benchmarks.cut import Serving
from benchmarks.grant import interrupted, stack_of_its_own, ways_of
from benchmarks.machine import machine, versions
from benchmarks.ours import Ours
from benchmarks.wire import WrongAnswerError
from controlplane.dev.stack import Stack
from controlplane.model.errors import ControlPlaneError

_IDLE: Final = 5.0
"""Seconds to see what it uses when nobody asks for anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What `grants` took, one after the other; `cpu` in seconds without what it uses when idle, `calls` to Vault."""

    grants: int
    cpu: float
    calls: int
    lasted: float
    idle: float

    @property
    def each(self) -> float:
        """Milliseconds of processor time for one."""
        return self.cpu / self.grants * 1000


@click.command()
@click.option("--grants", type=click.IntRange(1), default=300, show_default=True, help="In each round.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Figures as JSON on stdout.")
def main(grants: int, rounds: int, as_json: bool) -> None:  # noqa: FBT001 # a flag
    """Ask, open and finish, and read from the kernel what it took. Other work on the machine changes it little."""
    signal.signal(signal.SIGTERM, interrupted)
    talk = Console(stderr=True, highlight=False)
    try:
        with stack_of_its_own(talk) as stack:
            ours = ways_of(stack)[2]
            _used(stack, ours, min(grants, 50), idle=0.0)  # the first ones make connections
            idle = _idle(stack)
            used = [_used(stack, ours, grants, idle=idle) for _ in range(rounds)]
            setting = {"machine": machine(), "versions": versions(stack)}
    except (ControlPlaneError, WrongAnswerError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps({**setting, "rounds": [asdict(one) for one in used]}, indent=2))
        return
    for one in used:
        click.echo(
            f"{one.grants} grants: {one.each:.2f} ms of CPU and {one.calls / one.grants:.1f} calls to Vault each"
        )


def _used(stack: Stack, ours: Ours, grants: int, *, idle: float) -> Used:
    serving, agent, watch = Serving(stack), ours.agent(), ours.watch()
    agent.prepare(grants)
    cpu, calls, began = serving.cpu(), serving.calls(), time.monotonic()
    for _ in range(grants):
        held = agent.ask()
        sent_at = time.time()
        agent.finish(held)
        watch.expect(held, sent_at)
    lasted = time.monotonic() - began
    while serving.open_grants():
        time.sleep(0.1)
    lasted = max(time.monotonic() - began, lasted)
    used = serving.cpu() - cpu - idle * lasted
    watch.close()
    agent.close()
    return Used(grants=grants, cpu=used, calls=serving.calls() - calls, lasted=lasted, idle=idle)


def _idle(stack: Stack) -> float:
    """Seconds of processor time in a second in which nobody asks for anything."""
    serving = Serving(stack)
    before, began = serving.cpu(), time.monotonic()
    time.sleep(_IDLE)
    return (serving.cpu() - before) / (time.monotonic() - began)


if __name__ == "__main__":
    main()
