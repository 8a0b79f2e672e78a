"""`age`: how long ago the grant was asked for."""

from controlplane.model.selection import Kept, Selector

SELECTOR = Selector(
    word="age",
    about="how long ago it was asked for: a range",
    example="age<2h",
    kept=Kept.AGE,
    of_request=False,
)
