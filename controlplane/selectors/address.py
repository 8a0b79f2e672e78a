"""`address`: where the request came from, as far as somebody vouches for it."""

from controlplane.model.selection import Kept, Selector

SELECTOR = Selector(
    word="address",
    about="the address that the request came from",
    example="address=10.1.2.3",
    kept=Kept.NOTE,
    note=lambda asking: {"": () if asking.address is None else (str(asking.address),)},
    of_caller=True,
)
