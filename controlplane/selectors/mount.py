"""`mount`: where in Vault its credentials are read."""

from controlplane.model.selection import Kept, Selector

SELECTOR = Selector(
    word="mount",
    about="the mount in Vault that a credential of it is read from",
    example="mount=database",
    kept=Kept.NOTE,
    note=lambda asking: {"": asking.mounts},
    of_request=False,
)
