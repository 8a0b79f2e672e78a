"""`python -m benchmarks.preview`: what a responder waits for when he looks, by each selector, in a store of years."""

import json
import secrets
import shutil
import signal
import tempfile
import time
import tracemalloc
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Final, LiteralString

import click
import psycopg
from psycopg import sql
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from sqlalchemy import URL

from benchmarks.crowd import Crowd, note
from benchmarks.grant import interrupted
from benchmarks.machine import machine
from controlplane.audit.record import Record
from controlplane.dev.home import Home
from controlplane.dev.loopback import HOST
from controlplane.dev.postgres import SUPERUSER, PostgreSQL
from controlplane.dev.shipped import shipped
from controlplane.dev.stack import LAYOUT
from controlplane.engines import engines
from controlplane.incident.preview import PreviewSelection
from controlplane.model.access import Role, Standing
from controlplane.model.approval import Approver, GivenApproval
from controlplane.model.canonical import JsonValue, instant
from controlplane.model.errors import ControlPlaneError
from controlplane.model.identity import IssuerName, VerifiedClaims
from controlplane.model.secret import Secret
from controlplane.model.selection import Kept
from controlplane.selectors import granted, selectors
from controlplane.stores.sql import open_store
from controlplane.sync.catalog import Catalog
from controlplane.testing.explained import explained, listening
from controlplane.world import RandomIds, SystemClock

_ROUNDS: Final = 5
_RESPONDER: Final = Standing(roles=frozenset({Role.RESPONDER}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Previews of one selection: the median wait in seconds, what the slowest took, and how PostgreSQL found it."""

    selection: str
    selected: int
    p50: float
    slowest: float
    indexes: tuple[str, ...]
    read_whole: tuple[str, ...]


@click.command()
@click.option("--grants", type=click.IntRange(1_000), default=1_000_000, show_default=True, help="In the store.")
@click.option(
    "--open", "unended", type=click.IntRange(1_000), default=10_000, show_default=True, help="Of them not ended."
)
@click.option("--json", "as_json", is_flag=True, help="Figures as JSON on stdout.")
def main(grants: int, unended: int, as_json: bool) -> None:  # noqa: FBT001 # a flag
    """Fill a PostgreSQL of its own, and preview by each selector. Not a test: no bounds."""
    signal.signal(signal.SIGTERM, interrupted)
    talk = Console(stderr=True, highlight=False)
    crowd = Crowd(count=grants, open=min(unended, grants), until=SystemClock().now())
    try:
        with _postgresql(talk) as (server, url):
            key = Secret(secrets.token_hex(32))
            begun = time.monotonic()
            open_store(url, audit_key=key).close()
            crowd.fill(_dsn(server))
            filled = time.monotonic() - begun
            talk.print(f"[dim]{grants} grants written in {filled:.0f} s[/]")
            looks, peak = _looked(url, key, crowd)
            size = _one(_dsn(server), "SELECT pg_database_size(current_database())")
    except ControlPlaneError as error:
        raise click.ClickException(str(error)) from None
    told: dict[str, JsonValue] = {
        "machine": machine(),
        "grants": grants,
        "open": crowd.open,
        "database, MB": size // 2**20,
        "memory of a preview of all, MB": round(peak / 2**20, 1),
    }
    if as_json:
        click.echo(json.dumps({**told, "previews": [_told(look) for look in looks]}, indent=2))
    else:
        _show(Console(highlight=False), looks, told)


def _looked(url: str, key: Secret, crowd: Crowd) -> tuple[list[Look], int]:
    """Each selection's figures; and the most bytes of Python that a preview of everything held."""
    clock = SystemClock()
    with closing(open_store(url, audit_key=key)) as store:
        preview = PreviewSelection(
            clock=clock,
            record=Record(clock=clock, ids=RandomIds()),
            store=store,
            entitlements=Catalog(shipped("roles"), LAYOUT, clock),
            engines=engines(),
            rosters={},
        )
        now = clock.now()
        who = VerifiedClaims(
            issuer=IssuerName("people"),
            subject="ann@acme.example",
            claims={},
            issued_at=now,
            expires_at=now + timedelta(days=1),
        )
        looks: list[Look] = []
        for text in selections(crowd):
            spans: list[float] = []
            with listening() as heard:
                selected = preview(who, _RESPONDER, text).surveyed.count
            for _ in range(_ROUNDS):
                begun = time.monotonic()
                preview(who, _RESPONDER, text)
                spans.append(time.monotonic() - begun)
            plans = explained(url, heard)
            looks.append(
                Look(
                    selection=text,
                    selected=selected,
                    p50=median(spans),
                    slowest=max(spans),
                    indexes=tuple(sorted(frozenset[str]().union(*(plan.indexes for plan in plans)))),
                    read_whole=tuple(sorted(frozenset[str]().union(*(plan.read_whole for plan in plans)))),
                )
            )
        tracemalloc.start()
        preview(who, _RESPONDER, "all")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return looks, peak


def selections(crowd: Crowd) -> list[str]:
    """`all`, and for each selector what is so of one open grant and what is not."""
    # The first that is active and somebody agreed to.
    number = next(one for one in range(crowd.count - crowd.open, crowd.count) if one % 1_000 == 7)
    grant, at = crowd.grant(number), crowd.until
    given = GivenApproval(
        by=Approver(issuer=IssuerName("people"), subject=f"person-{number % 30:02}@acme.example"), digest="", at=at
    )
    one = granted(grant, note(number), line=(), leases=[crowd.lease(number)], approvals=[given], at=at)
    found = ["all"]
    for word, selector in selectors().items():
        if selector.kept is Kept.AGE:
            found += [f"{word}<10m", f"{word}>1h"]
        elif selector.kept is Kept.ISSUED:
            found += [f"{word}{sign}{instant(_some(at, crowd))}" for sign in (">=", "<")]
        for key, values in sorted(one.known.items()):
            if key.partition(".")[0] == word and values:
                found += [f'{key}{sign}"{min(values)}"' for sign in ("=", "!=")]
    return found


def _some(at: datetime, crowd: Crowd) -> datetime:
    return at - crowd.open // 10 * crowd.every


@contextmanager
def _postgresql(talk: Console) -> Generator[tuple[PostgreSQL, str]]:
    """A server with one empty database, gone afterwards whatever happens."""
    directory = Path(tempfile.mkdtemp(prefix="shorthold-bench-"))
    home = Home.of(directory)
    home.make()
    server = PostgreSQL.at(home)
    try:
        talk.print("[dim]Starting PostgreSQL …[/]")
        server.start()
        with psycopg.connect(server.owner.reveal(), autocommit=True) as owner:
            owner.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_DATABASE)))
        url = URL.create("postgresql", SUPERUSER, server.password.reveal(), HOST, server.port, _DATABASE)
        yield server, url.render_as_string(hide_password=False)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave a server behind
        server.stop()
        server.remove()
        shutil.rmtree(directory, ignore_errors=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)


_DATABASE: Final = "preview"


def _dsn(server: PostgreSQL) -> str:
    return server.dsn(SUPERUSER, server.password, _DATABASE).reveal()


def _one(dsn: str, question: LiteralString) -> int:
    with psycopg.connect(dsn) as connection:
        (found,) = connection.execute(question).fetchone() or (0,)
        return int(found)


def _told(look: Look) -> Mapping[str, JsonValue]:
    return {
        "selection": look.selection,
        "selected": look.selected,
        "p50, ms": round(look.p50 * 1000, 1),
        "slowest, ms": round(look.slowest * 1000, 1),
        "indexes": [*look.indexes],
        "tables read whole": [*look.read_whole],
    }


def _show(console: Console, looks: list[Look], setting: Mapping[str, JsonValue]) -> None:
    table = Table(box=SIMPLE_HEAD)
    for name in ("selection", "selected", "p50, ms", "slowest, ms", "indexes", "tables read whole"):
        table.add_column(name, justify="right" if name[0] in "ps" and name != "selection" else "left", overflow="fold")
    for look in looks:
        cells = _told(look).values()
        table.add_row(*(", ".join(map(str, cell)) if isinstance(cell, list) else str(cell) for cell in cells))
    console.print(table)
    for name, value in setting.items():
        console.print(f"{name}: {value if isinstance(value, int | float) else json.dumps(value)}")


if __name__ == "__main__":
    main()
