"""`risk`: the entitlement's risk tier."""

from controlplane.model.entitlement import Risk
from controlplane.model.selection import Kept, Selector

SELECTOR = Selector(
    word="risk",
    about="the entitlement's risk tier",
    example="risk=high",
    kept=Kept.NOTE,
    note=lambda asking: {"": () if asking.document is None else (asking.document.risk,)},
    choices=frozenset(Risk),
)
