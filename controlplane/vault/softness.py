"""Whether a database role, as it stands in Vault now, ends a login's open sessions when it ends the login."""

from collections.abc import Mapping

from controlplane.engines.dialects import dialects
from controlplane.model.errors import ControlPlaneError
from controlplane.model.plan import Layout
from controlplane.vault.client import VaultClient, part


class VaultSoftness:
    """Fits `incident.preview.Softness`. `reader` may read our roles, `kinds` are the dialects of connections.

    Vault revokes older leases by what their role says now, so that is what counts, whatever was applied once. A role
    that is gone is fine: its leases keep the statements it had.
    """

    def __init__(self, layout: Layout, reader: VaultClient, kinds: Mapping[str, str]) -> None:
        self._mount, self._reader, self._kinds = layout.mounts.get("database"), reader, kinds

    def __call__(self, path: str) -> str:
        """Why sessions may outlive logins that were read at `path`; "" where they do not. Never raises."""
        mount, _, role = path.partition("/creds/")
        if mount != self._mount or not role:
            return ""  # no other engine's credentials have sessions that anybody here could end
        try:
            answer = self._reader.read(f"{mount}/roles/{role}")
            data = {} if answer is None else part(answer, "data")
        except ControlPlaneError as error:
            return f"nobody could look at its role: {error.detail}"
        kind = self._kinds.get(str(data.get("db_name")))
        known = [dialect for word, dialect in dialects().items() if kind in {word, None}]
        if not data or data.get("revocation_statements") in [[*dialect.prober().revocation] for dialect in known]:
            return ""
        return "its role has other revocation statements than ours, and they may leave sessions open"
