"""An end that cannot be saved: Vault is asked all the same, the event is kept, and saved when the store is back."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from controlplane.model.errors import ControlPlaneError, LostRaceError, StoreUnavailableError
from controlplane.model.event import Event
from controlplane.model.grant import Grant, GrantId, State, Step, Why
from controlplane.model.lease import Accessor
from controlplane.ports import Clock, Leases, Spool, Store

_MANY: Final = 10_000


@contextmanager
def ending_all_the_same(leases: Leases, spool: Spool, grant: Grant, event: Event | None = None) -> Generator[None]:
    """Saves the end of `grant` with its `event` in its block; where the store cannot, Vault revokes what is known.

    Then the event is kept in the spool, and the end is saved from there; without one, the end was saved before.
    Repeating is fine.
    Raises: StoreUnavailableError: as the block raised it, whatever Vault answered.
    """
    try:
        yield
    except StoreUnavailableError:
        if grant.open and grant.accessor is not None:  # first of all: access ends, whatever becomes of the record
            with suppress(ControlPlaneError):
                leases.revoke_token(grant.accessor)
        if event is not None and grant.state in {State.ISSUING, State.ACTIVE}:
            spool.put(event)
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveUnsaved:
    """Saves what is in the spool, oldest first, each once: a grant that has ended by now needs no second end."""

    clock: Clock
    store: Store
    spool: Spool

    def __call__(self) -> bool:
        """Do it, and say whether anything was due; where nothing waits, nothing is asked. Repeating it is fine.

        Raises: StoreUnavailableError: it is not back yet; nothing is lost.
        """
        waiting = self.spool.waiting()
        for event in waiting:
            try:
                self._save(event)
            except LostRaceError:
                break  # it moved just now: the next time tells where to
            self.spool.forget(event)
        return bool(waiting)

    def _save(self, event: Event) -> None:
        grant = None if event.grant is None else self.store.grant(GrantId(event.grant))
        if grant is None:  # a store that was restored from a backup: the fact is kept, there is nothing to move
            with self.store.transaction() as tx:
                tx.append(event)
            return
        if grant.state not in {State.ISSUING, State.ACTIVE}:
            return  # the commit was made though nobody was told, or somebody else ended it
        why, now = Why(str(event.body["why"])), self.clock.now()
        with self.store.transaction() as tx:
            tx.save(grant.after(Step.END, why=why, revoking_at=event.at, due_at=now), event)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndUnclaimed:
    """What is due while nothing can be claimed, because the store can be read and not written: Vault is asked.

    Nothing is recorded. Each token is asked for once in a process, until Vault takes it.
    """

    clock: Clock
    store: Store
    leases: Leases
    _asked: set[Accessor] = field(default_factory=set[Accessor])

    def __call__(self) -> None:
        """Ask for every token whose time is over or whose end was decided. Raises: StoreUnavailableError."""
        now = self.clock.now()
        due: set[Accessor] = set()
        for grant in self.store.grants(states=[State.ACTIVE, State.ISSUING, State.REVOKING], limit=_MANY):
            over = grant.state is State.REVOKING or grant.over(now) is not None
            if over and grant.accessor is not None and grant.due_at is not None and grant.due_at <= now:
                due.add(grant.accessor)
        self._asked.intersection_update(due)
        for accessor in sorted(due - self._asked):
            with suppress(ControlPlaneError):
                self.leases.revoke_token(accessor)
                self._asked.add(accessor)
