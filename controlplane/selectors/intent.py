"""`intent`: what it is asked for, as the entitlement names it."""

from controlplane.model.selection import Selector

SELECTOR = Selector(
    word="intent",
    about="the intent that the request names",
    example="intent=issue-refund",
)
