"""`issued`: since when the grant is; of one that has not been issued yet, since it was asked for."""

from controlplane.model.selection import Kept, Selector

SELECTOR = Selector(
    word="issued",
    about="when it was issued, or else asked for: a range",
    example="issued>=2026-11-22T03:00:00Z",
    kept=Kept.ISSUED,
    of_request=False,
)
