"""The page of a report: everything in it as HTML for people, with no script, no link and nothing from elsewhere.

Subjects, reasons and whatever else others wrote are hostile: each text goes through `_text`, which shows what does not
print and escapes the rest. The policy of the page is a second wall: a browser would load and run nothing anyway. It is
read at three in the morning, on a telephone or on paper: what is not gone stands first, and every time says UTC.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final, cast

from controlplane.audit.record import printable
from controlplane.model.canonical import JsonObject, JsonValue, canonical

_STYLE: Final = """
:root { color-scheme: light dark; --text: #1b1b1f; --quiet: #5a5a66; --paper: #fff; --line: #dcdce4;
  --good: #11652f; --bad: #a3120a; }
@media screen and (prefers-color-scheme: dark) { :root { --text: #e6e6ea; --quiet: #a5a5b0; --paper: #131316;
  --line: #3a3a44; --good: #6fd08c; --bad: #ff8a80; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--text); background: var(--paper); margin: 2rem auto;
  max-width: 80rem; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p { max-width: 50rem; } p.lead { margin: .3rem 0 1rem; color: var(--quiet); }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .35rem 1rem .35rem 0; border-bottom: 1px solid var(--line); }
td { min-width: 15rem; } td.short { min-width: 0; white-space: nowrap; }
th { font-weight: 600; color: var(--quiet); white-space: nowrap; }
code, pre, .names, .at { font: 13px/1.45 ui-monospace, monospace; } pre { white-space: pre-wrap; margin: 0; }
.names > div { padding-left: 1rem; text-indent: -1rem; } .names + .names { margin-top: .5rem; }
.at { white-space: nowrap; }
.names b { font-weight: 600; color: var(--quiet); } .names ul { text-indent: 0; }
td[data-of=about] .names > div { display: inline-block; margin-right: 1.2rem; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; } .gap { color: var(--quiet); }
ul { margin: 0; padding-left: 1.1rem; } ul.outcomes { font-size: 1.15rem; }
details { margin: .2rem 0; } summary { cursor: pointer; }
@media screen and (max-width: 62rem) { body { margin: 1rem auto; } thead { display: none; }
  table, tbody, tr, td, td.short { display: block; border: 0; padding: 0; white-space: normal; }
  tr { border-top: 1px solid var(--line); padding: .6rem 0; } td:empty { display: none; }
  td::before { content: attr(data-of); display: block; font-size: .8rem; color: var(--quiet); }
  td + td { margin-top: .4rem; } }
@media print { body { font-size: 10pt; margin: 0; max-width: none; } code, pre, .names, .at { font-size: 8pt; }
  h2, thead { break-after: avoid; } tr { break-inside: avoid; } td { min-width: 8rem; padding-right: .6rem; }
  details::details-content { content-visibility: visible; block-size: auto; } }
"""
_HEAD: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
"""
_GOOD: Final = frozenset({"verified", "withdrawn"})
_MEANS: Final = {
    "residual": "NOT gone",
    "ending": "ending still",
    "waiting": "not ended yet",
    "unverifiable": "let go of, and nobody can say",
    "verified": "verified gone",
    "withdrawn": "never made",
}
"""What is said of each outcome, the worst first."""
_INSTANT: Final = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)")
_SHORT: Final = frozenset({"ordered", "made", "record", "at", "what"})
"""The columns whose cells are never broken; all others are, wherever it is needed."""


def page(report: JsonObject) -> str:
    """The page, up to where its data stand."""
    told = cast("dict[str, Any]", report)
    title = f"Incident {_text(told['incident'])}"
    by = told["made_by"]
    alive = sorted((one for one in told["grants"] if one["outcome"] not in _GOOD), key=_badness)
    gone = [one for one in told["grants"] if one["outcome"] in _GOOD]
    return "".join(
        (
            _HEAD,
            f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n",
            f'<p class="lead">As the control plane knew it at {_value(told["made_at"])}; ',
            f"asked for by {_text(by['subject'])} ({_text(by['issuer'])}).</p>\n",
            _summary(told),
            _section("Not verified gone", _grants(alive)) if alive else "",
            _section("Cuts", _cuts(told["cuts"])),
            _section("Freezes", _freezes(told["freezes"])),
            _section("Grants that are verified gone" if alive else "Grants", _grants(gone)),
            _section("Entitlements, as they were granted", _entitlements(told["entitlements"])),
            _section("Policies that decided", _policies(told["policies"])),
            _section("Timeline: the audit log", _log(told["log"])),
            _section("What this proves", _proof(told["log"])),
        )
    )


def _summary(told: Mapping[str, Any]) -> str:
    outcomes = told["outcomes"]
    counts = [
        f'<li class="{_class(name)}">{_text(outcomes[name])} {means}</li>'
        for name, means in _MEANS.items()
        if outcomes.get(name)
    ]
    if not told["log"]["intact"]:
        counts.insert(0, f'<li class="bad">The audit log was NOT intact: {_text(told["log"]["detail"])}</li>')
    open_doors = any(outcomes.get(name) for name in _MEANS if name not in _GOOD)
    return f'<ul class="outcomes">{"".join(counts) or "<li>no grants</li>"}</ul>\n' + (
        '<p class="bad">What is not verified gone may still open doors. It may have ended since this page was made: '
        "<code>shorthold incident prove</code> asks again.</p>\n"
        if open_doors
        else ""
    )


def _cuts(cuts: Sequence[Mapping[str, Any]]) -> str:
    rows = (
        (
            _value(cut["ordered_at"]),
            _names({name: cut[name] for name in ("id", "incident", "selection", "reason", "issuer", "subject")}),
            _names(cut["preview"]),
            _names(
                {
                    **{name: cut["outcomes"][name] for name in _MEANS if cut["outcomes"].get(name)},
                    "ended": cut["ended_at"] or "not yet",
                }
            ),
        )
        for cut in cuts
    )
    return _table(("ordered", "cut", "what was seen before", "what came of it"), rows)


def _freezes(freezes: Sequence[Mapping[str, Any]]) -> str:
    rows = (
        (
            _value(one["created_at"]),
            _names({name: one[name] for name in ("id", "selection", "reason", "message", "issuer", "subject")}),
            _names({"thawed": one["thawed_at"] or "not yet", "expires": one["expires_at"] or "never by itself"})
            + "".join(_names(thaw) for thaw in one["thaws"]),
        )
        for one in freezes
    )
    return _table(("made", "freeze", "until"), rows)


def _grants(grants: Sequence[Mapping[str, Any]]) -> str:
    return _table(("what came of it", "grant", "credentials and approvals"), map(_grant, grants))


def _badness(grant: Mapping[str, Any]) -> int:
    return [*_MEANS].index(grant["outcome"])


def _grant(one: Mapping[str, Any]) -> tuple[str, ...]:
    asked = ("id", "issuer", "subject", "person", "entitlement", "revision", "task", "intent", "reason", "parameters")
    over = ("why", "failing", "requested_at", "expires_at", "revoking_at", "revoked_at")
    ends = "".join(_names(end) for end in (one["receipt"]["ended"] if one["receipt"] else ()))
    return (
        f'<div class="{_class(one["outcome"])}">{_MEANS[one["outcome"]]}</div>'
        + _names({name: one[name] for name in over if one[name]})
        + (f"<details><summary>receipt</summary>{ends}</details>" if ends else ""),
        _names({name: one[name] for name in asked if one[name]}),
        "".join(_names(lease) for lease in one["leases"])
        + "".join(f"<div>approved:</div>{_names(given)}" for given in one["approvals"])
        + (f"<div>denied:</div>{_names(one['denial'])}" if one["denial"] else "")
        + (f"<div>reviewed:</div>{_names(one['review'])}" if one["review"] else ""),
    )


def _entitlements(revisions: Sequence[Mapping[str, Any]]) -> str:
    rows = (
        (
            _names({name: one[name] for name in ("entitlement", "revision", "grants")}),
            f"<details><summary>document</summary>{_document(one['document'])}</details>"
            if one["document"]
            else f"not in the files any more, which have {_text(one['revision_now'] or 'none')}: look in their history",
        )
        for one in revisions
    )
    return _table(("revision", "what it said"), rows)


def _policies(revisions: Sequence[Mapping[str, Any]]) -> str:
    rows = ((_text(one["revision"]), *map(_value, (one["decisions"], one["first"], one["last"]))) for one in revisions)
    return _table(("revision", "decisions", "first", "last"), rows)


def _document(document: JsonValue) -> str:
    lines = map(_text, json.dumps(document, indent=2, ensure_ascii=False).split("\n"))
    return "\n".join(("<pre>", *lines, "</pre>"))


def _log(log: Mapping[str, Any]) -> str:
    return _table(("record", "at", "what", "about"), map(_record, log["records"]))


def _record(one: Mapping[str, Any]) -> tuple[str, ...]:
    if "kind" not in one:
        some = f"{one['from']}" if one["from"] == one["to"] else f"{one['from']} to {one['to']}"
        about = f'<span class="gap">about others; fingerprint {_text(one["fingerprint"])}</span>'
        return (f'<span class="gap">{_text(some)}</span>', "", "", about)
    body = {"grant": one["grant"], **one["body"]} if one["grant"] else one["body"]
    return _text(one["seq"]), _value(one["at"]), _text(one["kind"]), _names(body)


def _proof(log: Mapping[str, Any]) -> str:
    return (
        f"<p>Records {_text(log['after'] + 1)} to {_text(log['to'])} of the audit log are all accounted for above: "
        "in full, or by the fingerprint of those that are about others. Each carries a MAC over itself and the one "
        "before it; the control plane checked them with its audit key, up to the sealed head of its log, when it made "
        "this file, and signed the outcome. Whoever has the log can compare.</p>\n"
        "<p>Whether this file is as it was signed, a browser cannot say. "
        "<code>shorthold incident verify FILE --keys jwks.json</code> can, offline.</p>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<h2>{title}</h2>\n{content}\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; its cells are HTML already."""
    begins = [f'<td class="{"short" if name in _SHORT else "long"}" data-of="{name}">' for name in head]
    body = "".join(
        f"<tr>{''.join(f'{begin}{cell}</td>' for begin, cell in zip(begins, row, strict=True))}</tr>\n" for row in rows
    )
    if not body:
        return "<p>none</p>"
    heads = "".join(f"<th>{name}</th>" for name in head)
    return f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


def _names(values: Mapping[str, JsonValue]) -> str:
    told = (f"<div><b>{_text(name)}</b> {_value(value)}</div>" for name, value in values.items() if value is not None)
    return f'<div class="names">{"".join(told)}</div>'


def _value(value: JsonValue) -> str:
    """A value for eyes: an instant says UTC, and things that have names are a line each."""
    if isinstance(value, str) and (at := _INSTANT.fullmatch(value)):
        return f'<span class="at">{at[1]} {at[2]} UTC</span>'
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        lines = (f"<li>{_line(cast('JsonObject', one))}</li>" for one in value)
        return f"<ul>{''.join(lines)}</ul>"
    return _text(value)


def _line(values: JsonObject) -> str:
    return ", ".join(f"<b>{_text(name)}</b> {_text(value)}" for name, value in values.items())


def _class(outcome: str) -> str:
    return "good" if outcome in _GOOD else "bad"


def _text(value: JsonValue) -> str:
    """Any value, so that no reader takes it for anything but text: neither a browser nor an eye."""
    text = value if isinstance(value, str) else canonical(value).decode()
    return escape(printable(text))
