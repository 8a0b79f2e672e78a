"""`risk`: the entitlement's risk tier."""

from controlplane.model.entitlement import Risk
from controlplane.model.selection import Selector

SELECTOR = Selector(
    word="risk",
    about="the entitlement's risk tier",
    example="risk=high",
    values=lambda one, _: () if one.risk is None else (one.risk,),
    choices=frozenset(Risk),
)
