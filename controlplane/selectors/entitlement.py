"""`entitlement`: what is asked for, by name."""

from controlplane.model.selection import Selector

SELECTOR = Selector(
    word="entitlement",
    about="the entitlement's name",
    example="entitlement=orders-refund",
)
