"""End a task: nothing is granted for it any more, and every grant of it and of its parts is on its way to its end."""

from contextlib import ExitStack
from dataclasses import dataclass

from controlplane.grants.finish import ending
from controlplane.grants.unsaved import ending_all_the_same
from controlplane.model.errors import NotFoundError
from controlplane.model.event import Event, Kind
from controlplane.model.grant import Grant, TaskId, Why
from controlplane.model.identity import VerifiedClaims
from controlplane.model.task import Task
from controlplane.ports import Clock, Leases, Recorder, Spool, Store, Transaction, Wake


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedTask:
    """A task that is finished, and what of it had not ended by then: of its parts, too, newest first."""

    task: Task
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishTask:
    """Everything in one transaction: whoever asks at the same time is either ended by it or refused after it."""

    clock: Clock
    record: Recorder
    store: Store
    leases: Leases
    spool: Spool
    wake: Wake

    def __call__(self, who: VerifiedClaims, id: TaskId, why: Why) -> FinishedTask:
        """The task once its end, and that of its grants, is on disk. Repeating it tells what has still not ended.

        Raises:
            NotFoundError: this workload never had a grant of such a task.
            StoreUnavailableError: it is not on disk; Vault was asked to revoke what is known all the same.
        """
        line = self.store.lineage(who.workload, id)
        if not line:
            raise NotFoundError(f"this workload has no task {id}")
        with ExitStack() as unsaved:
            for grant in self.store.open_in_tree(who.workload, id):
                event = self._ended(Kind.GRANT_ENDED, grant, id, why)
                unsaved.enter_context(ending_all_the_same(self.leases, self.spool, grant, event))
            with self.store.transaction() as tx:
                task = self._finish(tx, who, line[0], why)
                grants = tuple(self._end(tx, grant, id, why) for grant in tx.open_in_tree(who.workload, id))
        self.wake()
        return FinishedTask(task=task, grants=grants)

    def _finish(self, tx: Transaction, who: VerifiedClaims, task: Task, why: Why) -> Task:
        told = self.record(Kind.TASK_FINISHED, None, task=task.id, issuer=who.issuer, subject=who.subject, why=why)
        return tx.finish_task(task, told, at=self.clock.now(), why=why)

    def _end(self, tx: Transaction, grant: Grant, id: TaskId, why: Why) -> Grant:
        if (step := ending(grant, _because(grant, id, why), at=self.clock.now())) is None:
            return grant
        ended, kind = step
        tx.save(ended, self._ended(kind, grant, id, why))
        return ended

    def _ended(self, kind: Kind, grant: Grant, id: TaskId, why: Why) -> Event:
        return self.record(kind, grant.id, why=_because(grant, id, why), finished=id)


def _because(grant: Grant, id: TaskId, why: Why) -> Why:
    return why if grant.task == id else Why.PARENT_ENDED
