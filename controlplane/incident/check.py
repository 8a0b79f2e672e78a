"""Check a bundle offline: one sentence for each thing that is wrong with it, nothing but the public keys needed."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from controlplane.audit.excerpt import unaccounted
from controlplane.incident.bundle import CLAIM, Bundle, opened
from controlplane.model.canonical import JsonObject
from controlplane.model.errors import ReceiptBrokenError

Verified = Callable[[str, str], JsonObject]
"""What a compact JWS says under a name. Raises: ReceiptBrokenError: none of the keys signed it."""

_RECEIPT: Final = "receipt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a bundle is worth: it is as it was signed where there are no `problems`. `report` None: unreadable."""

    report: JsonObject | None
    problems: tuple[str, ...]


def check(content: bytes, verified: Verified) -> Checked:
    """Look at every byte of a bundle. Never raises: whatever is in the file is a problem, and not a fault of ours."""
    bundle = opened(content)
    if bundle is None:
        what = (
            "this is no whole report: it does not end in the line that signs it, or something stands around its parts"
        )
        return Checked(report=None, problems=(what,))
    report = _read(bundle.data)
    problems = [*_signature(bundle, report, verified)]
    if report is None:
        problems.append("its data cannot be read: they are no JSON object")
    else:
        problems += [*_log(report), *_receipts(report, verified)]
    return Checked(report=report, problems=tuple(problems))


def _signature(bundle: Bundle, report: JsonObject | None, verified: Verified) -> Iterator[str]:
    try:
        told = verified(bundle.signed, CLAIM)
    except ReceiptBrokenError as error:
        yield f"it is not signed by these keys: {error.detail}"
        return
    for part, content in (("page", bundle.page), ("data", bundle.data)):
        if told.get(part) != hashlib.sha256(content).hexdigest():
            yield f"the {part} of it is not what was signed: it was changed, cut, moved or swapped"
    if report is not None and [told.get("incident"), told.get("made_at")] != [
        report.get("incident"),
        report.get("made_at"),
    ]:
        yield f"it was signed as a report of {told.get('incident')} of {told.get('made_at')}"


def _log(report: JsonObject) -> Iterator[str]:
    match report.get("log"):
        case {
            "intact": bool(intact),
            "detail": str(detail),
            "after": int(after),
            "to": int(last),
            "records": list(records),
        }:
            if not intact:
                yield f"the audit log was not intact when the report was made: {detail}"
            yield from unaccounted(cast("list[Any]", records), after + 1, last)
        case _:
            yield "the part of the audit log is not there"


def _receipts(report: JsonObject, verified: Verified) -> Iterator[str]:
    grants = report.get("grants")
    for grant in cast("list[Any]", grants) if isinstance(grants, list) else ():
        match grant:
            case {"id": str(id), "receipt": {"signed": str(signed)}}:
                try:
                    told = verified(signed, _RECEIPT)
                except ReceiptBrokenError as error:
                    yield f"the receipt of {id} proves nothing: {error.detail}"
                    continue
                if told.get("grant") != id:
                    yield f"the receipt of {id} is that of {told.get('grant')}"
            case _:
                pass  # not revoked, or older than signing: the report says so


def _read(data: bytes) -> JsonObject | None:
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", told) if isinstance(told, dict) else None
