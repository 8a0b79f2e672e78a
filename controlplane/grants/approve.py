"""Agree to a grant: one person's yes to exactly what was shown, or to less."""

from dataclasses import dataclass

from controlplane.grants.asked import narrowed
from controlplane.grants.decide import MIN_TTL
from controlplane.grants.frozen import frozen
from controlplane.grants.waiting import Case, Watch
from controlplane.model.approval import Approver, GivenApproval, Narrowing
from controlplane.model.canonical import JsonValue
from controlplane.model.duration import format_duration
from controlplane.model.errors import (
    AlreadyApprovedError,
    FrozenError,
    IllegalTransitionError,
    InvalidRequestError,
    LostRaceError,
    OtherDigestError,
)
from controlplane.model.event import Event, Kind
from controlplane.model.grant import Grant, GrantId, State, Step
from controlplane.model.identity import VerifiedClaims
from controlplane.ports import Clock, Recorder, Store

_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproveGrant:
    """One yes more; `APPROVED` with the last that is needed."""

    clock: Clock
    record: Recorder
    store: Store
    watch: Watch

    def __call__(
        self, who: VerifiedClaims, id: GrantId, *, digest: str, reason: str = "", narrow: Narrowing | None = None
    ) -> Grant:
        """The grant with the approval of `who` recorded. Nothing is issued: its workload collects it.

        `digest` is that of what `who` was shown; `narrow` takes away, and never adds.

        Raises:
            NotAllowedError, NotFoundError, MayNotApproveError: `who` is not one to decide on it.
            LapsedError, DeniedError, IllegalTransitionError: it does not wait for approval any more.
            OtherDigestError: what is asked is not what was shown.
            AlreadyApprovedError: the same person has agreed before. FrozenError: it is frozen.
            InvalidRequestError: `narrow` would widen, or leave nothing.
            LostRaceError: it keeps moving; look at it again.
        """
        for left in reversed(range(_TRIES)):
            try:
                return self._approve(self.watch.case(who, id), digest, reason, narrow or Narrowing())
            except LostRaceError:
                if not left:
                    raise
        raise AssertionError("unreachable: the last try returns or raises")

    def _approve(self, case: Case, digest: str, reason: str, narrow: Narrowing) -> Grant:
        if any(case.by.names & given.by.names for given in case.given):
            raise AlreadyApprovedError(f"you have agreed to {case.grant.id} already")
        if case.grant.state is State.APPROVED:
            raise IllegalTransitionError(f"grant {case.grant.id} is approved already: nobody else has to agree")
        if digest != case.asked.digest:
            raise OtherDigestError(f"what {case.grant.id} asks for is not what this digest is of")
        given = GivenApproval(by=case.by, digest=digest, reason=reason, narrow=narrow, at=self.clock.now())
        good = (*case.good, given)
        _see_narrower(case, given, good)
        enough = len(good) >= case.approval.quorum
        after = case.grant.after(Step.APPROVE) if enough else case.grant.but()
        with self.store.transaction() as tx:
            now, asks = self.clock.now(), Approver(issuer=case.grant.issuer, subject=case.grant.subject)
            if stopped := frozen(tx.freezes(now), asks, case.grant, case.compiled.entitlement):
                raise FrozenError(f"{case.grant.entitlement} is frozen: nobody can agree to it now", reasons=stopped)
            # First the grant: whoever moved it meanwhile is noticed here, before the yes counts for anything.
            tx.save(after, *self._events(case, given, good, enough=enough))
            tx.approve(after.id, given)
        return after

    def _events(
        self, case: Case, given: GivenApproval, good: tuple[GivenApproval, ...], *, enough: bool
    ) -> list[Event]:
        told: dict[str, JsonValue] = {**said(given), "digest": given.digest, "quorum": case.approval.quorum}
        several = case.approval.quorum > 1
        events = [self.record(Kind.APPROVAL_GIVEN, case.grant.id, **told)] if several else []
        if enough:
            everybody: list[JsonValue] = [said(one) for one in good]
            left = narrowed(case.grant, case.compiled.entitlement, good)
            facts = {"digest": given.digest, "approvals": everybody, **terms(left)}
            events.append(self.record(Kind.GRANT_APPROVED, case.grant.id, **facts))
        return events


def said(given: GivenApproval) -> dict[str, JsonValue]:
    """What an audit event says of one yes."""
    return {
        "issuer": given.by.issuer,
        "subject": given.by.subject,
        "person": given.by.person,
        "groups": [*given.by.groups],
        "reason": given.reason,
        "narrowed": terms(given.narrow),
    }


def terms(narrow: Narrowing) -> dict[str, JsonValue]:
    """A narrowing as JSON, without what it leaves alone."""
    ttl, scopes = narrow.ttl, narrow.scopes
    return {
        **({} if ttl is None else {"ttl": format_duration(ttl)}),
        **({} if scopes is None else {"scopes": [*scopes]}),
    }


def _see_narrower(case: Case, given: GivenApproval, good: tuple[GivenApproval, ...]) -> None:
    ttl, names = given.narrow.ttl, given.narrow.scopes
    known = [scope.name for scope in case.asked.scopes]
    if ttl is not None and ttl > case.asked.ttl:
        longest = format_duration(case.asked.ttl)
        raise InvalidRequestError(f"narrow.ttl: {format_duration(ttl)} is longer than the {longest} that are asked for")
    if ttl is not None and ttl < MIN_TTL:
        raise InvalidRequestError(f"narrow.ttl: {format_duration(ttl)} is shorter than {format_duration(MIN_TTL)}")
    if unknown := sorted(set(names or ()) - set(known)):
        raise InvalidRequestError(f"narrow.scopes: {', '.join(unknown)} is not asked for, only: {', '.join(known)}")
    if narrowed(case.grant, case.compiled.entitlement, good).scopes == ():
        raise InvalidRequestError("narrow.scopes: nothing would be left of what the others agreed to; deny it instead")
