"""`revision`: as which the entitlement read when the grant was asked for."""

from controlplane.model.selection import Selector

SELECTOR = Selector(
    word="revision",
    about="the entitlement's revision: 8 hex digits",
    example="revision=0a1b2c3d",
    of_request=False,
)
