"""`subject`: whom the token is about, exactly as its `sub` says."""

from controlplane.model.selection import Selector

SELECTOR = Selector(
    word="subject",
    about="whom the token is about: its `sub`",
    example="subject=repo:acme/refund-agent:ref:refs/heads/main",
    of_caller=True,
)
