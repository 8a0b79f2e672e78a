"""The page of a report: everything in it as HTML for people, with no script, no link and nothing from elsewhere.

Subjects, reasons and whatever else others wrote are hostile: each text goes through `_text`, which shows what does not
print and escapes the rest. The policy of the page is a second wall: a browser would load and run nothing anyway.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final, cast

from controlplane.audit.record import printable
from controlplane.model.canonical import JsonObject, JsonValue, canonical

_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1b1b1f; background: #fff; margin: 2rem auto; max-width: 76rem;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p.lead { margin: .3rem 0 1rem; color: #4a4a55; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top;
  padding: .3rem .6rem .3rem 0; border-bottom: 1px solid #e3e3ea; overflow-wrap: anywhere; }
th { font-weight: 600; color: #4a4a55; white-space: nowrap; } td.at { white-space: nowrap; }
code, td.at, .names { font: 13px/1.45 ui-monospace, monospace; } .names b { font-weight: 600; color: #4a4a55; }
.good { color: #11652f; } .bad { color: #a3120a; font-weight: 600; } .gap { color: #77777f; }
ul { margin: 0; padding-left: 1.1rem; } details { margin: .2rem 0; } summary { cursor: pointer; }
"""
_HEAD: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
"""
_GOOD: Final = frozenset({"verified", "withdrawn"})
_SAID: Final = ("verified", "withdrawn", "unverifiable", "residual", "ending", "waiting")
_MEANS: Final = {
    "verified": "verified gone",
    "withdrawn": "never made",
    "unverifiable": "let go of, and nobody can say",
    "residual": "NOT gone",
    "ending": "ending still",
    "waiting": "not ended yet",
}


def page(report: JsonObject) -> str:
    """The page, up to where its data stand."""
    told = cast("dict[str, Any]", report)
    title = f"Incident {_text(told['incident'])}"
    by = told["made_by"]
    return "".join(
        (
            _HEAD,
            f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n",
            f'<p class="lead">As the control plane knew it at {_text(told["made_at"])}; ',
            f"asked for by {_text(by['subject'])} ({_text(by['issuer'])}).</p>\n",
            _summary(told),
            _section("Cuts", _cuts(told["cuts"])),
            _section("Freezes", _freezes(told["freezes"])),
            _section("Grants", _grants(told["grants"])),
            _section("Entitlements, as they were granted", _entitlements(told["entitlements"])),
            _section("Timeline: the audit log", _log(told["log"])),
            _section("What this proves", _proof(told["log"])),
        )
    )


def _summary(told: Mapping[str, Any]) -> str:
    outcomes = told["outcomes"]
    counts = [
        f'<li class="{"good" if name in _GOOD else "bad"}">{_text(outcomes[name])} {_MEANS[name]}</li>'
        for name in _SAID
        if outcomes.get(name)
    ]
    if not told["log"]["intact"]:
        counts.append(f'<li class="bad">The audit log was NOT intact: {_text(told["log"]["detail"])}</li>')
    return f"<ul>{''.join(counts) or '<li>no grants</li>'}</ul>\n"


def _cuts(cuts: Sequence[Mapping[str, Any]]) -> str:
    rows = (
        (
            _at(cut["ordered_at"]),
            _names({name: cut[name] for name in ("id", "incident", "selection", "reason", "issuer", "subject")}),
            _names({f"previewed {name}": value for name, value in cut["preview"].items()}),
            _names({"ended": cut["ended_at"], **{name: count for name, count in cut["outcomes"].items() if count}}),
        )
        for cut in cuts
    )
    return _table(("ordered", "cut", "what was seen before", "what came of it"), rows)


def _freezes(freezes: Sequence[Mapping[str, Any]]) -> str:
    rows = (
        (
            _at(one["created_at"]),
            _names({name: one[name] for name in ("id", "selection", "reason", "message", "issuer", "subject")}),
            _names({"expires": one["expires_at"], "thawed": one["thawed_at"]})
            + "".join(f"<div>{_names(thaw)}</div>" for thaw in one["thaws"]),
        )
        for one in freezes
    )
    return _table(("made", "freeze", "until"), rows)


def _grants(grants: Sequence[Mapping[str, Any]]) -> str:
    return _table(("asked for", "grant", "credentials and approvals", "proof of the end"), map(_grant, grants))


def _grant(one: Mapping[str, Any]) -> tuple[str, ...]:
    asked = ("id", "issuer", "subject", "person", "entitlement", "revision", "task", "intent", "reason", "parameters")
    good = one["outcome"] in _GOOD
    ends = "".join(f"<div>{_names(end)}</div>" for end in (one["receipt"]["ended"] if one["receipt"] else ()))
    return (
        _at(one["requested_at"]),
        _names({name: one[name] for name in asked if one[name]}),
        "".join(f"<div>{_names(lease)}</div>" for lease in one["leases"])
        + "".join(f"<div>approved: {_names(given)}</div>" for given in one["approvals"])
        + (f"<div>denied: {_names(one['denial'])}</div>" if one["denial"] else "")
        + (f"<div>reviewed: {_names(one['review'])}</div>" if one["review"] else ""),
        f'<div class="{"good" if good else "bad"}">{_MEANS.get(one["outcome"], _text(one["outcome"]))}</div>'
        + _names({name: one[name] for name in ("why", "failing", "revoking_at", "revoked_at") if one[name]})
        + (f"<details><summary>receipt</summary>{ends}</details>" if ends else ""),
    )


def _entitlements(revisions: Sequence[Mapping[str, Any]]) -> str:
    rows = (
        (
            _names({name: one[name] for name in ("entitlement", "revision", "grants")}),
            f"<details><summary>document</summary><code>{_text(one['document'])}</code></details>"
            if one["document"]
            else f"not in the files any more, which have {_text(one['revision_now'] or 'none')}: look in their history",
        )
        for one in revisions
    )
    return _table(("revision", "what it said"), rows)


def _log(log: Mapping[str, Any]) -> str:
    return _table(("record", "at", "what", "about"), map(_record, log["records"]))


def _record(one: Mapping[str, Any]) -> tuple[str, ...]:
    if "kind" not in one:
        some = f"{one['from']}" if one["from"] == one["to"] else f"{one['from']} to {one['to']}"
        about = f'<span class="gap">about others; fingerprint {_text(one["fingerprint"])}</span>'
        return (f'<span class="gap">{_text(some)}</span>', "", "", about)
    body = {"grant": one["grant"], **one["body"]} if one["grant"] else one["body"]
    return _text(one["seq"]), _at(one["at"]), _text(one["kind"]), _names(body)


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
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    if not body:
        return "<p>none</p>"
    return f"<table>\n<tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>\n{body}</table>"


def _names(values: Mapping[str, JsonValue]) -> str:
    told = (f"<b>{_text(name)}</b>&nbsp;{_text(value)}" for name, value in values.items() if value is not None)
    return f'<span class="names">{" &nbsp;".join(told)}</span>'


def _at(at: str | None) -> str:
    return f'<span class="names">{_text((at or "")[:19].replace("T", " "))}</span>'


def _text(value: JsonValue) -> str:
    """Any value, so that no reader takes it for anything but text: neither a browser nor an eye."""
    text = value if isinstance(value, str) else canonical(value).decode()
    return escape(printable(text))
