"""Apply: do what a plan says, in its order, and look whether it is so.

Entitlements are independent, so several are done at once. Within one, a login comes last and the old one goes right
after it: killed anywhere, one revision can be issued, and the next plan finishes it
(docs/adr/0030-one-revision-to-the-next.md).
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import Final

from controlplane.model.errors import ControlPlaneError, NotAppliedError, StalePlanError
from controlplane.model.plan import WAITING, Action, Change, Compiled, ObjectKind, Plan, VaultObject
from controlplane.ports import Roles
from controlplane.sync.canary import closed
from controlplane.sync.ours import Origin, origin
from controlplane.sync.plan import PlanSync

AT_ONCE: Final = 8
"""Entitlements that are applied at the same time: a few more than one Vault answers at once."""

Canary = Callable[[Compiled], None]
"""Issues, revokes and verifies one credential of a revision that only the canary can log in to.

Raises: CanaryFailedError: it was not proved gone, or not even issued.
"""

Drain = Callable[[Origin], bool]
"""Ends every live grant of a revision, and says whether nothing of it is open any more."""


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
    canary: Canary | None = None
    """Tries each new revision before others can log in to it; None: nothing is tried."""
    drain: Drain | None = None
    """Ends what still lives of a revision before it is retired; None: it waits until no lease hangs from it."""

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
            CanaryFailedError: a new revision is not live; its entitlement's old one is, as before.
            VaultRefusedError, VaultUnavailableError: part may be done; apply again.
        """
        current = self.plan(wanted)
        if current.digest != shown.digest:
            raise StalePlanError("the entitlements or what stands in Vault have changed since this plan was made")
        run = _Run(progress=progress)
        by_login = {compiled.objects[-1].path: compiled for compiled in wanted}
        groups = [[*group] for _, group in groupby(current.changes, key=lambda change: change.entitlement)]
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="shorthold-apply") as pool:
            ended = [pool.submit(self._one, group, by_login, run) for group in groups]
            try:
                for future in ended:
                    future.result()
            except BaseException:  # Ctrl-C, too: what is being written is, and nothing more is begun
                run.failed.set()
                raise
        left = self.plan(wanted).changes
        # What waited may have lost its last lease since: the next apply removes it.
        if undone := [one for one in left if one.action not in WAITING and one.path not in run.waited]:
            paths = ", ".join(f"{change.path} ({change.why})" for change in undone)
            raise NotAppliedError(f"Vault does not show what was applied: {paths}")
        return Applied(done=run.done, waiting=left)

    def _one(self, group: Sequence[Change], by_login: dict[str, Compiled], run: "_Run") -> None:
        """All changes of one entitlement, one after the other; none once anything has failed."""

        @cache  # a revision is cut once, whatever there is of it
        def free(where: Origin) -> bool:
            return self._free(where, group)

        for change in group:
            if run.failed.is_set():
                return
            try:
                done = self._do(change, by_login.get(change.path), free)
            except BaseException:
                run.failed.set()
                raise
            run.tell(change, done=done)

    def _do(self, change: Change, revision: Compiled | None, free: Callable[[Origin], bool]) -> bool:
        """Whether something was done: what drains waits, and what got a lease since the plan waits as well."""
        item = _item(change)
        match change.action:
            case Action.CREATE | Action.REPAIR:
                if change.action is Action.CREATE and revision is not None:
                    self._try(item, revision)
                self.roles.write(item)
                return True
            case Action.RETIRE | Action.DRAIN if change.kind is not ObjectKind.JWT_ROLE and self.drain is not None:
                where = origin(self.plan.layout, change.kind, change.path)
                if where is None or not free(where):
                    return False
                self.roles.delete(item)
                return True
            case Action.RETIRE:
                if change.kind is ObjectKind.SECRET_ROLE and self.roles.leases_under(item):
                    return False
                self.roles.delete(item)
                return True
            case Action.DRAIN | Action.BLOCK:
                return False

    def _free(self, where: Origin, group: Sequence[Change]) -> bool:
        """Whether, its grants having been ended, nothing hangs from a revision: not even what no grant knows."""
        roles = [
            _item(change)
            for change in group
            if change.kind is ObjectKind.SECRET_ROLE and origin(self.plan.layout, change.kind, change.path) == where
        ]
        return self.drain is not None and self.drain(where) and not any(map(self.roles.leases_under, roles))

    def _try(self, login: VaultObject, revision: Compiled) -> None:
        """Nobody but the canary gets in before it is proved gone; killed in between, the login stays closed."""
        if self.canary is None:
            return
        self.roles.write(closed(login))
        try:
            self.canary(revision)
        except BaseException:
            with suppress(ControlPlaneError):  # it is closed anyway
                self.roles.delete(login)
            raise


@dataclass(slots=True, kw_only=True)
class _Run:
    """What all threads of one apply have done so far."""

    progress: Callable[[Change], None]
    failed: threading.Event = field(default_factory=threading.Event)
    done: Counter[Action] = field(default_factory=Counter[Action])
    waited: set[str] = field(default_factory=set[str])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, change: Change, *, done: bool) -> None:
        with self._lock:
            if done:
                self.done[Action.RETIRE if change.action is Action.DRAIN else change.action] += 1
            else:
                self.waited.add(change.path)
            self.progress(change)


def _item(change: Change) -> VaultObject:
    """What stands there afterwards; where nothing does, what stands there now."""
    return VaultObject(
        kind=change.kind,
        path=change.path,
        entitlement=change.entitlement,
        data=change.after if change.after is not None else change.before or {},
    )
