"""`shorthold policy`: try and write the policies beside the entitlements."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controlplane.cli.output import output_option, say, show
from controlplane.model.canonical import JsonValue

if TYPE_CHECKING:
    from controlplane.policies.cases import Tried
    from controlplane.sync.problem import Problem

_directory = click.argument("directory", metavar="[DIR]", type=click.Path(path_type=Path), required=False)


@click.group()
def policy() -> None:
    """Rules in Cedar beside the entitlements: test, revisions, init, schema. `shorthold sync lint` checks them.

    DIR is the directory of the policies; the settings' `policies`, which is policies/ beside the entitlements.

    \b
    Examples:
      shorthold policy test
      shorthold policy test roles/policies -o json
      shorthold policy init roles/policies
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines


@policy.command()
@_directory
@click.option(
    "--roles",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="The directory of the entitlements; the settings' `roles`, or what DIR is in.",
)
@output_option
def test(directory: Path | None, roles: Path | None, output: str) -> None:
    """Try the cases in DIR/tests, and show which policy decided. Exit 0 only if each is as expected."""
    from controlplane.engines import scope_models
    from controlplane.model.errors import ConfigurationError
    from controlplane.policies.cases import try_cases
    from controlplane.policies.cedar import CedarPolicy
    from controlplane.sync.load import load
    from controlplane.sync.problem import Severity

    where = _policies(directory)
    point = CedarPolicy(where)
    sources = {source.entitlement.name: source for source in load(_roles(directory, roles), scope_models()).sources}
    try:
        tried, problems = try_cases(where, point, sources, scope_models())
    except OSError as error:
        raise ConfigurationError(f"the cases in {where} cannot be read: {error.strerror}") from None
    wrong = [*point.policies.problems, *problems]
    _tell(tried, wrong, output)
    idle = {each.id for each in point.policies.statements} - {id for case in tried for id in case.ruling.policies}
    if idle:
        say(f"No case shows what these policies decide: {', '.join(sorted(idle))}.")
    failed = sum(case.wrong is not None for case in tried)
    say(f"{_counted(len(tried), 'case')}, {failed} not as expected.")
    if failed or not tried or any(problem.severity is Severity.ERROR for problem in wrong):
        sys.exit(1)


@policy.command()
@_directory
@output_option
def revisions(directory: Path | None, output: str) -> None:
    """What the audit log and a report call the policies in DIR: those for every entitlement, and each slice's.

    In a checkout of an older commit it tells whether that one decided.
    """
    from controlplane.model.errors import ConfigurationError
    from controlplane.policies.load import load

    where = _policies(directory)
    try:
        found = load(where)
    except OSError as error:
        raise ConfigurationError(f"the policies in {where} cannot be read: {error.strerror}") from None
    applied = {"every other": found.common, **dict(sorted(found.slices.items()))}
    show(
        [{"entitlement": name, "revision": one.revision if one else "broken"} for name, one in applied.items()],
        output,
        columns=("entitlement", "revision"),
    )


@policy.command()
@_directory
def init(directory: Path | None) -> None:
    """Write the shipped guardrails, their cases and the schema to DIR. What is there is left as it is."""
    from controlplane.dev.shipped import shipped
    from controlplane.model.errors import ConfigurationError
    from controlplane.policies import schema

    where, source = _policies(directory), shipped("roles") / "policies"
    written: list[str] = []
    try:
        for name in ("guardrails.cedar", schema.FILE):
            written += _copied(source / name, where / name)
    except OSError as error:
        raise ConfigurationError(f"{where} cannot be written: {error.strerror}") from None
    say(f"Written to {where}: {', '.join(written)}." if written else f"{where} has them already.")


@policy.command()
@click.option("--write", is_flag=True, help="Write it beside the policies instead of printing it.")
@_directory
def schema(write: bool, directory: Path | None) -> None:
    """Print the Cedar schema: what policies see of a request, for editors and readers."""
    from controlplane.model.errors import ConfigurationError
    from controlplane.policies.schema import FILE, text

    if not write:
        click.echo(text(), nl=False)
        return
    path = _policies(directory) / FILE
    try:
        path.write_text(text(), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"the schema cannot be written: {error}") from None
    say(f"Written to {path}.")


def _policies(given: Path | None) -> Path:
    from controlplane.settings import load

    return given or load().policies_directory


def _roles(directory: Path | None, roles: Path | None) -> Path:
    from controlplane.settings import load

    return roles or (directory.resolve().parent if directory is not None else load().roles)


def _copied(source: Path, target: Path) -> list[str]:
    if target.exists():
        return []
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
    return [target.name]


def _tell(tried: "Sequence[Tried]", problems: "Sequence[Problem]", output: str) -> None:
    for problem in problems:
        click.secho(str(problem), fg="red", err=True)
    rows: list[JsonValue] = [
        {
            "result": "ok" if case.wrong is None else f"FAILED: {case.wrong}",
            "decision": "allow" if case.ruling.permitted else "deny",
            "policy": ", ".join(case.ruling.policies),
            "case": case.name,
        }
        for case in tried
    ]
    if output == "table":
        show(rows, output, columns=("result", "decision", "policy", "case"))
        return
    show(
        [
            {
                "file": case.file,
                "line": case.line,
                "case": case.name,
                "ok": case.wrong is None,
                "wrong": case.wrong,
                "decision": "allow" if case.ruling.permitted else "deny",
                "policies": [*case.ruling.policies],
                "reasons": [{"code": why.code, "detail": why.detail} for why in case.ruling.reasons],
            }
            for case in tried
        ],
        output,
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
