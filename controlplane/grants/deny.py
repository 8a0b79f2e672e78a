"""Refuse a grant: one no is enough, also after everybody else has agreed, until the workload collects it."""

from dataclasses import dataclass

from controlplane.grants.waiting import Case, Watch
from controlplane.model.approval import Denial
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import LostRaceError
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, Step
from controlplane.model.identity import VerifiedClaims
from controlplane.ports import Clock, Recorder, Store

_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class DenyGrant:
    """From waiting to `DENIED`."""

    clock: Clock
    record: Recorder
    store: Store
    watch: Watch

    def __call__(self, who: VerifiedClaims, id: GrantId, *, reason: str) -> Grant:
        """The denied grant. Whoever may agree may refuse; nobody has to have seen all of it to say no.

        Raises:
            NotAllowedError, NotFoundError, MayNotApproveError: `who` is not one to decide on it.
            LapsedError, DeniedError, IllegalTransitionError: it does not wait any more.
            LostRaceError: it keeps moving; look at it again.
        """
        for left in reversed(range(_TRIES)):
            try:
                return self._deny(self.watch.case(who, id), reason)
            except LostRaceError:
                if not left:
                    raise
        raise AssertionError("unreachable: the last try returns or raises")

    def _deny(self, case: Case, reason: str) -> Grant:
        by = case.by
        denied = case.grant.after(Step.DENY, due_at=None)
        told: dict[str, JsonValue] = {
            "issuer": by.issuer,
            "subject": by.subject,
            "person": by.person,
            "groups": [*by.groups],
            "reason": reason,
            "digest": case.asked.digest,
        }
        with self.store.transaction() as tx:
            tx.save(denied, self.record(Kind.GRANT_DENIED, denied.id, **told))
            tx.deny(denied.id, Denial(by=by, reason=reason, at=self.clock.now()))
        return denied
