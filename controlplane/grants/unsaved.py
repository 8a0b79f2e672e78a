"""An end that cannot be saved: Vault is asked all the same, and the record is made when the store is back."""

from collections.abc import Generator
from contextlib import contextmanager, suppress

from controlplane.model.errors import ControlPlaneError, StoreUnavailableError
from controlplane.model.grant import Grant
from controlplane.ports import Leases


@contextmanager
def ending_all_the_same(leases: Leases, grant: Grant) -> Generator[None]:
    """Saves the end of `grant` in its block; where the store cannot, Vault revokes what is known of it.

    Nothing is recorded then: the grant stays as it was, and due, until an end of it can be saved. Repeating is fine.
    Raises: StoreUnavailableError: as the block raised it, whatever Vault answered.
    """
    try:
        yield
    except StoreUnavailableError:
        if grant.open and grant.accessor is not None:
            with suppress(ControlPlaneError):
                leases.revoke_token(grant.accessor)
        raise
