"""A plan as a comment on a pull request: Markdown with no value of any field in it, and nobody's text but as code."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from controlplane.model.duration import format_duration
from controlplane.model.plan import Action, Change, Plan
from controlplane.sync.radius import Radius

MARK: Final = "<!-- shorthold sync plan -->"
"""The first line, by which a later run finds the comment that it replaces."""

_MOST: Final = 100
"""Rows of a table: GitHub takes 65 536 characters, and nobody reads more."""
_LONGEST: Final = 200
_WORDS: Final = {
    Action.CREATE: "create",
    Action.REPAIR: "repair",
    Action.RETIRE: "retire",
    Action.DRAIN: "drain",
    Action.BLOCK: "repair once no lease hangs",
}


def comment(plan: Plan, radii: Sequence[Radius]) -> str:
    """The changes, and what each entitlement that comes or changes opens to whom."""
    return "\n".join(_lines(plan, radii)) + "\n"


def _lines(plan: Plan, radii: Sequence[Radius]) -> Iterator[str]:
    counts = Counter(change.action for change in plan.changes)
    told = ", ".join(f"{counts[action]} to {_WORDS[action]}" for action in Action if counts[action])
    yield from (MARK, "### Shorthold: " + (told or "nothing to change in Vault"))
    if not plan.changes:
        return
    yield from ("", "| | what | where | why |", "|---|---|---|---|")
    yield from (_row(change) for change in plan.changes[:_MOST])
    if len(plan.changes) > _MOST:
        yield f"| | | | … and {len(plan.changes) - _MOST} more |"
    coming = {change.entitlement for change in plan.changes if change.after is not None}
    shown = [one for one in radii if one.entitlement in coming]
    for one in shown[:_MOST]:
        yield from _opened(one)
    if len(shown) > _MOST:
        yield from ("", f"… and {len(shown) - _MOST} more entitlements.")
    yield from ("", f"Digest {_code(plan.digest)}: `sync apply` of the plan in a file does exactly this, or nothing.")


def _row(change: Change) -> str:
    cells = (_WORDS[change.action], str(change.kind), _code(change.path), _code(change.why))
    return f"| {' | '.join(cells)} |"


def _opened(one: Radius) -> Iterator[str]:
    yield from ("", f"<details><summary>What {one.entitlement} opens</summary>", "")
    yield from (f"- what: {_code(line)}" for line in one.reach[:_MOST])
    yield from (f"- who: {_code(line)}" for line in one.workloads[:_MOST])
    yield f"- how: risk {one.risk}, at most {format_duration(one.longest)}; {_code(one.approval)}"
    yield f"- end: {one.revocability}"
    yield from ("", "</details>")


def _code(text: str) -> str:
    """A code span: nothing in it is markup, a link or somebody's name. Source: CommonMark 6.1; GFM 4.10 for the bar."""
    seen = "".join(char if char.isprintable() else "�" for char in text)[:_LONGEST]
    fence = "`" * (max((len(run) for run in re.findall("`+", seen)), default=0) + 1)
    return f"{fence} {seen} {fence}".replace("|", "\\|")
