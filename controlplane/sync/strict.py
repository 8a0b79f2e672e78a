"""Strict: while what an entitlement's grants are made of has drifted, nothing of it is granted; then it is thawed."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controlplane.engines.dialects.terms.group import group_of
from controlplane.model.drift import Code, Finding
from controlplane.model.event import Kind
from controlplane.model.freeze import Freeze, FreezeId, Thaw
from controlplane.model.identity import IssuerName
from controlplane.model.plan import Compiled
from controlplane.ports import Clock, Ids, Recorder, Store

ISSUER: Final = IssuerName("shorthold-drift")
"""Whose the freezes are that this makes, and alone ends."""
SUBJECT: Final = "worker"

_FREEZES: Final = frozenset(
    {
        Code.ROLE_CHANGED,
        Code.POLICY_CHANGED,
        Code.LOGIN_CHANGED,
        Code.CONNECTION_MOVED,
        Code.CONNECTION_POWER,
        Code.GROUP_RIGHTS,
    }
)
"""What changes credentials that would be made now, or how they end. All else is told, and freezes nothing."""
_MANY: Final = 100_000
"""More freezes than there are at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeDrifted:
    """Freeze each entitlement that drifted, and thaw those that did no more. Repeating it changes nothing."""

    clock: Clock
    ids: Ids
    record: Recorder
    store: Store

    def __call__(self, found: Collection[Finding], wanted: Sequence[Compiled]) -> None:
        """Return once every replica refuses what has drifted. Who could not look everywhere thaws nothing.

        Raises: StoreUnavailableError, LostRaceError: the next round does the rest.
        """
        drifted, now = _drifted(found, wanted), self.clock.now()
        ours = [one for one in self.store.freezes(active_at=now, limit=_MANY) if one.issuer == ISSUER]
        standing = {one.selection for one in ours}
        for selection, why in drifted.items():
            if selection not in standing:
                self._freeze(selection, why)
        blind = any(finding.code is Code.NOT_SEEN for finding in found)  # what is not seen now may be as it was
        for freeze in ours:
            if freeze.selection not in drifted and not blind:
                self._thaw(freeze)
        if drifted.keys() - standing:
            self.store.settle_freezes()

    def _freeze(self, selection: str, why: str) -> None:
        freeze = Freeze(
            id=FreezeId(self.ids.new("fz")),
            selection=selection,
            message="Somebody has changed what grants of it are made of; its platform team has been told.",
            reason=f"drift: {why}",
            issuer=ISSUER,
            subject=SUBJECT,
            created_at=self.clock.now(),
        )
        with self.store.transaction() as tx:
            tx.freeze(freeze, self.record(Kind.SELECTION_FROZEN, **freeze.told()))

    def _thaw(self, freeze: Freeze) -> None:
        thaw = Thaw(issuer=ISSUER, subject=SUBJECT, person=None, at=self.clock.now(), reason="the drift has ended")
        event = self.record(Kind.SELECTION_THAWED, **freeze.told_of(thaw))
        with self.store.transaction() as tx:
            tx.thaw(freeze, freeze.agreed(thaw, enough=True), event)


def _drifted(found: Iterable[Finding], wanted: Sequence[Compiled]) -> Mapping[str, str]:
    """The selections to freeze, each with what was found: what makes an entitlement's credentials, or ends them."""
    of: dict[str, set[str]] = defaultdict(set)
    for compiled in wanted:
        for item in compiled.objects:
            of[item.path].add(compiled.entitlement.name)
            mount, _, role = item.path.partition("/roles/")
            if role and "db_name" in item.data:
                connection = item.data["db_name"]
                of[f"{mount}/config/{connection}"].add(compiled.entitlement.name)
                of[f"{connection}/{group_of(role)}"].add(compiled.entitlement.name)
    why: dict[str, list[str]] = defaultdict(list)
    for finding in sorted(found):
        if finding.code in _FREEZES:
            for name in of.get(finding.path, ()):
                why[f"entitlement={name}"].append(f"{finding.code} {finding.path}")
    return {selection: ", ".join(said) for selection, said in sorted(why.items())}
