"""`shorthold audit`: read, verify and export the audit log, without a control plane and without writing to it."""

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controlplane.cli.asking import GRANT_ID
from controlplane.cli.output import output_option, say, show
from controlplane.model.errors import AuditBrokenError, ConfigurationError
from controlplane.model.grant import GrantId

if TYPE_CHECKING:
    from controlplane.audit.chain import Checkpoint, Unreadable
    from controlplane.model.event import Link
    from controlplane.stores.trail import SqlTrail

_PAUSE = 0.5
"""Seconds between two looks of `tail --follow`."""
_MOST = 1_000_000
"""Events that `tail` shows at most: it has them all in memory, and `export` has not."""
_LONG = 20_000
"""Records from which on verifying takes long enough to show how far it is."""

_store_option = click.option(
    "--store", "url", help="The store's URL; a copy of the file will do.  [settings: store.url]"
)


@click.group()
def audit() -> None:
    """Read, verify and export the audit log.

    Every change of a grant is an event, committed with the change and chained to the event before it by a key that
    is not in the database. These commands only read, also while the control plane runs.

    \b
    Examples:
      shorthold audit tail -n 50 --follow
      shorthold audit verify
      shorthold audit verify --store sqlite:////backup/shorthold.db --key-file keys/audit.key
      shorthold audit export --format csv --out audit.csv
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines


@audit.command()
@click.option("-n", "--lines", default=20, show_default=True, type=click.IntRange(0, _MOST), help="How many events.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on, until Ctrl-C.")
@click.option("--grant", type=GRANT_ID, help="Only events of this grant.")
@_store_option
@output_option
def tail(lines: int, follow: bool, grant: str | None, url: str | None, output: str) -> None:
    """Show the last events, oldest first, each in a sentence; -o json has all of it, with --follow a line each."""
    of = GrantId(grant) if grant else None
    with _trail(url) as trail:
        links = trail.newest(max(lines, 1), grant=of)
    last = links[-1].seq if links else 0
    _print(links if lines else [], output, follow=follow)
    with suppress(KeyboardInterrupt):
        while follow:
            time.sleep(0 if links else _PAUSE)
            with _trail(url) as trail:  # opened anew: a control plane may have started in between
                links = trail.following(last, grant=of)
            last = links[-1].seq if links else last
            _print(links, output, follow=True)


@audit.command()
@_store_option
@click.option(
    "--key-file", type=click.Path(path_type=Path), help="The audit key.  [settings: keys.directory/audit.key]"
)
@click.option("--from", "start", metavar="SEQ:MAC", help="Begin after this record, which an earlier verify printed.")
@output_option
def verify(url: str | None, key_file: Path | None, start: str | None, output: str) -> None:
    """Check that nobody changed, removed, added or reordered anything.

    Exit status 0: every record is as it was written. 2: the first bad record is named. What an intact log prints, kept
    in another place, shows later with --from whether the log was cut back or replaced in between.
    """
    from controlplane.audit.chain import GENESIS, Broken
    from controlplane.audit.verify import summary, verify_trail
    from controlplane.keys.audit import FILE, load
    from controlplane.settings import load as settings

    key = load(key_file or settings().keys.directory / FILE)
    begin = _checkpoint(start) if start else GENESIS
    with _trail(url) as trail, _progress() as progress:
        found = verify_trail(trail, key, start=begin, progress=progress)
    show(dict(summary(found)), output)
    if isinstance(found, Broken):
        raise AuditBrokenError(found.detail)
    say(f"Intact. Keep {found.upto.seq}:{found.upto.mac} in another place: --from finds what was cut off since.")


@audit.command()
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A file, made 0600; else stdout.")
@_store_option
def export(form: str, out: Path | None, url: str | None) -> None:
    """Write the whole log: one canonical JSON line an event, or CSV that a spreadsheet can open safely."""
    from controlplane.audit.export import csv_lines, jsonl

    bad: list[Unreadable] = []
    with _trail(url) as trail, trail.snapshot() as snapshot:
        lines = (csv_lines if form == "csv" else jsonl)(_noting(snapshot.links, bad))
        if out is not None:
            write_whole(out, lines)
        else:
            for line in lines:
                click.echo(line, nl=False)
    if bad:
        raise AuditBrokenError(f"record {bad[0].seq}: {bad[0].what}; whatever can be read was exported")


@contextmanager
def _trail(url: str | None) -> "Generator[SqlTrail]":
    from controlplane.settings import load
    from controlplane.stores.trail import open_trail

    trail = open_trail(url or load().store.url)
    try:
        yield trail
    finally:
        trail.close()


@contextmanager
def _progress() -> Generator[Callable[[int, int], None]]:
    """What shows how far a long chain is, where a person watches."""
    if not sys.stderr.isatty():
        yield lambda _done, _of: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Verifying", total=None, visible=False)
        yield lambda done, of: bar.update(task, completed=done, total=of, visible=of > _LONG)


def _checkpoint(text: str) -> "Checkpoint":
    from controlplane.audit.chain import Checkpoint

    found = re.fullmatch(r"([1-9][0-9]{0,17}):([0-9a-f]{64})", text, re.ASCII)
    if found is None:
        raise click.BadParameter("it is SEQ:MAC, as `audit verify` prints it", param_hint="--from")
    return Checkpoint(seq=int(found[1]), mac=found[2])


def _print(links: "Sequence[Link | Unreadable]", output: str, *, follow: bool) -> None:
    from controlplane.audit.export import as_data, jsonl
    from controlplane.cli.audit_view import COLUMNS, row

    match output:
        case "json" if follow:
            for line in jsonl(links):
                click.echo(line, nl=False)
        case "json" | "yaml" if links or not follow:
            show([dict(as_data(link)) for link in links], output)
        case "table" if follow:
            for link in links:
                click.echo("  ".join(row(link).values()))
        case "table":
            show([dict(row(link)) for link in links], output, columns=COLUMNS)
        case _:
            pass


def _noting(links: "Iterable[Link | Unreadable]", bad: "list[Unreadable]") -> "Generator[Link | Unreadable]":
    from controlplane.audit.chain import Unreadable

    for link in links:
        if isinstance(link, Unreadable):
            bad.append(link)
        yield link


def write_whole(out: Path, lines: Iterable[str]) -> None:
    """A file is whole or as it was; a device or a pipe is written to and never replaced."""
    target = out.resolve()
    try:
        if target.exists() and not target.is_file():
            with os.fdopen(os.open(target, os.O_WRONLY), "w", encoding="utf-8") as file:
                file.writelines(lines)
            return
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".part", dir=target.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.writelines(lines)
            Path(name).replace(target)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{out} cannot be written: {error.strerror}") from None
