"""`principal`: the user name, serial or key id that the target sees; it stands in its log."""

from controlplane.model.selection import Kept, Selector

SELECTOR = Selector(
    word="principal",
    about="the user name or serial at the target",
    example="principal=v-sh-orders-r-x7Kq",
    kept=Kept.LEASE,
    of_request=False,
)
