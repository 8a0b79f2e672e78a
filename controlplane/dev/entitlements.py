"""What `dev up` does for a project's entitlements: the same as `shorthold sync apply`, by the same identity."""

from pathlib import Path

from controlplane.engines import engines
from controlplane.keys.files import load
from controlplane.model.plan import Layout
from controlplane.settings import VaultSettings
from controlplane.sync.apply import ApplySync
from controlplane.sync.plan import PlanSync
from controlplane.sync.review import review
from controlplane.vault.client import VaultClient
from controlplane.vault.policies import identity_name
from controlplane.vault.roles import VaultRoles
from controlplane.vault.session import JwtSession
from controlplane.wiring.identities import server_of
from controlplane.world import RandomIds, SystemClock


def synchronise(directory: Path, vault: VaultSettings, layout: Layout, key: Path) -> int:
    """Apply the entitlements in `directory`, logged in by the sync identity's `key`. How many changes were made.

    Repeating it changes nothing.
    Raises: ConfigurationError, BrokenEntitlementsError: nothing was done; VaultRefusedError, VaultUnavailableError.
    """
    clock = SystemClock()
    wanted = review(directory, layout, engines(), today=clock.now().date()).whole()
    server = server_of(vault)
    session = JwtSession(server, identity_name(layout, "sync"), "sync", load(key), clock=clock, ids=RandomIds())
    client = VaultClient(server, session)
    try:
        roles = VaultRoles(layout, client)
        plan = PlanSync(roles=roles, layout=layout)
        return ApplySync(roles=roles, plan=plan)(wanted, plan(wanted)).done.total()
    finally:
        client.close()
        session.close()
