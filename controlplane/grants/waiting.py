"""What waits for people: find it, show it to whoever may decide on it, and let go of what waits in vain."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Never

from controlplane.grants.approvers import approver, is_named, objection, still_good
from controlplane.grants.asked import asked
from controlplane.model.access import AccessRule, Role, Standing, standing
from controlplane.model.approval import Approver, Asked, Denial, GivenApproval, Waiting
from controlplane.model.decision import Decides, Reason
from controlplane.model.entitlement import Approval
from controlplane.model.errors import (
    DeniedError,
    IllegalTransitionError,
    LapsedError,
    MayNotApproveError,
    NotAllowedError,
    NotFoundError,
)
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State, Step, Why
from controlplane.model.identity import VerifiedClaims
from controlplane.model.plan import Compiled
from controlplane.ports import Clock, Engine, Entitlements, Recorder, Store

Access = Callable[[], Sequence[AccessRule]]
"""The access rules as they stand now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that a decision on one waiting grant looks at. `good` are the approvals that still count."""

    grant: Grant
    compiled: Compiled
    approval: Approval
    asked: Asked
    given: tuple[GivenApproval, ...]
    good: tuple[GivenApproval, ...]
    by: Approver


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What waits, as the store, the entitlements and the access rules have it now."""

    clock: Clock
    record: Recorder
    store: Store
    entitlements: Entitlements
    engines: Mapping[str, Engine]
    access: Access

    def entitled(self, grant: Grant) -> tuple[Compiled, Approval] | None:
        """Its entitlement and who must agree, if it is of the revision that was asked for."""
        compiled = self.entitlements.get(grant.entitlement)
        if compiled is None or compiled.revision != grant.revision or compiled.entitlement.approval is None:
            return None
        return compiled, compiled.entitlement.approval

    def asked(self, grant: Grant) -> Asked | None:
        """What a waiting grant asks for; None where it does not wait, or its entitlement is not as it was."""
        found = self.entitled(grant)
        return None if found is None or not grant.waits else asked(grant, *found, self.engines)

    def said(self, grant: Grant) -> tuple[Sequence[GivenApproval], Denial | None]:
        """Every yes and the no to a grant."""
        return self.store.approvals(grant.id), self.store.denial(grant.id)

    def show(self, who: VerifiedClaims, id: GrantId) -> Waiting:
        """A grant that waits, to somebody whom its entitlement names. Raises: NotFoundError: to everybody else."""
        by, stands = self._person(who)
        grant = self.store.grant(id)
        found = None if grant is None or not grant.waits else self.entitled(grant)
        if grant is None or found is None or not is_named(found[1], by, stands):
            raise NotFoundError(f"there is no grant {id} that waits for you")
        said = tuple(self.store.approvals(id))
        return Waiting(grant=grant, asked=asked(grant, *found, self.engines), approvals=said)

    def page(
        self, who: VerifiedClaims, *, before: GrantId | None, limit: int
    ) -> tuple[Sequence[Waiting], GrantId | None]:
        """What `who` may decide on now, newest first, out of the next `limit` that wait; and where to go on.

        Raises: NotAllowedError: no approver.
        """
        by, stands = self._approver(who)
        named = [
            compiled.entitlement.name
            for compiled in self.entitlements.all()
            if (approval := compiled.entitlement.approval) is not None and is_named(approval, by, stands)
        ]
        found = self.store.pending(named, before=before, limit=limit)
        shown = [waiting for grant in found if (waiting := self._his(grant, by, stands)) is not None]
        return shown, found[-1].id if len(found) == limit else None

    def case(self, who: VerifiedClaims, id: GrantId) -> Case:
        """One grant for somebody who wants to decide on it.

        Raises:
            NotAllowedError: no approver. NotFoundError: his approval is not what its entitlement asks for.
            MayNotApproveError: it is his own, or his team's.
            LapsedError, DeniedError, IllegalTransitionError: it does not wait any more.
        """
        by, stands = self._approver(who)
        grant = self.store.grant(id)
        compiled = None if grant is None else self.entitlements.get(grant.entitlement)
        approval = None if compiled is None else compiled.entitlement.approval
        if grant is None or compiled is None or approval is None or not is_named(approval, by, stands):
            raise NotFoundError(f"there is no grant {id} that waits for you")
        if (why := objection(approval, grant, by, stands)) is not None:
            raise MayNotApproveError(why)
        self.see_waiting(grant)
        if compiled.revision != grant.revision:
            self.lapse(grant, Why.CHANGED, "its entitlement was changed after it was asked for")
        wanted = asked(grant, compiled, approval, self.engines)
        given = tuple(self.store.approvals(id))
        return Case(
            grant=grant,
            compiled=compiled,
            approval=approval,
            asked=wanted,
            given=given,
            good=self.good(given, wanted, approval, grant),
            by=by,
        )

    def good(
        self, given: Sequence[GivenApproval], wanted: Asked, approval: Approval, grant: Grant
    ) -> tuple[GivenApproval, ...]:
        """Those approvals that still count, by the rules as they stand now."""
        rules = self.access()
        return tuple(
            one for one in given if still_good(one, digest=wanted.digest, approval=approval, grant=grant, rules=rules)
        )

    def see_waiting(self, grant: Grant) -> None:
        """See that a grant still waits.

        Raises: LapsedError, DeniedError, IllegalTransitionError: it does not; one whose time is over lapses here.
        """
        match grant.state:
            case State.PENDING | State.APPROVED:
                if self.clock.now() >= grant.expires_at:
                    self.lapse(grant, Why.EXPIRED, "nobody agreed and collected in time")
            case State.DENIED:
                raise denied(grant, self.store.denial(grant.id))
            case State.LAPSED:
                raise LapsedError(f"grant {grant.id} has lapsed: {grant.why or 'it was not wanted any more'}")
            case State.ISSUING | State.ACTIVE | State.REVOKING | State.IRREVOCABLE | State.REVOKED:
                raise IllegalTransitionError(f"grant {grant.id} is {grant.state}: it was collected before")

    def lapse(self, grant: Grant, why: Why, detail: str) -> Never:
        """Save that a grant waited in vain. Raises: LapsedError: always; LostRaceError: somebody else moved it."""
        with self.store.transaction() as tx:
            lapsed = grant.after(Step.LAPSE, why=why, due_at=None)
            tx.save(lapsed, self.record(Kind.GRANT_LAPSED, grant.id, why=why, detail=detail))
        raise LapsedError(f"grant {grant.id} has lapsed: {detail}")

    def _his(self, grant: Grant, by: Approver, stands: Standing) -> Waiting | None:
        found = self.entitled(grant)
        if found is None or self.clock.now() >= grant.expires_at:
            return None
        if objection(found[1], grant, by, stands) is not None:
            return None
        given = tuple(self.store.approvals(grant.id)) if found[1].quorum > 1 else ()
        if any(by.names & one.by.names for one in given):
            return None
        return Waiting(grant=grant, asked=asked(grant, *found, self.engines), approvals=given)

    def _person(self, who: VerifiedClaims) -> tuple[Approver, Standing]:
        rules = self.access()
        return approver(who, rules), standing(rules, who)

    def _approver(self, who: VerifiedClaims) -> tuple[Approver, Standing]:
        by, stands = self._person(who)
        if Role.APPROVER not in stands.roles:
            raise NotAllowedError("this needs the role approver")
        return by, stands


def denied(grant: Grant, said: Denial | None) -> DeniedError:
    """What whoever wanted the grant is told."""
    detail = "it was denied" if said is None else f"{said.by.issuer} {said.by.subject} said no: {said.reason}"
    reason = Reason(decision=Decides.APPROVAL, code="denied-by-approver", detail=detail)
    return DeniedError(f"{grant.entitlement} was not granted", reasons=(reason,))
