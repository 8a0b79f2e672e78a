"""`shorthold sync`: make Vault's roles equal the entitlements."""

import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from controlplane.cli.output import cell, output_option, say, show
from controlplane.cli.statuses import RESIDUAL
from controlplane.cli.vault import own_token
from controlplane.model.canonical import JsonValue

if TYPE_CHECKING:
    from controlplane.model.plan import Layout, Plan
    from controlplane.ports import Roles
    from controlplane.sync.apply import Applied, ApplySync
    from controlplane.sync.problem import Problem
    from controlplane.sync.review import Review
    from controlplane.vault.capabilities import ServerFacts

CHANGES: Final = 2
"""Exit status of `plan --detailed-exitcode` when there is something to do."""

_roles_option = click.option(
    "--roles",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="The directory of the entitlements; the settings' `roles`.",
)
_prune_option = click.option(
    "--prune", is_flag=True, help="Also where no entitlement is left: everything of ours in Vault goes."
)


@click.group()
def sync() -> None:
    """Make Vault's roles equal the entitlements: lint, plan, apply, drift, schema, who.

    It needs the entitlements and a Vault token (BAO_TOKEN or VAULT_TOKEN), or the identity `vault.sync` of the
    settings. What is not under our prefix is never touched.

    \b
    Examples:
      shorthold sync lint
      shorthold sync plan --out today.plan
      shorthold sync apply today.plan
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines


@sync.command()
@_roles_option
@click.option(
    "-o",
    "--output",
    "--format",
    "output",
    type=click.Choice(("text", "json", "github", "sarif")),
    default="text",
    show_default=True,
    help="Lines, JSON, annotations of a GitHub workflow, or SARIF 2.1.0.",
)
@click.option("--strict", is_flag=True, help="A warning is a failure, too.")
@click.option("--unused", "days", type=click.IntRange(1, 3650), metavar="DAYS", default=None,
              help="Ask the store, too, which intents nobody has named for so many days.")  # fmt: skip
def lint(directory: Path | None, output: str, strict: bool, days: int | None) -> None:
    """Check every entitlement and every policy; all problems are shown, with file, line and column.

    Exit status: 0 nothing that keeps an entitlement out, 1 an error, or with --strict a warning. docs/lint.md explains
    every rule.

    \b
    Examples:
      shorthold sync lint
      shorthold sync lint --format sarif > lint.sarif
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    from controlplane.policies.lint import lint as lint_policies
    from controlplane.sync.problem import Severity
    from controlplane.sync.report import REPORTS

    found, _ = _review(directory)
    where = _directory(directory)
    names = {path.stem for path in where.glob("*.yaml")}
    policies, of_policies = lint_policies(_policies(directory), names)
    problems = (*found.problems, *of_policies, *(() if days is None else _unused(where, days)))
    click.echo(REPORTS[output](problems, str(where)), nl=False)
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    say(f"{_counted(len(found.compiled), 'sound entitlement')}, "
        f"{len(policies.statements)} sound {'policy' if len(policies.statements) == 1 else 'policies'}, "
        f"{_counted(errors, 'error')}, {_counted(len(problems) - errors, 'warning')}.")  # fmt: skip
    if errors or (strict and problems):
        sys.exit(1)


@sync.command()
@_roles_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Keep the plan in a file.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit 0 if there is nothing to do, 1 on errors, 2 on changes.")
@click.option("--blast-radius", is_flag=True, help="Show what every entitlement opens as a table, changed or not.")
@_prune_option
@click.option("--output-policy", "told", flag_value="policy", help="Print the ACL policy that applying it needs.")
@click.option("--comment", "told", flag_value="comment", help="Print it as Markdown for a pull request.")
@output_option
def plan(
    directory: Path | None,
    out: Path | None,
    *,
    detailed_exitcode: bool,
    blast_radius: bool,
    prune: bool,
    told: str | None,
    output: str,
) -> None:
    """Show what would change in Vault, and what each entitlement opens to whom. Nothing is written there.

    \b
    Examples:
      shorthold sync plan --out today.plan
      shorthold sync plan --detailed-exitcode --comment > comment.md
      shorthold sync plan --output-policy
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    from controlplane.sync import planfile
    from controlplane.sync.plan import PlanSync

    with _detailed(asked=detailed_exitcode):
        found, layout = _review(directory)
        wanted = found.whole()
        with own_token():
            made = PlanSync(roles=_vault(), layout=layout)(wanted)
        _meant(made, found, directory, prune=prune)
        if out is not None:
            planfile.write(out, made)
    _show_plan(made, found, told or output)
    if blast_radius and output == "table" and told is None:
        _show_radii(found)
    if out is not None:
        words = ["shorthold", "sync", "apply", str(out)]
        words += [] if directory is None else ["--roles", str(directory)]
        words += ["--prune"] if prune else []
        say(f"Written to {out}: `{shlex.join(words)}` does exactly this.")
    if detailed_exitcode and (made.blocked or not made.empty):
        sys.exit(CHANGES)


@sync.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@_roles_option
@click.option("--yes", is_flag=True, help="Do not ask before anything is changed.")
@click.option(
    "--canary/--no-canary",
    default=None,
    help="Issue, revoke and verify one credential of each new revision before others can have it. "
    "If nothing is said: where the control plane's settings are, and not at high risk.",
)
@click.option("--force-drain", is_flag=True, help="Cut the live grants of retired revisions, then remove these.")
@click.option("--reason", default=None, help="Why they are cut, for the audit log; --force-drain demands it.")
@_prune_option
@output_option
def apply(
    *,
    file: Path | None,
    directory: Path | None,
    yes: bool,
    canary: bool | None,
    force_drain: bool,
    reason: str | None,
    prune: bool,
    output: str,
) -> None:
    """Do what a plan says: that in FILE, or a new one after asking. Repeating it changes nothing.

    A revision whose canary is not proved gone does not go live, and the one before stays (exit status 5). Retired
    revisions live until no lease hangs from them, or --force-drain cuts their grants; what resists is exit status 5.

    \b
    Examples:
      shorthold sync apply today.plan
      shorthold sync apply --yes --force-drain --reason "orders-read was too wide"
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    from controlplane.cli.here import applying
    from controlplane.sync import planfile
    from controlplane.sync.apply import ApplySync
    from controlplane.sync.plan import PlanSync

    if force_drain is (reason is None):
        raise click.UsageError("--force-drain needs a --reason, and there is nothing else to give a reason for")
    kept = None if file is None else planfile.read(file)
    found, layout = _review(directory)
    wanted = found.whole()
    roles = _vault()
    make = PlanSync(roles=roles, layout=layout)
    with own_token():
        shown = kept or make(wanted)
    _meant(shown, found, directory, prune=prune)
    if kept is None and (not shown.empty or (force_drain and shown.drains)):
        if output == "table":
            _show_plan(shown, found, output)
        if not yes and not _agreed(cutting=force_drain):
            say("Nothing was changed.")
            sys.exit(1)
    with applying(shown, _directory(directory), canary=canary, cutting=reason) as here, own_token():
        apply_it = ApplySync(roles=roles, plan=make, canary=here.canary, drain=here.drain)
        done = _with_progress(apply_it, found, shown)
    _tell(done, found, output)
    if force_drain and done.waiting:
        say("NOT drained: something still hangs from what is retired, or no grant here knows what does. Apply again.")
        sys.exit(RESIDUAL)


@sync.command()
@_roles_option
@output_option
def drift(directory: Path | None, output: str) -> None:
    """Look for what stands in Vault and at targets otherwise than it should. Nothing is changed.

    Exit status: 0 nothing was found, 1 nobody could look, 2 something was found. It looks with BAO_TOKEN or
    VAULT_TOKEN, else as the identity `vault.drift`, which may only read, else as `vault.sync`, which sees less.
    """
    from controlplane.settings import load
    from controlplane.wiring.errands import drift_finder

    with _detailed(asked=True):
        found, _ = _review(directory)
        wanted = found.whole()
        with own_token(), drift_finder(load()) as find:
            findings = find(wanted)
    if output == "table":
        for finding in findings:
            click.secho(f"{finding.code}  {cell(finding.path)}", fg="red")
            for label, sentence in (("what", finding.detail), ("means", finding.meaning), ("repair", finding.repair)):
                click.echo(f"    {label:<7} {cell(sentence)}")
    else:
        told = [
            {"code": one.code, "path": one.path, "detail": one.detail, "meaning": one.meaning, "repair": one.repair}
            for one in findings
        ]
        show({"findings": [*told]}, output)
    say(f"{_counted(len(findings), 'finding')}." if findings else "No drift: all stands as it should.")
    if findings:
        sys.exit(CHANGES)


@sync.command()
@click.argument("entitlement")
@_roles_option
@output_option
def who(entitlement: str, directory: Path | None, output: str) -> None:
    """Show who could have ENTITLEMENT, when, from where, how often and with whose approval.

    It reads the document only: freezes, policies and what is used of its budgets are not looked at.
    """
    from controlplane.cli.who_view import flat
    from controlplane.engines import engines
    from controlplane.grants.who import prospect, told
    from controlplane.issuers.trust.known import known
    from controlplane.model.errors import BrokenEntitlementsError
    from controlplane.settings import load
    from controlplane.world import SystemClock

    found, _ = _review(directory)
    sound = {item.entitlement.name: item.entitlement for item in found.compiled}
    if entitlement not in sound:
        if wrong := [str(problem) for problem in found.errors if problem.file == f"{entitlement}.yaml"]:
            raise BrokenEntitlementsError("\n  ".join([f"{entitlement} has errors:", *wrong]))
        raise click.UsageError(f"there is no entitlement {entitlement}, only: {', '.join(sound) or 'none at all'}")
    issuers = known(load().issuers) or None
    data = told(prospect(sound[entitlement], engines(), at=SystemClock().now(), issuers=issuers))
    show(flat(data) if output == "table" else data, output)


@sync.command()
@click.option("--write", is_flag=True, help="Write it beside the entitlements instead of printing it.")
@_roles_option
def schema(write: bool, directory: Path | None) -> None:
    """Print the JSON Schema of an entitlement, for editors and reviews."""
    from controlplane.engines import engines
    from controlplane.model.errors import ConfigurationError
    from controlplane.sync.schema import FILE, text

    if not write:
        click.echo(text(engines()), nl=False)
        return
    path = _directory(directory) / FILE
    try:
        path.write_text(text(engines()), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"the schema cannot be written: {error}") from None
    say(f"Written to {path}.")


def _directory(given: Path | None) -> Path:
    from controlplane.settings import load

    return given or load().roles


def _policies(given: Path | None) -> Path:
    from controlplane.settings import load

    return load().policies_directory if given is None else given / "policies"


def _unused(directory: Path, days: int) -> "list[Problem]":
    from controlplane.engines import scope_models
    from controlplane.keys import audit
    from controlplane.settings import load
    from controlplane.stores.made import is_made
    from controlplane.stores.sql import open_store
    from controlplane.sync import usage
    from controlplane.sync.load import load as load_files
    from controlplane.world import SystemClock

    settings = load()
    if not is_made(settings.store.url):
        raise click.UsageError("--unused asks the control plane's store, and store.url names none that there is")
    since = SystemClock().now() - timedelta(days=days)
    store = open_store(settings.store.url, audit_key=audit.load(settings.keys.directory / audit.FILE))
    try:
        return list(usage.unused(load_files(directory, scope_models()).sources, store, since=since))
    finally:
        store.close()


def _review(given: Path | None) -> tuple["Review", "Layout"]:
    from controlplane.engines import engines
    from controlplane.issuers.trust.known import known
    from controlplane.settings import load
    from controlplane.sync.review import review
    from controlplane.world import SystemClock

    settings = load()
    layout = settings.vault.layout
    here = bool(settings.issuers)  # elsewhere nobody has the settings of the control plane
    found = review(
        given or settings.roles,
        layout,
        engines(),
        today=SystemClock().now().date(),
        issuers=known(settings.issuers) if here else None,
        access=[rule.rule for rule in settings.access] if here else None,
    )
    return found, layout


def _meant(plan: "Plan", found: "Review", directory: Path | None, *, prune: bool) -> None:
    """Refuse to empty Vault because a directory is empty: it may be the wrong one, or not checked out."""
    if plan.empty or found.compiled or prune:
        return
    raise click.UsageError(
        f"no entitlement is in {_directory(directory)}, so {_counted(len(plan.changes), 'object')} of ours in "
        "Vault would go: name the right directory with --roles, or give --prune if that is meant"
    )


def _vault() -> "Roles":
    from controlplane.settings import load
    from controlplane.wiring.errands import sync_roles

    return sync_roles(load().vault)


@contextmanager
def _detailed(*, asked: bool) -> Generator[None]:
    """Within it, every error ends with 1 if asked: 2 says that there are changes, and nothing else may."""
    from controlplane.cli.main import tell
    from controlplane.model.errors import ControlPlaneError

    try:
        yield
    except ControlPlaneError as error:
        if not asked:
            raise
        tell(error)
        sys.exit(1)


def _show_plan(plan: "Plan", found: "Review", output: str) -> None:
    from controlplane.cli.plan_view import plan_data, print_plan
    from controlplane.engines import engines
    from controlplane.settings import load
    from controlplane.sync.comment import comment
    from controlplane.sync.needs import needed
    from controlplane.sync.radius import radius

    radii = [radius(item.entitlement, engines()) for item in found.compiled]
    match output:
        case "policy":
            show(needed(plan, found.compiled, load().vault.layout), "json")
        case "comment":
            click.echo(comment(plan, radii), nl=False)
        case "table" if plan.changes:
            print_plan(plan, radii)
        case "table":
            say(_nothing(found))
        case _:
            facts = _facts(found)
            show({**plan_data(plan, radii), "server": None if facts is None else facts.data}, output)
            return
    if output == "table" and (facts := _facts(found)) is not None:
        say(f"Server: {facts}.")


def _facts(found: "Review") -> "ServerFacts | None":
    """What the server is, None where it does not say: a plan that could be made stands without."""
    from controlplane.model.errors import ControlPlaneError
    from controlplane.settings import load
    from controlplane.wiring.errands import server_facts

    used = {scope.engine for item in found.compiled for scope in item.entitlement.scopes}
    try:
        return server_facts(load().vault, used)
    except ControlPlaneError:
        return None


def _show_radii(found: "Review") -> None:
    from controlplane.cli.plan_view import print_radii
    from controlplane.engines import engines
    from controlplane.sync.radius import radius

    print_radii([radius(item.entitlement, engines()) for item in found.compiled])


def _agreed(*, cutting: bool) -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here: give --yes, or apply a plan from a file")
    also = ", and cut every live grant of what is retired" if cutting else ""
    return click.confirm(f"Do this{also}?", err=True)


def _with_progress(apply_it: "ApplySync", found: "Review", shown: "Plan") -> "Applied":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("Applying"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[path]}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("apply", total=len(shown.changes), path="")
        return apply_it(found.whole(), shown, progress=lambda change: bar.update(task, advance=1, path=change.path))


def _tell(done: "Applied", found: "Review", output: str) -> None:
    from controlplane.model.plan import Action

    words = {Action.CREATE: "created", Action.REPAIR: "repaired", Action.RETIRE: "retired"}
    counts: dict[str, JsonValue] = {word: done.done[action] for action, word in words.items()}
    counts["waiting"] = len(done.waiting)
    if output != "table":
        show(counts, output)
    elif done.done:
        say("Applied: " + ", ".join(f"{number} {word}" for word, number in counts.items() if number) + ".")
    else:
        say(_nothing(found, waiting=len(done.waiting)))


def _nothing(found: "Review", *, waiting: int = 0) -> str:
    objects = sum(len(item.objects) for item in found.compiled)
    wait = f" {_counted(waiting, 'old object')} wait for leases to end." if waiting else ""
    return (
        f"Nothing to change: {_counted(objects, 'object')} of {_counted(len(found.compiled), 'entitlement')} "
        f"stand in Vault as compiled.{wait}"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
