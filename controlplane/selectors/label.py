"""`label.<name>`: a label of the entitlement."""

from controlplane.model.selection import Selector

SELECTOR = Selector(
    word="label",
    about="a label of the entitlement by its name",
    example="label.team=billing",
    values=lambda one, name: (one.labels[name],) if name in one.labels else (),
    named=True,
)
