"""Whether what the store calls a grant's own is so: a row that somebody changed must not end what is another's (R24).

What is asked here are names. A lease of a grant hangs from one of its paths, every path carries the entitlement and
revision that it was made for, and Vault's own record of a task token names its grant.
"""

import re

from controlplane.model.grant import Grant
from controlplane.model.lease import Lease, TokenFacts, is_leased

_TAIL = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9]+)?", re.ASCII)
"""What Vault adds to a path: its own name for the lease, and in a namespace that one's."""


def strange_lease(grant: Grant, lease: Lease) -> str | None:
    """Why Vault must not be asked about that lease for this grant; None where nothing speaks against it."""
    if not is_leased(lease.id):
        return None
    path, _, tail = lease.id.rpartition("/")
    if path == lease.path and path in grant.paths and f"-{grant.entitlement}-{grant.revision}" in path:
        return None if _TAIL.fullmatch(tail) else "the store names a lease of it that Vault never made"
    return "the store names a lease of it that hangs from no path of it"


def is_strange_token(grant: Grant, facts: TokenFacts | None) -> bool:
    """Whether that token was made for something else; one that is gone, or a zombie, takes no harm."""
    return facts is not None and facts.num_uses >= 0 and facts.metadata.get("grant") != grant.id
