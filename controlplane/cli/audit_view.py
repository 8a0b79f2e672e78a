"""How an event looks to a person: one sentence; everything that it says is in `-o json`."""

from collections.abc import Mapping
from typing import cast

from controlplane.audit.chain import Unreadable
from controlplane.audit.record import one_line
from controlplane.cli.output import instant
from controlplane.model.canonical import JsonObject, JsonValue, canonical
from controlplane.model.canonical import instant as written
from controlplane.model.event import Event, Kind, Link

COLUMNS = ("seq", "at", "kind", "grant", "what")


def row(link: Link | Unreadable) -> dict[str, str]:
    """The cells of one event. Somebody may have been at the table: nothing of it moves a terminal."""
    if isinstance(link, Unreadable):
        cells = {"seq": str(link.seq), "what": link.what}
    else:
        event = link.event
        cells = {
            "seq": str(link.seq),
            "at": instant(written(event.at)),
            "kind": event.kind.value,
            "grant": event.grant or "",
            "what": sentence(event),
        }
    return {name: one_line(cells.get(name, "")) for name in COLUMNS}


def sentence(event: Event) -> str:
    """What happened, in short; a body that is not as ours are is shown as it is."""
    body = event.body
    try:
        return _sentence(event.kind, body)
    except (KeyError, TypeError):
        return canonical(body).decode()


def _sentence(kind: Kind, body: JsonObject) -> str:  # noqa: C901, PLR0911, PLR0912 # a table: one line a kind
    match kind:
        case Kind.TOKEN_REJECTED:
            more = body.get("left_out_before")
            return f"{body['reason']}{f' (and {more} before it that are not told)' if more else ''}"
        case Kind.GRANT_ALLOWED | Kind.GRANT_REQUESTED | Kind.TOKEN_REPLAYED | Kind.GLASS_BROKEN:
            return _asked(body)
        case Kind.GRANT_REFUSED | Kind.RENEWAL_REFUSED:
            reasons = cast("list[Mapping[str, JsonValue]]", body["reasons"])
            return f"{_asked(body)}: {', '.join(str(why['code']) for why in reasons)}"
        case Kind.GRANT_EXPLAINED:
            return f"{_asked(body)}: {body['outcome']}"
        case Kind.APPROVAL_GIVEN:
            return f"by {body['issuer']} {body['subject']}, of {body['quorum']} that are needed"
        case Kind.GRANT_APPROVED:
            given = cast("list[Mapping[str, JsonValue]]", body["approvals"])
            less = [str(body["ttl"])] if body.get("ttl") else []
            return ", ".join([*(f"by {one['issuer']} {one['subject']}" for one in given), *less])
        case Kind.GRANT_DENIED:
            return f"by {body['issuer']} {body['subject']}: {body['reason']}"
        case Kind.TASK_TOKEN_ISSUED:
            return f"accessor {body['accessor']}"
        case Kind.LEASE_ISSUED:
            return f"{body['scope']}: {body['principal']}"
        case Kind.GRANT_ISSUED:
            return f"{body['delivery']}, until {instant(str(body['expires_at']))}"
        case Kind.RENEWAL_ALLOWED | Kind.GRANT_RENEWED | Kind.RENEWAL_UNDONE:
            return f"until {instant(str(body['until']))}"
        case Kind.LEASE_REVOKED:
            proof = "verified gone" if body["verified"] else "NOT verified"
            return f"{body['principal']}: {proof}, {body['method']}"
        case Kind.SELECTION_FROZEN | Kind.THAW_AGREED | Kind.SELECTION_THAWED:
            return f"{body['selection']}, by {body['issuer']} {body['subject']}: {body['reason']} ({body['freeze']})"
        case Kind.SIGNAL_RECEIVED:
            done = f"frozen ({body['freeze']})" if body["freeze"] else "nothing to freeze"
            return f"{body['event']} of {body['subject']}, by {body['issuer']}: {done}"
        case Kind.AUDIT_READ:
            return f"{body['limit']} events after {body['after']} at most, by {body['issuer']} {body['subject']}"
        case Kind.GRANT_REVOKED:
            return "verified gone" if body["verified"] else "NOT verified"
        case Kind.TASK_FINISHED:
            return f"{body['task']}: {body['why']}, by {body['issuer']} {body['subject']}"
        case Kind.GLASS_REVIEWED:
            return f"by {body['issuer']} {body['subject']}: {body['note']}"
        case _:
            return ": ".join(str(body[name]) for name in ("why", "detail") if body.get(name)) or _rest(body)


def _asked(body: JsonObject) -> str:
    return f"{body['entitlement']} for {body['task']} ({body['intent']}), by {body['issuer']} {body['subject']}"


def _rest(body: JsonObject) -> str:
    return canonical(body).decode() if body else ""
