"""What a responder's token sees of a Vault in memory."""

from dataclasses import dataclass

from controlplane.incident.direct import Held, Looked
from controlplane.model.plan import Layout, ObjectKind, of_grant
from controlplane.sync.ours import origin
from controlplane.testing.vault import FakeVault


@dataclass(frozen=True, slots=True)
class FakeSight:
    """Fits `incident.direct.Sight`."""

    vault: FakeVault
    layout: Layout

    def look(self) -> Looked:
        """Everything that is there."""
        leases: list[Held] = []
        for path in self.vault.census.places():
            mount, _, last = path.partition("/")
            shared, grant = of_grant(last.partition("/")[2]) or (last.partition("/")[2], None)
            ours = origin(self.layout, ObjectKind.SECRET_ROLE, f"{mount}/roles/{shared}")
            known = [self.vault.leases.facts(lease) for lease in self.vault.leases.under(path)]
            if ours is not None:
                login = f"{self.layout.prefix}-{ours.entitlement}-{ours.revision}"
                leases += [
                    Held(facts=facts, login=login, entitlement=ours.entitlement, revision=ours.revision, grant=grant)
                    for facts in known
                    if facts is not None
                ]
        return Looked(tokens=self.vault.census.survey(lambda _: frozenset()).tokens, leases=leases)
