"""`engine`: what kind of credential, as the entitlement's scopes have it."""

from controlplane.model.selection import Kept, Selector

SELECTOR = Selector(
    word="engine",
    about="the engine of one of its scopes",
    example="engine=database",
    kept=Kept.NOTE,
    note=lambda asking: {"": [scope.engine for scope in asking.document.scopes] if asking.document else ()},
)
