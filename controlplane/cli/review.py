"""`shorthold grant reviews` and `review`: what comes after a broken glass."""

from typing import Any

import click

from controlplane.cli.asking import GRANT_ID, client, told
from controlplane.cli.output import output_option, show
from controlplane.model.canonical import JsonValue


@click.command()
@click.option("--after", type=GRANT_ID, default=None, help="Only those after that of this grant.")
@output_option
def reviews(after: str | None, output: str) -> None:
    """List open reviews of break-glass grants, oldest first: for approvers, responders and auditors."""
    with client() as api:
        answer = told(lambda: api.reviews(after=after))
    if output != "table":
        show(answer["reviews"], output)
        return
    rows: list[JsonValue] = [
        {**each["grant"], "by": f"{each['issuer']} {each['subject']}"} for each in answer["reviews"]
    ]
    show(rows, output, columns=("id", "state", "entitlement", "task", "by", "reason"))


@click.command()
@click.argument("id", type=GRANT_ID)
@click.option("--note", required=True, help="What was done with the grant, and whether it was right.")
@output_option
def review(id: str, note: str, output: str) -> None:
    """Close the review of somebody else's break-glass grant, once it has ended."""
    with client() as api:
        answer = told(lambda: api.review(id, note))
    closed: dict[str, Any] = answer["review"]
    show(answer if output != "table" else {**closed, **closed.pop("closed")}, output)
