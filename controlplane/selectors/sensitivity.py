"""`sensitivity`: what the entitlement says of the data that it reaches."""

from controlplane.model.selection import Kept, Selector

SELECTOR = Selector(
    word="sensitivity",
    about="the entitlement's sensitivity",
    example="sensitivity=pii",
    kept=Kept.NOTE,
    note=lambda asking: {"": [asking.document.sensitivity] if asking.document and asking.document.sensitivity else ()},
)
