"""What a report says of each thing, as data: everything that the store knows of it and that is no secret."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from controlplane.model.approval import Denial, GivenApproval
from controlplane.model.canonical import JsonValue, instant
from controlplane.model.cut import Cut, Outcome, Preview, Progress, outcome
from controlplane.model.duration import format_duration
from controlplane.model.event import Link
from controlplane.model.freeze import Freeze
from controlplane.model.grant import Grant
from controlplane.model.lease import Lease, Receipt
from controlplane.model.review import Review
from controlplane.ports import Entitlements, Store


def grant(store: Store, one: Grant) -> dict[str, JsonValue]:
    """A grant with its leases, who agreed to it, and the proof of its end. Raises: StoreUnavailableError."""
    denial, review = store.denial(one.id), store.review(one.id)
    return {
        "id": one.id,
        "outcome": outcome(one),
        "state": one.state,
        "issuer": one.issuer,
        "subject": one.subject,
        "person": one.person,
        "entitlement": one.entitlement,
        "revision": one.revision,
        "task": one.task,
        "intent": one.intent,
        "reason": one.reason,
        "ttl": format_duration(one.ttl),
        "scopes": None if one.scopes is None else [*one.scopes],
        "parameters": {**one.parameters},
        "under": one.under,
        "unusual": [*one.unusual],
        "known": {name: [*values] for name, values in store.note(one.id).items()},
        "requested_at": instant(one.requested_at),
        "issued_at": _maybe(one.issued_at),
        "expires_at": instant(one.expires_at),
        "revoking_at": _maybe(one.revoking_at),
        "revoked_at": _maybe(one.revoked_at),
        "why": one.why,
        "failing": one.failing,
        "leases": [_lease(lease) for lease in store.leases(one.id)],
        "approvals": [_approval(given) for given in store.approvals(one.id)],
        "denial": None if denial is None else _denial(denial),
        "review": None if review is None else _review(review),
        "receipt": None if one.receipt is None else _receipt(one.receipt),
    }


def cut(one: Cut, preview: Preview | None, progress: Progress) -> dict[str, JsonValue]:
    """A cut, what its responder was shown before, and what has become of it."""
    return {
        "id": one.id,
        "incident": one.incident,
        "selection": one.selection,
        "reason": one.reason,
        "issuer": one.issuer,
        "subject": one.subject,
        "freeze": one.freeze,
        "ordered_at": instant(one.ordered_at),
        "ended_at": _maybe(one.ended_at),
        "preview": {
            "digest": one.digest,
            "at": instant(one.previewed_at),
            **(
                {}
                if preview is None
                else {"grants": preview.count, "issuer": preview.issuer, "subject": preview.subject}
            ),
        },
        "outcomes": {name.value: progress.of(name) for name in Outcome},
    }


def freeze(one: Freeze) -> dict[str, JsonValue]:
    """A freeze, with everybody who had a hand in it."""
    return {
        "id": one.id,
        "selection": one.selection,
        "message": one.message,
        "reason": one.reason,
        "issuer": one.issuer,
        "subject": one.subject,
        "created_at": instant(one.created_at),
        "expires_at": _maybe(one.expires_at),
        "thaws": [
            {"issuer": thaw.issuer, "subject": thaw.subject, "at": instant(thaw.at), "reason": thaw.reason}
            for thaw in one.thaws
        ],
        "thawed_at": _maybe(one.thawed_at),
    }


def revisions(entitlements: Entitlements, granted: Sequence[Grant]) -> list[JsonValue]:
    """The entitlements as they were when they were granted: the document itself where it is in the files still."""
    counted: dict[tuple[str, str], int] = {}
    for one in granted:
        counted[one.entitlement, one.revision] = counted.get((one.entitlement, one.revision), 0) + 1
    told: list[JsonValue] = []
    for (name, revision), grants in sorted(counted.items()):
        now = entitlements.get(name)
        same = now is not None and now.revision == revision
        told.append(
            {
                "entitlement": name,
                "revision": revision,
                "grants": grants,
                "revision_now": None if now is None else now.revision,
                "document": now.entitlement.model_dump(mode="json", by_alias=True) if now and same else None,
            }
        )
    return told


def policies(links: Iterable[Link]) -> list[JsonValue]:
    """The revisions of the policies that decided something in these records, the first one first."""
    decided: dict[str, list[datetime]] = {}
    for link in links:
        reasons = link.event.body.get("reasons")
        said = [why.get("revision") for why in reasons if isinstance(why, dict)] if isinstance(reasons, list) else []
        for revision in {one for one in said if isinstance(one, str)}:
            decided.setdefault(revision, []).append(link.event.at)
    return [
        {"revision": revision, "decisions": len(times), "first": instant(times[0]), "last": instant(times[-1])}
        for revision, times in decided.items()
    ]


def _lease(lease: Lease) -> dict[str, JsonValue]:
    return {
        "id": lease.id,
        "scope": lease.scope,
        "engine": lease.engine,
        "path": lease.path,
        "target": lease.target.name,
        "principal": lease.principal,
        "issued_at": instant(lease.issued_at),
        "expires_at": instant(lease.expires_at),
    }


def _approval(given: GivenApproval) -> dict[str, JsonValue]:
    by = given.by
    return {
        "issuer": by.issuer,
        "subject": by.subject,
        "person": by.person,
        "at": instant(given.at),
        "reason": given.reason,
        "digest": given.digest,
    }


def _denial(denial: Denial) -> dict[str, JsonValue]:
    return {
        "issuer": denial.by.issuer,
        "subject": denial.by.subject,
        "at": instant(denial.at),
        "reason": denial.reason,
    }


def _review(review: Review) -> dict[str, JsonValue]:
    closing = review.closing
    return {
        "opened_at": instant(review.opened_at),
        "closing": None
        if closing is None
        else {
            "issuer": closing.issuer,
            "subject": closing.subject,
            "at": instant(closing.at),
            "note": closing.note,
        },
    }


def _receipt(receipt: Receipt) -> dict[str, JsonValue]:
    return {
        "verified": receipt.verified,
        "ended": [{**end.told()} for end in receipt.ended],
        "signed": receipt.signed,
    }


def _maybe(at: datetime | None) -> str | None:
    return None if at is None else instant(at)
