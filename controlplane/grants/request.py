"""Ask for a grant: decide, then issue at once or wait for people."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from controlplane.grants.decide import decide, granted_ttl
from controlplane.grants.issue import Delivered, IssueGrant
from controlplane.grants.situate import Situate
from controlplane.model.canonical import JsonValue
from controlplane.model.decision import Allow, Decision, Deny, NeedsApproval, Reason
from controlplane.model.errors import ConflictError, DeniedError, LostRaceError, OverBudgetError, TokenReplayedError
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State
from controlplane.model.identity import VerifiedClaims
from controlplane.model.network import Address
from controlplane.model.plan import Compiled
from controlplane.model.request import GrantRequest
from controlplane.ports import Clock, Engine, Entitlements, Ids, Recorder, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestGrant:
    """From a wish to a grant. `issuing_within` bounds issuing; `settling` is when a late effect must show."""

    clock: Clock
    ids: Ids
    record: Recorder
    entitlements: Entitlements
    engines: Mapping[str, Engine]
    store: Store
    situate: Situate
    issue: IssueGrant
    issuing_within: timedelta
    settling: timedelta

    def __call__(
        self, who: VerifiedClaims, asked: GrantRequest, *, key: str | None = None, address: Address | None = None
    ) -> Delivered:
        """Decide on `asked`; with the same idempotency `key` again, only tell how that grant stands.

        `address` is the caller's, None where nobody vouches for one.

        Raises:
            DeniedError: a decision said no, with every reason; OverBudgetError: only a budget did.
            ConflictError: the key was used for another request.
            TokenReplayedError: a single-use token asked for another grant before; nothing was made.
            VaultUnavailableError, VaultRefusedError, NotSyncedError: see `IssueGrant`.
        """
        if key is not None and (grant := self.store.asked_before(who.workload, key)):
            return self._again(grant, asked)
        compiled = self.entitlements.get(asked.entitlement)
        try:
            decision, grant = self._decide(who, asked, compiled, key=key, address=address)
        except LostRaceError:
            if key is not None and (twin := self.store.asked_before(who.workload, key)):
                return self._again(twin, asked)
            raise
        except TokenReplayedError:
            with self.store.transaction() as tx:
                tx.append(self.record(Kind.TOKEN_REPLAYED, **told(asked, who, ())))
            raise
        if compiled is None or grant is None:
            # What used the budget up may have been this very request, sent twice: then it was granted.
            if key is not None and (twin := self.store.asked_before(who.workload, key)):
                return self._again(twin, asked)
            with self.store.transaction() as tx:
                tx.append(self.record(Kind.GRANT_REFUSED, **told(asked, who, decision.reasons)))
            raise _refusal(asked, decision)
        if grant.state is State.PENDING:
            return Delivered(grant=grant, leases=(), reasons=decision.reasons)
        return self.issue(grant, compiled, decision.reasons)

    def _decide(
        self,
        who: VerifiedClaims,
        asked: GrantRequest,
        compiled: Compiled | None,
        *,
        key: str | None,
        address: Address | None,
    ) -> tuple[Decision, Grant | None]:
        """Decide and save what was decided in one transaction: requests that race never exceed a budget."""
        entitlement = None if compiled is None else compiled.entitlement
        with self.store.transaction() as tx:
            decision = decide(entitlement, who, asked, self.situate(tx, entitlement, who, address=address))
            if compiled is None or isinstance(decision, Deny):
                return decision, None
            facts = told(asked, who, decision.reasons)
            grant = self._grant(who, asked, compiled, state=_first_state(decision), key=key)
            kind = Kind.GRANT_ALLOWED if grant.state is State.ISSUING else Kind.GRANT_REQUESTED
            tx.add(grant, self.record(kind, grant.id, **facts, revision=grant.revision))
            if who.single_use is not None:  # burnt before any effect, and stays so if issuing fails
                tx.spend(who.single_use, grant.id)
            return decision, grant

    def _grant(
        self, who: VerifiedClaims, asked: GrantRequest, compiled: Compiled, *, state: State, key: str | None
    ) -> Grant:
        now = self.clock.now()
        ttl = granted_ttl(compiled.entitlement, asked)
        approval = compiled.entitlement.approval
        waiting = approval.within if approval is not None and state is State.PENDING else None
        return Grant(
            id=GrantId(self.ids.new("gr")),
            state=state,
            entitlement=compiled.entitlement.name,
            revision=compiled.revision,
            issuer=who.issuer,
            subject=who.subject,
            workload=who.workload,
            task=asked.task,
            intent=asked.intent,
            reason=asked.reason,
            ttl=ttl,
            idempotency_key=key,
            request_digest=asked.digest,
            paths=tuple(
                self.engines[scope.engine].ask(scope, compiled.naming, ttl=ttl).path
                for scope in compiled.entitlement.scopes
            ),
            requested_at=now,
            expires_at=now + (waiting or ttl),
            due_at=now + (waiting or self.issuing_within),
            settles_at=None if waiting else now + self.settling,
        )

    def _again(self, grant: Grant, asked: GrantRequest) -> Delivered:
        if grant.request_digest != asked.digest:
            raise ConflictError("this Idempotency-Key was used for another request")
        return Delivered(grant=grant, leases=tuple(self.store.leases(grant.id)), reasons=())


def told(asked: GrantRequest, who: VerifiedClaims, reasons: Iterable[Reason]) -> dict[str, JsonValue]:
    """What an audit event says of a decision: who asked for what, and why it was decided so."""
    return {
        "entitlement": asked.entitlement,
        "task": asked.task,
        "intent": asked.intent,
        "reason": asked.reason,
        "issuer": who.issuer,
        "subject": who.subject,
        "reasons": [{"decision": why.decision, "code": why.code, "detail": why.detail} for why in reasons],
    }


def _first_state(decision: Allow | NeedsApproval) -> State:
    return State.ISSUING if isinstance(decision, Allow) else State.PENDING


def _refusal(asked: GrantRequest, decision: Decision) -> DeniedError:
    said = f"{asked.entitlement} was not granted"
    if isinstance(decision, Deny) and decision.over_budget:
        return OverBudgetError(said, reasons=decision.reasons, retry_after=decision.retry_after)
    return DeniedError(said, reasons=decision.reasons)
