"""Is it frozen? What the active freezes say of a request, or of a grant that is on its way; pure and total.

Somebody who is not eligible learns of a freeze only what is about himself, or about everything (promise P12): if a
selection looked at the entitlement, the task or the intent, a stranger could tell by being frozen, or not, what
there is. That goes for a selection as a whole: half of it would refuse whom it does not select.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from controlplane.model.canonical import JsonValue
from controlplane.model.decision import Decides, Reason
from controlplane.model.entitlement import Entitlement
from controlplane.model.errors import InvalidSelectionError
from controlplane.model.freeze import Freeze
from controlplane.model.grant import Grant
from controlplane.model.identity import IssuerName
from controlplane.model.request import GrantRequest
from controlplane.model.selection import Selectable
from controlplane.selectors import selection


class Asking(Protocol):
    """Whoever asks, or asked before: then without his claims.

    So no freeze selects him by a claim that he has, and the collect stops him; and each that wants a claim to be absent
    or another does, even where his token would say otherwise: the safe side, which stops a yes too many.
    """

    @property
    def issuer(self) -> IssuerName:
        """The configured issuer's name."""
        ...

    @property
    def subject(self) -> str:
        """`sub`."""
        ...

    @property
    def claims(self) -> Mapping[str, JsonValue]:
        """What is known of him."""
        ...


def frozen(
    freezes: Iterable[Freeze], who: Asking, asked: GrantRequest | Grant, entitlement: Entitlement | None
) -> tuple[Reason, ...]:
    """A reason for each freeze that selects it; `entitlement` is None where `who` is not eligible for it."""
    return tuple(_reason(freeze) for freeze in freezes if _selects(freeze, who, asked, entitlement))


def _selects(freeze: Freeze, who: Asking, asked: GrantRequest | Grant, entitlement: Entitlement | None) -> bool:
    try:
        wanted = selection(freeze.selection)
    except InvalidSelectionError:
        return True  # a newer release made it, or somebody was at the table: what cannot be read freezes everything
    if entitlement is None and not wanted.of_caller:
        return False
    return wanted.selects(
        Selectable(
            issuer=who.issuer,
            subject=who.subject,
            entitlement=asked.entitlement,
            task=asked.task,
            intent=asked.intent,
            owner=None if entitlement is None else entitlement.owner,
            labels={} if entitlement is None else entitlement.labels,
            risk=None if entitlement is None else entitlement.risk,
            claims=who.claims,
        )
    )


def _reason(freeze: Freeze) -> Reason:
    return Reason(decision=Decides.FREEZE, code="frozen", detail=f"{freeze.message} ({freeze.id})")
