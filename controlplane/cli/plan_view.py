"""How a plan looks: Terraform's signs, every field that changes, and what each entitlement opens."""

import difflib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from controlplane.model.canonical import JsonObject, JsonValue
from controlplane.model.duration import format_duration
from controlplane.model.plan import Action, Change, ObjectKind, Plan
from controlplane.sync.radius import Point, Radius

_SIGNS = {
    Action.CREATE: ("+", "green"),
    Action.REPAIR: ("~", "yellow"),
    Action.RETIRE: ("-", "red"),
    Action.DRAIN: ("…", "cyan"),
    Action.BLOCK: ("!", "red"),
}
_WORDS = {
    Action.CREATE: "to create",
    Action.REPAIR: "to repair",
    Action.RETIRE: "to retire",
    Action.DRAIN: "waiting for leases to end",
    Action.BLOCK: "blocked by leases",
}

_REVISION = re.compile(r"(?<=-)[0-9a-f]{8}(?=-|$)", re.ASCII)
_WIDE = 10_000  # whatever reads a pipe gets whole lines
_SHOWN = 12  # lines of one value; a review reads the privileges below and the statements where it needs them


def print_plan(plan: Plan, radii: Sequence[Radius]) -> None:
    """Print the changes, the blast radius of what comes or changes, and the sum. Colours only on a terminal."""
    console = Console(highlight=False, soft_wrap=True)
    for line in _lines(plan, radii):
        console.print(line)


def summary(plan: Plan) -> str:
    """The changes counted: `3 to create, 1 to repair`."""
    counts = Counter(change.action for change in plan.changes)
    return ", ".join(f"{counts[action]} {_WORDS[action]}" for action in Action if counts[action]) or "no changes"


def plan_data(plan: Plan, radii: Sequence[Radius]) -> dict[str, JsonValue]:
    """The plan for machines."""
    replaced = _replaced(plan)
    return {
        "version": 1,
        "digest": plan.digest,
        "summary": {str(action): sum(change.action is action for change in plan.changes) for action in Action},
        "changes": [
            {
                "action": change.action,
                "kind": change.kind,
                "path": change.path,
                "entitlement": change.entitlement,
                "replaces": replaced[change.path].path if change.path in replaced else None,
                "why": change.why,
                "before": None if change.before is None else dict(change.before),
                "after": None if change.after is None else dict(change.after),
            }
            for change in plan.changes
        ],
        "blast_radius": [
            {
                "entitlement": one.entitlement,
                "risk": one.risk,
                "reach": list(one.reach),
                "workloads": list(one.workloads),
                "longest": format_duration(one.longest),
                "approval": one.approval,
                "revocability": one.revocability,
                "controls": {name: str(point) for name, point in one.controls.items()},
            }
            for one in radii
        ],
    }


def _lines(plan: Plan, radii: Sequence[Radius]) -> Iterator[Text]:
    replaced = _replaced(plan)
    for change in plan.changes:
        sign, colour = _SIGNS[change.action]
        yield Text(f"{sign} {change.kind} {_seen(change.path)}", style=colour)
        old = replaced.get(change.path)
        if old is None:
            yield Text(f"    # {_seen(change.why)}", style="dim")
            yield from _fields(change)
        else:
            yield from _compared(change, old)
        yield Text()
    coming = {change.entitlement for change in plan.changes if change.after is not None}
    shown = [one for one in radii if one.entitlement in coming]
    if shown:
        yield Text("Blast radius", style="bold")
    for one in shown:
        yield from _radius(one)
    yield Text(f"Plan: {summary(plan)}.", style="bold")


def _replaced(plan: Plan) -> dict[str, Change]:
    """What goes, by the path of what comes in its place: the same object of the revision that could be logged in to."""
    going = {change.path: change for change in plan.changes if change.after is None}
    bases = {
        change.entitlement: change.path.rpartition("/")[2]
        for change in going.values()
        if change.kind is ObjectKind.JWT_ROLE
    }
    pairs: dict[str, Change] = {}
    for change in plan.changes:
        if change.action is Action.CREATE and (old := bases.get(change.entitlement)):
            folder, _, name = change.path.rpartition("/")
            path = f"{folder}/{old}{name[len(old) :]}"  # names of one entitlement differ in the revision only
            if path in going:
                pairs[change.path] = going[path]
    return pairs


def _compared(change: Change, old: Change) -> Iterator[Text]:
    """What a new revision says otherwise than the one that it replaces; that all names in it are new goes unsaid."""
    before, after = _revision(old.path, change.path)
    was = cast("JsonObject", json.loads(json.dumps(dict(old.before or {})).replace(before, after)))
    lines = list(_difference(was, change.after or {}))
    yield Text(f"    # in place of revision {before}{'' if lines else ', with nothing new but the name'}", style="dim")
    yield from lines


def _revision(old: str, new: str) -> tuple[str, str]:
    """The revisions in two paths that differ in nothing else."""
    return next(pair for pair in zip(_REVISION.findall(old), _REVISION.findall(new), strict=True) if len({*pair}) > 1)


def _fields(change: Change) -> Iterator[Text]:
    match change.action:
        case Action.CREATE:
            for name, value in sorted((change.after or {}).items()):
                if value not in ("", [], {}, None, False, 0):  # what is empty or off is so by default
                    yield from _value(f"    + {name} = ", value, "green")
        case Action.REPAIR | Action.BLOCK:
            yield from _difference(change.before or {}, change.after or {})
        case Action.RETIRE | Action.DRAIN:
            return


def _difference(before: JsonObject, after: JsonObject) -> Iterator[Text]:
    for name in sorted(after.keys() | before.keys()):
        old, new = before.get(name), after.get(name, before.get(name))
        if old == new or (not old and not new):
            continue
        old_lines, new_lines = _texts(old), _texts(new)
        if len(old_lines) == len(new_lines) == 1:
            yield Text(f"    ~ {name}: {old_lines[0]} -> {new_lines[0]}", style="yellow")
            continue
        yield Text(f"    ~ {name}:", style="yellow")
        for line in difflib.unified_diff(old_lines, new_lines, lineterm="", n=1):
            if not line.startswith(("---", "+++", "@@")):
                yield Text(f"        {line}", style={"+": "green", "-": "red"}.get(line[0], ""))


def _value(lead: str, value: JsonValue, colour: str) -> Iterator[Text]:
    lines = _texts(value)
    if len(lines) == 1:
        yield Text(f"{lead}{lines[0]}", style=colour)
    elif len(lines) <= _SHOWN:
        yield Text(lead.rstrip(), style=colour)
        yield from (Text(f"        {line}", style=colour) for line in lines)
    else:
        yield Text(f"{lead}{len(lines)} lines, in full with -o json", style=colour)


def _texts(value: JsonValue) -> list[str]:
    """A value as lines: statements as SQL, a policy path by path, everything else as JSON in one line."""
    if isinstance(value, str):
        try:
            document = json.loads(value)
        except ValueError:
            document = None
        if isinstance(document, dict) and isinstance(rules := cast("dict[str, JsonValue]", document).get("path"), dict):
            return [f"{_seen(path)} {json.dumps(rule, ensure_ascii=False)}" for path, rule in rules.items()]
        if "\n" in value:
            return [_seen(line) for line in value.splitlines()]
    if isinstance(value, list) and any(isinstance(part, str) and "\n" in part for part in value):
        return [line for part in value for line in _texts(part)]
    return [_seen(json.dumps(value, ensure_ascii=False))]


def _radius(one: Radius) -> Iterator[Text]:
    yield Text(f"  {one.entitlement}", style="bold")
    yield from _facts("what", one.reach)
    yield from _facts("who", one.workloads)
    yield from _facts("how", [f"risk {one.risk}, at most {format_duration(one.longest)}; {one.approval}"])
    yield from _facts("end", [{"provable": "the target itself confirms that it is gone",
                               "recallable": "Vault takes it back; the target cannot be asked",
                               "expiring": "it can only run out",
                               "not-recallable": "nothing takes it back"}[one.revocability]])  # fmt: skip
    yield from _facts("held", [f"{name}: {point}" for name, point in _by_point(one).items()])
    yield Text()


def _by_point(one: Radius) -> dict[str, str]:
    """What is enforced where, and what is not at all."""
    told = {"by Vault or the target": Point.ENGINE, "by the broker": Point.BROKER, "by nobody": Point.NONE}
    found = {
        words: ", ".join(name for name, point in one.controls.items() if point is where)
        for words, where in told.items()
    }
    return {words: names for words, names in found.items() if names}


def print_radii(radii: Sequence[Radius]) -> None:
    """The blast radius of every entitlement as a table: one line for each thing that can be reached."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("entitlement", "risk", "what", "who", "longest", "approval", "end", "by nobody"):
        table.add_column(name, overflow="fold")
    for one in radii:
        unheld = [name for name, point in one.controls.items() if point is Point.NONE]
        cells = (
            one.entitlement,
            one.risk,
            "\n".join(one.reach),
            "\n".join(one.workloads),
            format_duration(one.longest),
            one.approval,
            one.revocability,
            ", ".join(unheld),
        )
        table.add_row(*(Text("\n".join(_seen(line) for line in cell.split("\n"))) for cell in cells))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    with console.capture() as drawn:
        console.print(table)
    for line in drawn.get().splitlines():
        console.out(line.rstrip(), highlight=False)


def _facts(label: str, sentences: Iterable[str]) -> Iterator[Text]:
    for place, sentence in enumerate(sentences):
        yield Text(f"    {label if place == 0 else '':<5} {_seen(sentence)}")


def _seen(text: str) -> str:
    # What stands in Vault was perhaps written by others: no control character of theirs reaches a terminal.
    return "".join(char if char.isprintable() else "�" for char in text)
