"""Apply: do what a plan says, in its order, and look whether it is so.

A role that can be logged in to comes last and goes first, so that an apply that is killed anywhere leaves
nothing half-made that could be granted; the next plan finishes it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from controlplane.model.errors import NotAppliedError, StalePlanError
from controlplane.model.plan import Action, Change, Compiled, ObjectKind, Plan, VaultObject
from controlplane.ports import Roles
from controlplane.sync.plan import PlanSync


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What was done, by action; `waiting` are objects that go once their leases have ended."""

    done: Counter[Action]
    waiting: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplySync:
    """Make Vault equal to `wanted`. Repeating it changes nothing."""

    roles: Roles
    plan: PlanSync

    def __call__(
        self,
        wanted: Sequence[Compiled],
        shown: Plan,
        *,
        progress: Callable[[Change], None] = lambda _: None,
    ) -> Applied:
        """Do what `shown` said, if that is still what there is to do; `progress` hears of each change done.

        Raises:
            StalePlanError: entitlements or Vault have changed since; nothing was done.
            NotAppliedError: afterwards Vault shows something else than was written.
            VaultRefusedError, VaultUnavailableError: part may be done; apply again.
        """
        current = self.plan(wanted)
        if current.digest != shown.digest:
            raise StalePlanError("the entitlements or what stands in Vault have changed since this plan was made")
        done: Counter[Action] = Counter()
        for change in current.changes:
            if self._do(change):
                done[change.action] += 1
            progress(change)
        left = self.plan(wanted)
        if not left.empty:
            paths = ", ".join(f"{change.path} ({change.why})" for change in left.changes)
            raise NotAppliedError(f"Vault does not show what was applied: {paths}")
        return Applied(done=done, waiting=left.changes)

    def _do(self, change: Change) -> bool:
        """Whether something was done: what drains waits, and what got a lease since the plan waits as well."""
        item = VaultObject(
            kind=change.kind,
            path=change.path,
            entitlement=change.entitlement,
            data=change.after if change.after is not None else change.before or {},
        )
        match change.action:
            case Action.CREATE | Action.REPAIR:
                self.roles.write(item)
                return True
            case Action.RETIRE:
                if change.kind is ObjectKind.SECRET_ROLE and self.roles.leases_under(item):
                    return False
                self.roles.delete(item)
                return True
            case Action.DRAIN:
                return False
