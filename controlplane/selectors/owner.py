"""`owner`: who answers for the entitlement."""

from controlplane.model.selection import Kept, Selector

SELECTOR = Selector(
    word="owner",
    about="the entitlement's owner",
    example="owner=team-billing@acme.example",
    kept=Kept.NOTE,
    note=lambda asking: {"": () if asking.document is None else (asking.document.owner,)},
)
