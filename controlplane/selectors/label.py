"""`label.<name>`: a label of the entitlement."""

from controlplane.model.selection import Kept, Selector

SELECTOR = Selector(
    word="label",
    about="a label of the entitlement by its name",
    example="label.team=billing",
    kept=Kept.NOTE,
    note=lambda asking: {name: (value,) for name, value in asking.document.labels.items()} if asking.document else {},
    named=True,
)
