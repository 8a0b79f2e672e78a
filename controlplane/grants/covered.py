"""Whether an open grant covers what was found in Vault, or may: who looks for orphans acts on nothing else."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from controlplane.model.grant import Grant, GrantId
from controlplane.model.lease import LeaseFacts, TokenFacts
from controlplane.ports import Store

CLOCK_SKEW: Final = timedelta(seconds=5)
"""How far Vault's clock and ours may be apart."""


def unheld(store: Store, token: TokenFacts) -> str | None:
    """Why no open grant holds this token; None where one does, or may."""
    id = token.metadata.get("grant")
    grant = None if id is None else store.grant(GrantId(id))
    if grant is None:
        return "no grant knows it: it was made by somebody else, or the store has forgotten"
    if not grant.open:
        return f"its grant is {grant.state}"
    if grant.accessor is None and grant.settles_at is not None:
        return None  # being issued, or interrupted: whoever ends it looks for this token
    if grant.accessor != token.accessor:
        return "its grant has another token: the same task JWT was sent to Vault twice"
    return None


def may_be_of(unsettled: Iterable[Grant], lease: LeaseFacts, now: datetime) -> bool:
    """Whether one of these grants, whose issuing has not settled, may have made this lease."""
    return any(
        grant.requested_at - CLOCK_SKEW <= lease.issued_at <= (grant.settles_at or now) + CLOCK_SKEW
        for grant in unsettled
    )
