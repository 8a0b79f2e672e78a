"""`target`: where a credential of it opens a door, by the connection's name."""

from controlplane.model.selection import Kept, Selector

SELECTOR = Selector(
    word="target",
    about="the connection that a credential of it opens",
    example="target=orders",
    kept=Kept.NOTE,
    note=lambda asking: {"": asking.targets},
)
