"""`issuer`: the configured name of who signed the token."""

from controlplane.model.selection import Selector

SELECTOR = Selector(
    word="issuer",
    about="the issuer's name in the settings",
    example="issuer=github",
    of_caller=True,
)
