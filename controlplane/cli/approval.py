"""`shorthold grant pending`, `approve` and `deny`: what a person who may agree needs, in ten seconds."""

from collections.abc import Mapping
from typing import Any

import click

from controlplane.cli.asking import GRANT_ID, client, print_grant, told
from controlplane.cli.output import FORMATS, cell, output_option, say, show
from controlplane.model.canonical import JsonValue

_COLUMNS = ("id", "entitlement", "subject", "waiting", "intent", "reason", "until")


@click.command()
@click.option("-o", "--output", type=click.Choice([*FORMATS, "id"]), default="table", show_default=True)
def pending(output: str) -> None:
    """List what waits for your approval: a line for each requester and entitlement, with the newest of its grants.

    `-o id` prints the ids of all, `-o json` all that is asked.
    """
    groups: list[dict[str, Any]] = []
    before: str | None = None
    with client() as api:
        for _ in range(_PAGES):
            page = told(lambda before=before: api.approvals(before=before))
            groups += page["groups"]
            before = page["next"]
            if before is None:
                break
    if output == "id":
        for group in groups:
            for waiting in group["waiting"]:
                click.echo(waiting["asked"]["grant"])
        return
    shown: list[JsonValue] = [*groups] if output != "table" else [_line(group) for group in groups]
    show(shown, output, columns=_COLUMNS)
    if not groups:
        say("Nothing waits for you.")
    if before is not None:
        say("There is more than this: decide on some, and look again.")


@click.command()
@click.argument("id", type=GRANT_ID)
@click.option("--reason", default=None, help="Why you agree, for whoever reads the audit log.")
@click.option("--ttl", default=None, help="Agree to a shorter time only, such as 2m.")
@click.option("--scope", "scopes", multiple=True, help="Agree to this scope only; may be given several times.")
@click.option("--digest", default=None, help="Of what you were shown; the answer of the API has it.")
@click.option("--yes", is_flag=True, help="Do not ask; needs --digest, so that what you saw is what you agree to.")
@output_option
def approve(  # noqa: PLR0917 # click passes each option by name
    id: str, reason: str | None, ttl: str | None, scopes: tuple[str, ...], digest: str | None, yes: bool, output: str
) -> None:
    """Show what grant ID asks for, and agree to exactly that, or to less."""
    if yes and digest is None:
        raise click.UsageError("--yes needs --digest: agree to what you have seen")
    with client() as api:
        if not yes:
            asked: dict[str, Any] = told(lambda: api.show(id)).get("asked") or {}
            if not asked:
                raise click.ClickException(f"{id} does not wait for approval any more")
            _tell(asked)
            if digest is not None and digest != asked["digest"]:
                raise click.ClickException("this is not what the digest is of: look again, and agree to this or not")
            digest = str(asked["digest"])
            if not _confirmed(ttl, scopes):
                raise click.ClickException("nothing was agreed to; --yes --digest where nobody can answer")
        seen = str(digest)
        answer = told(lambda: api.approve(id, seen, reason=reason, ttl=ttl, scopes=list(scopes) or None))
    print_grant(answer, output)
    if answer["grant"]["state"] == "pending":
        say("Your yes is recorded; more people have to agree.")


@click.command()
@click.argument("id", type=GRANT_ID)
@click.option("--reason", required=True, help="Why not: whoever asked is told.")
@output_option
def deny(id: str, reason: str, output: str) -> None:
    """Refuse grant ID: one no is enough, until it is collected."""
    with client() as api:
        answer = told(lambda: api.deny(id, reason))
    print_grant(answer, output)


_PAGES = 10


def _line(group: Mapping[str, Any]) -> dict[str, Any]:
    newest: Mapping[str, Any] = group["waiting"][0]["asked"]
    return {
        "id": newest["grant"],
        "entitlement": group["entitlement"],
        "subject": group["subject"],
        "waiting": group["count"],
        "intent": newest["intent"],
        "reason": newest["reason"],
        "until": group["until"],
    }


def _tell(asked: Mapping[str, Any]) -> None:
    """What is asked, in plain words, on stderr."""
    about = f"{asked['risk']} risk" + (f", {asked['sensitivity']}" if asked.get("sensitivity") else "")
    person = f" ({asked['person']})" if asked.get("person") else ""
    say(cell(f"{asked['entitlement']} ({about}): {asked['purpose']}"))
    lines = [
        ("who", f"{asked['issuer']} {asked['subject']}{person}"),
        ("what for", f"{asked['intent']}, task {asked['task']}"),
        ("reason", asked["reason"] or "none given"),
        ("how long", asked["ttl"]),
        *(("narrowed to", f"{name} {value}") for name, value in sorted(asked["parameters"].items())),
        *((f"scope {scope['name']}", f"{line}") for scope in asked["scopes"] for line in scope["reach"]),
        *(("unusual", line) for line in asked["unusual"] or ["nothing: it was granted like this before"]),
        ("who agrees", f"{asked['quorum']} of {', '.join(asked['from'])}, until {cell(asked['until'])}"),
        ("digest", asked["digest"]),
    ]
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        say(cell(f"  {name:{width}}  {text}"))


def _confirmed(ttl: str | None, scopes: tuple[str, ...]) -> bool:
    less = " and ".join([*([ttl] if ttl else []), *([f"scope {', '.join(scopes)}"] if scopes else [])])
    try:
        return click.confirm(f"Agree to {f'less of this: {less}' if less else 'exactly this'}?", err=True)
    except click.Abort:  # nobody is there to answer
        return False
