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
from itertools import groupby
from typing import Final

from controlplane.model.errors import ControlPlaneError, NotAppliedError, StalePlanError
from controlplane.model.plan import Action, Change, Compiled, ObjectKind, Plan, VaultObject
from controlplane.ports import Roles
from controlplane.sync.canary import closed
from controlplane.sync.plan import PlanSync

AT_ONCE: Final = 8
"""Entitlements that are applied at the same time: a few more than one Vault answers at once."""

Canary = Callable[[Compiled], None]
"""Issues, revokes and verifies one credential of a revision that only the canary can log in to.

Raises: CanaryFailedError: it was not proved gone, or not even issued.
"""


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
        left = self.plan(wanted)
        if not left.empty:
            paths = ", ".join(f"{change.path} ({change.why})" for change in left.changes)
            raise NotAppliedError(f"Vault does not show what was applied: {paths}")
        return Applied(done=run.done, waiting=left.changes)

    def _one(self, group: Sequence[Change], by_login: dict[str, Compiled], run: "_Run") -> None:
        """All changes of one entitlement, one after the other; none once anything has failed."""
        for change in group:
            if run.failed.is_set():
                return
            try:
                done = self._do(change, by_login.get(change.path))
            except BaseException:
                run.failed.set()
                raise
            run.tell(change, done=done)

    def _do(self, change: Change, revision: Compiled | None) -> bool:
        """Whether something was done: what drains waits, and what got a lease since the plan waits as well."""
        item = VaultObject(
            kind=change.kind,
            path=change.path,
            entitlement=change.entitlement,
            data=change.after if change.after is not None else change.before or {},
        )
        match change.action:
            case Action.CREATE | Action.REPAIR:
                if change.action is Action.CREATE and revision is not None:
                    self._try(item, revision)
                self.roles.write(item)
                return True
            case Action.RETIRE:
                if change.kind is ObjectKind.SECRET_ROLE and self.roles.leases_under(item):
                    return False
                self.roles.delete(item)
                return True
            case Action.DRAIN | Action.BLOCK:
                return False

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
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, change: Change, *, done: bool) -> None:
        with self._lock:
            if done:
                self.done[change.action] += 1
            self.progress(change)
