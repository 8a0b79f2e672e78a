"""Is it frozen? What the active freezes say of a request, or of a grant that is on its way; pure and total.

Somebody who is not eligible learns of a freeze only what is about himself, or about everything (promise P12): if a
selection looked at the entitlement, the task or the intent, a stranger could tell by being frozen, or not, what
there is. That goes for a selection as a whole: half of it would refuse whom it does not select.

Of whoever asked before, no claims and no address are known: so no freeze selects him by one that he has, and the
collect stops him; and each that wants a claim to be absent or another does, even where his token would say otherwise:
the safe side, which stops a yes too many.
"""

from collections.abc import Iterable

from controlplane.grants.known import Caller, asking
from controlplane.model.decision import Decides, Reason
from controlplane.model.entitlement import Entitlement
from controlplane.model.errors import InvalidSelectionError
from controlplane.model.freeze import Freeze
from controlplane.model.grant import Grant, TaskId
from controlplane.model.network import Address
from controlplane.model.request import GrantRequest
from controlplane.model.selection import Asking
from controlplane.selectors import asked_for, selection


def frozen(
    freezes: Iterable[Freeze],
    who: Caller,
    asked: GrantRequest | Grant,
    entitlement: Entitlement | None,
    *,
    address: Address | None = None,
    above: Iterable[TaskId] = (),
) -> tuple[Reason, ...]:
    """A reason for each freeze that selects it; `entitlement` is None where `who` is not eligible for it."""
    known: Asking | None = None
    reasons: list[Reason] = []
    for freeze in freezes:
        known = known or asking(who, asked, entitlement, address=address, above=above)
        if _selects(freeze, known):
            reasons.append(_reason(freeze))
    return tuple(reasons)


def _selects(freeze: Freeze, known: Asking) -> bool:
    try:
        wanted = selection(freeze.selection)
    except InvalidSelectionError:
        return True  # a newer release made it, or somebody was at the table: what cannot be read freezes everything
    if known.document is None and not wanted.of_caller:
        return False
    return wanted.selects(asked_for(known))


def _reason(freeze: Freeze) -> Reason:
    return Reason(decision=Decides.FREEZE, code="frozen", detail=f"{freeze.message} ({freeze.id})")
