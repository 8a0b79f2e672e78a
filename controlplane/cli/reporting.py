"""`shorthold incident report / verify`: everything about an incident in one signed file, and whether it is as made."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from controlplane.cli.asking import client, told
from controlplane.cli.output import output_option, say, show
from controlplane.cli.receipt import keys_option, published, read
from controlplane.model.errors import ConfigurationError

if TYPE_CHECKING:
    from controlplane.model.canonical import JsonObject


@click.command()
@click.argument("incident")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file to make.")
def report(incident: str, out: Path) -> None:
    """Save everything about INCIDENT as one signed HTML file: open it in a browser, and check it with `verify`.

    INCIDENT is the name that its cuts were ordered under, or the id of one cut. In it are the timeline, cuts and what
    was previewed, freezes and thaws, grants, approvals, decisions, receipts, the entitlements' revisions, and the part
    of the audit log that is about it, with what proves that nothing between was removed. No secret is in it.

    \b
    Example:
      shorthold incident report INC-7 -o INC-7.html
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    from controlplane.cli.audit import write_whole

    with client() as door:
        made = told(lambda: door.report(incident))
    write_whole(out, [made["bundle"]])
    say(f"{out}: {made['grants']} grants, {made['records']} records of the audit log. Whoever gets it can check it:")
    say(f"  shorthold incident verify {out} --keys jwks.json")


@click.command(name="verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@keys_option
@output_option
def verify(bundle: Path, keys: Path | None, output: str) -> None:
    """Check that a report is as the control plane signed it, to the last byte; -o json prints what was signed.

    With --keys nothing is asked of anybody. Keep a copy of /.well-known/jwks.json: it is what you trust. Exit status:
    0 it is, 1 it is not, with a sentence for each thing that is wrong.
    """
    from controlplane.incident.check import check
    from controlplane.keys.receipts import public_keys, verified

    known = public_keys(read(keys) if keys is not None else published())
    found = check(_bytes(bundle), lambda signed, claim: verified(signed, known, claim))
    if found.problems:
        for problem in found.problems:
            say(f"NOT as it was signed: {problem}.")
        sys.exit(1)
    signed = cast("JsonObject", found.report)
    show(dict(signed) if output != "table" else _summary(signed), output)
    say("It is as the control plane signed it, every byte of it.")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None


def _summary(report: "JsonObject") -> dict[str, Any]:
    told = cast("dict[str, Any]", report)
    log = told["log"]
    return {
        "incident": told["incident"],
        "made_at": told["made_at"],
        "made_by": f"{told['made_by']['subject']} ({told['made_by']['issuer']})",
        **{name: str(count) for name, count in told["outcomes"].items() if count},
        "audit log": f"records {log['after'] + 1} to {log['to']}, intact",
        "last MAC": f"{log['to']}:{log['mac']}",
    }
