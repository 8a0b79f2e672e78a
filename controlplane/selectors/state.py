"""`state`: how far the grant has come."""

from controlplane.model.grant import State
from controlplane.model.selection import Selector

SELECTOR = Selector(
    word="state",
    about="the grant's state",
    example="state=active",
    of_request=False,
    choices=frozenset(State),
)
