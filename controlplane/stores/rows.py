"""Rows and nouns: how a grant, a lease and an audit event are written down, and read back."""

import json
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy import Row

from controlplane.audit.chain import Unreadable
from controlplane.model.canonical import JsonObject, JsonValue, canonical, instant
from controlplane.model.event import Event, Head, Kind, Link
from controlplane.model.grant import Grant, GrantId, Revision, State, TaskId, Why
from controlplane.model.identity import IssuerName, SingleUse, WorkloadId
from controlplane.model.lease import Accessor, Ended, Lease, LeaseId, Receipt, Target
from controlplane.model.orphan import Orphan, OrphanKind
from controlplane.model.rotation import Rotation
from controlplane.model.selection import Note


def grant_row(grant: Grant) -> dict[str, Any]:
    """Every column of a new grant that nobody holds."""
    return {
        "id": grant.id,
        "entitlement": grant.entitlement,
        "issuer": grant.issuer,
        "subject": grant.subject,
        "person": grant.person,
        "under": grant.under,
        "unusual": json.dumps(grant.unusual) if grant.unusual else None,
        "parameters": json.dumps({**grant.parameters}) if grant.parameters else None,
        "workload": grant.workload,
        "task": grant.task,
        "intent": grant.intent,
        "reason": grant.reason,
        "idempotency_key": grant.idempotency_key,
        "request_digest": grant.request_digest,
        "requested_at": grant.requested_at,
        **progress_row(grant),
    }


def progress_row(grant: Grant) -> dict[str, Any]:
    """The columns that change while a grant lives; what was asked, by whom and when, never does.

    The others stay out of the UPDATE so that their indexes are not written again at every step.
    """
    return {
        "state": grant.state.value,
        "version": grant.version,
        "revision": grant.revision,
        "ttl": grant.ttl,
        "scopes": None if grant.scopes is None else json.dumps(grant.scopes),
        "paths": json.dumps(grant.paths),
        "expires_at": grant.expires_at,
        "due_at": grant.due_at,
        "settles_at": grant.settles_at,
        "accessor": grant.accessor,
        "wrap_accessor": grant.wrap_accessor,
        "issued_at": grant.issued_at,
        "why": None if grant.why is None else grant.why.value,
        "revoking_at": grant.revoking_at,
        "revoked_at": grant.revoked_at,
        "receipt": None if grant.receipt is None else _receipt_text(grant.receipt),
        "attempts": grant.attempts,
        "failing": grant.failing,
        "heartbeat_due_at": grant.heartbeat_due_at,
        "renewing_to": grant.renewing_to,
        "renewing_by": grant.renewing_by,
    }


def grant(row: Row[*tuple[Any, ...]]) -> Grant:
    """The grant of a row of `grants`."""
    return Grant(
        id=GrantId(row.id),
        state=State(row.state),
        version=row.version,
        entitlement=row.entitlement,
        revision=Revision(row.revision),
        issuer=IssuerName(row.issuer),
        subject=row.subject,
        person=row.person,
        workload=WorkloadId(row.workload),
        task=TaskId(row.task),
        intent=row.intent,
        reason=row.reason,
        ttl=row.ttl,
        unusual=tuple(json.loads(row.unusual or "[]")),
        parameters=json.loads(row.parameters or "{}"),
        scopes=None if row.scopes is None else tuple(json.loads(row.scopes)),
        under=None if row.under is None else GrantId(row.under),
        idempotency_key=row.idempotency_key,
        request_digest=row.request_digest,
        paths=tuple(json.loads(row.paths)),
        requested_at=row.requested_at,
        expires_at=row.expires_at,
        due_at=row.due_at,
        settles_at=row.settles_at,
        accessor=None if row.accessor is None else Accessor(row.accessor),
        wrap_accessor=None if row.wrap_accessor is None else Accessor(row.wrap_accessor),
        issued_at=row.issued_at,
        why=None if row.why is None else Why(row.why),
        revoking_at=row.revoking_at,
        revoked_at=row.revoked_at,
        receipt=None if row.receipt is None else _receipt(row.receipt),
        attempts=row.attempts,
        failing=row.failing,
        heartbeat_due_at=row.heartbeat_due_at,
        renewing_to=row.renewing_to,
        renewing_by=row.renewing_by,
    )


def note_row(grant: GrantId, note: Note) -> dict[str, Any]:
    """Every column of what was known when a grant was asked for."""
    return {"grant_id": grant, "note": {key: [*values] for key, values in note.items()}}


def token_row(token: SingleUse, grant: GrantId) -> dict[str, Any]:
    """Every column of a token that was spent."""
    return {"issuer": token.issuer, "id": token.id, "grant_id": grant, "keep_until": token.until}


def lease_row(grant: GrantId, lease: Lease) -> dict[str, Any]:
    """Every column of a lease but its number."""
    return {
        "id": lease.id,
        "grant_id": grant,
        "scope": lease.scope,
        "engine": lease.engine,
        "path": lease.path,
        "target_kind": lease.target.kind,
        "target_name": lease.target.name,
        "principal": lease.principal,
        "issued_at": lease.issued_at,
        "expires_at": lease.expires_at,
        "rotation": rotation_text(lease.rotation),
    }


def lease(row: Row[*tuple[Any, ...]]) -> Lease:
    """The lease of a row of `leases`."""
    return Lease(
        id=LeaseId(row.id),
        scope=row.scope,
        engine=row.engine,
        path=row.path,
        target=Target(kind=row.target_kind, name=row.target_name),
        principal=row.principal,
        issued_at=row.issued_at,
        expires_at=row.expires_at,
        rotation=None if row.rotation is None else _ROTATION.validate_json(row.rotation),
    )


_ROTATION: Final = TypeAdapter(Rotation)


def rotation_text(rotation: Rotation | None) -> str | None:
    """A rotation as it is written down."""
    return None if rotation is None else _ROTATION.dump_json(rotation).decode()


def orphan_row(orphan: Orphan) -> dict[str, Any]:
    """Every column of an orphan."""
    return {
        "kind": orphan.kind.value,
        "name": orphan.name,
        "place": orphan.place,
        "grant_id": orphan.grant,
        "detail": orphan.detail,
        "found_at": orphan.found_at,
    }


def orphan(row: Row[*tuple[Any, ...]]) -> Orphan:
    """The orphan of a row of `orphans`."""
    return Orphan(
        kind=OrphanKind(row.kind),
        name=row.name,
        place=row.place,
        grant=None if row.grant_id is None else GrantId(row.grant_id),
        detail=row.detail,
        found_at=row.found_at,
    )


def link_row(link: Link) -> dict[str, Any]:
    """Every column of an event in its place."""
    event = link.event
    return {
        "seq": link.seq,
        "id": event.id,
        "at": event.at,
        "kind": event.kind.value,
        "grant_id": event.grant,
        "body": canonical(event.body).decode(),
        "mac": link.mac,
    }


def link(row: Row[*tuple[Any, ...]]) -> Link | Unreadable:
    """The link of a row of `events` as the driver gives it, byte for byte what `link_row` wrote.

    Somebody may have been at the table: what was not written by us is neither mended nor raised.
    """
    when, kind, body = _instant(row.at), _kind(row.kind), _body(row.body)
    if when is None:
        return Unreadable(seq=row.seq, what="its time does not read back as it was written")
    if kind is None:
        return Unreadable(seq=row.seq, what="its kind is none that this release knows")
    if body is None:
        return Unreadable(seq=row.seq, what="its body does not read back as it was written")
    if not (_is_text(row.id) and _is_text(row.mac) and (row.grant_id is None or _is_text(row.grant_id))):
        return Unreadable(seq=row.seq, what="its id, grant or mac is no text")
    return Link(seq=row.seq, event=Event(id=row.id, at=when, kind=kind, grant=row.grant_id, body=body), mac=row.mac)


def head(row: Row[*tuple[Any, ...]]) -> Head | None:
    """The head of the row of `audit_head`, None where its fields are not even of the right kind."""
    if not (isinstance(row.seq, int) and _is_text(row.mac) and _is_text(row.seal)):
        return None
    return Head(seq=row.seq, mac=row.mac, seal=row.seal)


def _is_text(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _instant(at: object) -> datetime | None:
    if isinstance(at, datetime):
        return at.astimezone(UTC)
    if not isinstance(at, str):
        return None
    try:
        when = datetime.fromisoformat(at)
        return when if instant(when) == at else None
    except (ValueError, OverflowError):
        return None


def _kind(kind: object) -> Kind | None:
    try:
        return Kind(kind)
    except ValueError:
        return None


def _body(body: object) -> JsonObject | None:
    if not isinstance(body, str):
        return None
    try:
        told: JsonValue = json.loads(body)
        # Other spacing, an escaped letter, a key twice: the same JSON to a reader, but not what we wrote.
        return told if isinstance(told, dict) and canonical(told) == body.encode() else None
    except (ValueError, RecursionError):
        return None


def _receipt_text(receipt: Receipt) -> str:
    ended: list[JsonValue] = [{**end.told()} for end in receipt.ended]
    signed: dict[str, JsonValue] = {} if receipt.signed is None else {"signed": receipt.signed}
    return canonical({"ended": ended, **signed}).decode()


def _receipt(text: str) -> Receipt:
    told = json.loads(text)
    return Receipt(
        signed=told.get("signed"),
        ended=tuple(
            Ended(
                lease=LeaseId(end["lease"]),
                principal=end["principal"],
                method=end["method"],
                at=datetime.fromisoformat(end["at"]),
                verified=end["verified"],
                evidence=end["evidence"],
            )
            for end in told["ended"]
        ),
    )
