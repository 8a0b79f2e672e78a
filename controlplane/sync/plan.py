"""Plan: look at Vault and say what would change. Nothing is written."""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.model.plan import Compiled, Layout, ObjectKind, Plan
from controlplane.ports import Roles
from controlplane.sync.diff import difference, drift


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSync:
    """Compare Vault with `wanted`, which must be all entitlements: what is not among them is to go."""

    roles: Roles
    layout: Layout

    def __call__(self, wanted: Sequence[Compiled]) -> Plan:
        """The plan as of now.

        Raises: VaultRefusedError, VaultUnavailableError: Vault cannot be looked at.
        """
        present = self.roles.read(self.layout)
        kept = {item.path: item for compiled in wanted for item in compiled.objects}
        leases = {
            path: self.roles.leases_under(item)
            for path, item in present.items()
            if item.kind is ObjectKind.SECRET_ROLE and (path not in kept or drift(kept[path], item.data))
        }
        return difference(self.layout, wanted, present, leases=leases)
