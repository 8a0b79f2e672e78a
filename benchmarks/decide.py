"""`python -m benchmarks.decide`: what it costs to verify a token and decide, with few and with many entitlements."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.figures import percentile
from benchmarks.machine import machine
from controlplane.dev.shipped import shipped
from controlplane.grants.decide import decide
from controlplane.model.canonical import JsonValue
from controlplane.model.decision import Allow, Ruling
from controlplane.model.entitlement import Entitlement
from controlplane.model.grant import TaskId
from controlplane.model.identity import VerifiedClaims
from controlplane.model.network import parse_address
from controlplane.model.request import GrantRequest
from controlplane.model.situation import Situation, Usage
from controlplane.policies.cedar import CedarPolicy
from controlplane.policies.load import SLICES
from controlplane.sync.catalog import Catalog
from controlplane.testing.entitlements import LAYOUT
from controlplane.testing.issuer import FakeIssuer, trusting
from controlplane.world import SystemClock

SUBJECT: Final = "repo:acme/agent:ref:refs/heads/main"
_PARTS: Final = ("verify", "find", "policy", "decide", "all")
"""`decide` is with `policy`, which is also told by itself."""
_SHARES: Final = {"p10": 0.1, "p50": 0.5, "p99": 0.99}
"""The fastest tenth is what a busy machine disturbs least."""

# What every request has to be held against: several workloads, and each condition of context.
ENTITLEMENT: Final = """\
entitlement: orders-{number}
owner: team-sales@acme.example
purpose: Read orders.
intents: [answer-question, prepare-report]
risk: low
eligibility:
  - {{issuer: idp, subject: "repo:acme/other:ref:refs/heads/main"}}
  - {{issuer: idp, subject: {{glob: "system:serviceaccount:agents:*"}}}}
  - {{issuer: idp, subject: {{glob: "repo:acme/*:ref:refs/heads/main"}}, claims: {{environment: prod}}}}
context:
  windows: ["Sat,Sun 08:00-12:00 Europe/Berlin", "Mon-Sun 00:00-24:00 America/New_York"]
  networks: [192.168.0.0/16, 10.0.0.0/8]
  environments: [prod]
  max_active: {{per_subject: 3, total: 50}}
  max_requests: {{per_subject: 30/h}}
scopes:
  - {{name: orders, engine: database, connection: orders, privileges: [select on table sales.orders]}}
ttl: {{default: 5m, max: 15m}}
"""

# Every entitlement has policies of its own besides the shipped guardrails.
_SLICE: Final = """\
@id("orders-{number}-from-prod")
@reason("only what runs in production reads orders {number}")
forbid (principal, action, resource)
unless {{ principal.hasTag("environment") && principal.getTag("environment").contains("prod") }};

@id("orders-{number}-reports-at-night")
@reason("long reports are made at night")
forbid (principal, action, resource)
when {{ context.intent == "prepare-report" && context.ttl > duration("10m") && context.hour > 6 }};
"""


@click.command()
@click.option("--loaded", type=click.IntRange(1), multiple=True, default=(1, 100, 1000), show_default=True)
@click.option("--iterations", type=click.IntRange(1), default=2000, show_default=True, help="Requests for each.")
@click.option("--json", "as_json", is_flag=True, help="Figures as JSON on stdout.")
def main(loaded: tuple[int, ...], iterations: int, as_json: bool) -> None:  # noqa: FBT001 # a flag
    """Measure verify and decide, without the store and without Vault. Not a test: no bounds."""
    figures = {count: measured(count, iterations) for count in loaded}
    if as_json:
        told: dict[str, JsonValue] = {"machine": machine(), "iterations": iterations, "unit": "microseconds of CPU"}
        click.echo(json.dumps({**told, "loaded": {str(count): spans for count, spans in figures.items()}}, indent=2))
        return
    table = Table("loaded", *(f"{part} {share}" for part in _PARTS for share in _SHARES), box=SIMPLE_HEAD)
    for count, spans in figures.items():
        cells = [f"{spans[part][share]:.0f}" for part in _PARTS for share in _SHARES]
        table.add_row(str(count), *cells)
    Console(highlight=False, width=160).print(
        table, f"Microseconds of CPU, {iterations} requests for each; load {machine()['load']}."
    )


def measured(count: int, iterations: int) -> dict[str, dict[str, float]]:
    """Percentiles of each part of a request, in microseconds, with `count` entitlements in the catalogue."""
    clock = SystemClock()
    issuer = FakeIssuer(name="idp", clock=clock)
    issuers = trusting(issuer, clock=clock)
    with tempfile.TemporaryDirectory(prefix="shorthold-bench-") as name:
        directory, policies = Path(name), Path(name) / "policies"
        slices = policies / SLICES
        slices.mkdir(parents=True)
        shutil.copy(shipped("roles") / "policies" / "guardrails.cedar", policies)
        for number in range(count):
            (directory / f"orders-{number}.yaml").write_text(ENTITLEMENT.format(number=number))
            (slices / f"orders-{number}.cedar").write_text(_SLICE.format(number=number))
        catalog = Catalog(directory, LAYOUT, clock)
        found = catalog.all()
        if len(found) != count:
            raise click.ClickException(f"{len(found)} of {count} entitlements are sound: {catalog.problems[:1]}")
        point = _Timed(CedarPolicy(policies))
        if point.policy.broken is not None:
            raise click.ClickException(point.policy.broken)
        address = parse_address("10.1.2.3")
        laps: dict[str, list[float]] = {part: [] for part in _PARTS}
        for lap in range(-count, iterations):  # first once for each, unmeasured: what is made once is made then
            # A token of its own for each: only who it is may be remembered, and what it asks for.
            token = issuer.mint(SUBJECT, ttl=timedelta(minutes=5), environment="prod", jti=f"lap-{lap}")
            asked = GrantRequest(entitlement=f"orders-{lap % count}", task=TaskId("T-1"), intent="answer-question")
            who, verified = _timed(issuers.verify, token)
            compiled, looked_up = _timed(catalog.get, asked.entitlement)
            situation = Situation(at=clock.now(), address=address, environment="prod", usage=Usage(active=1))
            decision, decided = _timed(decide, compiled and compiled.entitlement, who, asked, situation, point)
            if not isinstance(decision, Allow):
                raise click.ClickException(f"denied: {decision.reasons}")
            spans = (verified, looked_up, point.span, decided, verified + looked_up + decided)
            for part, span in zip(_PARTS, spans, strict=True):
                laps[part] += [span * 1e6] if lap >= 0 else []
    return {part: {name: percentile(spans, share) for name, share in _SHARES.items()} for part, spans in laps.items()}


class _Timed:
    """The decision point, and how long its last ruling took."""

    def __init__(self, policy: CedarPolicy) -> None:
        self.policy, self.span = policy, 0.0

    def __call__(
        self, entitlement: Entitlement, who: VerifiedClaims, asked: GrantRequest, situation: Situation
    ) -> Ruling:
        rule, found = _timed(self.policy.now)
        ruling, ruled = _timed(rule, entitlement, who, asked, situation)
        self.span = found + ruled
        return ruling


def _timed(call: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    started = time.thread_time()  # CPU time: nothing in here waits, but a busy machine lets it
    answer = call(*arguments)
    return answer, time.thread_time() - started


if __name__ == "__main__":
    main()
