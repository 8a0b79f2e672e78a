"""`owner`: who answers for the entitlement."""

from controlplane.model.selection import Selector

SELECTOR = Selector(
    word="owner",
    about="the entitlement's owner",
    example="owner=team-billing@acme.example",
    values=lambda one, _: () if one.owner is None else (one.owner,),
)
